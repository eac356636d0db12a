"""Pictures made smaller, scores made larger. NumPy and Pillow alone: PyTorch is not imported."""

import numpy as np
from PIL import Image


def fitted(size: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Two sides [pixels], reduced so that the longer one is at most `longest`."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def reduced(image: Image.Image, longest: int) -> Image.Image:
    """The picture with its longer side reduced to `longest` pixels; a smaller one unchanged."""
    size = fitted(image.size, longest)
    return image.resize(size, Image.Resampling.BILINEAR) if size != image.size else image


def reduced_mask(mask: np.ndarray, longest: int) -> np.ndarray:
    """A mask (H, W) uint8 with its longer side reduced to `longest` pixels."""
    height, width = fitted(mask.shape, longest)
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def enlarged(scores: np.ndarray, size: tuple[int, int], corners: bool = False) -> np.ndarray:
    """(..., h, w) float32 to (..., H, W), bilinear; `size` is (W, H). A value belongs to the middle
    of its square of pixels; with `corners`, the values at the corners are those of the corners: as
    in `torch.nn.functional.interpolate`, with its align_corners."""
    if scores.shape[:-3:-1] == size:
        return scores
    wide = _between(scores, size[0], -1, corners)
    return _between(wide, size[1], -2, corners)


def _between(scores: np.ndarray, length: int, axis: int, corners: bool) -> np.ndarray:
    """Linear interpolation along an axis to this length."""
    last = scores.shape[axis] - 1
    if corners:
        place = np.linspace(0, last, length)
    else:
        place = ((np.arange(length) + 0.5) * ((last + 1) / length) - 0.5).clip(0, last)
    low = place.astype(np.intp)
    share = (place - low).astype(np.float32).reshape(-1, *[1] * (-1 - axis))
    lower = scores.take(low, axis)
    higher = scores.take(np.minimum(low + 1, last), axis)
    higher -= lower
    higher *= share
    higher += lower
    return higher


def likeliest(probs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scores (C, h, w) to the likeliest class of each pixel: (H, W) uint8; `size` is (W, H).

    The scores must sum to 1 over the classes.
    """
    if probs.shape[:0:-1] == size:
        return probs.argmax(0).astype(np.uint8)
    best = np.full((size[1], size[0]), -1, np.float32)
    mask = np.zeros(best.shape, np.uint8)
    # One class at a time: memory does not grow with their number.
    for number, highest in enumerate(probs.max((1, 2)).tolist()):
        if highest * len(probs) < 1:
            continue  # the likeliest of C classes has at least 1/C
        score = enlarged(probs[number], size)
        better = score > best
        best[better], mask[better] = score[better], number
    return mask
