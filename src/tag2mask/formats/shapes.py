"""Outlines that people drew (COCO, YOLO, LabelMe, CVAT), one form for all: they give tags to train from, and masks for evaluation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tag2mask.errors import DataError
from tag2mask.formats.findings import Finding
from tag2mask.formats.rows import Row, Rows, photo_names, split_tags
from tag2mask.photos.images import image_size
from tag2mask.photos.table import BACKGROUND

FAR = 1e6  # pixels from the picture's corner; pycocotools crashes on corners a thousand times as far away


@dataclass(frozen=True)
class Shape:
    """One object: its tag, and where it is if anybody drew it."""

    tag: str
    outline: (
        Sequence[Sequence[float]] | Mapping[str, Any]
    ) = ()  # polygons [x1, y1, x2, y2, ...] in pixels, or COCO's run-length code
    area: float | None = None  # [pixels]; None: count them


@dataclass
class Outlined:
    """One picture and its objects."""

    path: Path
    where: str
    shapes: list[Shape] = field(default_factory=list)
    size: tuple[int, int] | None = None  # width, height [pixels]; None: the picture's own
    relative: bool = False  # outlines in 0-1 of width and height


@dataclass
class Outlines:
    """What a reader of outlines found."""

    source: Path
    pictures: list[Outlined] = field(default_factory=list)
    tags: tuple[str, ...] | None = None  # the ordered list, where the format fixes one
    findings: list[Finding] = field(default_factory=list)

    def rows(self) -> Rows:
        """The tags alone: what training sees."""
        rows = [
            Row(p.path, split_tags(shape.tag for shape in p.shapes), p.where) for p in self.pictures
        ]
        return Rows(self.source, rows, self.tags, self.findings)

    def names(self) -> list[str]:
        """The photo names of the table that `rows` gives."""
        return photo_names([p.path for p in self.pictures])


def draw(picture: Outlined, numbers: Mapping[str, int]) -> np.ndarray:
    """The mask of one picture, (H, W) uint8 by the tags' numbers. Raises DataError for an outline that is none.

    Where objects overlap the one of smaller area is on top, a crowd is an object like any other: as the masks that the field
    evaluates COCO with were made (github.com/alicranck/coco2voc).
    """
    coder = rle_coder()
    width, height = picture.size or image_size(picture.path)
    scale = np.array([width, height] if picture.relative else [1, 1], float)
    drawn = []
    for shape in picture.shapes:
        if not shape.outline:
            continue  # a tag or a box: nobody drew the object
        with _naming(picture, shape.tag):
            code = _run_lengths(coder, shape.outline, scale, height, width)
        drawn.append(
            (float(coder.area(code)) if shape.area is None else shape.area, code, shape.tag)
        )
    mask = np.full((height, width), BACKGROUND, np.uint8)
    for _, code, tag in reversed(sorted(drawn, key=lambda entry: entry[0])):  # noqa: C413, of equals the first is on top
        with _naming(picture, tag):
            mask[_decode(coder, code)] = numbers[tag]
    return mask


def polygon(numbers: Iterable[Any]) -> list[float]:
    """Corners x1, y1, x2, y2, ... as a file holds them. Raises ValueError or TypeError where one is no finite number."""
    corners = [float(number) for number in numbers]
    if not all(map(isfinite, corners)):
        raise ValueError("a corner that is no number")
    return corners


@contextmanager
def _naming(picture: Outlined, tag: str) -> Iterator[None]:
    """Errors of one outline with the picture that has it."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise DataError(
            f"{picture.where}: the outline of a {tag} cannot be drawn ({error})"
        ) from None


@cache
def rle_coder() -> ModuleType:
    """pycocotools' mask coder. Raises DataError if it is not installed."""
    try:
        from pycocotools import mask
    except ImportError:
        raise DataError(
            "outlines need pycocotools; install it with: pip install 'tag2mask[coco]'"
        ) from None
    return mask


def _run_lengths(
    coder: ModuleType, outline: Any, scale: np.ndarray, height: int, width: int
) -> Any:
    if not isinstance(outline, Mapping):
        polygons = [np.asarray(corners, float).reshape(-1, 2) * scale for corners in outline]
        if not all((np.abs(corners) < FAR).all() for corners in polygons):  # NaN is not
            raise ValueError("a corner that is no number, or far outside the picture")
        return coder.merge(
            coder.frPyObjects(
                [corners.ravel().tolist() for corners in polygons if corners.size >= 6],
                height,
                width,
            )
        )
    if list(outline["size"]) != [height, width]:
        raise ValueError(
            f"its code is for {outline['size']}, the picture has height {height} and width {width}"
        )
    if not isinstance(outline["counts"], list):
        return outline
    if (length := sum(outline["counts"])) != height * width:
        raise ValueError(f"its run lengths cover {length} pixels, the picture has {height * width}")
    return coder.frPyObjects(outline, height, width)


def _decode(coder: ModuleType, code: Any) -> np.ndarray:
    """Run lengths to (H, W) bool. Where they end early pycocotools leaves whatever was in memory, which is refused here."""
    region = coder.decode(code)
    if region.sum() != coder.area(code):
        raise ValueError("its run lengths do not fill the picture")
    return region.astype(bool)
