"""LabelMe and X-AnyLabeling: a JSON file for each picture, with objects and flags."""

import io
from base64 import b64decode
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tag2mask.config import DataSettings
from tag2mask.files import read_text, start_of
from tag2mask.formats.exports import Export, tag_text
from tag2mask.formats.json_files import parse_json
from tag2mask.formats.pictures import unread_pictures
from tag2mask.formats.rows import Patch, Rows, Shape, tags_of
from tag2mask.formats.shapes import object_tag, polygon
from tag2mask.photos.images import PICTURES

KEYS = ('"shapes"', '"imagePath"')


def is_labelme(path: Path) -> bool:
    """A folder whose first JSON file beside a picture, or at all, is one of LabelMe."""
    if not path.is_dir():
        return False
    first = next(_json_files(path), None) or next(iter(sorted(path.glob("*.json"))), None)
    text = start_of(first, 1 << 26) if first else ""
    return KEYS[0] in text or (KEYS[1] in text and '"flags"' in text)


def read_labelme(path: Path, settings: DataSettings) -> Rows:
    """A folder of JSON files. A picture's tags: those of its objects, and its flags that are true.

    A flag that is false is absent, one that a file does not have, but others do, is unknown there.
    A file without objects and flags is a photo of nothing; in a picture without file nobody looked.
    """
    export = Export(path, settings)
    values: list[tuple[Path, Any, list[Shape], dict[str, bool], tuple[int, int] | None]] = []
    beside = set(_json_files(path))
    for file in sorted(path.glob("*.json")):
        with export.entry(file.name, "a LabelMe file"):
            value = parse_json(read_text(file), file.name)
            if not isinstance(value, dict) or not value.keys() & {"shapes", "flags"}:
                if file in beside:
                    raise ValueError("it has neither shapes nor flags")
                continue  # some other file
            drawn = value.get("shapes") or []
            shapes = [Shape(object_tag(shape["label"]), _outline(shape)) for shape in drawn]
            size = _size(value)
            values.append((file, value["imagePath"], shapes, _flags(value.get("flags")), size))
    flags = {flag for *_, own, _ in values for flag in own}
    for file, name, shapes, own, size in values:
        with export.entry(file.name, "a LabelMe file"):
            present = (*tags_of(shapes), *(flag for flag, value in own.items() if value))
            unknown = tuple(flags - own.keys() - set(present))
            export.add(name, file.name, present, unknown=unknown, shapes=shapes, size=size)
    stems = {file.with_suffix("") for file in beside}
    for picture in sorted(path.iterdir()):
        if picture.suffix.lower() in PICTURES and picture.with_suffix("") not in stems:
            export.add(picture.name, "no JSON file", (), ())
    export.rows.findings += unread_pictures(path)
    return export.finish(f"LabelMe: shapes{' and flags' if flags else ''}")


def _size(value: dict[str, Any]) -> tuple[int, int] | None:
    """The width and height for which the shapes were drawn, if the file says so."""
    width, height = value.get("imageWidth"), value.get("imageHeight")
    return (int(width), int(height)) if width and height else None


def _flags(flags: Any) -> dict[str, bool]:
    """The flags of a picture: tag -> whether it is there. Raises ValueError."""
    if not isinstance(flags or {}, dict):
        raise ValueError("its flags are no object")
    for flag, value in (flags or {}).items():
        if not isinstance(value, bool):
            raise ValueError(f"the flag {flag!r} is neither true nor false")
    return {tag_text(flag): value for flag, value in (flags or {}).items()}


def _json_files(folder: Path) -> Iterator[Path]:
    pictures = {
        file.with_suffix("") for file in folder.iterdir() if file.suffix.lower() in PICTURES
    }
    files = sorted(folder.glob("*.json"))
    return (file for file in files if file.with_suffix("") in pictures and file.is_file())


def _outline(shape: dict[str, Any]) -> list[list[float]] | Patch:
    """The corners of a polygon, or a mask. A box, circle or line does not show the object's edge:
    tag only."""
    kind = shape.get("shape_type") or "polygon"
    if kind not in ("polygon", "mask"):
        return []
    corners = polygon(value for point in shape["points"] for value in point)
    if kind == "polygon":
        return [corners]
    left, top, right, bottom = map(int, corners)  # of pixels: the last ones belong to the box
    width, height = right - left + 1, bottom - top + 1
    return Patch(left, top, width, height, partial(_pixels, shape["mask"], (width, height)))


def _pixels(mask: str, size: tuple[int, int]) -> np.ndarray:
    """The PNG of a mask, as text, to (H, W) bool. Raises ValueError."""
    try:
        with Image.open(io.BytesIO(b64decode(mask)), formats=["PNG"]) as image:
            if image.size == size:
                pixels: np.ndarray = np.asarray(image.convert("L")) > 0
                return pixels
    except Exception as error:  # Pillow raises errors of many kinds for broken files
        raise ValueError(f"its mask is no PNG: {error}") from None
    raise ValueError(f"its PNG has {image.width} x {image.height} pixels, its box {size}")
