"""What the page shows of a run. Its folder is read without a lock, also while a training writes it.

A photo has a short id, made of its name. No path is ever made from what a browser sends.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tag2mask.config import STAGE_NAMES
from tag2mask.errors import DataError
from tag2mask.files import Facts
from tag2mask.photos.corrections import Corrected, Stroke, corrected_table
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import NEW_MASKS, read_mask, write_mask
from tag2mask.photos.resize import fitted, reduced
from tag2mask.photos.table import Photo, Table
from tag2mask.runs.folder import DONE, MASKS, MODEL, PREDICTIONS, STARTED
from tag2mask.runs.run import Run
from tag2mask.runs.stages import mask_maker

if TYPE_CHECKING:
    from torch import Tensor

    from tag2mask.masks import MaskMaker
    from tag2mask.segmenter.predict import Prediction

LARGEST = 1600  # longer side of the photo on the page [pixels]
SEVERAL = 64  # locks for all files that are made when they are first seen


@dataclass(frozen=True)
class Shown:
    """A photo of the run on the page."""

    id: str
    split: str  # "train" or "val"
    photo: Photo  # with the tags that the data give


def photo_id(split: str, name: str) -> str:
    """The id of a photo: the same in each session, so that an address can be kept."""
    return hashlib.sha256(f"{split}/{name}".encode("utf-8", "surrogatepass")).hexdigest()[:12]


def stamp(path: Path) -> int:
    """When a file was changed last [ns]; 0 if there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


