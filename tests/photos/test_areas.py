"""Pixels, regions and probabilities of each class in a mask, against SciPy."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from tag2mask.photos.areas import COLUMNS, Areas

CLASSES = ("background", "cat", "dog")


@pytest.mark.parametrize("seed", range(40))
def test_counts_do_not_depend_on_the_bands(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    numbers, shares = (0, 1, 2, 255), (0.5, 0.25, 0.2, 0.05)
    mask = rng.choice(numbers, (height, width), p=shares).astype(np.uint8)
    probs = rng.random((height, width), np.float32)
    areas = Areas(CLASSES)
    cuts = sorted({0, height, *rng.integers(0, height + 1, 3).tolist()})
    for top, bottom in pairwise(cuts):
        areas.add(mask[top:bottom], probs[top:bottom])
    rows = {row["class"]: row for row in areas.rows("a.jpg", "a.png")}
    assert list(rows) == [CLASSES[n] for n in (1, 2) if (mask == n).any()] or list(rows) == [None]
    for number in set(np.unique(mask).tolist()) & {1, 2}:
        here, row = mask == number, rows[CLASSES[number]]
        assert row["regions"] == ndimage.label(here, np.ones((3, 3)))[1]
        assert row["pixels"] == here.sum()
        assert row["area_percent"] == pytest.approx(100 * here.mean(), abs=1e-4)
        assert row["mean_probability"] == pytest.approx(probs[here].mean(), abs=1e-4)
        assert row["largest_probability"] == pytest.approx(probs[here].max(), abs=1e-4)


def test_a_ring_a_spiral_and_what_touches_at_a_corner_are_one_region_each():
    ring = ["#####", "#...#", "#####"]
    spiral = ["#####", "....#", "###.#", "#...#", "#####"]
    corner = ["#..", ".#.", "..#"]
    fork = ["#.#.#", "#####"]
    for drawing in (ring, spiral, corner, fork):
        mask = np.array([[sign == "#" for sign in line] for line in drawing], np.uint8)
        for step in (1, 2, len(mask)):
            areas = Areas(CLASSES)
            for top in range(0, len(mask), step):
                areas.add(mask[top : top + step], np.ones(mask[top : top + step].shape))
            assert areas.rows()[0]["regions"] == 1, (drawing, step)


def test_a_mask_that_is_all_background_has_one_row():
    areas = Areas(CLASSES)
    areas.add(np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.float32))
    assert areas.rows("a.jpg", "a.png") == [
        dict(zip(COLUMNS, ("a.jpg", "a.png", None, 0.0, 0, 0, None, None), strict=True))
    ]
