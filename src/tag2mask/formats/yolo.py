"""YOLO data sets: data.yaml, pictures in images/, a text file for each picture in labels/."""

import re
from pathlib import Path
from typing import Any

import yaml

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_text
from tag2mask.formats.pictures import pictures_below, unread_pictures
from tag2mask.formats.rows import Row, Rows, Shape, tags_of
from tag2mask.formats.shapes import object_tag, polygon
from tag2mask.photos.table import tag_key

# At the top level: other tools have YAML files too.
NAMES = re.compile(r"""^["']?names["']?\s*:""", re.MULTILINE)


def yolo_file(path: Path) -> Path | None:
    """The path itself, or the YAML file with class names in that folder or above it."""
    if path.suffix.lower() in (".yaml", ".yml"):
        return path
    folders = [path, *path.absolute().parents[:2]] if path.is_dir() else []
    files = (file for folder in folders for file in sorted(folder.glob("*.y*ml")) if file.is_file())
    return next((file for file in files if NAMES.search(file.read_text(errors="ignore"))), None)


def read_yolo(path: Path, settings: DataSettings) -> Rows:
    """A data.yaml (its training split), or one folder of its pictures (images/val), with outlines.

    labels/NAME.txt has a line for each object: the class and a box (4 numbers, gives the tag only),
    or the class and a polygon, in fractions of the picture. A picture without objects
    is a photo of nothing.
    """
    file = yolo_file(path)
    if file is None:
        raise DataError(f"{path}: no data.yaml with class names")
    try:
        values = yaml.safe_load(read_text(file))
        names = _names(values["names"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: not a YOLO data file with names ({error})") from None
    one_folder = path.is_dir() and not (path / file.name).is_file()
    folder = path if one_folder else _training_folder(file, values)
    rows = Rows(path)
    for picture in pictures_below(folder):
        shapes = _shapes(_label_file(picture), names, rows)
        where = picture.relative_to(folder).as_posix()
        rows.rows.append(Row(picture, tags_of(shapes), where, shapes, relative=True))
    rows.findings += unread_pictures(folder)
    # Some tools list a background that no label has.
    used = {tag for row in rows.rows for tag in row.tags}
    tags = (names[i] for i in sorted(names))
    rows.tags = tuple(dict.fromkeys(t for t in tags if tag_key(t) != "background" or t in used))
    return rows


def _names(values: Any) -> dict[int, str]:
    if not isinstance(values, list | dict):
        raise TypeError(f"names are {values!r}, not a list and not numbered")
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return {int(i): object_tag(name) for i, name in items}


def _training_folder(file: Path, values: dict[str, Any]) -> Path:
    root, train = file.parent / str(values.get("path") or "."), str(values.get("train") or "images")
    folder = (root if root.is_dir() else file.parent) / train
    if not folder.is_dir() and train.startswith("../"):
        # Roboflow writes ../train/images, but the folder is beside the file.
        folder = file.parent / train.removeprefix("../")
    if not folder.is_dir():
        raise DataError(f"{file}: the folder of its training pictures does not exist: {folder}")
    return folder


def _label_file(picture: Path) -> Path:
    """images/train/a.jpg -> labels/train/a.txt; the last folder called images changes."""
    path = re.sub("(.*/|^)images/", r"\1labels/", picture.as_posix(), count=1)
    return Path(path).with_suffix(".txt")


def _shapes(labels: Path, names: dict[int, str], rows: Rows) -> list[Shape]:
    """The objects in a label file; faults are noted in `rows`."""
    try:
        lines = read_text(labels).splitlines() if labels.is_file() else []
    except DataError as error:
        rows.error("annotation", str(labels), str(error).removeprefix(f"{labels}: "))
        return []
    shapes = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                kind, *numbers = line.split()
                corners = polygon(numbers)
                shapes.append(Shape(names[int(kind)], [corners] if len(corners) >= 6 else ()))
        except (ValueError, KeyError):
            what = f"not a class of data.yaml and numbers: {line[:60]!r}"
            rows.error("annotation", f"{labels} line {number}", what)
    return shapes