class Gallery:
    """The photos of a run and all that was computed for them. Raises RunError, DataError."""

    def __init__(self, folder: Path, facts: Facts | None = None):
        self.run = Run(folder)
        self.cache = self.run.folder / "view"
        self.cache.mkdir(exist_ok=True)
        # Not the run's own file: a training may be writing that one.
        self.facts = self.run.facts = facts or Facts(self.cache / "facts.jsonl")
        self._locks = [Lock() for _ in range(SEVERAL)]
        self._corrected: tuple[tuple[int, int], dict[str, Corrected]] = (-1, 0), {}
        self.table = self.run.given
        tables = {"train": self.table, "val": self.run.val}
        self.photos = {
            shown.id: shown
            for split, table in tables.items()
            for photo in (table.photos if table else ())
            for shown in [Shown(photo_id(split, photo.name), split, photo)]
        }
        self.truth = self._truth()

    def _truth(self) -> dict[str, Callable[[], np.ndarray]]:
        return {
            photo_id(split, photo.name): partial(truth.read, photo)
            for split, truth in self.run.truths.items()
            if truth
            for photo in truth.photos_with_truth
        }

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number, background first."""
        return self.table.classes

    # ---- corrections -----------------------------------------------------------------------------

    @property
    def corrections(self) -> dict[str, Corrected]:
        """Name of a training photo -> its corrections that are in force."""
        log = self.run.folder / "corrections.jsonl"
        changed = (stamp(log), log.stat().st_size if log.exists() else 0)
        if self._corrected[0] != changed:
            self._corrected = changed, self.run.files.corrections.state()
        return self._corrected[1]

    def corrected(self, shown: Shown) -> Corrected:
        """The corrections of a photo."""
        name = shown.photo.name
        return self.corrections.get(name, Corrected()) if shown.split == "train" else Corrected()

    def photo(self, shown: Shown) -> Photo:
        """A photo with its corrected tags."""
        if not (own := self.corrected(shown)).tags:
            return shown.photo
        one = Table(self.table.tags, (shown.photo,))
        return corrected_table(one, {shown.photo.name: own}).photos[0]

    def making(self, path: Path) -> Lock:
        """The lock for a file of the cache, so that two requests do not write it at once."""
        return self._locks[hash(path) % SEVERAL]

    # ---- files of a photo ------------------------------------------------------------------------

    def newest(self, stage: str, *names: str) -> Path:
        """A file of a stage: what an unfinished stage has made so far comes first."""
        part = self.run.files.part(stage).joinpath(*names)
        return part if part.exists() else self.run.files.result(stage, *names)

    def mask_file(self, shown: Shown, kind: str) -> Path | None:
        """A mask of a photo that is in the run folder, or None.

        kind: "mended" (kept by the user), "pseudo" (the newest), "first" (of the stage `masks`, if
        there are newer ones), "segmenter"."""
        name = f"{shown.photo.name}.png"
        path: Path | None = None
        if kind == "mended" and self.corrected(shown).keeps_mask:
            path = self.run.files.corrections.folder / name
        elif kind == "pseudo" and shown.split == "train":
            folder = self.new_masks  # read once: a run may replace it now
            path = folder / name if folder else self.newest("masks", name)
        elif kind == "first" and shown.split == "train" and self.new_masks:
            path = self.newest("masks", name)
        elif kind == "segmenter":
            path = self.predicted(shown)
            if shown.split == "val" and not path.exists():
                path = self.newest("evaluate", PREDICTIONS, name)
        return path if path and self._is_own(path) else None

    def _is_own(self, path: Path) -> bool:
        """Whether a file is there, in the run folder, and not behind a link that leaves it."""
        return path.is_file() and path.resolve().is_relative_to(self._root)

    @cached_property
    def _root(self) -> Path:
        return self.run.folder.resolve()

    @property
    def new_masks(self) -> Path | None:
        """The folder of the masks that the segmenter made, once all are made, or None.

        None if the first masks were made again since then.
        """
        folder = self.newest("segmenter", NEW_MASKS)
        made = stamp(folder / MASKS)
        return folder if made and made >= stamp(self.newest("masks", MASKS)) else None

    def main_kind(self, shown: Shown) -> str:
        """The kind of mask that stands for a photo."""
        if self.corrected(shown).keeps_mask:
            return "mended"
        return "pseudo" if shown.split == "train" else "segmenter"

    def predicted(self, shown: Shown) -> Path:
        """Where the segmenter's mask of a photo is kept once the page has needed it."""
        return self.cache / f"segmenter-{self.model}" / shown.split / f"{shown.photo.name}.png"

    @property
    def model(self) -> str:
        """Which segmenter there is; "" if none."""
        changed = stamp(self.run.files.result("segmenter", MODEL))
        return f"{changed:x}" if changed else ""

    # ---- pictures and masks ----------------------------------------------------------------------

    def size(self, shown: Shown) -> tuple[int, int]:
        """Width and height of a photo [pixels]; 4 x 3 if it cannot be read."""
        try:
            width, height = self.facts.of(shown.photo.path, "size", image_size)
        except (DataError, OSError):
            return 4, 3
        return width, height

    def picture(self, shown: Shown, longest: int = LARGEST) -> Image.Image:
        """A photo, reduced to `longest` [pixels]. Raises DataError."""
        return reduced(shown.photo.open(at_least=longest), longest)

    def mask(self, shown: Shown, kind: str) -> np.ndarray | None:
        """A mask of a photo, (H, W) uint8, or None: also "before" (the pseudo mask before the
        CRF) and "truth". The segmenter's is computed if need be. Raises DataError."""
        if kind == "truth":
            return self.truth[shown.id]() if shown.id in self.truth else None
        if kind == "before":
            return self._before(shown)
        if kind == "mended":
            own = self.corrected(shown)
            log = self.run.files.corrections
            return log.read_mask(own, self.classes) if own.keeps_mask else None
        if path := self.mask_file(shown, kind):
            return read_mask(path)
        if kind == "segmenter" and self.model:
            return self.predict(shown).mask
        return None

    def predict(self, shown: Shown) -> "Prediction":
        """The segmenter's prediction for a photo; its mask is kept in the run folder's view/."""
        from tag2mask.evaluate.doubt import uncertainty

        with self.network:
            prediction = self.run.predict(shown.photo.open())
        path = self.predicted(shown)
        with self.making(path):
            write_mask(path, prediction.mask)
        self.facts.of(path, "uncertainty", lambda _: uncertainty(prediction.probs))
        return prediction

    @cached_property
    def network(self) -> Lock:
        """One prediction at a time: a network on all cores would make the page wait."""
        return Lock()

    def scores(self, shown: Shown) -> "tuple[Photo, Tensor] | None":
        """A training photo, its tags being the classes with a score map, and these score maps
        (K, h, w), which sum to 1; None if there are none yet."""
        from tag2mask.masks import read_score_maps

        if not (folder := self.score_folder(shown)):
            return None
        numbers, score_maps = read_score_maps(folder, shown.photo)
        tags = tuple(self.classes[number] for number in numbers if number)
        maker = self.maker.of_segmenter() if folder == self.new_masks else self.maker
        return replace(shown.photo, tags=tags, unknown=()), maker.scores(score_maps, numbers)

    def heat(self, shown: Shown, number: int) -> np.ndarray | None:
        """The score map of a class, (h, w) in 0-1, as the report shows it; None without one."""
        from tag2mask.masks import read_score_maps
        from tag2mask.masks.scores import relative

        if not (folder := self.score_folder(shown)):
            return None
        numbers, score_maps = read_score_maps(folder, shown.photo)
        if number not in numbers:
            return None
        if self.run.config.masks.scores == "logits":
            score_maps = relative(score_maps)
        return score_maps[numbers.index(number)].numpy()

    def score_folder(self, shown: Shown) -> Path | None:
        """The folder with the stored score maps of a training photo, or None."""
        name = f"{shown.photo.name}.npz"
        folder = self.new_masks
        path = folder / name if folder else self.newest("masks", name)
        stored = shown.split == "train" and self._is_own(path)
        return path.parents[name.count("/")] if stored else None

    @cached_property
    def maker(self) -> "MaskMaker":
        """What makes pseudo masks of score maps. It loads no network for that."""
        return mask_maker(self.run)

    def _before(self, shown: Shown) -> np.ndarray | None:
        from tag2mask.masks.scores import to_pixels

        if not (stored := self.scores(shown)):
            return None
        photo, scores = stored
        width, height = fitted(self.size(shown), LARGEST)
        pixels = to_pixels(scores, height, width)
        return np.array(self.maker.present(photo), np.uint8)[pixels.argmax(0)]

    def mended(
        self, shown: Shown, strokes: Sequence[Stroke] = (), threshold: float | None = None
    ) -> np.ndarray | None:
        """The mask of a training photo with these strokes and this background threshold; None if it
        has no score maps yet. Raises DataError."""
        from tag2mask.masks.mend import mend

        if not (folder := self.score_folder(shown)):
            return None
        if not (folder / MASKS).exists():
            raise DataError("the pseudo masks are not finished; wait until all are made")
        return mend(
            folder, self.photo(shown), self.table.tags, strokes, threshold, self.run.regions
        )

    def threshold(self, shown: Shown) -> float | None:
        """The mean background threshold of a photo's tags, in 0-1 of the highest score; None if
        masks.scores has none."""
        stored = self.scores(shown) if self.run.config.masks.scores == "logits" else None
        if not stored:
            return None
        # A tag's highest relative score is 1, so its share of tag and background gives both. A tag
        # may have no score anywhere.
        background, *tags = stored[1]
        thresholds = [float((background / tag).amin()) for tag in tags if tag.any()]
        return sum(thresholds) / len(thresholds) if thresholds else None

    # ---- the run ---------------------------------------------------------------------------------

    @property
    def unlearned(self) -> bool:
        """Whether there are corrections that the last training of the segmenter did not have."""
        began = stamp(self.run.files.result("segmenter", STARTED))
        return bool(self.corrections) and stamp(self.run.folder / "corrections.jsonl") > began

    @cached_property
    def version(self) -> str:
        """Names this reading of the run: another one may have other photos or tags."""
        return hashlib.sha256(repr(self.state()).encode()).hexdigest()[:12]

    def state(self) -> tuple[int, ...]:
        """Changes when the run has new settings or results: then the page reads them again."""
        files, data = self.run.files, self.run.config.data
        done = (stamp(files.result(stage, DONE)) for stage in STAGE_NAMES)
        return (stamp(files.config), stamp(data) if data else 0, *done)

    def __iter__(self) -> Iterator[Shown]:
        return iter(self.photos.values())
