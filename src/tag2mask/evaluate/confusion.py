"""Masks to metrics: one confusion matrix over the whole set, in exact integers.

The protocol:
- Every metric comes from the matrix of all photos. None is a mean over photos.
- Pixels that are 255 (ignore) in the true mask are skipped.
- A predicted 255 is wrong, and its share is reported.
- A class that is in no true mask has no IoU and is in no mean.

C is the number of classes; background is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.errors import DataError
from tag2mask.evaluate.boundary import boundary_counts
from tag2mask.evaluate.objects import by_size, object_scores
from tag2mask.photos.masks import count_pixels, read_mask
from tag2mask.photos.table import IGNORE
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import track

Mask = Path | np.ndarray | Callable[[], np.ndarray]
AHEAD = 16  # pairs in memory per thread: memory use does not grow with the number of masks


def check_mean_over(mean_over: Sequence[str], classes: Sequence[str]) -> None:
    """Raises DataError if `mean_over` names something that is no class."""
    if unknown := set(mean_over) - set(classes):
        names = ", ".join(sorted(unknown))
        raise DataError(f"mean over {names}: no such class; there are {', '.join(classes)}")


@dataclass(frozen=True)
class Result:
    """A confusion matrix and the metrics that follow from it.

    `mean_over`: the classes over which mIoU is the mean; empty: all classes in the true masks.
    """

    classes: tuple[str, ...]  # by number, background first
    matrix: np.ndarray  # (C true, C + 1 predicted) int64 pixels; the last column is a predicted 255
    images: int
    boundary: np.ndarray | None = None  # (2, C) int64: intersection and union of the bands
    mean_over: tuple[str, ...] = ()
    objects: np.ndarray | None = None  # (N, 3): see `object_scores`

    def __post_init__(self) -> None:
        check_mean_over(self.mean_over, self.classes)

    @property
    def in_mean(self) -> np.ndarray:
        """Which classes the means are over: (C,) bool."""
        named = np.array([name in self.mean_over or not self.mean_over for name in self.classes])
        return named & (self.matrix.sum(1) > 0)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union: (C,) in 0-1, NaN for classes that are in no true mask."""
        hits, true, predicted = self._pixels()
        return self._ratio(hits, true + predicted - hits)

    @property
    def precision(self) -> np.ndarray:
        """Share of a class's predicted pixels that are right: (C,) in 0-1, NaN as in `iou`.

        It is 0 for a class that is never predicted.
        """
        hits, _, predicted = self._pixels()
        return self._ratio(hits, predicted)

    @property
    def recall(self) -> np.ndarray:
        """Share of a class's true pixels that are predicted: (C,) in 0-1, NaN as in `iou`."""
        hits, true, _ = self._pixels()
        return self._ratio(hits, true)

    @property
    def boundary_iou(self) -> np.ndarray | None:
        """IoU of the bands along the contours, over the whole set: (C,) in 0-1, NaN as in `iou`.

        None if they were not counted (Cheng et al., "Boundary IoU", CVPR 2021).
        """
        return None if self.boundary is None else self._ratio(self.boundary[0], self.boundary[1])

    @property
    def miou(self) -> float:
        """Mean IoU in 0-1; NaN if no class of the mean is in the true masks."""
        return self.mean(self.iou)

    @property
    def predicted_ignore(self) -> float:
        """Share of the evaluated pixels with a predicted 255, in 0-1."""
        return float(self.matrix[:, -1].sum() / max(int(self.matrix.sum()), 1))

    def mean(self, values: np.ndarray) -> float:
        """(C,) values to their mean over the classes in `in_mean`."""
        return float(values[self.in_mean].mean()) if self.in_mean.any() else float("nan")

    def confusions(self, top: int = 5) -> list[tuple[str, str, float]]:
        """The largest confusions: (true class, predicted class, share of the true class in 0-1).

        Those with the most pixels come first.
        """
        wrong = self.matrix.copy()
        np.fill_diagonal(wrong, 0)
        names = (*self.classes, "ignore")
        order = np.argsort(wrong, axis=None, kind="stable")[::-1][:top]
        pairs = (np.unravel_index(i, wrong.shape) for i in order if wrong.flat[i])
        return [(names[t], names[p], float(wrong[t, p] / self.matrix[t].sum())) for t, p in pairs]

    def summary(self, **stated: Any) -> dict[str, Any]:
        """The entry of metrics.json: metrics in 0-1, None for NaN, and `stated`.

        `stated`: facts that must be reported with a metric: split, labels ("given", "predicted",
        "none"), crf, weights, seed, list_hash (`list_hash` of the photos' names).
        """
        summary: dict[str, Any] = {
            "miou": _plain(self.miou),
            "iou": self._named(self.iou),
            "precision": self._named(self.precision),
            "recall": self._named(self.recall),
            "images": self.images,
            "mean_over": [self.classes[i] for i in np.flatnonzero(self.in_mean)],
            "predicted_ignore": self.predicted_ignore,
            "confusions": self.confusions(),
        }
        if self.objects is not None:
            summary["by_size"] = by_size(self.objects)
        if self.boundary_iou is not None:
            summary["boundary_miou"] = _plain(self.mean(self.boundary_iou))
            summary["boundary_iou"] = self._named(self.boundary_iou)
        return summary | stated

    def _pixels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels of each class that are right, true and predicted: (C,) each."""
        return self.matrix.diagonal(), self.matrix.sum(1), self.matrix[:, :-1].sum(0)

    def _ratio(self, part: np.ndarray, total: np.ndarray) -> np.ndarray:
        return np.where(self.matrix.sum(1) > 0, part / np.maximum(total, 1), np.nan)

    def _named(self, values: np.ndarray) -> dict[str, float | None]:
        return dict(zip(self.classes, map(_plain, values.tolist()), strict=True))


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value


def evaluate_masks(
    pairs: Iterable[tuple[Mask, Mask]],
    classes: Sequence[str] | None,
    workers: int | None = None,
    boundary: bool = False,
    mean_over: Sequence[str] = (),
) -> Result:
    """Pairs of masks (predicted, true) to their metrics. Threads read them.

    A mask is a PNG file, an array (H, W) uint8, or a function that returns one, such as
    `partial(truth.read, photo)`.
    `classes`: names by number, background first; None: the numbers that occur are the names.
    `workers`: threads; None: one for each core. `boundary`: boundary IoU as well.
    Raises DataError with every mask that is missing, has another size or an unknown number.
    """
    counts = np.zeros((256, 256), np.int64)
    bands = np.zeros((2, 256), np.int64)
    images, problems = 0, []
    objects = [np.empty((0, 3))]
    limit = IGNORE if classes is None else len(classes)
    workers = workers or cores()

    def count(pair: tuple[Mask, Mask]) -> tuple[np.ndarray, np.ndarray | int] | str:
        try:
            predicted, truth = (_read(mask) for mask in pair)
            pixels = count_pixels(predicted, truth)
            _check_numbers(pixels, limit)
            return pixels, boundary_counts(predicted, truth) if boundary else 0
        except DataError as error:
            text, files = str(error), [str(mask) for mask in pair if isinstance(mask, Path)]
            has_name = not files or any(name in text for name in files)
            return text if has_name else f"{files[0]}: {text}"

    total = len(pairs) if isinstance(pairs, Sized) else None
    answers = parallel_map(count, pairs, workers, AHEAD * workers)
    for answer in track(answers, "evaluate", total):
        if isinstance(answer, str):
            problems.append(answer)
            continue
        images += 1
        counts += answer[0]
        objects.append(object_scores(answer[0]))
        bands += answer[1]
    if problems:
        raise DataError(problems)
    if not images:
        raise DataError("no mask to evaluate")
    if classes is None:
        used = np.flatnonzero((counts.sum(0) + counts.sum(1))[:IGNORE])
        classes = ("background", *map(str, range(1, int(used.max(initial=0)) + 1)))
    size = len(classes)
    matrix = np.concatenate([counts[:size, :size], counts[:size, IGNORE:]], 1)
    seen_bands = bands[:, :size] if boundary else None
    found = np.concatenate(objects)
    return Result(tuple(classes), matrix, images, seen_bands, tuple(mean_over), found)


def _read(mask: Mask) -> np.ndarray:
    if isinstance(mask, Path):
        return read_mask(mask)
    return mask() if callable(mask) else mask


def _check_numbers(counts: np.ndarray, num_classes: int) -> None:
    """Raises DataError if a (256, 256) count has class numbers that do not exist."""
    for axis, what in ((0, "mask"), (1, "true mask")):
        numbers = np.flatnonzero(counts.sum(axis))
        unknown = numbers[(numbers >= num_classes) & (numbers != IGNORE)]
        if len(unknown):
            raise DataError(
                f"the {what} has {', '.join(map(str, unknown))}; "
                f"class numbers are 0 to {num_classes - 1}, and 255 for ignore"
            )
