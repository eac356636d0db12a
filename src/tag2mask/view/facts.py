"""Numbers of each photo, computed in the background: classes, size, IoU, doubt.

They are kept in the run folder's view/ and computed again when a mask has changed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from tag2mask.errors import Tag2MaskError
from tag2mask.evaluate.doubt import combined, difference, disagreement, uncertainty
from tag2mask.evaluate.finds import LEAST
from tag2mask.photos.masks import read_mask
from tag2mask.photos.resize import reduced_mask
from tag2mask.photos.table import BACKGROUND, IGNORE
from tag2mask.progress import log
from tag2mask.report.pictures import photo_iou
from tag2mask.view.gallery import Gallery, Shown, stamp

SIDE = 256  # longer side at which masks are compared [pixels]
UNWATCHED = 60  # seconds without a request after which the work waits
DOUBTS = ("agree", "entropy", "crf")  # the measures, in the order of `combined`


def mask_facts(gallery: Gallery, shown: Shown) -> dict[str, Any]:
    """The facts about a photo: the mask's time, shares of its classes, IoU, and doubts."""
    kind = gallery.main_kind(shown)
    if not (path := gallery.mask_file(shown, kind)):
        return {}
    facts, photo = gallery.facts, gallery.photo(shown)
    pixels = facts.of(path, "pixels", lambda file: np.bincount(read_mask(file).ravel()).tolist())
    total = sum(pixels)
    shares = {
        number: count / total
        for number, count in enumerate(pixels)
        if count > LEAST and number not in (BACKGROUND, IGNORE)
    }
    values: dict[str, Any] = {"mask": stamp(path), "shares": shares}
    if shown.id in gallery.truth:
        true = gallery.truth[shown.id]
        values["iou"] = facts.of(path, "iou", lambda file: photo_iou(true(), read_mask(file)))
    pseudo, first, other = (
        gallery.mask_file(shown, name) for name in ("pseudo", "first", "segmenter")
    )
    if pseudo and gallery.score_folder(shown):
        values |= facts.of(pseudo, "scores", lambda file: _score_facts(gallery, shown, file))
    if gallery.model and other:
        if classifiers := first or pseudo:  # two networks that agree may be right
            of = f"agree {gallery.model}"
            values["agree"] = facts.of(
                classifiers, of, lambda file: difference(_small_mask(file), _small_mask(other))
            )
        elif shown.split == "val":
            values["entropy"] = facts.of(other, "uncertainty", lambda _: None)
            if photo.tags:
                found = {gallery.classes[number] for number in shares} - {*photo.unknown}
                values["agree"] = disagreement(photo.tags, found)
    return values


def _small_mask(path: Path) -> np.ndarray:
    return reduced_mask(read_mask(path), SIDE)


def _score_facts(gallery: Gallery, shown: Shown, path: Path) -> dict[str, float]:
    from tag2mask.masks.scores import to_pixels

    stored = gallery.scores(shown)
    assert stored, "its file was there"
    photo, scores = stored
    after = _small_mask(path)
    present = np.array(gallery.maker.present(photo), np.uint8)
    before = present[to_pixels(scores, *after.shape).argmax(0)]
    return {"entropy": uncertainty(scores.numpy()), "crf": difference(before, after)}


@dataclass
class Worker:
    """A thread that computes the facts of all photos, first what is quick, then the segmenter's
    masks. It waits while nobody looks and, with the segmenter, while a training runs.

    `changed` lists photos whose facts are new, in order: a page asks for those after its last.
    """

    gallery: Gallery
    busy: Callable[[], bool]  # whether a training runs
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    seen: float = 0.0  # time of the last request
    predicted: int = 0  # photos whose segmenter's mask is known
    _seen_files: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _stop: Event = field(default_factory=Event)
    _thread: Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self.seen = time.monotonic()
        self._thread = Thread(target=self._run, name="facts", daemon=True)
        self._thread.start()

    def stop(self, wait: float = 0) -> None:
        """Let the thread end after the photo at hand; wait for that [seconds], at the end of the
        program: a network at work then would crash it."""
        self._stop.set()
        if wait and self._thread:
            self._thread.join(wait)

    def look(self, shown: Shown) -> None:
        """Compute the facts of a photo, unless its files are the same as before."""
        gallery = self.gallery
        kinds = (gallery.main_kind(shown), "pseudo", "first", "segmenter")
        files = [gallery.mask_file(shown, kind) for kind in kinds]
        state = tuple(stamp(file) if file else 0 for file in files)
        if self._seen_files.get(shown.id) == state:
            return
        try:
            self.facts[shown.id] = mask_facts(gallery, shown)
        except (Tag2MaskError, OSError) as error:  # a photo or a mask that cannot be read
            self.facts[shown.id] = {"fault": str(error)}
        self._seen_files[shown.id] = state
        self.changed.append(shown.id)

    def doubts(self) -> dict[str, float]:
        """The combined doubt of each photo that has one, training and validation photos apart."""
        doubts: dict[str, float] = {}
        for split in ("train", "val"):
            ids = [shown.id for shown in self.gallery if shown.split == split]
            rows = [[self.facts.get(i, {}).get(name) for name in DOUBTS] for i in ids]
            if ids:
                both = zip(ids, combined(np.array(rows, float)).tolist(), strict=True)
                doubts |= {i: value for i, value in both if value == value}
        return doubts

    def _run(self) -> None:
        while not self._stop.is_set():
            for shown in self.gallery:
                if self._wait():
                    return
                self.look(shown)
            self._predict_all()
            self._stop.wait(2 if self.busy() else 10)

    def _wait(self) -> bool:
        """Wait while nobody looks; whether to end."""
        while time.monotonic() - self.seen > UNWATCHED and not self._stop.is_set():
            self._stop.wait(1)
        return self._stop.is_set()

    def _predict_all(self) -> None:
        gallery = self.gallery
        if not gallery.model:
            return
        count = 0
        for shown in gallery:
            if self._wait() or self.busy():
                return
            if not gallery.predicted(shown).exists():
                try:
                    gallery.predict(shown)
                except (Tag2MaskError, OSError) as error:
                    log.debug(f"view: {shown.photo.path}: {error}")
                    continue
                self.look(shown)
            count += 1
            self.predicted = max(count, self.predicted)
