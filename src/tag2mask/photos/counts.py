"""The one confusion count: which class number lies where the ground truth shows which."""

import numpy as np

from tag2mask.errors import DataError


def count_pixels(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Two masks (H, W) uint8 to pixels per pair of numbers: (256 true, 256 predicted) int64.

    255 is counted like every other number. Raises DataError if the sizes differ.
    """
    if predicted.shape != truth.shape:
        size, true_size = (" x ".join(map(str, mask.shape[::-1])) for mask in (predicted, truth))
        raise DataError(f"the mask is {size}, the ground truth {true_size} (width x height)")
    pairs = truth.astype(np.uint16) << 8 | predicted
    return np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
