"""A segmenter's output for a photo, and the folder that `tag2mask predict` leaves.

NumPy and Pillow alone: PyTorch is not imported.
"""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tag2mask.errors import DataError
from tag2mask.files import read_json, read_text, write_json, writing, writing_text
from tag2mask.photos.areas import COLUMNS, Areas, Row
from tag2mask.photos.colors import color, overlay
from tag2mask.photos.masks import PREDICTED_CLASSES as CLASSES
from tag2mask.photos.masks import write_mask
from tag2mask.photos.rasters import TIFF, georeference, mask_writer
from tag2mask.photos.resize import enlarged, likeliest
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo
from tag2mask.processes import cores, parallel_map

TABLE_FILE, UNFINISHED = "predictions.csv", "unfinished"
OnError = Callable[[DataError], None]
OTHERS = "not written by `tag2mask predict`, and it would be replaced; give another --out"


@dataclass(frozen=True, repr=False)
class Prediction:
    """The segmenter's output for one photo.

    `probs`: the network's softmax, averaged over scales and mirror, at the size of its input.
    `decision`: `probs` after the threshold, `object_first` and the CRF. Its values show only which
    class wins: `object_first` gives the total probability of all objects to one class, and the CRF
    moves every value close to 0 or 1.
    """

    probs: np.ndarray  # (C, h, w) float32 in 0-1, summing to 1
    decision: np.ndarray  # (C, h, w) float32 in 0-1, summing to 1: the mask is its argmax
    size: tuple[int, int]  # width, height of the photo [pixels]
    image: Image.Image  # the photo, perhaps reduced
    classes: tuple[str, ...]  # names by number, background first
    file: str = ""  # the photo's path, if it has one

    def __repr__(self) -> str:
        shares = [f"{row['class']} {_percent(row['area_percent'])} %" for row in self._areas.rows()]
        what = ", ".join(shares) if self.found else "all background"
        return f"Prediction({self.size[0]} x {self.size[1]}, {what})"

    @property
    def pixel_probs(self) -> np.ndarray:
        """`probs` at every pixel of the photo: (C, H, W) float32. Large for large photos."""
        return enlarged(self.probs, self.size)

    @cached_property
    def mask(self) -> np.ndarray:
        """The class of every pixel of the photo, the argmax of `decision`: (H, W) uint8."""
        return likeliest(self.decision, self.size)

    @cached_property
    def _areas(self) -> Areas:
        probs = np.zeros(self.mask.shape, np.float32)
        for number in np.unique(self.mask):
            if number != BACKGROUND:
                here = self.mask == number
                probs[here] = enlarged(self.probs[number], self.size)[here]
        areas = Areas(self.classes)
        areas.add(self.mask, probs)
        return areas

    def rows(self, mask: str = "") -> list[Row]:
        """A dictionary for each class in the mask: the rows of predictions.csv, by class number.

        "file" and "mask" (the file of the mask, if it is given here); "class"; "area_percent" of
        the photo; "pixels"; "regions", parts that do not touch, corners included;
        "mean_probability" and "largest_probability" of the class among these pixels, by the network
        before the CRF. If all is background, there is one row: its class and probabilities are
        None, its counts 0.
        """
        return self._areas.rows(self.file, mask)

    @property
    def found(self) -> tuple[str, ...]:
        """Names of the classes in the mask, without background."""
        return tuple(row["class"] for row in self._areas.rows() if row["class"] is not None)

    def overlay(self) -> Image.Image:
        """The photo with objects tinted, outlined and named in the color of their class: RGB."""
        image = self.image
        if image.size != self.size:
            image = image.resize(self.size, Image.Resampling.BILINEAR)
        return overlay(image, self.mask, self.classes)

    def save(self, path: Path | str) -> None:
        """Write the mask as an 8-bit palette PNG."""
        write_mask(Path(path), self.mask)


def _percent(share: float) -> str:
    return f"{share:.0f}" if share >= 1 else f"{share:.2g}"


@contextmanager
def skipping(file: str, on_error: OnError | None) -> Iterator[None]:
    """An error in the block is of this photo alone: `on_error` gets it as a DataError. Without
    `on_error`, it is raised. A full disk is an error of all: RunError is raised."""
    try:
        yield
    except (DataError, OSError) as error:
        if not isinstance(error, DataError):
            what = f"its mask cannot be written ({error.strerror or error})"
            error = DataError(f"{file}: {what}")
        if on_error is None:
            raise error from None
        on_error(error)


def _masks(photo: Photo) -> list[str]:
    """The files of which one becomes the mask of a photo."""
    kinds = (".png", ".tif") if photo.path.suffix.lower() in TIFF else (".png",)
    return [f"{photo.name}{kind}" for kind in kinds]


def _overlay(name: str) -> str:
    return f"{name}.overlay.jpg"


