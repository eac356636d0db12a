"""Masks to numbers: one confusion matrix in exact integers over the whole set, and all that follows from it.

Letters: C classes (background is 0). Ignore (255) in the truth is skipped; ignore in a prediction is wrong, and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from tag2mask.errors import DataError
from tag2mask.evaluate.boundary import boundary_counts
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import IGNORE
from tag2mask.processes import cores
from tag2mask.progress import track

Mask = Path | np.ndarray | Callable[[], np.ndarray]
AHEAD = 16  # pairs in flight for each thread: memory stays flat in the number of masks


def count_pixels(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How often each pair of numbers occurs: two (H, W) uint8 -> (256 true, 256 predicted) int64. Raises DataError if sizes differ."""
    if predicted.shape != truth.shape:
        size, true_size = (" x ".join(map(str, mask.shape[::-1])) for mask in (predicted, truth))
        raise DataError(f"the mask is {size}, its truth {true_size} (width x height)")
    pairs = truth.astype(np.uint16) << 8 | predicted
    return np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)


def check_mean_over(mean_over: Sequence[str], classes: Sequence[str]) -> None:
    """Nothing, or DataError naming those of `mean_over` that are no classes."""
    if unknown := set(mean_over) - set(classes):
        raise DataError(
            f"mean over {', '.join(sorted(unknown))}: no such class; there are {', '.join(classes)}"
        )


