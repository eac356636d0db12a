"""CVAT: the XML file of an export as "CVAT for images"."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.pictures import Pictures
from tag2mask.formats.rows import Row, Rows, Shape, tags_of
from tag2mask.formats.shapes import object_tag, polygon
from tag2mask.formats.xml_files import read_xml

LARGEST = 100_000_000  # pixels of a picture that has masks


def read_cvat(path: Path, settings: DataSettings) -> Rows:
    """An XML file, its pictures in images/ or beside it, with outlines. Boxes give the tag only."""
    root = read_xml(path)
    if root.tag != "annotations":
        raise DataError(f"{path}: not an export of CVAT for images: it begins with <{root.tag}>")
    rows = Rows(path)
    pictures = Pictures.of(path, settings.images, path.parent / "images")
    for image in root.iter("image"):
        where = f"image {image.attrib.get('id')} ({image.attrib.get('name')})"
        try:
            rows.rows.append(_row(image, pictures, where))
        except DataError as error:
            rows.error("picture", where, str(error))
        except (KeyError, ValueError, OverflowError) as error:
            what = f"not an image as CVAT writes it ({type(error).__name__}: {error})"
            rows.error("annotation", where, what)
    return rows


def _row(image: Element, pictures: Pictures, where: str) -> Row:
    width, height = int(image.attrib["width"]), int(image.attrib["height"])
    shapes = [
        Shape(object_tag(thing.attrib["label"]), _outline(thing, width, height))
        for thing in image
        if "label" in thing.attrib
    ]
    picture = pictures.find(image.attrib["name"])
    return Row(picture, tags_of(shapes), where, shapes, (width, height))


def _outline(thing: Element, width: int, height: int) -> Any:
    if thing.tag == "mask":
        return _run_lengths(thing, width, height)
    if thing.tag != "polygon":
        return ()
    return [polygon(thing.attrib["points"].replace(";", ",").split(","))]


def _run_lengths(thing: Element, width: int, height: int) -> dict[str, Any]:
    """CVAT's run lengths, by rows in a box, to COCO's, by columns in the picture."""
    x, y, w, h = (int(thing.attrib[key]) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in thing.attrib["rle"].split(",")]  # the first is background
    if not (x >= 0 and y >= 0 and sum(runs) == w * h and 0 < height * width <= LARGEST):
        raise ValueError("a mask that does not fill its box or its picture")
    mask = np.zeros((height, width), bool)
    mask[y : y + h, x : x + w] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(h, w)
    ends = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False))
    return {"size": [height, width], "counts": np.diff([0, *ends, mask.size]).tolist()}
