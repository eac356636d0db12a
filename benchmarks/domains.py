"""A domain: a folder of photos with tags and true masks, on which methods are compared.

Known by what is in the folder: voc-animals (train_seg.txt), the scenes that `tag2mask demo` draws
(scenes.json), or any other with train.csv, val.csv and masks/, such as magnetic-tiles, whose photos
without tags show nothing.
"""

from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.config import Config
from tag2mask.config_files import load_recipe
from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.evaluate.finds import count_finds
from tag2mask.files import read_list
from tag2mask.formats import load_table
from tag2mask.photos.masks import Truth
from tag2mask.photos.table import Table

SCORED = ("background", "cat", "dog", "horse", "cow", "sheep", "person", "chair", "sofa")
SCENES = Path("scenes.json")


@dataclass(frozen=True)
class Domain:
    """The folder `data` and what is known of it."""

    data: Path

    @property
    def name(self) -> str:
        """Its name in results."""
        return "demo" if (self.data / SCENES).exists() else self.data.name

    @property
    def train(self) -> Path:
        """The table of its training photos."""
        return self.data / ("tags.csv" if (self.data / SCENES).exists() else "train.csv")

    @property
    def listed(self) -> Path | None:
        """The list of the training photos whose masks are scored; None: all."""
        path = self.data / "train_seg.txt"
        return path if path.exists() else None

    @property
    def numbering(self) -> str:
        """`evaluate.classes` of its true masks."""
        return "voc" if self.listed else "auto"

    @property
    def mean_over(self) -> tuple[str, ...]:
        """Classes over which the mean is; empty: all."""
        return SCORED if self.listed else ()

    @cached_property
    def recipe(self) -> Config:
        """What `photos` is here: scenes of 192 pixels have a recipe of their own."""
        return load_recipe("demo" if (self.data / SCENES).exists() else "photos")

    def tables(self, photos: int | None) -> tuple[Table, Table, Table]:
        """`photos` training photos (None: all), those of them whose masks are scored, and the
        validation photos."""
        return _tables(self, photos)

    def truth(self, table: Table) -> Truth:
        """The true masks of a table's photos."""
        return Truth(self.data / "masks", table, self.numbering)

    def figures(self, folder: Path, table: Table, **context: Any) -> dict[str, Any]:
        """The metrics of the masks in a folder, with the `context` that gives them a meaning.
        "nothing": how many photos of nothing there are, and how many are marked."""
        truth = self.truth(table)
        pairs = [
            (folder / f"{photo.name}.png", partial(truth.read, photo))
            for photo in truth.photos_with_truth
        ]
        names = [name for name in self.mean_over if name in table.classes]
        metrics = evaluate_masks(pairs, table.classes, mean_over=names).summary(**context)
        finds = count_finds(table, folder)
        return result_row(metrics) | {"nothing": finds["nothing"] if finds else {}}


@cache
def _tables(domain: Domain, photos: int | None) -> tuple[Table, Table, Table]:
    table = evenly(load_table(domain.train), photos)
    scored = [photo for photo in table.photos if photo.tags]
    if domain.listed:
        names = set(read_list(domain.listed))
        scored = [photo for photo in scored if photo.name in names]
    val = load_table(domain.data / "val.csv", tags=table.tags, untagged=True)
    return table, Table(table.tags, tuple(scored)), evenly(val, photos)


def evenly(table: Table, count: int | None) -> Table:
    """`count` photos of a table at equal distances; None: all."""
    number = len(table) if count is None else min(count, len(table))
    chosen = np.unique(np.linspace(0, len(table) - 1, number).astype(int))
    return Table(table.tags, tuple(table.photos[i] for i in chosen))


def halves(table: Table) -> tuple[Table, Table]:
    """The photos on which choices are made, and those on which they are reported."""
    first, second = (Table(table.tags, table.photos[start::2]) for start in (0, 1))
    return first, second


def result_row(summary: dict[str, Any]) -> dict[str, Any]:
    """The part of a summary of metrics that is kept in a result."""
    iou = {name: round(value, 5) for name, value in summary["iou"].items() if value is not None}
    keys = ("split", "images", "labels", "crf", "mean_over", "by_size")
    kept = {key: summary[key] for key in keys if key in summary}
    return kept | {"miou": round(summary["miou"], 5), "iou": iou}
