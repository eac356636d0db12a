"""Outlines that people drew (COCO, YOLO, LabelMe, CVAT, Label Studio) to masks."""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tag2mask.errors import DataError, import_extra
from tag2mask.formats.rows import Patch, Row, clean_tag
from tag2mask.photos.images import image_size
from tag2mask.photos.table import BACKGROUND

# pycocotools ends the process on corners farther away, in pixels, and without memory.
FAR = 1e6
LONGEST = 5e6  # pixels of an outline's edges: they take 80 bytes each
# What is decided in drawing, after "in 3 photos ".
OVERLAP = "objects of two classes overlap: the pixels belong to the smaller object"
NO_OUTLINE = "some tag has no outline (a tag, a box, a line): the mask does not show it"


def draw(row: Row, numbers: Mapping[str, int], source: Path, notes: Counter[str]) -> np.ndarray:
    """The mask of one picture's shapes, (H, W) uint8, in the numbers of the tags.

    Where objects overlap, that of the higher layer is on top, among equals the one of smaller area.
    A crowd is drawn like other objects. COCO's masks for evaluation are made in the same way
    (github.com/alicranck/coco2voc). `notes` counts the pictures in which something was decided.
    Raises DataError for an outline of the file `source` that cannot be drawn.
    """
    coder = rle_coder()
    width, height = _size(row, source)
    scale = np.array([width, height] if row.relative else [1, 1], float)
    mask = np.full((height, width), BACKGROUND, np.uint8)
    codes, tag, overlap = [], "", False
    try:
        for shape in row.shapes:
            tag = shape.tag
            if shape.outline:  # else it is a tag or a box: the object's edge is not known
                code = _run_lengths(coder, shape.outline, scale, height, width)
                area = float(coder.area(code)) if shape.area is None else shape.area
                codes.append((-shape.layer, area, code, tag))
        # The stable sort, read backward: of equal areas the first is on top.
        for *_, code, tag in reversed(sorted(codes, key=lambda entry: entry[:2])):  # noqa: C413
            region = coder.decode(code).astype(bool)
            if region.sum() != coder.area(code):  # the rest is undefined memory
                raise ValueError("its run lengths do not fill the picture")
            overlap |= _is_wide((mask != BACKGROUND) & (mask != numbers[tag]) & region)
            mask[region] = numbers[tag]
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        what = f"the outline of a {tag} cannot be drawn ({error})"
        raise DataError(f"{row.where}: {what}", source) from None
    notes[OVERLAP] += overlap
    notes[NO_OUTLINE] += not {*row.tags} <= {tag for *_, tag in codes}
    return mask


def _size(row: Row, source: Path) -> tuple[int, int]:
    """Width and height of a picture. Raises DataError if its shapes were drawn for another size."""
    width, height = image_size(row.path)
    if row.size not in (None, (width, height)):
        sizes = "for {} x {}, but {} has {} x {}".format(*row.size, row.path, width, height)
        turned = " upright, as its EXIF turns it" if row.size == (height, width) else ""
        raise DataError(f"{row.where}: its outlines are {sizes}{turned} (width x height)", source)
    return width, height


def _is_wide(region: np.ndarray) -> bool:
    """Whether 4 x 4 pixels of a region, (H, W) bool, are in it. Neighbors that were simplified to
    polygons overlap in lines that are less wide."""
    rows = region[:-3] & region[1:-2] & region[2:-1] & region[3:]
    return bool((rows[:, :-3] & rows[:, 1:-2] & rows[:, 2:-1] & rows[:, 3:]).any())


def object_tag(name: Any) -> str:
    """The tag of an object or class. Raises ValueError if it has no name."""
    if not isinstance(name, str | int | float) or not (tag := clean_tag(name)):
        raise ValueError("an object or class without a name")
    return tag


def polygon(numbers: Iterable[Any]) -> list[float]:
    """Corners x1, y1, x2, y2, ... Raises ValueError or TypeError if one is not a finite number."""
    corners = [float(number) for number in numbers]
    if not all(map(isfinite, corners)):
        raise ValueError("a corner is not a number")
    return corners


def rle_coder() -> ModuleType:
    """pycocotools' run-length coder. Raises DataError if it is not installed."""
    coder: ModuleType = import_extra("pycocotools.mask", "coco", "an outline")
    return coder


def _run_lengths(
    coder: ModuleType, outline: Any, scale: np.ndarray, height: int, width: int
) -> Any:
    """An outline in pycocotools' own code. Raises ValueError if it does not fit the picture."""
    if isinstance(outline, Patch):
        left, top, wide, high, pixels = outline
        if not (0 <= left < left + wide <= width and 0 <= top < top + high <= height):
            raise ValueError(f"its box {left, top, wide, high} does not fit the picture")
        region = np.zeros((height, width), np.uint8, order="F")
        region[top : top + high, left : left + wide] = pixels()
        return coder.encode(region)
    if not isinstance(outline, Mapping):
        polygons = [np.asarray(corners, float).reshape(-1, 2) * scale for corners in outline]
        if not all((np.abs(corners) < FAR).all() for corners in polygons):  # false for NaN too
            raise ValueError("a corner is not a number, or far outside the picture")
        edges = (np.abs(corners - np.roll(corners, 1, axis=0)) for corners in polygons)
        if sum(edge.max(1, initial=0).sum() for edge in edges) > LONGEST:
            raise ValueError("its edges are too long")
        if not any(_touches(corners, height, width) for corners in polygons):
            raise ValueError("it is outside of the picture")
        flat = [corners.ravel().tolist() for corners in polygons if corners.size >= 6]
        return coder.merge(coder.frPyObjects(flat or [[0.0] * 6], height, width))
    if list(outline["size"]) != [height, width]:
        size = f"the picture has height {height} and width {width}"
        raise ValueError(f"its code is for {outline['size']}, {size}")
    if not isinstance(outline["counts"], list):
        return outline
    if (length := sum(outline["counts"])) != height * width:
        raise ValueError(f"its run lengths cover {length} pixels of {height * width}")
    return coder.frPyObjects(outline, height, width)


def _touches(corners: np.ndarray, height: int, width: int) -> bool:
    """Whether the box around some corners, (P, 2) x, y, is in the picture, at least in part."""
    return bool((corners.min(0) <= [width, height]).all() and (corners.max(0) >= 0).all())