@dataclass(frozen=True)
class Result:
    """A confusion matrix and the figures that follow from it."""

    classes: tuple[str, ...]  # by number, background first
    matrix: np.ndarray  # (C true, C + 1 predicted) int64 pixels; the last column is a predicted 255
    images: int
    boundary: np.ndarray | None = (
        None  # (2, C) int64: intersection and union of boundary regions [pixels]
    )
    mean_over: tuple[str, ...] = field(
        default=()
    )  # classes that mIoU is the mean of; none: all that occur in the truth

    def __post_init__(self) -> None:
        check_mean_over(self.mean_over, self.classes)

    @property
    def in_mean(self) -> np.ndarray:
        """Which classes the means are over: (C,) bool. A class that the truth never shows has no figure and is in no mean."""
        named = np.array([name in self.mean_over or not self.mean_over for name in self.classes])
        return named & (self.matrix.sum(1) > 0)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class: (C,) in 0-1, NaN where the truth never shows it."""
        hit, true, said = self._counts()
        return self._ratio(hit, true + said - hit)

    @property
    def precision(self) -> np.ndarray:
        """Of the pixels called a class, how many are it: (C,) in 0-1, NaN where the truth never shows it, 0 where nothing was called it."""
        hit, _, said = self._counts()
        return self._ratio(hit, said)

    @property
    def recall(self) -> np.ndarray:
        """Of a class's pixels, how many were found: (C,) in 0-1, NaN where the truth never shows it."""
        hit, true, _ = self._counts()
        return self._ratio(hit, true)

    @property
    def boundary_iou(self) -> np.ndarray | None:
        """IoU of the bands along the contours (Cheng et al., CVPR 2021), over the whole set: (C,) in 0-1; None if not counted."""
        return None if self.boundary is None else self._ratio(self.boundary[0], self.boundary[1])

    @property
    def miou(self) -> float:
        """Mean IoU in 0-1; NaN if no class of the mean occurs."""
        return self.mean(self.iou)

    @property
    def predicted_ignore(self) -> float:
        """Share of the scored pixels that the prediction left at 255, in 0-1."""
        return float(self.matrix[:, -1].sum() / max(int(self.matrix.sum()), 1))

    def mean(self, values: np.ndarray) -> float:
        """Mean of (C,) values over the classes of the mean."""
        return float(values[self.in_mean].mean()) if self.in_mean.any() else float("nan")

    def confusions(self, top: int = 5) -> list[tuple[str, str, float]]:
        """What is taken for what, worst first: (true class, predicted class, share of the true class's pixels in 0-1), by pixels."""
        wrong = self.matrix.copy()
        np.fill_diagonal(wrong, 0)
        names = (*self.classes, "ignore")
        order = np.argsort(wrong, axis=None, kind="stable")[::-1][:top]
        pairs = (np.unravel_index(i, wrong.shape) for i in order if wrong.flat[i])
        return [(names[t], names[p], float(wrong[t, p] / self.matrix[t].sum())) for t, p in pairs]

    def summary(self, **stated: Any) -> dict[str, Any]:
        """The form of metrics.json: figures in 0-1, and what a figure is worthless without.

        `stated`: split, labels ("given", "predicted", "none"), crf, weights, seed, list_hash (`list_hash` of the photos' names).
        """
        summary = {
            "miou": _plain(self.miou),
            "iou": self._named(self.iou),
            "precision": self._named(self.precision),
            "recall": self._named(self.recall),
            "images": self.images,
            "mean_over": [
                name for name, inside in zip(self.classes, self.in_mean, strict=True) if inside
            ],
            "predicted_ignore": self.predicted_ignore,
            "confusions": self.confusions(),
        }
        if self.boundary_iou is not None:
            summary |= {
                "boundary_miou": _plain(self.mean(self.boundary_iou)),
                "boundary_iou": self._named(self.boundary_iou),
            }
        return summary | stated

    def _counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.matrix.diagonal(), self.matrix.sum(1), self.matrix[:, :-1].sum(0)

    def _ratio(self, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        ratio = part / np.maximum(whole, 1)
        return np.where(self.matrix.sum(1) > 0, ratio, np.nan)

    def _named(self, values: np.ndarray) -> dict[str, float | None]:
        return {
            name: _plain(float(value)) for name, value in zip(self.classes, values, strict=True)
        }


def evaluate_masks(
    pairs: Iterable[tuple[Mask, Mask]],
    classes: Sequence[str] | None,
    workers: int | None = None,
    boundary: bool = False,
    mean_over: Sequence[str] = (),
) -> Result:
    """Pairs (predicted, truth) to their figures, read in parallel, memory flat in the number of pairs.

    A mask is a PNG file, an array (H, W) uint8, or a function that returns one (`partial(truth.read, photo)`).
    `classes`: names by number, background first; None: as many as the masks hold, named by number. `workers`: threads, default all cores.
    `boundary`: boundary IoU as well. Raises DataError with every mask that is missing, of another size, or holds an unknown number.
    """
    counts = np.zeros((256, 256), np.int64)
    bands = np.zeros((2, 256), np.int64) if boundary else None
    images, problems = 0, []
    limit = len(classes) if classes is not None else IGNORE

    def one(pair: tuple[Mask, Mask]) -> tuple[np.ndarray, np.ndarray | None] | str:
        try:
            predicted, truth = (_read(mask) for mask in pair)
            found = count_pixels(predicted, truth)
            check_numbers(found, limit)
            return found, boundary_counts(predicted, truth) if boundary else None
        except DataError as error:
            text = str(error)
            named = [str(mask) for mask in pair if isinstance(mask, Path)]
            return (
                text if not named or any(name in text for name in named) else f"{named[0]}: {text}"
            )

    for answer in track(_in_parallel(one, pairs, workers or cores()), "evaluate", _length(pairs)):
        if isinstance(answer, str):
            problems.append(answer)
            continue
        images += 1
        counts += answer[0]
        if bands is not None:
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
    return Result(
        tuple(classes), matrix, images, None if bands is None else bands[:, :size], tuple(mean_over)
    )


def check_numbers(counts: np.ndarray, num_classes: int) -> None:
    """Raises DataError if a (256, 256) count holds class numbers that do not exist."""
    for axis, what in ((0, "mask"), (1, "truth")):
        numbers = np.flatnonzero(counts.sum(axis))
        unknown = numbers[(numbers >= num_classes) & (numbers != IGNORE)]
        if len(unknown):
            raise DataError(
                f"the {what} holds {', '.join(map(str, unknown))}; class numbers are 0 to {num_classes - 1}, and 255 for ignore"
            )


def _read(mask: Mask) -> np.ndarray:
    if isinstance(mask, Path):
        return read_mask(mask)
    return mask() if callable(mask) else mask


def _in_parallel(function: Callable[..., Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """`map` on threads, in no order, taking no more items than it works on. Reading PNGs and counting both release the GIL."""
    source = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future] = {
            pool.submit(function, item) for item in islice(source, workers * AHEAD)
        }
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(function, item) for item in islice(source, len(done))}
            yield from (future.result() for future in done)


def _length(items: Iterable[Any]) -> int | None:
    return len(cast(Sequence, items)) if hasattr(items, "__len__") else None


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value
