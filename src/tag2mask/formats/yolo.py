"""YOLO data sets: data.yaml, pictures in images/, a text file for each picture in labels/."""

import re
from pathlib import Path
from reprlib import repr as short
from typing import Any

import yaml

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_text, start_of
from tag2mask.formats.findings import Finding
from tag2mask.formats.pictures import picture_path, pictures_below, unread_pictures
from tag2mask.formats.rows import Row, Rows, Shape, tags_of
from tag2mask.formats.shapes import object_tag, polygon
from tag2mask.photos.table import tag_key

MOST_BYTES = 1 << 24  # of a data.yaml; that of ImageNet-21k has 1 MB
# At the top level: other tools have YAML files too.
NAMES = re.compile(r"""^["']?names["']?\s*:""", re.MULTILINE)


def yolo_file(path: Path) -> Path | None:
    """The YAML file with class names: the path itself, or one in that folder or above it."""
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        return path if NAMES.search(start_of(path, MOST_BYTES)) else None
    folders = [path, *path.absolute().parents[:2]] if path.is_dir() else []
    files = (file for folder in folders for file in sorted(folder.glob("*.y*ml")))
    return next((file for file in files if NAMES.search(start_of(file, MOST_BYTES))), None)


def read_yolo(path: Path, settings: DataSettings) -> Rows:
    """A data.yaml, or one folder of its pictures (images/val), with outlines.

    Of a data.yaml: the pictures of `train` for training, those of `val` for validation.
    labels/NAME.txt has a line for each object: the class and a box (4 numbers, gives the tag only),
    or the class and a polygon, in fractions of the picture. A picture without objects is a photo of
    nothing.
    """
    file = yolo_file(path)
    if file is None:
        raise DataError(f"{path}: no data.yaml with class names")
    try:
        values = yaml.safe_load(read_text(file, MOST_BYTES))
        names = _names(values["names"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not a YOLO data file with names ({error})") from None
    if path.is_dir() and not (path / file.name).is_file():
        return _rows([path], path, names)
    train = _places(file, values, "train")
    rows = _rows(train, path, names)
    try:
        val = _places(file, values, "val") if values.get("val") else []
    except DataError as error:
        rows.findings.append(Finding("validation", str(file), str(error), severity="warning"))
        val = []
    if val and val != train:
        rows.val = _rows(val, path, names)
    rows.form = f"YOLO: {file.name}, train{' and val' if rows.val else ''}"
    return rows


def _rows(places: list[Path], source: Path, names: dict[int, str]) -> Rows:
    """The rows of some folders of pictures, or of lists of pictures (train.txt)."""
    rows = Rows(source)
    for place in places:
        pictures = pictures_below(place) if place.is_dir() else _listed(place)
        root = place if place.is_dir() else place.parent
        for picture in pictures:
            shapes = _shapes(_label_file(picture), names, rows)
            inside = picture.is_relative_to(root)
            where = (picture.relative_to(root) if inside else picture).as_posix()
            rows.rows.append(Row(picture, tags_of(shapes), where, shapes, relative=True))
        rows.findings += unread_pictures(place) if place.is_dir() else []
    # Some tools list a background that no label has.
    used = {tag for row in rows.rows for tag in row.tags}
    tags = (names[i] for i in sorted(names))
    rows.tags = tuple(dict.fromkeys(t for t in tags if tag_key(t) != "background" or t in used))
    return rows


def _listed(file: Path) -> list[Path]:
    lines = (line.strip() for line in read_text(file).splitlines())
    return [picture_path(line, file.parent) for line in lines if line]


def _names(values: Any) -> dict[int, str]:
    if not isinstance(values, list | dict):
        raise TypeError(f"names are {short(values)}, not a list and not numbered")
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return {int(i): object_tag(name) for i, name in items}


def _places(file: Path, values: dict[str, Any], split: str) -> list[Path]:
    """The folders of a split's pictures, or the lists of them. Raises DataError."""
    entries = values.get(split) or ("images" if split == "train" else [])
    folder = values.get("path") or "."
    root = file.parent / folder if isinstance(folder, str) else file.parent
    root = root if root.is_dir() else file.parent
    places = []
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, str | int):
            raise DataError(
                f"{file}: {split} has a {type(entry).__name__}, not the name of a folder"
            )
        entry = str(entry)
        place = root / entry
        if not place.exists() and entry.startswith("../"):
            # Roboflow writes ../train/images, but the folder is beside the file.
            place = file.parent / entry.removeprefix("../")
        if not place.is_dir() and not (place.suffix == ".txt" and place.is_file()):
            what = "training" if split == "train" else "validation"
            raise DataError(f"{file}: the folder of its {what} pictures does not exist: {place}")
        places.append(place)
    return places


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
