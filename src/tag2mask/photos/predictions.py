"""A segmenter's output for a photo, and the folder that `tag2mask predict` leaves.

NumPy and Pillow alone: PyTorch is not imported.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
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
from tag2mask.photos.masks import PREDICTED_CLASSES, write_mask
from tag2mask.photos.rasters import georeference, mask_writer
from tag2mask.photos.resize import enlarged, likeliest
from tag2mask.photos.table import BACKGROUND, IGNORE
from tag2mask.processes import cores, parallel_map

TABLE_FILE = "predictions.csv"
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


class PredictionFolder:
    """The folder `out` of `tag2mask predict`.

    NAME.png            the masks; NAME.tif of a GeoTIFF, with its georeference
    NAME.overlay.jpg    with `overlay`: the masks drawn over the photos
    predictions.csv     the rows of all masks
    classes.json        the classes' names by number, and their colors
    """

    def __init__(self, out: Path | str, classes: Sequence[str], overlay: bool = False):
        self.path, self.classes, self.overlay = Path(out), tuple(classes), overlay
        self.rows: list[Row] = []

    @contextmanager
    def opened(self) -> Iterator["PredictionFolder"]:
        """Writes predictions.csv when the block ends, also if it ends early.

        Rows of masks that an earlier command wrote here, with the same classes, are kept. Raises
        DataError if predictions.csv or classes.json is not of tag2mask.
        """
        about = {
            "classes": list(self.classes),
            "colors": [color(number) for number in range(len(self.classes))],
            "ignore": IGNORE,
        }
        earlier = self._earlier_rows(about)
        write_json(self.path / PREDICTED_CLASSES, about)
        try:
            yield self
        finally:
            masks = {row["mask"] for row in self.rows}
            rows = [row for row in earlier if row["mask"] not in masks] + self.rows
            with writing_text(self.path / TABLE_FILE) as file:
                table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                table.writeheader()
                table.writerows(rows)

    def _earlier_rows(self, about: dict[str, Any]) -> list[Row]:
        table, classes = self.path / TABLE_FILE, self.path / PREDICTED_CLASSES
        if classes.exists() and not set(about) <= set(read_json(classes)):
            raise DataError(f"{classes}: {OTHERS}")
        if not table.exists():
            return []
        reader = csv.DictReader(StringIO(read_text(table)))
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(f"{table}: {OTHERS}")
        same = classes.exists() and read_json(classes) == about
        return [row for row in reader if (self.path / row["mask"]).exists()] if same else []

    def write(self, predictions: Iterable[tuple[str, Prediction]]) -> Iterator[list[Row]]:
        """Names and predictions to masks, and overlays, on threads; the rows of each, in order."""
        for rows in parallel_map(self._write_one, predictions, cores()):
            self.rows += rows
            yield rows

    def _write_one(self, work: tuple[str, Prediction]) -> list[Row]:
        name, prediction = work
        profile = georeference(Path(prediction.file))
        mask = f"{name}.tif" if profile else f"{name}.png"
        with mask_writer(self.path / mask, prediction.size, profile) as write:
            write(prediction.mask)
        if self.overlay:
            self.save_overlay(name, prediction.overlay())
        return prediction.rows(mask)

    def save_overlay(self, name: str, picture: Image.Image) -> None:
        """Write NAME.overlay.jpg."""
        with writing(self.path / f"{name}.overlay.jpg") as temporary:
            picture.save(temporary, "JPEG", quality=90)
