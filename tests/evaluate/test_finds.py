"""What masks find, by the tags of the photos."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tag2mask.evaluate.finds import count_finds, finds_text, sample_photos
from tag2mask.photos.masks import write_mask
from tag2mask.photos.table import Photo, Table


def masked(folder, photos):
    """A table of (tags, unknown, {number: pixels in the mask}) and its masks in `folder`."""
    table = []
    for i, (tags, unknown, pixels) in enumerate(photos):
        mask = np.zeros(400, np.uint8)
        start = 0
        for number, count in pixels.items():
            mask[start : start + count] = number
            start += count
        write_mask(folder / f"{i}.png", mask.reshape(20, 20))
        table.append(Photo(str(i), folder / f"{i}.png", tags, unknown))
    return Table(("crack", "fray", "hole"), tuple(table))


def test_a_find_is_more_than_twenty_pixels_of_the_tag(tmp_path):
    table = masked(
        tmp_path,
        [
            (("crack",), (), {1: 21}),
            (("crack",), (), {1: 20, 2: 300}),  # too few, and of another tag
            (("crack", "fray"), ("hole",), {1: 100, 3: 100}),
            ((), (), {}),
            ((), (), {3: 20, 255: 200}),
            ((), (), {3: 21}),
            ((), ("fray", "hole"), {1: 400}),  # nobody knows
        ],
    )
    finds = count_finds(table, tmp_path)
    assert finds["tags"] == {
        "crack": {
            "photos": 3,
            "found": 2,
            "area": [21 / 400, pytest.approx((21 + 100) / 800), 100 / 400],
            "covered": 0,
            "others": 4,
            "marked": 1,  # the last, of which only the other tags are unknown
            "covered_others": 1,
            "area_others": 0,
        },
        "fray": {
            "photos": 1,
            "found": 0,
            "area": None,
            "covered": 0,
            "others": 5,
            "marked": 1,
            "covered_others": 0,
            "area_others": 0,
        },
    }
    assert finds["tagged"] == {"photos": 3, "empty": 0}
    assert finds["look_at"] == {"missed": ["1", "2"], "marked": ["5"], "covered": ["6"]}
    assert finds["nothing"] == {"photos": 3, "marked": 1}
    assert finds_text(finds) == (
        "finds 2 of 4 tags (crack 2 of 3, fray 0 of 1) and marks something on 1 of 3 photos of "
        "nothing (33.3 %)"
    )


def test_evidence_says_what_is_smaller_than_a_patch_and_what_is_everywhere(tmp_path):
    """4 x 4 patches on masks of 400 pixels: one patch is 25 pixels."""
    table = masked(tmp_path, [(("crack", "fray"), (), {1: 24, 2: 26}), ((), (), {})])
    maps = np.zeros((3, 4, 4), np.float32)
    maps[1, 0] = (10, 7.1, 6.9, 0)
    maps[2] = 5
    finds = count_finds(table, tmp_path, lambda photo: ((0, 1, 2), maps))
    crack, fray = finds["tags"]["crack"], finds["tags"]["fray"]
    assert (crack["below_patch"], fray["below_patch"]) == (1, 0)
    assert (crack["patch"], crack["middle"]) == (1 / 16, 0)
    assert fray["middle"] == 1


def test_many_tags_are_named_by_the_least_found():
    tags = {str(i): {"photos": 30, "found": i} for i in range(30)}
    text = finds_text({"tags": tags, "nothing": {"photos": 0, "marked": 0}})
    assert "finds 435 of 900 tags (the 20 least found: 0 0 of 30, 1 1 of 30, " in text
    assert "19 19 of 30)" in text and " 20 20 of" not in text


def test_a_sample_has_every_kind_of_photo():
    photos = [
        Photo(f"{i:03}", Path(), (("crack",), ("fray",), ("crack", "hole"), ())[min(i % 50, 3)])
        for i in range(1000)
    ]
    sample = sample_photos(Table(("crack", "fray", "hole"), tuple(photos)))
    assert Counter(photo.tags for photo in sample.photos) == {
        (): 25,
        ("crack",): 20,
        ("fray",): 20,
        ("crack", "hole"): 20,
    }


@pytest.mark.parametrize("unknown", [(), ("crack", "fray", "hole")])
def test_photos_without_tags_are_not_judged(tmp_path, unknown):
    """Where no photo has a tag, nobody said that nothing is there."""
    assert count_finds(masked(tmp_path, [((), unknown, {1: 300})] * 3), tmp_path) is None
