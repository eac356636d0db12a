"""What masks find, by the tags of the photos."""

import numpy as np
import pytest

from tag2mask.evaluate import count_finds, finds_text
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
        "crack": {"photos": 3, "found": 2},
        "fray": {"photos": 1, "found": 0},
    }
    assert finds["nothing"] == {"photos": 3, "marked": 1}
    assert finds_text(finds) == (
        "finds 2 of 4 tags (crack 2 of 3, fray 0 of 1) and marks something on 1 of 3 photos of "
        "nothing (33.3 %)"
    )


@pytest.mark.parametrize("unknown", [(), ("crack", "fray", "hole")])
def test_photos_without_tags_are_not_judged(tmp_path, unknown):
    """Where no photo has a tag, nobody said that nothing is there."""
    assert count_finds(masked(tmp_path, [((), unknown, {1: 300})] * 3), tmp_path) is None
