"""CVAT: the XML file of an export as "CVAT for images"."""

from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.exports import Export
from tag2mask.formats.rows import Patch, Rows, Shape, tags_of
from tag2mask.formats.shapes import object_tag, polygon
from tag2mask.formats.xml_files import read_xml


def read_cvat(path: Path, settings: DataSettings) -> Rows:
    """An XML file, its pictures in images/ or beside it, with outlines. Boxes give the tag only."""
    root = read_xml(path)
    if root.tag != "annotations":
        raise DataError(f"{path}: not an export of CVAT for images: it begins with <{root.tag}>")
    export = Export(path, settings, path.parent / "images")
    for image in root.iter("image"):
        where = f"image {image.get('id')}"
        with export.entry(f"{where} ({image.get('name')})", "an image as CVAT writes it"):
            size = int(image.attrib["width"]), int(image.attrib["height"])
            shapes = [
                Shape(
                    object_tag(thing.get("label")),
                    _outline(thing),
                    layer=int(thing.get("z_order", 0)),
                )
                for thing in image
                if "label" in thing.attrib
            ]
            export.add(image.attrib["name"], where, tags_of(shapes), shapes=shapes, size=size)
    return export.finish("CVAT for images")


def _outline(thing: Element) -> Any:
    if thing.tag == "polygon":
        return [polygon(thing.attrib["points"].replace(";", ",").split(","))]
    if thing.tag != "mask":
        return ()
    # CVAT's run lengths: by rows in a box, the first is background.
    left, top, width, height = (
        int(thing.attrib[key]) for key in ("left", "top", "width", "height")
    )
    runs = np.array(thing.attrib["rle"].split(","), float)  # no text is too long for a float
    if not (runs >= 0).all() or runs.sum() != width * height or (runs % 1).any():
        raise ValueError("a mask that does not fill its box")
    return Patch(left, top, width, height, partial(_pixels, runs.astype(np.uint32), height))


def _pixels(runs: np.ndarray, height: int) -> np.ndarray:
    pixels: np.ndarray = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, -1)
    return pixels
