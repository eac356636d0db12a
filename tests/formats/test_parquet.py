"""Hugging Face's parquet files: pictures as bytes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats import find_format, load_table, read_rows
from tag2mask.formats.convert import convert
from tag2mask.formats.huggingface import holds_pictures, parquet_files, write_pictures

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

DEFAULTS = DataSettings()
NAMES = ["cat", "dog"]
ONE = {"names": NAMES, "_type": "ClassLabel"}
SEVERAL = {"feature": ONE, "_type": "Sequence"}


def data(seed: int, kind: str = "PNG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def make(path: Path, pictures: list, label: list, feature: object = SEVERAL, column="label"):
    """A file as `datasets` writes it."""
    features = {"image": {"_type": "Image"}, column: feature}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    cells = pa.array(pictures, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = pa.table({"image": cells, column: label, "other": list(range(len(label)))})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(about), path)
    return path


def cell(seed: int, name: str | None, kind: str = "PNG") -> dict:
    return {"bytes": data(seed, kind), "path": name}


def test_pictures_are_written_out_with_their_tags(tmp_path):
    path = make(
        tmp_path / "data" / "train-00000-of-00001.parquet",
        [cell(0, "a.png"), cell(1, None, "JPEG"), cell(2, "x/a.png"), cell(3, "n.png")],
        [[0, 1], [1], [], None],
    )
    make(tmp_path / "data" / "validation-00000-of-00001.parquet", [cell(7, "v.png")], [[0]])
    make(tmp_path / "data" / "test-00000-of-00001.parquet", [cell(8, "t.png")], [[0]])
    for data_set in (path, tmp_path):
        assert find_format(data_set) == "parquet" and holds_pictures(data_set)
        with pytest.raises(DataError, match=r"tag2mask convert --data .* --to csv --out"):
            load_table(data_set)
    assert {k: len(v) for k, v in parquet_files(tmp_path).items()} == dict.fromkeys(
        ("test", "train", "val"), 1
    )
    out = write_pictures(tmp_path, tmp_path / "out", DEFAULTS)
    lines = (out / "train" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"file_name": "a.png", "tags": ["cat", "dog"]},
        {"file_name": "train-00000-of-00001-000001.jpg", "tags": ["dog"]},
        {"file_name": "a-2.png", "tags": []},
    ]
    assert (out / "train" / "a-2.png").read_bytes() == data(2)
    assert find_format(out) == "split" and not (out / "test").exists()


def test_convert_writes_pictures_and_a_table(tmp_path):
    path = make(tmp_path / "train.parquet", [cell(0, "a.png"), cell(1, "b.png")], [[0], []])
    table = load_table(convert(path, "csv", tmp_path / "new"))
    assert [(p.path, p.tags, p.unknown) for p in table.photos] == [
        (tmp_path / "new" / "photos" / "a.png", ("cat",), ()),
        (tmp_path / "new" / "photos" / "b.png", (), ()),
    ]
    make(path, [cell(0, "a.png")], [[7]])
    with pytest.raises(DataError, match="there is no class 7"):
        convert(path, "csv", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("feature", "label", "tags"),
    [
        (ONE, [0, 1, -1], [["cat"], ["dog"]]),
        ([ONE], [[0], [1, 0], [-1]], None),
        ({"feature": ONE, "_type": "List"}, [[0], [1, 0], None], [["cat"], ["dog", "cat"]]),
        ({"dtype": "string", "_type": "Value"}, ["cat", "dog", None], [["cat"], ["dog"]]),
    ],
)
def test_labels_of_every_kind(tmp_path, feature, label, tags):
    path = make(tmp_path / "x.parquet", [cell(i, f"{i}.png") for i in range(3)], label, feature)
    if tags is None:
        with pytest.raises(DataError, match="there is no class -1 among 2"):
            write_pictures(path, tmp_path / "out", DEFAULTS)
        return
    write_pictures(path, tmp_path / "out", DEFAULTS)
    lines = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["tags"] for line in lines] == tags


def test_nothing_is_written_outside_or_that_is_no_picture(tmp_path):
    names = [
        "../../evil.png",
        "/etc/passwd",
        "..",
        "C:\\a\\b.png",
        "a\x00b.png",
        "x" * 300,
        "EVIL.PNG",
    ]
    cells = [cell(i, name) for i, name in enumerate(names)]
    cells += [{"bytes": b"<svg onload=x>", "path": "z.png"}, {"bytes": None, "path": "q.png"}, None]
    path = make(tmp_path / "in" / "x.parquet", cells, [["cat"]] * 10, {"_type": "Value"})
    write_pictures(path, tmp_path / "deep" / "er" / "out", DEFAULTS)
    written = {f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file()}
    out = "deep/er/out"
    assert written == {"in/x.parquet", f"{out}/metadata.jsonl"} | {
        f"{out}/{name}.png" for name in ("evil", "passwd", "photo", "b", "a_b", "x" * 100, "EVIL-2")
    }


def test_a_table_of_file_names(tmp_path):
    for i, name in enumerate(["a", "b", "c"]):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{name}.png")
    about = {"huggingface": json.dumps({"info": {"features": {"label": SEVERAL}}})}
    table = pa.table({"file_name": ["a.png", "b.png", "c.png"], "label": [[0, 1], [], None]})
    pq.write_table(table.replace_schema_metadata(about), tmp_path / "x.parquet")
    assert not holds_pictures(tmp_path / "x.parquet")
    rows = read_rows(tmp_path / "x.parquet")
    assert {row.path.stem: row.tags for row in rows.rows} == {"a": ("cat", "dog"), "b": ()}


def test_damaged_pages_are_an_error(tmp_path):
    path = make(tmp_path / "x.parquet", [cell(i, "a.png") for i in range(9)], [["cat"]] * 9)
    content = bytearray(path.read_bytes())
    content[4:1500] = bytes(1496)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.parquet: not a readable parquet file"):
        write_pictures(path, tmp_path / "out", DEFAULTS)


def test_faults_are_errors(tmp_path):
    path = tmp_path / "x.parquet"
    for content in (b"", b"PAR1" + b"\0" * 50 + b"PAR1", b"file_name,tags\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.parquet: not a readable parquet file"):
            read_rows(path)
    make(path, [cell(0, "a.png")], [[0]], column="animal")
    write_pictures(path, tmp_path / "one", DEFAULTS)  # the one column with class names
    make(path, [cell(0, "a.png")], [[0]], {"_type": "Value"}, "animal")
    with pytest.raises(DataError, match=r"no labels among image, animal, other; choose with"):
        write_pictures(path, tmp_path / "two", DEFAULTS)
    write_pictures(path, tmp_path / "three", DataSettings(tag_column="animal"))
    assert '"tags": ["0"]' in (tmp_path / "three" / "metadata.jsonl").read_text()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.parquet file of training data"):
        read_rows(tmp_path / "empty", DataSettings(form="parquet"))
