"""Regions: parts of photos that another tool found, without names. A folder to lists of pixels.

Such tools are Segment Anything and superpixels. For each photo, the folder has NAME.json, NAME.png
or a folder NAME of PNG files.
"""

import json
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.errors import DataError
from tag2mask.files import Facts, read_text
from tag2mask.photos.images import image_size, reading
from tag2mask.photos.masks import files_of
from tag2mask.photos.table import Photo, Table
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import log, track

ENDINGS = (".json", ".png", ".PNG", "")  # of a photo's file; "": a folder
OUTSIDE = 0  # the number in a label picture of pixels that are in no region


class Regions:
    """The regions in a folder of the photos of `table`.

    NAME.json: a list of masks in run-length code, as COCO and Segment Anything write them.
    NAME.png: a picture with a number for each region, 0 for none. NAME/: several such pictures,
    each of one region or of many. The folder is looked at when it is needed: without it, `paths`,
    `check` and `of` raise DataError.
    """

    def __init__(self, folder: Path, table: Table):
        self.folder, self.table = folder, table

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Photo name -> its file or folder. After `check`, those without a region are left out."""
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder of regions")
        return files_of(self.folder, self.table, ENDINGS)

    def check(self, facts: Facts) -> None:
        """Raises DataError with all faults: no regions of any photo, or files that are not as they
        should be. Files that `facts` knows are not read."""
        photos = [photo for photo in self.table.photos if photo.name in self.paths]
        counts: dict[str, int] = {}

        def look(photo: Photo) -> list[str]:
            size, found, faults = image_size(photo.path), 0, []

            def counted(path: Path) -> list[int]:
                return [*size, len(list(_parts(path, size, size)))]

            for file in _files(self.paths[photo.name]):
                try:
                    fact = facts.of(file, "regions", counted)
                    fact = fact if fact[:2] == [*size] else counted(file)  # the photo has changed
                    found += fact[2]
                except DataError as error:
                    faults.append(str(error))
            counts[photo.name] = found
            return faults

        looks = track(parallel_map(look, photos, cores()), "check regions", len(photos))
        if faults := list(chain.from_iterable(looks)):
            raise DataError(faults)
        self.paths = {name: path for name, path in self.paths.items() if counts[name]}
        if not self.paths:
            names = [f"{self.table.photos[0].name}{ending or '/'}" for ending in ENDINGS]
            what = f"no regions of any of the {len(self.table)} photos"
            raise DataError(f"{self.folder}: {what}; the first one needs {' or '.join(names)}")
        log.info(f"regions of {len(self.paths)} of {len(self.table)} photos: {self.folder}")

    def of(self, photo: Photo, size: tuple[int, int]) -> list[np.ndarray]:
        """The regions of a photo in a picture of it of `size` (w, h): the indices of their pixels
        in the flat picture, row by row. [] if the folder has none of it. Raises DataError.
        """
        files = _files(self.paths[photo.name]) if photo.name in self.paths else []
        own = image_size(photo.path)
        return list(chain.from_iterable(_parts(file, own, size) for file in files))


def _files(path: Path) -> list[Path]:
    """A photo's file, or the PNG files in its folder."""
    if not path.is_dir():
        return [path]
    pngs = (file for file in path.iterdir() if file.suffix.lower() == ".png")
    return sorted(file for file in pngs if not file.name.startswith("."))


def _parts(path: Path, photo: tuple[int, int], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The regions in a file, for a photo of a size (W, H), as flat indices in a picture of it of
    `size` (w, h). Raises DataError."""
    rows, columns = (_nearest(size[axis], photo[axis]) for axis in (1, 0))
    for picture in _decoded(path, photo) if path.suffix == ".json" else [_labels(path, photo)]:
        flat = picture[rows][:, columns].ravel()
        order = np.argsort(flat, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(flat[order])) + 1)
        yield from (part for part in parts if flat[part[0]] != OUTSIDE)


def _nearest(to: int, of: int) -> np.ndarray:
    """For each of `to` pixels of a side, the nearest of its `of` pixels."""
    return ((np.arange(to) + 0.5) * (of / to)).astype(np.intp)


def _labels(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A PNG with a number for each region of a photo of `size` (W, H) to these, (H, W)."""
    with reading(path, "regions") as image:
        if image.format != "PNG":
            what = f"regions must be a PNG, not {image.format}; other formats change the numbers"
            raise DataError(f"{path}: {what}")
        if image.mode not in ("1", "L", "P", "I", "I;16"):
            what = "a picture of regions must be gray or have a palette, with a number per region"
            raise DataError(f"{path}: {what}, not {image.mode}")
        if image.size != size:
            sizes = "{} x {}, but the photo is {} x {}".format(*image.size, *size)
            raise DataError(f"{path}: {sizes} (width x height)")
        return np.array(image)


def _decoded(path: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The masks in a JSON file of a photo of `size` (W, H): (H, W) bool. Raises DataError."""
    try:
        stored = json.loads(read_text(path))
        for mask in stored["annotations"] if isinstance(stored, dict) else stored:
            yield _mask(mask.get("segmentation", mask), *size)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"not a list of masks in run-length code of this photo ({error})"
        do = 'each should have "segmentation": {"size": [height, width], "counts": ...}'
        raise DataError(f"{path}: {what}; {do}") from None


def _mask(code: Any, width: int, height: int) -> np.ndarray:
    """A run-length code to (H, W) bool. Raises ValueError, TypeError or KeyError.

    pycocotools does not notice a wrong code, and reads memory that nobody wrote.
    """
    if list(code["size"]) != [height, width]:
        raise ValueError(f"its size is {code['size']}, the photo's [{height}, {width}]")
    counts = code["counts"]
    counts = run_lengths(counts) if isinstance(counts, str) else counts
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a run length is not a number of pixels")
    if sum(counts) != height * width:
        raise ValueError(f"its run lengths cover {sum(counts)} pixels of {height * width}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(width, height).T


def run_lengths(text: str) -> list[int]:
    """COCO's compressed run lengths to numbers: five bits to a character, from 48 on, and from the
    third number on the difference to the second-last one. Raises ValueError."""
    counts: list[int] = []
    value = shift = 0
    for bits in text.encode("ascii"):
        if not 48 <= bits < 112 or shift > 60:
            raise ValueError("a character does not belong to run lengths")
        value |= (bits - 48 & 31) << shift
        shift += 5
        if bits - 48 & 32:  # more to come
            continue
        if bits - 48 & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its last run length is cut off")
    return counts
