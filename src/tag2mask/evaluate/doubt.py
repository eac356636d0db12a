"""How doubtful the mask of a photo is. No true mask is needed.

Three numbers say it, each in 0-1, and one orders the photos by all of them:

- `difference` of the pseudo mask and the segmenter's mask: do the two networks agree?
- `uncertainty` of the scores: is one class clearly above the others?
- `difference` of the mask before and after the CRF: how much did the photo's edges change?
"""

from collections.abc import Collection

import numpy as np

from tag2mask.photos.table import BACKGROUND


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Two masks (H, W) uint8 to the share of pixels that differ, in 0-1.

    Only pixels count where at least one of them shows an object: a large background does not make
    two masks alike. 0 if neither shows an object.
    """
    objects = (first != BACKGROUND) | (second != BACKGROUND)
    count = int(objects.sum())
    return float((first != second)[objects].sum() / count) if count else 0.0


def uncertainty(scores: np.ndarray) -> float:
    """Scores (K, h, w) of K classes, background first, to their mean entropy in 0-1.

    1: all classes are equal everywhere. Scores are positive and need not sum to 1. A patch counts
    by its share that is no background. 0 if there is no other class.
    """
    if len(scores) < 2:
        return 0.0
    shares = np.asarray(scores, np.float64).clip(1e-9)
    shares = shares / shares.sum(0)
    entropy = -(shares * np.log(shares)).sum(0) / np.log(len(shares))
    weights = 1 - shares[0]
    return float((entropy * weights).sum() / weights.sum())


def disagreement(tags: Collection[str], found: Collection[str]) -> float:
    """The tags of a photo and the classes in its mask to the share of them in one alone, 0-1."""
    every = {*tags, *found}
    return len({*tags} ^ {*found}) / len(every) if every else 0.0


def combined(numbers: np.ndarray) -> np.ndarray:
    """Doubts of N photos by D measures, (N, D), NaN where there is none, to one number each: (N,).

    The mean of a photo's ranks, each from 0 (least) to 1 (most); equals share their mean rank. NaN
    if a photo has no number. Ranks, because the measures have different scales.
    """
    ranks = np.full(numbers.shape, np.nan)
    for column, values in enumerate(numbers.T):
        known = ~np.isnan(values)
        _, place, counts = np.unique(values[known], return_inverse=True, return_counts=True)
        middle = np.cumsum(counts) - (counts + 1) / 2
        ranks[known, column] = middle[place] / max(known.sum() - 1, 1)
    counted = ~np.isnan(ranks)
    total = np.where(counted, ranks, 0).sum(1)
    return np.where(counted.any(1), total / counted.sum(1).clip(1), np.nan)
