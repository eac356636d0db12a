"""The table: three values of a tag, and photos of nothing."""

from pathlib import Path

import numpy as np
import pytest

from tag2mask.formats import load_table
from tag2mask.photos.table import Photo, Table

TAGS = ("cat", "cow", "dog")


def table(*photos):
    """A table of photos, given as (present, unknown)."""
    own = tuple(Photo(str(i), Path(f"{i}.png"), *tags) for i, tags in enumerate(photos))
    return Table(TAGS, own)


def test_a_label_is_one_zero_or_not_a_number():
    three = table((("cat",), ("dog",)), ((), TAGS), (TAGS, ()), ((), ()))
    labels = three.labels
    assert labels.dtype == np.float32
    assert np.array_equal(
        labels,
        [[1, 0, np.nan], [np.nan] * 3, [1, 1, 1], [0, 0, 0]],
        equal_nan=True,
    )
    assert np.array_equal(three.multi_hot, [[1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0]])
    assert three.with_unknown == 2


def test_nothing_is_on_a_photo_of_which_every_tag_is_absent():
    data = table((("cat",), ()), ((), ()), ((), ("cow",)), (("dog",), ("cow",)), ((), ()))
    assert [photo.of_nothing for photo in data.photos] == [False, True, False, False, True]
    assert data.nothing == (1, 4)
    assert [photo.name for photo in data.not_nothing] == ["0", "2", "3"]


def test_where_no_photo_has_a_tag_none_is_of_nothing():
    data = table(((), ()), ((), ()))
    assert data.nothing == () and data.not_nothing == data.photos


@pytest.mark.parametrize("column", [True, False])
def test_a_table_without_a_column_of_tags_says_nothing_about_them(tmp_path, column):
    """Only an empty cell says that nothing is there."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").touch()
    rows = ["file_name,tags", "a.png,", "b.png,cat"] if column else ["file_name", "a.png", "b.png"]
    (tmp_path / "val.csv").write_text("\n".join(rows))
    data = load_table(tmp_path / "val.csv", tags=TAGS, untagged=True)
    assert data.photos[0].of_nothing == column
    assert data.photos[0].unknown == (() if column else TAGS)
