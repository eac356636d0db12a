"""pydensecrf as the oracle, images and probabilities to run it on, and what counts as agreement."""

import numpy as np
import pytest

from tag2mask.crf import CRFParams


def pydensecrf(image, probs, params):
    densecrf = pytest.importorskip(
        "pydensecrf.densecrf", reason="pydensecrf2, the oracle, is not installed"
    )
    from pydensecrf.utils import unary_from_softmax

    crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(probs))
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probs)))
    if params.gaussian_weight:
        crf.addPairwiseGaussian(sxy=params.gaussian_sxy, compat=params.gaussian_weight)
    if params.bilateral_weight:
        sxy, srgb, weight = params.bilateral_sxy, params.bilateral_srgb, params.bilateral_weight
        crf.addPairwiseBilateral(
            sxy=sxy, srgb=srgb, rgbim=np.array(image, order="C"), compat=weight
        )
    return np.array(crf.inference(params.iterations)).reshape(probs.shape)


def scene(height, width, labels, seed=0, noise=6.0):
    """An image of soft blobs with noise, and probabilities that roughly follow it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 40
    waves = rng.normal(size=(labels + 3, 5))
    field = np.stack([a * np.sin(b * x + c * y + d) + e for a, b, c, d, e in waves])
    image = np.clip(
        128 + 60 * field[:3].transpose(1, 2, 0) + rng.normal(size=(height, width, 3)) * noise,
        0,
        255,
    ).astype(np.uint8)
    return image, softmax(1.5 * field[3:])


def probabilities(height, width, labels, seed=0):
    """Smooth probabilities that are independent of the image."""
    from PIL import Image

    grid = (
        np.random.default_rng(seed)
        .normal(size=(labels, height // 40 + 2, width // 40 + 2))
        .astype(np.float32)
    )
    return softmax(
        3
        * np.stack(
            [
                np.asarray(Image.fromarray(g).resize((width, height), Image.Resampling.BICUBIC))
                for g in grid
            ]
        )
    )


def softmax(scores):
    scores = np.exp(scores - scores.max(0))
    return (scores / scores.sum(0)).astype(np.float32)


def crf_params(iterations, gaussian, bilateral):
    """CRFParams of (sxy, weight) and (sxy, srgb, weight)."""
    return CRFParams(
        iterations=iterations,
        gaussian_sxy=gaussian[0],
        gaussian_weight=gaussian[1],
        bilateral_sxy=bilateral[0],
        bilateral_srgb=bilateral[1],
        bilateral_weight=bilateral[2],
    )


def assert_agrees(ours, theirs):
    difference = np.abs(ours - theirs)
    assert difference.mean() < 1e-6
    assert np.quantile(difference, 0.9999) < 1e-4
    # If two labels are equally likely up to rounding, either may win.
    top = np.sort(theirs, 0)[-2:]
    certain = (top[-1] - top[0] > 1e-5) | (len(theirs) == 1)
    assert ((ours.argmax(0) == theirs.argmax(0)) | ~certain).mean() >= 0.9999
