import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tag2mask.evaluate.boundary import boundary_band
from tag2mask.evaluate.confusion import evaluate_masks


def eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """The definition: `steps` erosions with a 3 x 3 square; the outside is not in the mask."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        height, width = mask.shape
        mask = np.all(
            [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0
        )
    return mask


@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        elements=st.sampled_from([0, 1, 2, 255]),
    ),
    st.integers(1, 4),
)
def test_band_equals_repeated_erosion_of_each_class(mask, width):
    band = boundary_band(mask, width)
    for number in np.unique(mask):
        inside = mask == number
        assert np.array_equal(band & inside, inside & ~eroded(inside, width))


def test_a_shifted_square_by_hand():
    truth = np.zeros((30, 40), np.uint8)  # diagonal 50: bands of 1 pixel
    truth[10:20, 10:20] = 1
    predicted = np.roll(truth, 1, axis=1)
    result = evaluate_masks([(predicted, truth)], ("background", "square"), boundary=True)
    # Rings of 36 pixels, one column apart: 9 pixels each of the top and bottom edge in both.
    assert result.boundary_iou[1] == pytest.approx(18 / (36 + 36 - 18))
    assert result.iou[1] == pytest.approx(90 / 110)
    same = evaluate_masks([(truth, truth)], ("background", "square"), boundary=True)
    assert same.boundary_iou.tolist() == [1, 1]


def test_ignore_in_the_truth_is_not_scored():
    truth = np.zeros((30, 40), np.uint8)
    truth[10:20, 10:20] = 1
    predicted = truth.copy()
    predicted[:, 20:30] = 1
    truth[:, 20:] = 255
    result = evaluate_masks([(predicted, truth)], ("background", "square"), boundary=True)
    assert result.boundary is not None and result.boundary[1].sum() <= (truth != 255).sum()
    assert result.iou[1] == 1
