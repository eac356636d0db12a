"""What labelling tools write: YOLO folders, LabelMe JSON files, "CVAT for images" XML. Outlines become masks, boxes tags only."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tag2mask.errors import DataError
from tag2mask.files import read_text
from tag2mask.formats.findings import Finding
from tag2mask.formats.plain import picture_path, pictures_below, unread_pictures
from tag2mask.formats.rows import PICTURES, clean_tag
from tag2mask.formats.shapes import Outlined, Outlines, Shape, polygon
from tag2mask.photos.table import tag_key

NAMES = re.compile(
    r"""^["']?names["']?\s*:""", re.MULTILINE
)  # at the top level: other tools have YAML files too


def yolo_file(path: Path) -> Path | None:
    """The YAML file of a YOLO data set: the path itself, in the folder, or above a folder of its pictures; None if there is none."""
    if path.suffix.lower() in (".yaml", ".yml"):
        return path
    folders = [path, *path.absolute().parents[:2]] if path.is_dir() else []
    files = (file for folder in folders for file in sorted(folder.glob("*.y*ml")) if file.is_file())
    return next((file for file in files if NAMES.search(file.read_text(errors="ignore"))), None)


def read_yolo(path: Path) -> Outlines:
    """A YOLO data.yaml (its train split), or one folder of its pictures (images/val), to pictures with outlines.

    labels/NAME.txt holds a line for each object: class and box (4 numbers, a tag only) or class and polygon, in 0-1 of the picture.
    Pictures without any object are left out.
    """
    import yaml

    file = yolo_file(path)
    if file is None:
        raise DataError(f"{path}: no data.yaml with class names")
    try:
        values = yaml.safe_load(read_text(file))
        names = _yolo_names(values["names"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: not a YOLO data file with names ({error})") from None
    if path.is_dir() and not (path / file.name).is_file():
        folder = path
    else:
        root, train = (
            file.parent / str(values.get("path") or "."),
            str(values.get("train") or "images"),
        )
        folder = (root if root.is_dir() else file.parent) / train
        if not folder.is_dir() and train.startswith(
            "../"
        ):  # Roboflow writes it so, and has the folder beside the file
            folder = file.parent / train.removeprefix("../")
    if not folder.is_dir():
        raise DataError(f"{file}: its training pictures should be in {folder}, which is no folder")
    found = Outlines(path)
    for picture in pictures_below(folder):
        labels = _yolo_labels(picture)
        lines = enumerate(_yolo_lines(labels, found), 1)
        shapes = [
            shape
            for i, line in lines
            if line.strip() and (shape := _yolo_shape(line, names, f"{labels} line {i}", found))
        ]
        if shapes:
            found.pictures.append(
                Outlined(picture, picture.relative_to(folder).as_posix(), shapes, relative=True)
            )
    found.findings += unread_pictures(folder)
    used = {
        shape.tag for picture in found.pictures for shape in picture.shapes
    }  # some tools list a background that nothing is labelled as
    found.tags = tuple(
        dict.fromkeys(
            names[i] for i in sorted(names) if tag_key(names[i]) != "background" or names[i] in used
        )
    )
    return found


def read_labelme(path: Path) -> Outlines:
    """A folder of LabelMe's JSON files, each beside its picture, to pictures with outlines."""
    found = Outlines(path)
    for file in _labelme_files(path):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            shapes = [
                Shape(_label(shape["label"]), _labelme_outline(shape)) for shape in values["shapes"]
            ]
            picture = picture_path(values["imagePath"], file.parent)
        except (KeyError, TypeError, ValueError) as error:
            found.findings.append(
                Finding(
                    "annotation", file.name, f"not a LabelMe file ({type(error).__name__}: {error})"
                )
            )
            continue
        found.pictures.append(Outlined(picture, file.name, shapes))
    return found


def is_labelme(path: Path) -> bool:
    """A folder in which JSON files with shapes lie beside pictures of the same name."""
    return path.is_dir() and any(
        '"shapes"' in file.read_text(errors="ignore") for file in list(_labelme_files(path))[:1]
    )


def read_cvat(path: Path) -> Outlines:
    """A "CVAT for images" XML file, its pictures in images/ or beside it, to pictures with outlines."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise DataError(f"{path}: not readable XML ({error})") from None
    if root.tag != "annotations":
        raise DataError(f"{path}: not an export of CVAT for images: it begins with <{root.tag}>")
    found = Outlines(path)
    folder = path.parent / "images" if (path.parent / "images").is_dir() else path.parent
    for image in root.iter("image"):
        where = f"image {image.attrib.get('id')} ({image.attrib.get('name')})"
        try:
            size = (int(image.attrib["width"]), int(image.attrib["height"]))
            shapes = [
                Shape(_label(thing.attrib["label"]), _cvat_outline(thing, size))
                for thing in image
                if "label" in thing.attrib
            ]
            found.pictures.append(
                Outlined(picture_path(image.attrib["name"], folder), where, shapes, size)
            )
        except (KeyError, ValueError) as error:
            found.findings.append(
                Finding(
                    "annotation",
                    where,
                    f"not an image as CVAT writes it ({type(error).__name__}: {error})",
                )
            )
    return found


def _label(value: Any) -> str:
    """The tag of an object. Raises ValueError if it has none."""
    if value is None or not (tag := clean_tag(value)):
        raise ValueError("an object or class without a name")
    return tag


def _yolo_names(listed: Any) -> dict[int, str]:
    if not isinstance(listed, list | dict):
        raise TypeError(f"names are {listed!r}, neither a list nor numbered")
    return {
        int(i): _label(name)
        for i, name in (listed.items() if isinstance(listed, dict) else enumerate(listed))
    }


def _yolo_lines(labels: Path, found: Outlines) -> list[str]:
    try:
        return read_text(labels).splitlines() if labels.is_file() else []
    except DataError as error:
        found.findings.append(
            Finding("annotation", str(labels), str(error).removeprefix(f"{labels}: "))
        )
        return []


def _yolo_shape(line: str, names: dict[int, str], where: str, found: Outlines) -> Shape | None:
    try:
        kind, *numbers = line.split()
        corners = polygon(numbers)
        return Shape(names[int(kind)], [corners] if len(corners) >= 6 else ())
    except (ValueError, KeyError):
        found.findings.append(
            Finding("annotation", where, f"not a class of data.yaml and numbers: {line[:60]!r}")
        )
        return None


def _yolo_labels(picture: Path) -> Path:
    """images/train/a.jpg -> labels/train/a.txt, the last folder called images."""
    parts = list(picture.parts)
    for i in range(len(parts) - 1, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_name(picture.stem + ".txt")


def _labelme_files(folder: Path) -> Iterator[Path]:
    beside = {
        picture.with_suffix("")
        for picture in folder.iterdir()
        if picture.suffix.lower() in PICTURES
    }
    return (
        file
        for file in sorted(folder.glob("*.json"))
        if file.with_suffix("") in beside and file.is_file()
    )


def _labelme_outline(shape: dict[str, Any]) -> list[list[float]]:
    """The points of a polygon; of a box, circle or line nothing: it says that the object is there, not where its edge is."""
    drawn = shape.get("shape_type", "polygon") == "polygon"
    return [polygon(value for point in shape["points"] for value in point)] if drawn else []


def _cvat_outline(thing: ElementTree.Element, size: tuple[int, int]) -> Any:
    if thing.tag == "polygon":
        return [
            polygon(
                number for point in thing.attrib["points"].split(";") for number in point.split(",")
            )
        ]
    return _cvat_mask(thing, size) if thing.tag == "mask" else ()


def _cvat_mask(thing: ElementTree.Element, size: tuple[int, int]) -> dict[str, Any]:
    """CVAT's run lengths, by rows within a box, to COCO's, by columns over the picture; both begin with background."""
    left, top, width, height = (
        int(thing.attrib[key]) for key in ("left", "top", "width", "height")
    )
    runs = [int(run) for run in thing.attrib["rle"].split(",")]
    mask = np.zeros(size[::-1], bool)
    mask[top : top + height, left : left + width] = np.repeat(
        np.arange(len(runs)) % 2, runs
    ).reshape(height, width)
    ends = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False))
    return {"size": [size[1], size[0]], "counts": np.diff([0, *ends, mask.size]).tolist()}
