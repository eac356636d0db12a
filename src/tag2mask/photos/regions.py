"""Regions: parts of photos that another tool found, without names. A folder to lists of pixels.

Such tools are Segment Anything and superpixels. For each photo, the folder has NAME.json, NAME.png
or a folder NAME of PNG files.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.errors import DataError, import_extra
from tag2mask.files import Facts, read_text
from tag2mask.photos.images import image_size, reading
from tag2mask.photos.masks import files_of
from tag2mask.photos.table import Photo, Table
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import log, track

ENDINGS = (".json", ".png", "")  # of a photo's file; "": a folder
OUTSIDE = 0  # the number in a label picture of pixels that are in no region


class Regions:
    """The regions in a folder of the photos of `table`; `paths` has a photo's file by its name.

    NAME.json: a list of masks in run-length code, as COCO and Segment Anything write them.
    NAME.png: a picture with a number for each region, 0 for none. NAME/: several such pictures,
    each of one region or of many. Raises DataError if there is no such folder.
    """

    def __init__(self, folder: Path, table: Table):
        self.folder, self.table = folder, table
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of regions")
        self.paths = files_of(folder, table, ENDINGS)

    def check(self, facts: Facts) -> None:
        """Raises DataError with all faults: no regions of any photo, or files that are not as they
        should be. Files that `facts` knows are not read."""
        photos = [photo for photo in self.table.photos if photo.name in self.paths]
        if not photos:
            names = [f"{self.table.photos[0].name}{ending or '/'}" for ending in ENDINGS]
            what = f"no regions of any of the {len(self.table)} photos"
            raise DataError(f"{self.folder}: {what}; the first one needs {' or '.join(names)}")

        def fault(photo: Photo) -> str:
            path = self.paths[photo.name]
            try:
                sizes = facts.of(path, "regions", lambda _: sorted({p.shape for p in _read(path)}))
                return next(filter(None, (_misfit(path, photo, size) for size in sizes)), "")
            except DataError as error:
                return str(error)

        looks = track(parallel_map(fault, photos, cores()), "check regions", len(photos))
        if faults := list(filter(None, looks)):
            raise DataError(faults)
        log.info(f"regions of {len(photos)} of {len(self.table)} photos: {self.folder}")

    def of(self, photo: Photo, size: tuple[int, int]) -> list[np.ndarray]:
        """The regions of a photo in a picture of it of `size` (w, h): the indices of their pixels
        in the flat picture, row by row. [] if the folder has none of it. Raises DataError.
        """
        if photo.name not in self.paths:
            return []
        path, (width, height) = self.paths[photo.name], image_size(photo.path)
        rows, columns = (_nearest(*sides) for sides in ((size[1], height), (size[0], width)))
        regions: list[np.ndarray] = []
        for picture in _read(path):
            if fault := _misfit(path, photo, picture.shape):
                raise DataError(fault)
            flat = picture[rows][:, columns].ravel()
            order = np.argsort(flat, kind="stable")
            parts = np.split(order, np.flatnonzero(np.diff(flat[order])) + 1)
            regions += [part for part in parts if flat[part[0]] != OUTSIDE]
        return regions


def _misfit(path: Path, photo: Photo, shape: Sequence[int]) -> str:
    """What is wrong with regions of a shape (H, W) for a photo, or ""."""
    if tuple(shape) == (size := image_size(photo.path))[::-1]:
        return ""
    sizes = "{1} x {0}, but {2} is {3} x {4}".format(*shape, photo.path, *size)
    return f"{path}: {sizes} (width x height)"


def _nearest(to: int, of: int) -> np.ndarray:
    """For each of `to` pixels of a side, the nearest of its `of` pixels."""
    return ((np.arange(to) + 0.5) * (of / to)).astype(np.intp)


def _read(path: Path) -> Iterator[np.ndarray]:
    """A photo's file or folder to pictures of regions, (H, W) of integers. Raises DataError."""
    if path.is_dir():
        for file in sorted(path.glob("*.png")):
            yield _labels(file)
    elif path.suffix == ".png":
        yield _labels(path)
    else:
        yield from _decoded(path)


def _labels(path: Path) -> np.ndarray:
    with reading(path, "regions") as image:
        if image.mode not in ("1", "L", "P", "I", "I;16"):
            what = "a picture of regions must be gray or have a palette, with a number per region"
            raise DataError(f"{path}: {what}, not {image.mode}")
        return np.array(image)


def _decoded(path: Path) -> Iterator[np.ndarray]:
    """The masks in a JSON file, one after the other. Raises DataError."""
    coder = import_extra("pycocotools.mask", "coco", f"{path}, run-length code,")
    try:
        stored = json.loads(read_text(path))
        for mask in stored["annotations"] if isinstance(stored, dict) else stored:
            yield _mask(coder, mask.get("segmentation", mask)).astype(bool)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"not a list of masks in run-length code ({error})"
        do = 'each should have "segmentation": {"size": [height, width], "counts": ...}'
        raise DataError(f"{path}: {what}; {do}") from None


def _mask(coder: Any, code: Any) -> np.ndarray:
    """A run-length code to (H, W) uint8. Raises ValueError, TypeError or KeyError."""
    height, width = (int(side) for side in code["size"])
    if isinstance(code["counts"], list):
        if (length := sum(code["counts"])) != height * width:
            raise ValueError(f"its run lengths cover {length} pixels of {height * width}")
        code = coder.frPyObjects(code, height, width)
    decoded: np.ndarray = coder.decode(code)
    return decoded
