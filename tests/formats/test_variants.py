"""Data sets as people vary them: what they mean, or an error that names the way out."""

import json
import unicodedata
from pathlib import Path

import pytest

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats import load_table, read_rows
from tag2mask.formats.check_tags import nothing_findings
from tag2mask.formats.convert import convert
from tag2mask.formats.rows import as_table, known_tags, row_findings


def touch(folder: Path, *names: str) -> None:
    """Files that have the names of pictures; readers do not open them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def folder(tmp_path):
    touch(tmp_path, *(f"{letter}.jpg" for letter in "abcdefgh"))
    return tmp_path


def read(folder: Path, text: str | bytes, name: str = "table.csv", **options):
    """What a table means: "a" -> present tags, or (present, unknown) if some are unknown."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    table = load_table(folder / name, untagged=True, settings=DataSettings(**options))
    return {
        photo.path.stem: (set(photo.tags), set(photo.unknown)) if photo.unknown else set(photo.tags)
        for photo in table.photos
    }


def fault(path: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_table(path, settings=DataSettings(**options))
    return str(caught.value)


@pytest.mark.parametrize("kind", ["folders", "column", "one-hot"])
def test_a_tag_that_only_validation_photos_have_is_a_tag_with_a_warning(folder, kind):
    data = folder / "table.csv"
    if kind == "folders":
        data = folder / "data"
        touch(data, "train/dog/1.jpg", "train/cat/2.jpg", "val/dog/3.jpg", "val/bear/4.jpg")
    elif kind == "column":
        data.write_text("file,tags,split\na.jpg,dog,train\nb.jpg,cat,train\nc.jpg,bear;dog,val\n")
    else:
        data.write_text("file,bear,cat,dog,split\na,0,0,1,train\nb,0,1,0,train\nc,1,0,1,val\n")
    rows = read_rows(data)
    assert known_tags(rows) == ("bear", "cat", "dog")
    assert {tag for photo in as_table(rows.val, known_tags(rows)).photos for tag in photo.tags} == {
        "bear",
        "dog",
    }
    findings = [*row_findings(rows), *row_findings(rows.val, known_tags(rows), untagged=True)]
    (finding,) = (finding for finding in findings if finding.kind == "absent tag")
    assert finding.severity == "warning" and "bear" in finding.what
    assert all(finding.severity != "error" for finding in findings)


def test_a_folder_of_photos_without_tags_says_what_is_missing(folder):
    text = fault(folder)
    assert "8 of 8 photos have no tag" in text and "--photos.images" in text
    assert "no pictures" not in text


@pytest.mark.parametrize("below", ["cat/1.jpg dog/2.jpg", "train/cat/1.jpg val/cat/2.jpg"])
def test_a_folder_around_the_folders_of_tags_is_no_tag(tmp_path, below):
    touch(tmp_path / "archive", *below.split())
    text = fault(tmp_path)
    assert str(tmp_path / "archive") in text and "--photos.form folder" in text
    assert load_table(tmp_path / "archive").tags[0] == "cat"
    assert load_table(tmp_path, settings=DataSettings(form="folder")).tags == ("archive",)


@pytest.mark.parametrize(
    "tags",
    [
        ["english pointer", "english setter", "irish setter", ""],  # one tag or words?
        ["cat", "cat/dog", "dog", ""],
        ["0", "1", "1", ""],
        ["nan", "cat", "[x]", ""],
        ["a;b", "c", "c", ""],
    ],
)
def test_tags_come_back_from_a_table_though_their_cells_could_be_read_in_another_way(
    folder, tmp_path, tags
):
    data = folder / "table.jsonl"
    photos = zip("abcd", tags, strict=True)
    records = ({"file": f"{name}.jpg", "tags": [tag] if tag else []} for name, tag in photos)
    data.write_text("\n".join(map(json.dumps, records)))
    new = load_table(convert(data, "csv", tmp_path / "new"), untagged=True)
    expected = dict(zip("abcd", ({tag} - {""} for tag in tags), strict=True))
    assert {photo.path.stem: set(photo.tags) for photo in new.photos} == expected
    assert not any(photo.unknown for photo in new.photos)


def test_file_names_in_the_other_spelling_of_accents_are_found(tmp_path):
    touch(tmp_path, unicodedata.normalize("NFD", "été.jpg"))
    (tmp_path / "t.csv").write_text(f"file,tags\n{unicodedata.normalize('NFC', 'ÉTÉ.jpg')},cat\n")
    (photo,) = load_table(tmp_path / "t.csv").photos
    assert photo.path.is_file()


def test_a_file_of_names_as_excel_writes_it(folder):
    (folder / "names.csv").write_bytes("cat;Kätzchen\r\ndog;Kätzchen\r\n".encode("cp1252"))
    photos = read(folder, "file,tags\na.jpg,cat\nb.jpg,dog\n", rename=folder / "names.csv")
    assert photos == {"a": {"Kätzchen"}, "b": {"Kätzchen"}}


def test_a_tag_without_letters_is_asked_about():
    (finding,) = nothing_findings(["cat", "-", "R&D"])
    assert '--photos.nothing "-"' in finding.do


def test_nothing_and_a_tag_in_one_photo_names_the_way_out(folder):
    (folder / "t.csv").write_text("file,No Finding,Device,crack\na,1,1,0\nb,1,0,0\nc,0,0,1\n")
    assert "--photos.drop" in fault(folder / "t.csv", nothing=("No Finding",))
    table = load_table(
        folder / "t.csv", settings=DataSettings(nothing=("No Finding",), drop=("Device",))
    )
    assert [photo.tags for photo in table.photos] == [(), (), ("crack",)]
