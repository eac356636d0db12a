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


PRESENT = {"a": {"cat"}, "b": {"cat", "dog"}}  # c: nothing


@pytest.mark.parametrize(
    ("values", "unsure"),
    [
        ("yes no yes no yes no", None),
        ("1 0 1 0 1 0", None),
        ("0,9 0,0 0,7 0,3 1 0", "dog"),
        ("90% 0% 70% 30% 100% 0%", "dog"),
    ],
)
@pytest.mark.parametrize("column", ["present", "value", "confidence"])
def test_a_row_for_each_photo_and_tag_says_whether_it_is_there(folder, column, values, unsure):
    a_cat, a_dog, b_cat, b_dog, d_dog, d_cat = values.split()
    text = (
        f"image;label;{column}\na.jpg;cat;{a_cat}\na.jpg;dog;{a_dog}\nb.jpg;cat;{b_cat}\n"
        f"b.jpg;dog;{b_dog}\nd.jpg;dog;{d_dog}\nd.jpg;cat;{d_cat}\n"
    )
    photos = read(folder, text)
    assert photos["a"] == {"cat"} and photos["d"] == {"dog"}
    assert photos["b"] == (({"cat"}, {"dog"}) if unsure else {"cat"})


@pytest.mark.parametrize("value", ["high", "93", "?"])
def test_a_confidence_that_is_none_is_an_error_and_not_ignored(folder, value):
    (folder / "t.csv").write_text(f"image,label,confidence\na,cat,{value}\nb,dog,0.9\n")
    assert value in fault(folder / "t.csv")


def test_a_column_source_is_open_images_only_with_its_words(folder):
    text = "image,label,confidence,source\na.jpg,cat,0.9,{0}\nb.jpg,dog,0.8,{0}\n"
    assert read(folder, text.format("camera 1")) == {"a": {"cat"}, "b": {"dog"}}
    assert read(folder, text.format("machine"))["a"] == ({"cat"}, {"dog"})


@pytest.mark.parametrize("unknown", ["NA", "nan", "", "NaN"])
def test_a_tag_that_is_mostly_unknown_keeps_its_column(folder, unknown):
    text = f"file,cat,dog\na,1,{unknown}\nb,1,1\nc,0,{unknown}\nd,0,0\n"
    photos = read(folder, text)
    assert photos["a"] == ({"cat"}, {"dog"}) and photos["c"] == (set(), {"dog"})
    assert photos["b"] == {"cat", "dog"} and photos["d"] == set()


@pytest.mark.parametrize("odd", ["2", "?", "u"])
def test_a_column_that_is_only_partly_of_marks_is_asked_about(folder, odd):
    (folder / "t.csv").write_text(f"file,cat,dog\na,1,{odd}\nb,1,1\nc,0,0\nd,0,1\n")
    text = fault(folder / "t.csv")
    assert '--photos.drop "dog"' in text and odd in text
    table = load_table(folder / "t.csv", untagged=True, settings=DataSettings(drop=("dog",)))
    assert table.tags == ("cat",)


def test_is_train_is_a_split(folder):
    for header in ("file,is_train,cat,dog\n", "file,is_train,tags\n"):
        one_hot = header.endswith("dog\n")
        cells = ("1,0", "0,1", "1,1") if one_hot else ("cat", "dog", "cat;dog")
        lines = (f"{p},{int(p != 'c')},{cell}\n" for p, cell in zip("abc", cells, strict=True))
        (folder / "t.csv").write_text(header + "".join(lines))
        rows = read_rows(folder / "t.csv")
        assert [row.path.stem for row in rows.rows] == ["a", "b"] and rows.val
        assert [row.tags for row in rows.val.rows] == [("cat", "dog")]


@pytest.mark.parametrize(
    "header",
    ["image_tags", "Image Labels", "class_label", "tag_list", "object classes", "all_labels"],
)
def test_names_of_tag_columns_in_two_words(folder, header):
    assert read(folder, f"img_name,{header}\na,cat\nb,cat;dog\nc,\n") == PRESENT | {"c": set()}


