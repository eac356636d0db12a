"""Boundary IoU (Cheng et al., "Boundary IoU", CVPR 2021): agreement along the contours, which plain IoU of large objects hides."""

import numpy as np

from tag2mask.photos.table import IGNORE

WIDTH = 0.02  # of the picture's diagonal, the paper's


def boundary_counts(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Two (H, W) uint8 masks -> (2, 256) int64: for each class the pixels of both bands, and of either. 255 in the truth is skipped."""
    width = max(1, round(WIDTH * float(np.hypot(*truth.shape))))
    ours = boundary_band(predicted, width)
    theirs = boundary_band(truth, width)
    scored = truth != IGNORE
    both = ours & theirs & (predicted == truth) & scored
    intersection, a, b = (
        np.bincount(mask[band], minlength=256)
        for mask, band in ((truth, both), (predicted, ours & scored), (truth, theirs & scored))
    )
    return np.stack([intersection, a + b - intersection])


def boundary_band(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels within `width` [pixels, chessboard distance] of another class or of the picture's edge: (H, W) uint8 -> (H, W) bool.

    For every class at once: what is left of a class after `width` erosions with a 3 x 3 square are the pixels whose window of
    side 2 * width + 1 lies in the picture and holds that class alone, that is, whose lowest and highest number are the same.
    """
    low, high = (
        _window(_window(mask, width, 0, extreme), width, 1, extreme)
        for extreme in (np.minimum, np.maximum)
    )
    band = np.ones(mask.shape, bool)
    inside = np.s_[width:-width, width:-width]
    band[inside] = low[inside] != high[inside]
    return band


def _window(values: np.ndarray, width: int, axis: int, extreme: np.ufunc) -> np.ndarray:
    """Lowest or highest value within `width` along an axis, in log2(width) steps."""
    values = np.moveaxis(values, axis, 0)
    padded = np.pad(values, [(width, width), (0, 0)], mode="edge")
    length, side = 1, 2 * width + 1
    while length < side:
        step = min(length, side - length)
        padded = extreme(padded[:-step], padded[step:])
        length += step
    return np.moveaxis(padded, 0, axis)
