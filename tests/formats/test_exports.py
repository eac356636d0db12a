"""Every form in `FORMATS`: what it means, what is wrong with it, and that no mask is opened."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import layouts
import pytest
from PIL import Image

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats import FORMATS, find_format, load_table, read_rows
from tag2mask.formats.rows import row_findings

PHOTOS = {
    "IMG_0001": ("cat",),
    "IMG_0002": ("cat", "dog"),
    "IMG_0003": (),
    "IMG_0004": ("dog",),
    "IMG_0005": ("dog", "horse"),
    "IMG_0006": ("horse",),
}


class Case(NamedTuple):
    """A form and how to make it. `lists`: a file names the pictures; `nothing`: it can say so."""

    form: str
    make: Callable[[Path, dict[str, tuple[str, ...]]], Path]
    lists: bool = True
    nothing: bool = True


def coco(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    return layouts.make_coco(folder, photos, "default", {"cat": 1, "dog": 2, "horse": 3})


def yolo(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    path = layouts.make_yolo(folder, photos, ["cat", "dog", "horse"])
    layouts.make_yolo(folder, {"v": ("cat",)}, ["cat", "dog", "horse"], "val")
    return path


CASES = {
    "voc": Case("voc", layouts.make_voc),
    "voc-lists": Case("voc-lists", layouts.make_voc_lists),
    "coco": Case("coco", coco),
    "camera-traps": Case("coco", layouts.make_traps),
    "label-studio": Case("label-studio", layouts.make_label_studio),
    "label-studio-min": Case("label-studio", layouts.make_label_studio_min),
    "fiftyone": Case("fiftyone", layouts.make_fiftyone),
    "mmpretrain": Case("mmpretrain", layouts.make_mmpretrain),
    "json": Case("json", layouts.make_dictionary),
    "yaml": Case("yaml", layouts.make_yaml),
    "manifest": Case("manifest", layouts.make_manifest),
    "vertex": Case("vertex", layouts.make_vertex),
    "vertex-csv": Case("vertex", layouts.make_vertex_csv, nothing=False),
    "cvat": Case("cvat", layouts.make_cvat),
    "camtrap-dp": Case("camtrap-dp", layouts.make_camtrap_dp),
    "labelme": Case("labelme", layouts.make_labelme),
    "labelme-flags": Case("labelme", layouts.make_flags),
    "yolo": Case("yolo", yolo, lists=False),
    "split": Case("split", layouts.make_split, lists=False, nothing=False),
    "folder": Case("folder", layouts.make_folder, lists=False, nothing=False),
}
OTHERS = {"csv", "jsonl", "metadata.csv", "metadata.jsonl", "roboflow", "parquet"}  # other tests
every_form = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def photos_of(case: Case) -> dict[str, tuple[str, ...]]:
    return PHOTOS if case.nothing else {name: tags for name, tags in PHOTOS.items() if tags}


def stem(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def meaning(path: Path, **settings: object) -> dict[str, tuple[set[str], set[str]]]:
    """Picture -> tags that are present, tags that are unknown."""
    table = load_table(path, settings=DataSettings(**settings))
    return {stem(p.path): (set(p.tags), set(p.unknown)) for p in table.photos}


def known(photos: dict[str, tuple[str, ...]]) -> dict[str, tuple[set[str], set[str]]]:
    return {name: (set(tags), set()) for name, tags in photos.items()}


def problems(path: Path, **settings: object) -> list[str]:
    with pytest.raises(DataError) as caught:
        load_table(path, settings=DataSettings(**settings))
    return caught.value.problems


def warnings(path: Path, **settings: object) -> str:
    findings = list(row_findings(read_rows(path, DataSettings(**settings))))
    assert all(finding.severity == "warning" for finding in findings), findings
    return "\n".join(map(str, findings))


def test_all_forms_have_a_case():
    assert {case.form for case in CASES.values()} | OTHERS >= FORMATS.keys() - {"keywords", "xmp"}


@every_form
def test_a_form_is_understood_and_no_picture_or_mask_is_opened(case, tmp_path, monkeypatch):
    photos = photos_of(case)
    path = case.make(tmp_path, photos)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a reader opened a picture"))
    assert find_format(path) == case.form
    assert meaning(path) == known(photos)
    rows = read_rows(path)
    assert rows.form and not warnings(path)
    assert bool(rows.val) == (case.form in ("split", "yolo"))


@every_form
def test_a_missing_picture_is_one_error(case, tmp_path):
    path = case.make(tmp_path, photos_of(case))
    (file,) = tmp_path.rglob("*IMG_0004.jpg")
    file.unlink()
    if case.lists:
        (problem,) = problems(path)
        assert "IMG_0004" in problem and "no such file" in problem
    else:
        assert "IMG_0004" not in meaning(path)


def main_file(path: Path) -> Path:
    """The file that has the tags."""
    if path.is_file():
        return path
    names = ("labels.json", "observations.csv", "*_train.txt", "train.txt", "IMG_0002.json")
    return next(file for name in names for file in sorted(path.rglob(name)))


GARBAGE = {
    "cut": lambda text: text[: len(text) // 2],
    "other": lambda _: "<html>404</html>",
    "binary": lambda _: "\x00\x01\ufffd" * 50,
    "number": lambda _: "7",
    "brackets": lambda _: "[" * 100_000,
    "digits": lambda _: "[" + "1" * 5_000 + "]",
}


@pytest.mark.parametrize("kind", GARBAGE)
@every_form
def test_a_broken_file_is_an_error_that_names_it(case, kind, tmp_path):
    if not case.lists:
        return
    path = case.make(tmp_path, photos_of(case))
    file = main_file(path)
    file.write_text(GARBAGE[kind](file.read_text()))
    try:
        rows = read_rows(path, DataSettings(form=case.form))
        list(row_findings(rows))
    except DataError as error:
        assert len(str(error)) < 5_000


VALUES = [None, True, -1, 1e308, "x", "", [], {}, [None], {"a": None}, "\ud800", "../../etc/passwd"]


def nodes(value: object, path: tuple = ()) -> Iterator[tuple]:
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(inner, (*path, key))


def changed(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


@pytest.mark.parametrize(
    "name", [n for n, c in CASES.items() if c.form not in ("split", "folder", "voc", "yolo")]
)
def test_any_wrong_value_is_read_or_an_error(name, tmp_path):
    case = CASES[name]
    path = case.make(tmp_path, {"IMG_0002": ("cat", "dog"), "IMG_0004": ("dog",)})
    file = main_file(path)
    text = file.read_text()
    if file.suffix == ".json":
        value = json.loads(text)
        texts = (json.dumps(changed(value, n, new)) for n in nodes(value) for new in VALUES)
    elif text.startswith("{"):
        lines = [json.loads(line) for line in text.splitlines()]
        values = (changed(lines, node, new) for node in nodes(lines) for new in VALUES)
        texts = ("\n".join(map(json.dumps, v if isinstance(v, list) else [v])) for v in values)
    else:
        cuts = range(0, len(text), 3)
        texts = (text[:at] + junk + text[at + 2 :] for at in cuts for junk in ("", '"', "\0", ",,"))
    for text in texts:
        file.write_text(text)
        try:
            rows = read_rows(path)
            list(row_findings(rows))
        except DataError as error:
            assert str(error)
