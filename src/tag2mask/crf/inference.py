"""`dense_crf`: checks its inputs, selects the labels, and runs the compiled core or PyTorch."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from tag2mask.config import CRFSettings
from tag2mask.crf.params import LATTICE_FULL
from tag2mask.errors import DataError
from tag2mask.processes import parallel_map
from tag2mask.progress import log

if TYPE_CHECKING:
    from torch import Tensor

try:
    _core: Any = import_module("tag2mask.crf._core")
except ImportError:  # installed without a compiler
    _core = None

MAX_PIXELS = (2**31 - 1) // 6  # a pixel touches up to six lattice points, numbered in 31 bits
TOLERANCE = 1e-4  # a probability may be outside 0..1 by this much, from rounding


def backend() -> str:
    """What runs `dense_crf` on arrays: "c++ (avx2)", "c++ (portable)", or "torch" (no C++ core)."""
    return f"c++ ({_core.isa})" if _core else "torch"


def dense_crf(
    image: "np.ndarray | Tensor",
    probs: "np.ndarray | Tensor",
    params: CRFSettings | None = None,
    labels: Sequence[int] | None = None,
) -> np.ndarray:
    """Refine probabilities along the edges of an image -> (C, H, W) float32, summing to 1.

    Args:
        image: (H, W, 3) uint8, RGB.
        probs: (C, H, W) floating, each in 0..1. They are clipped to 1e-5 and need not sum to 1: a
            factor common to all labels of a pixel has no effect. For a GPU tensor, PyTorch runs on
            that GPU.
        params: `CRFParams`, one of `PRESETS`, or the CRF settings of a run. Default: ViT-PCM's.
        labels: the class numbers that can be in the image (its tags and background). Only these
            compete, which takes less time; every other class gets 0. Default: all classes compete.

    Raises DataError with every problem.
    """
    params = params or CRFSettings()
    pixels, scores = _check_arrays(image, probs)
    device = str(getattr(probs, "device", "cpu"))
    if labels is None:
        return _infer(pixels, scores, params, device=device)
    present = _check_labels(labels, len(scores))
    refined = np.zeros(scores.shape, np.float32)
    refined[present] = _infer(pixels, scores[present], params, device=device)
    return refined


def dense_crf_many(
    pairs: "Iterable[tuple[np.ndarray | Tensor, np.ndarray | Tensor]]",
    params: CRFSettings | None = None,
    labels: Iterable[Sequence[int] | None] | None = None,
    workers: int = 2,
) -> Iterator[np.ndarray]:
    """`dense_crf` of each (image, probs) pair, in order, on `workers` threads with one image each.

    `labels`: the labels of each pair, or None for all. Pairs are read when they are needed; at most
    `workers` + 1 pairs and results are in memory. An error of `dense_crf` is raised in place of the
    result of its pair.
    """
    work = zip(pairs, repeat(None)) if labels is None else zip(pairs, labels, strict=True)
    yield from parallel_map(lambda job: dense_crf(*job[0], params, job[1]), work, workers)


@cache
def _warn_torch() -> None:
    log.warning(
        "the compiled CRF is not installed; PyTorch replaces it and is several times slower. "
        "To install it, install tag2mask again with a C++ compiler"
    )


def _infer(
    image: np.ndarray,
    probs: np.ndarray,
    params: CRFSettings,
    isa: str | None = None,
    device: str = "cpu",
) -> np.ndarray:
    """The CRF on checked arrays; `isa`: "avx2", "portable" or "torch" instead of the best one."""
    if probs[0].size > MAX_PIXELS:
        raise DataError(
            f"the image has {probs[0].size} pixels; the CRF takes at most {MAX_PIXELS}: "
            "reduce the image"
        )
    if _core is None or isa == "torch" or device != "cpu":
        import torch

        from tag2mask.crf.torch_backend import infer

        if _core is None:
            _warn_torch()
        refined = infer(torch.tensor(image), torch.from_numpy(probs).to(device), params)
        return refined.cpu().numpy()
    gaussian = params.gaussian_sxy, params.gaussian_weight
    bilateral = params.bilateral_sxy, params.bilateral_srgb, params.bilateral_weight
    out = np.empty_like(probs)
    try:
        _core.run(image, probs, out, params.iterations, *gaussian, *bilateral, isa or _core.isa)
    except OverflowError:
        raise DataError(LATTICE_FULL) from None
    return out


def _check_arrays(image: Any, probs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as contiguous arrays, (H, W, 3) uint8 and (C, H, W) float32. Raises DataError."""
    pixels, scores = _array(image), _array(probs)
    problems = []
    if pixels.dtype != np.uint8:
        problems.append(f"the image is {pixels.dtype}; give uint8, 0..255")
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        problems.append(f"the image has shape {pixels.shape}; give (H, W, 3), RGB")
    if scores.dtype.kind != "f":
        problems.append(f"the probabilities are {scores.dtype}; give floating numbers")
    if scores.ndim != 3 or scores.size == 0:
        problems.append(
            f"the probabilities have shape {scores.shape}; "
            "give (C, H, W) with at least one label and one pixel"
        )
    elif pixels.ndim == 3 and pixels.shape[:2] != scores.shape[1:]:
        problems.append(
            f"the image is {pixels.shape[0]} x {pixels.shape[1]} and "
            f"the probabilities are {scores.shape[1]} x {scores.shape[2]}"
        )
    if scores.dtype.kind == "f" and scores.size:
        low, high = float(scores.min()), float(scores.max())
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also true of NaN
            problems.append(
                f"the probabilities run from {low:.4g} to {high:.4g}; "
                "give 0..1 (a softmax), without NaN"
            )
    if problems:
        raise DataError(problems, "the CRF's inputs" if len(problems) > 1 else None)
    return np.ascontiguousarray(pixels), np.ascontiguousarray(scores, np.float32)


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float()  # numpy has no bfloat16
        value = value.numpy()
    return np.asarray(value)


def _check_labels(labels: Sequence[int], count: int) -> list[int]:
    present = [int(label) for label in labels]
    if not present or len(set(present)) != len(present) or not set(present) <= set(range(count)):
        raise DataError(
            f"labels is {present}; give class numbers of 0..{count - 1}, at least one, each once"
        )
    return present
