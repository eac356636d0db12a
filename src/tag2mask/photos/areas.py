"""What a mask shows: pixels, regions and probabilities of each class, counted band by band."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tag2mask.photos.table import BACKGROUND, IGNORE

Row = dict[str, Any]


def share_text(share: float) -> str:
    """A share in 0-1 as percent with two digits: "38", "1.4", "0.12"."""
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def area_text(area: Sequence[float]) -> str:
    """Smallest, median and largest share in 0-1: "1.4 % (0.12 to 38)"."""
    low, middle, high = map(share_text, area)
    return f"{middle} % ({low} to {high})"


# The columns of predictions.csv.
COLUMNS = (
    "file",
    "mask",
    "class",
    "area_percent",
    "pixels",
    "regions",
    "mean_probability",
    "largest_probability",
)


class Areas:
    """Counts of a mask, which is given in bands of whole rows, from the top."""

    def __init__(self, classes: Sequence[str]):
        self.classes = classes
        self.pixels = np.zeros(256, np.int64)
        self.regions = np.zeros(256, np.int64)
        self._sum, self._largest = np.zeros(256), np.zeros(256)
        # Runs of the last row: first pixel, pixel after the last, class, number of their region.
        self._last = np.zeros((0, 4), np.int64)

    def add(self, mask: np.ndarray, probs: np.ndarray) -> None:
        """The next band: class numbers (h, W) uint8, and in each pixel the network's probability of
        that class (h, W)."""
        step = max(1, (1 << 20) // mask.shape[1])  # counting takes many bytes a pixel
        for top in range(0, len(mask), step):
            self._add(mask[top : top + step], probs[top : top + step])

    def _add(self, mask: np.ndarray, probs: np.ndarray) -> None:
        flat, values = mask.ravel(), probs.ravel()
        self.pixels += np.bincount(flat, minlength=256)
        self._sum += np.bincount(flat, values, minlength=256)
        for number in np.flatnonzero(np.bincount(flat)):
            largest = values[flat == number].max()
            self._largest[number] = max(self._largest[number], largest)
        self._count_regions(mask)

    def _count_regions(self, mask: np.ndarray) -> None:
        """Regions are runs less the links between them that join two regions."""
        runs, row = _runs(mask)
        above = self._last
        height, width = mask.shape
        # A position that grows from run to run, also from row to row, lets one search find all runs
        # of the next row that touch.
        stride = width + 2
        first = np.concatenate([above[:, 0], (row + 1) * stride + runs[:, 0]])
        end = np.concatenate([above[:, 1], (row + 1) * stride + runs[:, 1]])
        number = np.concatenate([above[:, 2], runs[:, 2]])
        parents = [*above[:, 3].tolist(), *range(len(above), len(first))]
        low = np.searchsorted(end, first + stride)  # corners touch, too
        high = np.searchsorted(first, end + stride, side="right")
        counts = (high - low).clip(0)
        one = np.repeat(np.arange(len(first)), counts)
        other = np.arange(len(one)) - np.repeat(counts.cumsum() - counts, counts) + low[one]
        same = number[one] == number[other]
        self.regions += np.bincount(runs[:, 2], minlength=256)
        for a, b, of in zip(*(v[same].tolist() for v in (one, other, number[one])), strict=True):
            root_a, root_b = _root(parents, a), _root(parents, b)
            if root_a != root_b:
                parents[max(root_a, root_b)] = min(root_a, root_b)
                self.regions[of] -= 1
        bottom = np.flatnonzero(first >= height * stride)
        roots = [_root(parents, place) for place in bottom.tolist()]
        # Numbers of this band's runs become places among the runs of its last row.
        place_of: dict[int, int] = {}
        labels = [place_of.setdefault(root, place) for place, root in enumerate(roots)]
        last = [first[bottom] % stride, end[bottom] - height * stride, number[bottom], labels]
        self._last = np.stack([np.asarray(v, np.int64) for v in last], 1)

    def rows(self, file: str = "", mask: str = "") -> list[Row]:
        """A dictionary for each class in the mask, by class number, with the keys COLUMNS.

        A mask that is all background has one: its class is None, and so are its probabilities.
        """
        total = int(self.pixels.sum())
        shown = [n for n in np.flatnonzero(self.pixels).tolist() if n not in (BACKGROUND, IGNORE)]
        rows: list[tuple[Any, ...]] = [
            (
                self.classes[n],
                round(100 * int(self.pixels[n]) / total, 4),
                int(self.pixels[n]),
                int(self.regions[n]),
                round(float(self._sum[n] / self.pixels[n]), 4),
                round(float(self._largest[n]), 4),
            )
            for n in shown
        ] or [(None, 0.0, 0, 0, None, None)]
        return [dict(zip(COLUMNS, (file, mask, *row), strict=True)) for row in rows]


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of equal class numbers within a row, without background and ignore, row by row: (first
    pixel, pixel after the last, class) (N, 3) int64, and the row of each (N,)."""
    edges = np.ones((len(mask), mask.shape[1] + 1), bool)
    edges[:, 1:-1] = mask[:, 1:] != mask[:, :-1]
    row, column = np.nonzero(edges)
    is_run = row[1:] == row[:-1]
    row, first, end = row[:-1][is_run], column[:-1][is_run], column[1:][is_run]
    number = mask[row, first].astype(np.int64)
    objects = (number != BACKGROUND) & (number != IGNORE)
    return np.stack([first, end, number], 1)[objects], row[objects]


def _root(parents: list[int], place: int) -> int:
    while parents[place] != place:
        parents[place] = place = parents[parents[place]]
    return place
