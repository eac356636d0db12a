"""`dense_crf` and what stands around it: checking what came in, choosing labels, choosing the back end."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from tag2mask.crf.params import NO_ROOM, CRFParams
from tag2mask.errors import DataError
from tag2mask.processes import parallel_map
from tag2mask.progress import log

if TYPE_CHECKING:
    from torch import Tensor

try:
    _core: Any = import_module("tag2mask.crf._core")
except ImportError:  # installed without a compiler
    _core = None

MOST_PIXELS = (
    2**31 - 1
) // 6  # a pixel can touch six lattice points, and those are numbered in 31 bits
SLACK = 1e-4  # how far outside 0..1 rounding may have taken a probability


def backend() -> str:
    """Which code `dense_crf` runs on arrays: "c++ (avx2)", "c++ (portable)", or "torch" where the compiled core is missing."""
    return f"c++ ({_core.isa})" if _core else "torch"


def dense_crf(
    image: "np.ndarray | Tensor",
    probs: "np.ndarray | Tensor",
    params: CRFParams | None = None,
    labels: Sequence[int] | None = None,
) -> np.ndarray:
    """Refine `probs` (C, H, W), each in 0..1, along the edges of `image` (H, W, 3) uint8 RGB -> (C, H, W) float32, summing to 1.

    `labels`: the class numbers that can be in the image (its tags and background). Only those compete, which costs less time;
    every other class gets 0 everywhere, where without `labels` it would keep the pixels it wins. Probabilities are clipped to
    1e-5 and need not sum to 1: a factor common to all labels of a pixel changes nothing. Where `probs` is a tensor on another
    device than the CPU, PyTorch does the work there. Raises DataError with every problem.
    """
    params = params or CRFParams()
    pixels, scores = _arrays(image, probs)
    present = _labels(labels, len(scores))
    if params.image == "deeplab_compat":
        pixels = deeplab_image(pixels)
    device = str(getattr(probs, "device", "cpu"))
    if present is None:
        return _infer(pixels, scores, params, device=device)
    refined = np.zeros(scores.shape, np.float32)
    refined[present] = _infer(pixels, scores[present], params, device=device)
    return refined


def dense_crf_many(
    pairs: "Iterable[tuple[np.ndarray | Tensor, np.ndarray | Tensor]]",
    params: CRFParams | None = None,
    labels: Iterable[Sequence[int] | None] | None = None,
    workers: int = 2,
) -> Iterator[np.ndarray]:
    """`dense_crf` of each (image, probs) pair, in the order given, on `workers` threads, each busy with one image.

    `labels`: one choice of labels for each pair. Pairs are drawn as they are needed: at most `workers` + 1 are held at a time,
    results that wait for their turn included. Raises what `dense_crf` raises, when the turn of that pair comes.
    """
    work = zip(pairs, repeat(None)) if labels is None else zip(pairs, labels, strict=True)
    yield from parallel_map(lambda job: dense_crf(*job[0], params, job[1]), work, workers)


def dense_crf_batch(images: "Tensor", probs: "Tensor", params: CRFParams | None = None) -> "Tensor":
    """As `dense_crf`, on many images of one size at once and on the device of `probs`, in PyTorch.

    images (B, H, W, 3) uint8, probs (B, C, H, W) floating, in 0..1 -> (B, C, H, W) float32. Raises DataError.
    """
    from tag2mask.crf.torch_backend import infer

    params = params or CRFParams()
    if (
        images.ndim != 4
        or probs.ndim != 4
        or images.shape != (len(probs), *probs.shape[2:], 3)
        or not probs.numel()
    ):
        raise DataError(
            f"a batch of images {tuple(images.shape)} and probabilities {tuple(probs.shape)}; give (B, H, W, 3) and (B, C, H, W)"
        )
    if (
        str(images.dtype) != "torch.uint8"
        or not probs.is_floating_point()
        or not ((probs >= -SLACK) & (probs <= 1 + SLACK)).all()
    ):
        raise DataError("give images of uint8 and probabilities of 0..1 (a softmax), without NaN")
    if params.image == "deeplab_compat":
        images = images.new_tensor(
            np.stack([deeplab_image(image) for image in images.cpu().numpy()])
        )
    return infer(images, probs, params)


@cache
def _say_torch() -> None:
    log.warning(
        "the compiled CRF is not installed, PyTorch does its work, several times slower; install again with a C++ compiler"
    )


def _infer(
    image: np.ndarray,
    probs: np.ndarray,
    params: CRFParams,
    isa: str | None = None,
    device: str = "cpu",
) -> np.ndarray:
    if probs[0].size > MOST_PIXELS:
        raise DataError(
            f"the image has {probs[0].size} pixels; the CRF takes up to {MOST_PIXELS}, so give it a smaller one"
        )
    if _core is None or isa == "torch" or device != "cpu":
        import torch

        from tag2mask.crf.torch_backend import infer

        if _core is None:
            _say_torch()
        return (
            infer(torch.tensor(image)[None], torch.from_numpy(probs)[None].to(device), params)[0]
            .cpu()
            .numpy()
        )
    kernels = (
        params.gaussian_sxy,
        params.gaussian_weight,
        params.bilateral_sxy,
        params.bilateral_srgb,
        params.bilateral_weight,
    )
    out = np.empty_like(probs)
    try:
        _core.run(image, probs, out, params.iterations, *kernels, isa or _core.isa)
    except OverflowError:
        raise DataError(NO_ROOM) from None
    return out


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
        problems.append(
            f"the probabilities have shape {scores.shape}; give at least one label and one pixel"
        )
    elif pixels.ndim == 3 and pixels.shape[:2] != scores.shape[1:]:
        problems.append(
            f"the image is {pixels.shape[0]} x {pixels.shape[1]} and the probabilities are {scores.shape[1]} x {scores.shape[2]}"
        )
    if scores.dtype.kind == "f" and scores.size:
        low, high = float(scores.min()), float(scores.max())
        if not (low >= -SLACK and high <= 1 + SLACK):  # also true of NaN
            problems.append(
                f"the probabilities run from {low:.4g} to {high:.4g}; give 0..1 (a softmax), without NaN"
            )
    if problems:
        raise DataError(problems, "what the CRF was given" if len(problems) > 1 else None)
    return np.ascontiguousarray(pixels), np.ascontiguousarray(scores, np.float32)


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (
            value.float() if value.is_floating_point() else value
        ).numpy()  # numpy knows no bfloat16
    return np.asarray(value)


def _labels(labels: Sequence[int] | None, count: int) -> list[int] | None:
    if labels is None:
        return None
    present = [int(label) for label in labels]
    if (
        not present
        or len(set(present)) != len(present)
        or min(present) < 0
        or max(present) >= count
    ):
        raise DataError(
            f"labels is {present}; give at least one class number of 0..{count - 1}, none twice"
        )
    return present


def deeplab_image(image: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) as deeplab-pytorch and CLIP-ES hand it to their CRF: BGR, mean taken off, cast so that negatives wrap."""
    mean_bgr = np.array([104.008, 116.669, 122.675], np.float32)
    return np.ascontiguousarray(
        np.trunc(image[..., ::-1] - mean_bgr).astype(np.int16).astype(np.uint8)
    )
