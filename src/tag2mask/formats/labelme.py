"""LabelMe: a JSON file beside each picture."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.formats.pictures import picture_path
from tag2mask.formats.rows import PICTURES, Row, Rows, Shape, tags_of
from tag2mask.formats.shapes import object_tag, polygon


def is_labelme(path: Path) -> bool:
    """A folder with JSON files of shapes beside pictures of the same name."""
    first = next(_json_files(path), None) if path.is_dir() else None
    return first is not None and '"shapes"' in first.read_text(errors="ignore")


def read_labelme(path: Path, settings: DataSettings) -> Rows:
    """A folder of LabelMe's JSON files, each beside its picture, with outlines."""
    rows = Rows(path)
    for file in _json_files(path):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            shapes = [Shape(object_tag(s["label"]), _outline(s)) for s in values["shapes"]]
            picture = picture_path(values["imagePath"], file.parent)
            rows.rows.append(Row(picture, tags_of(shapes), file.name, shapes))
        except (KeyError, TypeError, ValueError) as error:
            what = f"not a LabelMe file ({type(error).__name__}: {error})"
            rows.error("annotation", file.name, what)
    return rows


def _json_files(folder: Path) -> Iterator[Path]:
    pictures = {
        file.with_suffix("") for file in folder.iterdir() if file.suffix.lower() in PICTURES
    }
    files = sorted(folder.glob("*.json"))
    return (file for file in files if file.with_suffix("") in pictures and file.is_file())


def _outline(shape: dict[str, Any]) -> list[list[float]]:
    """The corners of a polygon. A box, circle or line does not show the object's edge: tag only."""
    if shape.get("shape_type", "polygon") != "polygon":
        return []
    return [polygon(value for point in shape["points"] for value in point)]