class PredictionFolder:
    """The folder `out` of `tag2mask predict`.

    NAME.png            the masks; NAME.tif of a GeoTIFF, with its georeference
    NAME.overlay.jpg    with `overlay`: the masks drawn over the photos
    predictions.csv     the rows of all masks
    classes.json        the classes' names by number, and their colors; while a command is at work,
                        and after it was killed: "unfinished", the masks that it may write
    """

    def __init__(self, out: Path | str, classes: Sequence[str], overlay: bool = False):
        self.path, self.classes, self.overlay = Path(out), tuple(classes), overlay
        self.rows: list[Row] = []

    @contextmanager
    def opened(self, photos: Sequence[Photo] = ()) -> Iterator["PredictionFolder"]:
        """Writes predictions.csv when the block ends, also if it ends early.

        Rows of masks that an earlier command wrote here are kept. Raises DataError before anything
        is written: if predictions.csv or classes.json is not of tag2mask, if the masks here have
        other classes, or if what is written for `photos` would replace files of others.
        """
        about, rows = self._earlier_about(), self._earlier_rows()
        own = dict.fromkeys([*about.get(UNFINISHED, ()), *(row["mask"] for row in rows)])
        if about.get("classes") != list(self.classes) and any(map(self._has, own)):
            what = "has masks of other classes" if about else f"has masks, but no {CLASSES}"
            raise DataError(f"{self.path}: {what}; give another --out")
        self._refuse_others(photos, own)
        masks = dict.fromkeys([*own, *(mask for photo in photos for mask in _masks(photo))])
        self._write_about(masks.keys() - {row["mask"] for row in rows})
        try:
            yield self
        finally:
            known = self._write_table(rows)
            self._write_about(mask for mask in masks.keys() - known if self._has(mask))

    def _refuse_others(self, photos: Sequence[Photo], own: Iterable[str]) -> None:
        """Raises DataError with all files that would be replaced, but are none of `own` masks."""
        mine = {file for mask in own for file in (mask, _overlay(mask.rpartition(".")[0]))}
        files = [mask for photo in photos for mask in _masks(photo)]
        files += [_overlay(photo.name) for photo in photos if self.overlay]
        if others := [file for file in files if file not in mine and self._has(file)]:
            raise DataError([f"{self.path / file}: {OTHERS}" for file in others])

    def _has(self, file: str) -> bool:
        return os.path.exists(self.path / file)  # noqa: PTH110  False if the name is too long

    def _earlier_about(self) -> dict[str, Any]:
        """What classes.json says; {} if there is none."""
        path = self.path / CLASSES
        if not path.exists():
            return {}
        about = read_json(path)
        own = isinstance(about, dict) and {"classes", "colors", "ignore"} <= about.keys()
        if not own or not isinstance(about.get(UNFINISHED, []), list):
            raise DataError(f"{path}: {OTHERS}")
        return about

    def _write_about(self, unfinished: Iterable[str]) -> None:
        about: dict[str, Any] = {
            "classes": list(self.classes),
            "colors": [color(number) for number in range(len(self.classes))],
            "ignore": IGNORE,
        }
        if masks := sorted(unfinished):
            about[UNFINISHED] = masks
        write_json(self.path / CLASSES, about)

    def _earlier_rows(self) -> list[dict[str, str]]:
        path = self.path / TABLE_FILE
        if not path.exists():
            return []
        reader = csv.DictReader(StringIO(read_text(path)))
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(f"{path}: {OTHERS}")
        lines = [(reader.line_num, row) for row in reader]
        broken = [line for line, row in lines if None in row or None in row.values()]
        if broken:
            what = f"does not have {len(COLUMNS)} cells; correct it, or give another --out"
            raise DataError([f"{path}: line {line} {what}" for line in broken])
        return [row for _, row in lines]

    def _write_table(self, earlier: list[dict[str, str]]) -> set[str]:
        """Write predictions.csv: earlier rows whose masks are still here, and the new ones. Returns
        their masks."""
        new = {row["mask"] for row in self.rows}
        kept = [row for row in earlier if row["mask"] not in new and self._has(row["mask"])]
        with writing_text(self.path / TABLE_FILE) as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows([*kept, *self.rows])
        return new | {row["mask"] for row in kept}

    def write(
        self, predictions: Iterable[tuple[str, Prediction]], on_error: OnError | None = None
    ) -> Iterator[list[Row]]:
        """Names and predictions to masks, and overlays, on threads; the rows of each, in order.
        Errors as in `skipping`; a photo with one has no rows."""

        def write_one(work: tuple[str, Prediction]) -> list[Row]:
            rows: list[Row] = []
            with skipping(work[1].file, on_error):
                rows = self._write_one(*work)
            return rows

        for rows in parallel_map(write_one, predictions, cores()):
            self.rows += rows
            yield rows

    def _write_one(self, name: str, prediction: Prediction) -> list[Row]:
        profile = georeference(Path(prediction.file))
        mask = f"{name}.tif" if profile else f"{name}.png"
        with mask_writer(self.path / mask, prediction.size, profile) as write:
            write(prediction.mask)
        if self.overlay:
            self.save_overlay(name, prediction.overlay())
        return prediction.rows(mask)

    def save_overlay(self, name: str, picture: Image.Image) -> None:
        """Write NAME.overlay.jpg."""
        with writing(self.path / _overlay(name)) as temporary:
            picture.save(temporary, "JPEG", quality=90)
