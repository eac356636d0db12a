"""Outlines that people drew (COCO, YOLO, LabelMe, CVAT) to masks."""

from collections.abc import Iterable, Mapping
from math import isfinite
from types import ModuleType
from typing import Any

import numpy as np

from tag2mask.errors import DataError
from tag2mask.formats.rows import Row, clean_tag
from tag2mask.photos.images import image_size
from tag2mask.photos.table import BACKGROUND

# pycocotools ends the process on corners farther away, in pixels, and without memory.
FAR = 1e6
LONGEST = 5e6  # pixels of an outline's edges: they take 80 bytes each
LARGEST = 500_000_000  # pixels of a picture


def draw(row: Row, numbers: Mapping[str, int]) -> np.ndarray:
    """The mask of one picture's shapes, (H, W) uint8, in the numbers of the tags.

    Where objects overlap, the one of smaller area is on top. A crowd is drawn like other objects.
    COCO's masks for evaluation are made in the same way (github.com/alicranck/coco2voc).
    Raises DataError for an outline that cannot be drawn.
    """
    coder = rle_coder()
    width, height = row.size or image_size(row.path)
    if width * height > LARGEST:
        raise DataError(f"{row.where}: a picture of {width} x {height} pixels; is this its size?")
    scale = np.array([width, height] if row.relative else [1, 1], float)
    mask = np.full((height, width), BACKGROUND, np.uint8)
    codes, tag = [], ""
    try:
        for shape in row.shapes:
            tag = shape.tag
            if shape.outline:  # else it is a tag or a box: the object's edge is not known
                code = _run_lengths(coder, shape.outline, scale, height, width)
                area = float(coder.area(code)) if shape.area is None else shape.area
                codes.append((area, code, tag))
        # The stable sort, read backward: of equal areas the first is on top.
        for _, code, tag in reversed(sorted(codes, key=lambda entry: entry[0])):  # noqa: C413
            region = coder.decode(code)
            if region.sum() != coder.area(code):  # the rest is undefined memory
                raise ValueError("its run lengths do not fill the picture")
            mask[region.astype(bool)] = numbers[tag]
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        what = f"the outline of a {tag} cannot be drawn ({error})"
        raise DataError(f"{row.where}: {what}") from None
    return mask


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
    try:
        from pycocotools import mask
    except ImportError:
        do = "install it with: pip install 'tag2mask[coco]'"
        raise DataError(f"outlines need pycocotools; {do}") from None
    return mask


def _run_lengths(
    coder: ModuleType, outline: Any, scale: np.ndarray, height: int, width: int
) -> Any:
    """An outline in pycocotools' own code. Raises ValueError if it does not fit the picture."""
    if not isinstance(outline, Mapping):
        polygons = [np.asarray(corners, float).reshape(-1, 2) * scale for corners in outline]
        if not all((np.abs(corners) < FAR).all() for corners in polygons):  # false for NaN too
            raise ValueError("a corner is not a number, or far outside the picture")
        edges = (np.abs(corners - np.roll(corners, 1, axis=0)) for corners in polygons)
        if sum(edge.max(1, initial=0).sum() for edge in edges) > LONGEST:
            raise ValueError("its edges are too long")
        flat = [corners.ravel().tolist() for corners in polygons if corners.size >= 6]
        return coder.merge(coder.frPyObjects(flat, height, width))
    if list(outline["size"]) != [height, width]:
        size = f"the picture has height {height} and width {width}"
        raise ValueError(f"its code is for {outline['size']}, {size}")
    if not isinstance(outline["counts"], list):
        return outline
    if (length := sum(outline["counts"])) != height * width:
        raise ValueError(f"its run lengths cover {length} pixels of {height * width}")
    return coder.frPyObjects(outline, height, width)
