"""DataFrames and lists of dictionaries become a file that a run can read again."""

import pandas as pd
import polars as pl
import pytest
from layouts import picture

import tag2mask
from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats import load_table
from tag2mask.formats.frames import write_records

TABLE = "file_name,tags\na.jpg,cat\nb.jpg,cat;dog\nc.jpg,\n"


def photos_of(path, images):
    table = load_table(path, settings=DataSettings(images=images))
    return [(photo.name, photo.tags, photo.unknown) for photo in table.photos]


@pytest.fixture
def images(tmp_path):
    for i, name in enumerate("abc"):
        picture(tmp_path / "images" / f"{name}.jpg", i)
    return tmp_path / "images"


def test_frames_and_dictionaries_are_read_as_the_csv_is(tmp_path, images):
    (tmp_path / "tags.csv").write_text(TABLE)
    records = [
        {"file_name": "a.jpg", "tags": ["cat"]},
        {"file_name": "b.jpg", "tags": "cat;dog"},
        {"file_name": "c.jpg", "tags": []},
    ]
    expected = photos_of(tmp_path / "tags.csv", images)
    assert expected == [("a", ("cat",), ()), ("b", ("cat", "dog"), ()), ("c", (), ())]
    for data in (pd.read_csv(tmp_path / "tags.csv"), pl.read_csv(tmp_path / "tags.csv"), records):
        assert photos_of(write_records(data, tmp_path, "data"), images) == expected


def test_other_data_do_not_replace_those_of_a_run(tmp_path):
    paths = [write_records([{"file_name": name}], tmp_path, "data") for name in ("a", "b")]
    assert paths[0] != paths[1] and paths[0].exists()
    assert write_records([{"file_name": "a"}], tmp_path, "data") == paths[0]


@pytest.mark.parametrize("data", [{"file_name": "a.jpg"}, ["a.jpg"], 3])
def test_what_is_no_table_is_refused(tmp_path, data):
    with pytest.raises(DataError, match="give a path, a DataFrame, or a list of dictionaries"):
        tag2mask.run(data=data, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_photos_of_a_list_are_searched_below_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=str(tmp_path / "x.jpg")):
        tag2mask.run(data=[{"file_name": "x.jpg", "tags": ["cat"]}], out=tmp_path / "deep" / "run")
