"""The dense CRF against pydensecrf, and against what people hand it."""

import numpy as np
import pytest
import torch

from tag2mask.crf import PRESETS, CRFParams, deeplab_image, dense_crf
from tag2mask.errors import ConfigError, DataError

densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2, the oracle, is not installed")
from pydensecrf.utils import unary_from_softmax  # noqa: E402


def pydensecrf(image, probs, params):
    crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(probs))
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probs)))
    crf.addPairwiseGaussian(sxy=params.gaussian_sxy, compat=params.gaussian_weight)
    crf.addPairwiseBilateral(sxy=params.bilateral_sxy, srgb=params.bilateral_srgb, rgbim=image.copy(), compat=params.bilateral_weight)
    return np.array(crf.inference(params.iterations)).reshape(probs.shape)


def scene(height, width, labels, seed=0):
    """A picture of soft blobs with noise, and probabilities that follow it loosely."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 40
    waves = rng.normal(size=(labels + 3, 5))
    field = np.stack([a * np.sin(b * x + c * y + d) + e for a, b, c, d, e in waves])
    image = np.clip(128 + 60 * field[:3].transpose(1, 2, 0) + rng.normal(size=(height, width, 3)) * 6, 0, 255).astype(np.uint8)
    scores = np.exp(1.5 * field[3:])
    return image, (scores / scores.sum(0)).astype(np.float32)


def assert_agrees(ours, theirs):
    difference = np.abs(ours - theirs)
    assert (ours.argmax(0) == theirs.argmax(0)).mean() >= 0.9999
    assert difference.mean() < 1e-6
    assert np.quantile(difference, 0.9999) < 1e-4


@pytest.mark.parametrize("preset", ["vit_pcm", "toco", "irn"])
@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 9, 3), (7, 1, 1), (33, 45, 4), (64, 60, 21)])
def test_agrees_with_pydensecrf(preset, shape):
    image, probs = scene(*shape)
    assert_agrees(dense_crf(image, probs, PRESETS[preset]), pydensecrf(image, probs, PRESETS[preset]))


def test_labels_present_alone_compete():
    image, probs = scene(30, 40, 6)
    q = dense_crf(image, probs, labels=[0, 4])
    assert (q[[1, 2, 3, 5]] == 0).all()
    np.testing.assert_allclose(q.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(q[[0, 4]], dense_crf(image, probs[[0, 4]]))


def test_takes_tensors_and_any_floating_type_and_layout():
    image, probs = scene(12, 14, 3)
    q = dense_crf(image, probs)
    np.testing.assert_array_equal(q, dense_crf(torch.from_numpy(image), torch.from_numpy(probs).requires_grad_()))
    np.testing.assert_allclose(q, dense_crf(image, torch.from_numpy(probs).bfloat16()), atol=0.1)
    np.testing.assert_array_equal(q, dense_crf(np.asfortranarray(image), np.asfortranarray(probs.astype(np.float64))))


def test_a_factor_common_to_all_labels_changes_nothing():
    image, probs = scene(12, 14, 3)
    np.testing.assert_allclose(dense_crf(image, probs * 0.5), dense_crf(image, probs), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda i, p: (i, np.where(p > p.mean(), np.nan, p)), "nan"),
        (lambda i, p: (i, -p), "run from -"),
        (lambda i, p: (i, p * 9), "0..1"),
        (lambda i, p: (i, p[0]), "(C, H, W)"),
        (lambda i, p: (i, p[:0]), "at least one label"),
        (lambda i, p: (i, p[:, :-1]), "the image is 12 x 14 and the probabilities are 11 x 14"),
        (lambda i, p: (i, (p * 255).astype(np.uint8)), "floating"),
        (lambda i, p: (i[..., :2], p), "(H, W, 3)"),
        (lambda i, p: (i / 255, p), "uint8"),
    ],
)
def test_says_what_is_wrong_with_the_input(change, said):
    with pytest.raises(DataError) as error:
        dense_crf(*change(*scene(12, 14, 3)))
    assert said in str(error.value)


def test_says_all_that_is_wrong_at_once():
    image, probs = scene(12, 14, 3)
    with pytest.raises(DataError) as error:
        dense_crf(image / 255, probs[:, 1:] * 9)
    assert len(error.value.problems) == 3


@pytest.mark.parametrize("labels", [[], [0, 0], [3], [-1]])
def test_refuses_labels_that_are_no_choice(labels):
    with pytest.raises(DataError, match="labels"):
        dense_crf(*scene(4, 4, 3), labels=labels)


def test_refuses_parameters_out_of_range_all_at_once():
    with pytest.raises(ConfigError) as error:
        CRFParams(iterations=-1, bilateral_srgb=0, gaussian_weight=float("nan"), image="bgr")
    assert all(name in str(error.value) for name in ("iterations", "bilateral_srgb", "gaussian_weight", "image"))


def test_no_iterations_give_the_probabilities_back():
    image, probs = scene(8, 8, 3)
    np.testing.assert_allclose(dense_crf(image, probs, CRFParams(iterations=0)), probs, atol=1e-5)


def test_compatible_image_wraps():
    image = np.array([[[0, 200, 255]]], np.uint8)  # BGR: 255 - 104.008, 200 - 116.669, 0 - 122.675
    assert deeplab_image(image).tolist() == [[[150, 83, 256 - 122]]]
