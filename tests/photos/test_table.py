"""The table: three values of a tag, photos of nothing, and photos in little memory."""

import gc
import pickle
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tag2mask.config import Config
from tag2mask.formats import load_table
from tag2mask.photos.table import Photo, Photos, Table
from tag2mask.runs.run import Run

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


# ---- photos in little memory ---------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1)
FOLDERS = st.sampled_from(["", "a", "/data/ä", "a/a"])


@st.composite
def a_photo(draw):
    """Its path need not have its name in it, or may have it twice."""
    name, other = draw(NAMES), draw(NAMES)
    file = draw(st.sampled_from([name, f"{name}.jpg", f"{name}/{name}.jpg", other]))
    present = draw(st.lists(st.sampled_from(TAGS), unique=True))
    unknown = draw(st.sampled_from([(), tuple(tag for tag in TAGS if tag not in present)]))
    return Photo(name, Path(draw(FOLDERS)) / file, tuple(present), unknown)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(a_photo(), max_size=8), st.slices(8))
def test_packed_photos_are_the_photos(photos, some):
    packed = Photos(photos)
    assert list(packed) == photos and [packed[i] for i in range(len(packed))] == photos
    assert [packed[-1 - i] for i in range(len(packed))] == photos[::-1]
    assert list(packed[some]) == photos[some] and packed[some] == Photos(photos[some])
    assert list(packed[1:][some]) == photos[1:][some]
    assert list(packed.at([i for i, p in enumerate(photos) if p.tags])) == [
        photo for photo in photos if photo.tags
    ]
    assert pickle.loads(pickle.dumps(packed)) == packed
    assert (packed == Photos(photos[1:])) == (not photos)
    data = Table(TAGS, photos)
    assert data.photos == packed and list(data.names) == [photo.name for photo in photos]
    rows = [[np.nan if tag in p.unknown else float(tag in p.tags) for tag in TAGS] for p in photos]
    assert np.array_equal(data.labels, np.reshape(rows, (-1, 3)), equal_nan=True)
    assert data.counts == {tag: n for tag in TAGS if (n := sum(tag in p.tags for p in photos))}


def test_there_is_no_photo_after_the_last():
    packed = Photos([Photo("a", Path("a.jpg"), ())])
    for index in (1, -2):
        with pytest.raises(IndexError):
            packed[index]


def test_the_fingerprint_is_that_of_earlier_runs(tmp_path, monkeypatch):
    """Another one would start all their stages again."""
    monkeypatch.chdir(tmp_path)
    Path("x").mkdir()
    Path("x/a.jpg").write_text("1234")
    Path("x/b.png").write_text("12")
    a, b = (
        Photo("a", Path("x/a.jpg"), ("cat",)),
        Photo("other", Path("x/b.png"), (), ("cat", "dog")),
    )
    assert Table(("cat", "dog"), (a, b)).fingerprint == "a5f468f82776690d"


def bytes_that_stay(tables, out, count):
    """What Python holds for a run after all that a training asks of its photos."""
    load_table(tables["val"])  # imports, and caches of Python
    tracemalloc.start()
    run = Run(out, Config(**tables))
    assert len(run.table) + len(run.val) == count and run.table.photos[-1].name
    assert run.summary() and run.table.fingerprint and run.table.labels.shape == (3000, 3)
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_a_photo_costs_a_run_few_bytes_beside_its_name(tmp_path):
    """Photos of training and validation, after all that a training asks of them. Names have 12
    bytes."""
    count = 4000
    lines = {"data": ["file_name,tags"], "val": ["file_name,tags"]}
    for i in range(count):
        file = tmp_path / f"photos/{i // 1000:04d}/{i:07d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        tags = ";".join(tag for place, tag in enumerate(TAGS) if i >> place & 1)
        lines["data" if i % 4 else "val"].append(f"photos/{i // 1000:04d}/{i:07d}.jpg,{tags}")
    tables = {name: tmp_path / f"{name}.csv" for name in lines}
    for name, path in tables.items():
        path.write_text("\n".join(lines[name]))
    # In a process of its own: Python's table of names grows in jumps, after any test.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        stays = process.submit(bytes_that_stay, tables, tmp_path / "run", count).result()
    assert stays / count < 12 + 28
