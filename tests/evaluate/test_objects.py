"""Objects by size, and peaks of the evidence."""

from pathlib import Path

import numpy as np
import pytest

from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.evaluate.objects import count_peaks, peak_on_object, peaks_text
from tag2mask.photos.table import Photo


def mask(**pixels):
    """100 x 100, `a=(3, 50)`: 50 pixels of class 3, one after the other."""
    values, start = np.zeros(10_000, np.uint8), 0
    for number, count in pixels.values():
        values[start : start + count] = number
        start += count
    return values.reshape(100, 100)


def test_recall_and_iou_by_the_size_of_the_object():
    """Each class of a photo is an object; 49 of 10,000 pixels is below 0.5 %, 50 is not."""
    pairs = [
        (mask(), mask(a=(1, 49))),
        (mask(a=(1, 98)), mask(a=(1, 49))),
        (mask(a=(1, 25), b=(2, 25)), mask(a=(1, 50))),
        (mask(a=(2, 1500)), mask(a=(2, 1000), b=(255, 250))),  # 250 of the 500 wrong are ignored
        (mask(), mask()),
    ]
    sizes = evaluate_masks(pairs, ("background", "crack", "fray")).summary()["by_size"]
    assert sizes == {
        "< 0.5 %": {"objects": 2, "recall": 0.5, "iou": 0.25},
        "0.5 to 2 %": {"objects": 1, "recall": 0.5, "iou": 0.5},
        "> 10 %": {"objects": 1, "recall": 1.0, "iou": 1000 / 1250},
    }


@pytest.mark.parametrize(
    ("row", "column", "on_object"),
    [(47, 36, True), (47, 50, True), (47, 51, False), (64, 53, False)],
)
def test_a_peak_within_16_pixels_is_on_the_object(row, column, on_object):
    """Patches of 10 pixels; the middle of the largest is at row 45, column 35."""
    patches = np.zeros((10, 10))
    patches[4, 3], patches[0, 0] = 2, 1
    thing = np.zeros((100, 100), bool)
    thing[row : row + 3, column : column + 3] = True
    assert peak_on_object(patches, thing) is on_object


def test_a_large_patch_reaches_half_its_side():
    patches = np.eye(4)[:1].repeat(2, 0)  # 2 x 4 patches of 100 pixels; the peak is at (50, 50)
    thing = np.zeros((200, 400), bool)
    thing[50, 98] = True
    assert peak_on_object(patches, thing)
    assert not peak_on_object(patches, np.roll(thing, 4, 1))


def test_peaks_are_counted_for_tags_that_the_true_mask_shows():
    photos = [Photo(str(i), Path(), tags) for i, tags in enumerate([("a",), ("a", "b"), ("b",)])]
    scores = np.zeros((3, 10, 10))
    scores[1, 0, 0] = scores[2, 9, 9] = 1
    truth = {"0": mask(x=(1, 5)), "1": mask(x=(1, 1), y=(2, 1)), "2": mask(x=(1, 50))}
    peaks = count_peaks(
        photos,
        ("background", "a", "b"),
        lambda photo: ((0, 1, 2), scores),
        lambda photo: truth[photo.name],
    )
    assert peaks == {"a": {"photos": 2, "on_object": 2}, "b": {"photos": 1, "on_object": 0}}
    assert peaks_text(peaks).endswith("in 2 of 3 cases (a 2 of 2, b 0 of 1)")