@pytest.mark.parametrize(
    ("sign", "cell"), [("/", "cat/dog"), ("+", "cat + dog"), ("&", "cat & dog"), (" ", "cat dog")]
)
def test_other_separators_are_asked_about_by_name(folder, sign, cell):
    text = f"file,tags\na.jpg,cat\nb.jpg,{cell}\nc.jpg,\nd.jpg,dog\n"
    (folder / "table.csv").write_text(text)
    assert f'--photos.separator: none (one tag), or "{sign}" (several)' in fault(
        folder / "table.csv"
    )
    assert read(folder, text, separator=sign) == PRESENT | {"c": set(), "d": {"dog"}}


def test_quotes_around_tags_in_a_cell_are_not_part_of_them(folder):
    text = 'file,tags\na.jpg,"""cat"""\nb.jpg,"""cat"", ""dog"""\nc.jpg,\n'
    assert read(folder, text) == PRESENT | {"c": set()}


def label_studio(*rows: str) -> str:
    header = "image,id,what,annotator,annotation_id,created_at,lead_time"
    return "\n".join((header, *(f"{row},1,1,2026-01-01,2.5" for row in rows))) + "\n"


def test_a_plain_text_of_label_studio_is_one_choice(folder):
    text = label_studio('a.jpg,1,"dog, big"', 'b.jpg,2,"{""choices"": [""cat"", ""dog, big""]}"')
    assert read(folder, text) == {"a": {"dog, big"}, "b": {"cat", "dog, big"}}


def test_annotations_of_label_studio_that_disagree_leave_a_tag_unknown(folder):
    both = '"{""choices"": [""cat"", ""dog""]}"'
    text = label_studio("a.jpg,1,cat", f"a.jpg,1,{both}", f"b.jpg,2,{both}", f"b.jpg,2,{both}")
    assert read(folder, text) == {"a": ({"cat"}, {"dog"}), "b": {"cat", "dog"}}


def test_a_split_in_numbers_is_no_tag(folder):
    photos = read(folder, "image,partition,cat,dog\na,0,1,-1\nb,1,1,1\nc,0,-1,-1\n")
    assert photos == PRESENT | {"c": set()}


def test_a_score_of_a_photo_with_several_tags_is_no_confidence(folder):
    text = "file,tags,score\na.jpg,cat,0.1\nb.jpg,cat;dog,0.2\nc.jpg,,0.9\n"
    assert read(folder, text) == PRESENT | {"c": set()}
    text = "file,tags,score\na.jpg,cat,0.1\nb.jpg,dog,0.9\nd.jpg,cat,0.8\n"
    assert read(folder, text) == {"a": (set(), {"cat"}), "b": {"dog"}, "d": {"cat"}}


def test_confidences_in_a_cell_are_asked_about(folder):
    for cell in ("cat:0.9;dog:0.2", "cat (0.9), dog (0.2)", "cat: .9"):
        (folder / "table.csv").write_text(f'file,tags\na.jpg,"{cell}"\nb.jpg,cat\n')
        assert "a column of confidences" in fault(folder / "table.csv")
    assert read(folder, "file,tags\na.jpg,f:0.9\n", separator="none") == {"a": {"f:0.9"}}


def test_class_numbers_beside_a_column_for_each_tag_are_asked_about(folder):
    text = "file,label,cat,dog\na.jpg,3,1,0\nb.jpg,5,1,1\nc.jpg,2,0,0\n"
    (folder / "table.csv").write_text(text)
    assert '--photos.tag-column "label"' in fault(folder / "table.csv")
    assert read(folder, text, drop=("label",)) == PRESENT | {"c": set()}
    assert read(folder, text, tag_column="label") == {"a": {"3"}, "b": {"5"}, "c": {"2"}}
