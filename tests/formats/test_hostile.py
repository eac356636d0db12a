"""Broken and hostile data sets: an error that a person understands, in bounded time and memory."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import layouts
import numpy as np
import pytest
import yaml
from layouts import picture, write

from tag2mask.cli import main
from tag2mask.clusters import load_clusters
from tag2mask.config import DataSettings
from tag2mask.errors import ClusterError, DataError
from tag2mask.formats import read_rows
from tag2mask.formats.convert import convert
from tag2mask.formats.rows import row_findings

EVIL = "\x1b[31mred\x07"  # colors of a terminal, and its bell
LAUGHS = "l0: &l0 [ha, ha]\n" + "".join(
    f"l{i}: &l{i} [{f'*l{i - 1}, ' * 9}]\n" for i in range(1, 10)
)


def fault(path: Path, **settings) -> str:
    """What is wrong with a data set."""
    try:
        rows = read_rows(path, DataSettings(**settings))
    except DataError as error:
        return str(error)
    return "\n".join(map(str, row_findings(rows)))


def faults_in_1_gb(*paths: Path) -> list[str]:
    """The same of several data sets, from one process that has 1 GB of memory."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from tag2mask.cli import main\n"
        "for path in sys.argv[1:]:\n"
        "    assert main(['tags', '--data', path]) == 2, path\n"
        "    print('END', file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=alone)
    assert done.returncode == 0, done.stderr
    return done.stderr.split("END\n")[:-1]


