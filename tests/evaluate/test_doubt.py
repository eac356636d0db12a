import numpy as np
import pytest

from tag2mask.evaluate.doubt import combined, difference, disagreement, uncertainty


def test_masks_differ_by_the_share_of_their_objects():
    a, b = np.zeros((2, 20, 20), np.uint8)
    assert difference(a, b) == 0  # nothing in both
    a[:4, :4], b[:4, 2:6] = 1, 1
    assert difference(a, b) == pytest.approx(16 / 24)  # of 24 pixels in either, 8 are the same
    b[b == 1] = 2
    assert difference(a, b) == 1 and difference(a, a) == 0
    assert difference(a, np.zeros_like(a)) == 1


def test_a_larger_background_changes_no_difference():
    a, b = np.zeros((2, 10, 10), np.uint8)
    a[2:6, 2:6], b[3:7, 2:6] = 3, 3
    wide = [np.pad(mask, 50) for mask in (a, b)]
    assert difference(*wide) == difference(a, b)


def test_uncertainty_is_entropy():
    assert uncertainty(np.full((3, 4, 4), 0.2)) == pytest.approx(1)
    sure = np.zeros((2, 4, 4))
    sure[1] = 1
    assert uncertainty(sure) < 1e-6
    assert uncertainty(np.ones((1, 4, 4))) == 0
    half = np.zeros((2, 1, 2))
    half[:, 0, 0], half[:, 0, 1] = (0.5, 0.5), (1, 0)  # sure background does not count
    assert uncertainty(half) == pytest.approx(1, abs=1e-6)
    rng = np.random.default_rng(0)
    scores = rng.random((4, 5, 6))
    assert uncertainty(scores) == pytest.approx(uncertainty(7 * scores))  # they need not sum to 1


def test_tags_and_mask_disagree_by_what_only_one_has():
    assert disagreement((), ()) == 0 and disagreement(("cat",), ("cat",)) == 0
    assert disagreement(("cat", "dog"), ("cat",)) == 0.5
    assert disagreement(("cat",), ("dog",)) == 1 and disagreement((), ("dog",)) == 1


def test_the_combination_is_the_mean_rank():
    numbers = np.array([[0.1, 5], [0.2, np.nan], [0.9, 7], [np.nan, np.nan], [0.2, 6]])
    assert combined(numbers) == pytest.approx([0, 0.5, 1, np.nan, 0.5], nan_ok=True)
    assert combined(numbers * [1, 1000]) == pytest.approx(combined(numbers), nan_ok=True)
    assert combined(np.array([[0.3]])) == pytest.approx([0])
    assert combined(np.zeros((0, 3))).shape == (0,)
