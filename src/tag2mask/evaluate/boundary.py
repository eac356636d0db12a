"""Boundary IoU: agreement along the contours, which plain IoU of large objects hides.

Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.
"""

import numpy as np

from tag2mask.photos.table import IGNORE

WIDTH = 0.02  # of the picture's diagonal, as in the paper


def boundary_counts(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Two masks (H, W) uint8 to the intersection and union of their bands: (2, 256) int64 pixels.

    Pixels that are 255 in the true mask are skipped.
    """
    width = max(1, round(WIDTH * float(np.hypot(*truth.shape))))
    scored = truth != IGNORE
    predicted_band = boundary_band(predicted, width) & scored
    true_band = boundary_band(truth, width) & scored
    both = predicted_band & true_band & (predicted == truth)
    intersection, a, b = (
        np.bincount(numbers, minlength=256)
        for numbers in (truth[both], predicted[predicted_band], truth[true_band])
    )
    return np.stack([intersection, a + b - intersection])


def boundary_band(mask: np.ndarray, width: int) -> np.ndarray:
    """A mask (H, W) uint8 to its band, (H, W) bool.

    The band: pixels within `width` [pixels, chessboard distance] of another class or of the
    picture's edge. These are, for every class at once, the pixels that `width` erosions with a
    3 x 3 square remove: a pixel remains if the window of side 2 * width + 1 around it is inside the
    picture and has only one class, so that its lowest and highest number are the same.
    """
    low, high = (
        _window(_window(mask, width, extreme).T, width, extreme).T
        for extreme in (np.minimum, np.maximum)
    )
    band = np.ones(mask.shape, bool)
    inside = np.s_[width:-width, width:-width]
    band[inside] = low[inside] != high[inside]
    return band


def _window(values: np.ndarray, width: int, extreme: np.ufunc) -> np.ndarray:
    """The lowest or highest value within `width` rows, in log2(width) steps."""
    padded = np.pad(values, [(width, width), (0, 0)], mode="edge")
    length, side = 1, 2 * width + 1
    while length < side:
        step = min(length, side - length)
        padded = extreme(padded[:-step], padded[step:])
        length += step
    return padded