def sparse(path: Path, start: bytes = b"", size: int = 1 << 40) -> Path:
    """A file of zeros that takes no place on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl", "t.yaml", "t.xml", "t.manifest"])
def test_a_terabyte_of_zeros_is_not_read(tmp_path, name):
    what = fault(sparse(tmp_path / name))
    assert "zero bytes" in what or "GB" in what


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl", "t.yaml", "t.xml", "t.xlsx", "t"])
def test_pipes_and_devices_are_no_data_sets(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert "neither a file nor a folder" in fault(tmp_path / name)
    (tmp_path / f"zero{name}").symlink_to("/dev/zero")
    assert "neither a file nor a folder" in fault(tmp_path / f"zero{name}")


def test_pipes_inside_data_sets_are_not_opened(tmp_path):
    voc = layouts.make_voc(tmp_path / "voc", {"a": ("cat",), "b": ("dog",)})
    (voc / "Annotations" / "a.xml").unlink()
    os.mkfifo(voc / "Annotations" / "a.xml")
    assert "no file" in fault(voc)
    labelme = layouts.make_labelme(tmp_path / "labelme", {"a": ("cat",), "b": ("dog",)})
    os.mkfifo(labelme / "z.json")
    assert "no file" in fault(labelme)
    os.mkfifo(tmp_path / "names.toml")
    table = write(tmp_path / "t.csv", "file_name,tags\na.jpg,cat\n")
    assert "no file" in fault(table, rename=tmp_path / "names.toml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "utf-7", "no-such-code"])
def test_entities_are_refused_in_every_encoding(tmp_path, encoding):
    head = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "c">]>'
    text = f"{head}<annotations>&b;</annotations>"
    code = encoding if encoding.startswith(("utf-8", "utf-16")) else "ascii"
    (tmp_path / "t.xml").write_bytes(text.encode(code))
    assert "document type" in fault(tmp_path / "t.xml") or "not valid XML" in fault(
        tmp_path / "t.xml"
    )


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".yaml"])
def test_what_a_terminal_would_obey_is_never_printed(tmp_path, suffix, capsys):
    names = ("a", "b", f"{EVIL}c")
    for name in names[:2]:
        picture(tmp_path / f"{name}.jpg")
    tags = {f"{name}.jpg": [f"{EVIL}cat[/red]"] for name in names}
    rows = [{"file_name": name, "tags": own} for name, own in tags.items()]
    text = {
        ".csv": "file_name,tags\n" + "".join(f"{name},{own[0]}\n" for name, own in tags.items()),
        ".json": json.dumps(tags),
        ".jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
        ".yaml": yaml.safe_dump(tags),
    }[suffix]
    path = write(tmp_path / f"t{suffix}", text)
    assert main(["tags", "--data", str(path)]) == 2
    assert main(["check", "--data", str(path)]) == 2
    printed = "".join(capsys.readouterr())
    assert "\\x1b[31mred" in printed and not {"\x1b", "\x07"} & set(printed)
    assert "[31mredcat[/red]" in printed  # the tag, without its control characters


def test_halves_of_letters_are_no_traceback(tmp_path, capsys):
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    rows = '{"file_name": "a.jpg", "tags": ["c\\ud800at"], "x\\ud800": 1}\n'
    path = write(tmp_path / "t.jsonl", f'{rows}{{"file_name": "b.jpg", "tags": ["dog"]}}\n')
    assert main(["tags", "--data", str(path)]) == 0
    capsys.readouterr()
    assert main(["tags", "--json", "--data", str(path)]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["tags"] == ["cat", "dog"] and "x\ud800" in value["form"]
    write(path, '{"file_name": "a\\ud800.jpg", "tags": ["dog"]}\n')
    assert main(["tags", "--data", str(path)]) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", '{"a.jpg": ["cat"], "a.jpg": ["dog"]}'),
        ("t.jsonl", '{"file_name": "a.jpg", "tags": ["cat"], "tags": ["dog"]}\n'),
        ("t.yaml", "a.jpg: [cat]\na.jpg: [dog]\n"),
    ],
)
def test_a_key_that_is_twice_loses_no_tags(tmp_path, name, text):
    picture(tmp_path / "a.jpg")
    assert "twice" in fault(write(tmp_path / name, text))


SMALL_FILES = [  # name, text, what is said of it
    ("t.json", '{"labels": {"a": ' + "[" * 900 + "]" * 900 + "}}", "recursion"),
    ("t.json", '{"images": [{"id": 1, "file_name": "a.jpg", "width": ' + "9" * 4000 + "}],"
     '"annotations": [], "categories": []}', "a.jpg"),
    ("t.csv", "file_name,tags\na.jpg,cat\nhttp://[::1/b.jpg,dog\n", "none of the 2"),
    ("data.yaml", f"{LAUGHS}names: *l9\ntrain: .\n", "not a YOLO data file"),
    ("data.yaml", f"{LAUGHS}names: [cat]\ntrain: *l9\n", "train has a list, not the name"),
    ("data.yaml", f"{LAUGHS}names: [cat]\npath: *l9\ntrain: images\n", "does not exist"),
]  # fmt: skip


def test_small_files_that_grow_are_errors(tmp_path):
    paths = [write(tmp_path / str(i) / f[0], f[1]) for i, f in enumerate(SMALL_FILES)]
    for (*_, what), fault in zip(SMALL_FILES, faults_in_1_gb(*paths), strict=True):
        assert what in fault


def test_settings_that_are_nonsense_are_errors(tmp_path):
    picture(tmp_path / "a.jpg")
    table = write(tmp_path / "t.csv", "file_name,tags\na.jpg,cat\n")
    assert "no column 999" in fault(table, file_column="9" * 5000)
    names = write(tmp_path / "names.toml", "a = " + "[" * 100_000)
    assert "not valid TOML" in fault(table, rename=names)


def test_a_long_text_beside_a_picture_is_no_list_of_tags(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", ",".join(f"word{i}" for i in range(500_000)))
    assert "a.txt: has more than 4 MB" in fault(tmp_path)
    data = write(tmp_path / "yolo" / "data.yaml", "names: [cat]\n#" + "-" * (1 << 24))
    assert "data.yaml: has more than 16 MB" in fault(data)


def test_ten_thousand_columns_are_not_listed(tmp_path, capsys):
    picture(tmp_path / "a.jpg")
    names, cells = (",".join(f"{word}{i}" for i in range(10_000)) for word in ("column", "word"))
    for head, tag in ((f"file_name,tags,{names}", "cat,"), (f"file_name,{names}", "")):
        path = write(tmp_path / "t.csv", f"{head}\na.jpg,{tag}{cells}\n")
        main(["tags", "--data", str(path)])
        printed = "".join(capsys.readouterr())
        assert "column0, column1" in printed.replace('"', "") and len(printed) < 2000


def test_lists_of_voc_do_not_lead_out(tmp_path):
    root = layouts.make_voc(tmp_path / "voc", {"a": ("cat",), "b": ("dog",)})
    write(tmp_path / "c.xml", "<annotation><object><name>secret</name></object></annotation>")
    (listed,) = root.glob("ImageSets/Segmentation/*.txt")
    listed.write_text("a\n../../c\n")
    assert "leads out" in fault(listed)


def test_label_files_of_voc_hold_vectors_alone(tmp_path):
    root = layouts.make_voc(tmp_path / "voc", {"a": ("cat",)})
    nested: list[object] = []
    for _ in range(40):
        nested = [nested, nested]
    files = []
    for labels in ({"a": nested}, {(1, 2): np.zeros(20)}, {"a": np.array([None] * 20)}):
        files.append(root / f"cls_labels{len(files)}.npy")
        np.save(files[-1], np.array(labels, dtype=object), allow_pickle=True)
    faults = faults_in_1_gb(*files)
    assert len(faults) == 3 and all("not a dictionary from picture names" in f for f in faults)


def sheet(path: Path, rows: str) -> Path:
    """An Excel file with these rows as XML."""
    openpyxl = pytest.importorskip("openpyxl")
    openpyxl.Workbook().save(path)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    text = f'<worksheet xmlns="{space}"><sheetData>{rows}</sheetData></worksheet>'
    parts["xl/worksheets/sheet1.xml"] = text.encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in parts.items():
            file.writestr(name, data)
    return path


def cell(place: str, text: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


def test_excel_files_that_grow_are_errors(tmp_path):
    bomb = sheet(tmp_path / "bomb.xlsx", " " * (1 << 27))
    assert "unpacks to 0.1 GB" in fault(bomb)
    picture(tmp_path / "a.jpg")
    head = f'<row r="1">{cell("A1", "file_name")}{cell("XFD1", "tags")}</row>'
    far = f'<row r="1048576">{cell("A1048576", "a.jpg")}{cell("XFD1048576", "cat")}</row>'
    (row,) = read_rows(sheet(tmp_path / "far.xlsx", head + far)).rows
    assert row.tags == ("cat",)
    farther = far.replace("1048576", "9999999999")
    assert "no pictures" in fault(sheet(tmp_path / "farther.xlsx", head + farther))


def parquet(path: Path, rows: list[dict], about: bytes = b"{}") -> Path:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.Table.from_pylist(rows).replace_schema_metadata({b"huggingface": about})
    arrow.parquet.write_table(table, path)
    return path


def test_parquet_files_that_lie_are_errors(tmp_path):
    pytest.importorskip("pyarrow.parquet")
    row = {"image": {"bytes": 5, "path": "a.jpg"}, "label": "cat"}
    path = parquet(tmp_path / "t.parquet", [row], b"[" * 100_000)
    with pytest.raises(DataError):
        convert(path, "csv", tmp_path / "out")
    (tmp_path / "hub").mkdir()
    os.mkfifo(tmp_path / "hub" / "train.parquet")
    assert "no file" in fault(tmp_path / "hub")


def test_pictures_in_parquet_files_are_written_inside(tmp_path):
    pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "deep" / "out"
    names = ["../../a.jpg", "/b.jpg", "..\\c.jpg", "..", "", "d\0.jpg", "metadata.jsonl", "A" * 300]
    names += [str(tmp_path / "e.jpg"), "http://[::1/f.jpg", f"{EVIL}.jpg"]
    data = picture(tmp_path / "deep" / "a.jpg").read_bytes()
    rows = [{"image": {"bytes": data, "path": name}, "label": "cat"} for name in names]
    convert(parquet(tmp_path / "t.parquet", rows), "csv", out)
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(out)}
    assert outside == {tmp_path / "t.parquet", out.parent, out.parent / "a.jpg"}
    assert len(list(out.rglob("*.jpg"))) == len(names)


@pytest.mark.parametrize(
    ("outline", "width", "what"),
    [
        ([[0, 0, 999_999, 0, 999_999, 999_999] * 300], 64, "edges are too long"),
        ([[0, 0, 9, 0, 9, 9]], 40_000, "for 40000 x 48, but "),
    ],
)
def test_outlines_that_would_end_the_process_are_errors(tmp_path, outline, width, what):
    picture(tmp_path / "a.jpg")
    value = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": width, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = write(tmp_path / "t.json", json.dumps(value))
    with pytest.raises(DataError, match=re.escape(what)):
        convert(path, "masks", tmp_path / "out")


def test_odd_names_of_pictures_survive_a_conversion(tmp_path):
    names = ["x\ny", EVIL, "[red]", "-rf", "a b", "ü"]
    folder = tmp_path / "in"
    rows = [{"file_name": picture(folder / f"{n}.png").name, "tags": ["cat", n]} for n in names]
    path = write(folder / "t.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    tags = sorted(row.tags for row in read_rows(path).rows)
    for form in ("csv", "jsonl", "voc", "coco", "cvat", "labelme"):
        new = convert(path, form, tmp_path / form)
        assert sorted(sorted(row.tags) for row in read_rows(new).rows) == sorted(map(sorted, tags))


def test_cluster_files_that_are_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "c.json")
    with pytest.raises(ClusterError, match="no file"):
        load_clusters(tmp_path / "c.json")
