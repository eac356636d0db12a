"""`dense_crf` and what stands around it: checking what came in, choosing labels, choosing the back end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tag2mask.crf.params import CRFParams
from tag2mask.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


def backend() -> str:
    """Which code `dense_crf` runs: "torch"."""
    return "torch"


def dense_crf(
    image: "np.ndarray | Tensor", probs: "np.ndarray | Tensor", params: CRFParams | None = None, labels: Sequence[int] | None = None
) -> np.ndarray:
    """Refine `probs` (C, H, W), each in 0..1, along the edges of `image` (H, W, 3) uint8 RGB -> (C, H, W) float32, summing to 1.

    `labels`: the class numbers that can be in the image (its tags and background). Only those compete, which costs less time;
    every other class gets 0 everywhere, where without `labels` it would keep the pixels it wins. Probabilities are clipped to
    1e-5 and need not sum to 1: a factor common to all labels of a pixel changes nothing. Raises DataError with every problem.
    """
    params = params or CRFParams()
    pixels, scores = _arrays(image, probs)
    present = _labels(labels, len(scores))
    if params.image == "deeplab_compat":
        pixels = deeplab_image(pixels)
    if present is None:
        return _infer(pixels, scores, params)
    refined = np.zeros(scores.shape, np.float32)
    refined[present] = _infer(pixels, scores[present], params)
    return refined


def _infer(image: np.ndarray, probs: np.ndarray, params: CRFParams) -> np.ndarray:
    import torch

    from tag2mask.crf.torch_backend import infer

    return infer(torch.from_numpy(image)[None], torch.from_numpy(probs)[None], params)[0].numpy()


def _arrays(image: Any, probs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as contiguous arrays, (H, W, 3) uint8 and (C, H, W) float32, or DataError with all that is wrong with them."""
    pixels, scores = _array(image), _array(probs)
    problems = []
    if pixels.dtype != np.uint8:
        problems.append(f"the image is {pixels.dtype}; give uint8, 0..255")
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        problems.append(f"the image has shape {pixels.shape}; give (H, W, 3), RGB")
    if scores.dtype.kind != "f":
        problems.append(f"the probabilities are {scores.dtype}; give floating numbers")
    if scores.ndim != 3:
        problems.append(f"the probabilities have shape {scores.shape}; give (C, H, W)")
    elif scores.size == 0:
        problems.append(f"the probabilities have shape {scores.shape}; give at least one label and one pixel")
    elif pixels.ndim == 3 and pixels.shape[:2] != scores.shape[1:]:
        problems.append(
            f"the image is {pixels.shape[0]} x {pixels.shape[1]} and the probabilities are {scores.shape[1]} x {scores.shape[2]}"
        )
    if scores.dtype.kind == "f" and scores.size:
        low, high = float(scores.min()), float(scores.max())
        if not (low >= -1e-4 and high <= 1 + 1e-4):  # also true of NaN
            problems.append(f"the probabilities run from {low:.4g} to {high:.4g}; give 0..1 (a softmax), without NaN")
    if problems:
        raise DataError(problems, "what the CRF was given" if len(problems) > 1 else None)
    return np.ascontiguousarray(pixels), np.ascontiguousarray(scores, np.float32)


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()  # numpy knows no bfloat16
    return np.asarray(value)


def _labels(labels: Sequence[int] | None, count: int) -> list[int] | None:
    if labels is None:
        return None
    present = [int(label) for label in labels]
    if not present or len(set(present)) != len(present) or min(present) < 0 or max(present) >= count:
        raise DataError(f"labels is {present}; give at least one class number of 0..{count - 1}, none twice")
    return present


def deeplab_image(image: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) as deeplab-pytorch and CLIP-ES hand it to their CRF: BGR, mean taken off, cast so that negatives wrap."""
    mean_bgr = np.array([104.008, 116.669, 122.675], np.float32)
    return np.ascontiguousarray(np.trunc(image[..., ::-1] - mean_bgr).astype(np.int16).astype(np.uint8))
