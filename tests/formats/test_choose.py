"""Which tags count, and what photos without tags mean."""

from pathlib import Path

import pytest
from layouts import picture

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats import read_rows
from tag2mask.formats.choose import choose, read_names
from tag2mask.formats.rows import Row, Rows, Shape, as_table, known_tags


def row(i, present, absent=None):
    return Row(Path(f"{i}.jpg"), tuple(present), f"row {i}", absent=absent)


def table_of(listed, tags=None, **settings):
    chosen = choose(Rows(Path("x.csv"), listed), DataSettings(**settings), tags)
    return chosen, as_table(chosen, known_tags(chosen, tags))


PHOTOS = [
    row(0, ["cat"]),
    row(1, ["dog", "2026 Trip"]),
    row(2, ["2026 Trip"]),
    row(3, []),
    row(4, [], ()),
]


def test_a_photo_of_nothing_is_said_by_the_data_and_never_guessed():
    chosen, table = table_of(PHOTOS)
    assert [photo.name for photo in table.photos] == ["0", "1", "2", "3"]  # nobody looked at 4
    assert [photo.of_nothing for photo in table.photos] == [False, False, False, True]
    (finding,) = chosen.findings
    assert finding.severity == "warning" and "1 of 5 photos" in str(finding)
    assert "--photos.untagged nothing" in finding.do


@pytest.mark.parametrize(
    ("untagged", "nothing"), [("auto", ["3"]), ("nothing", ["3", "4"]), ("leave_out", [])]
)
def test_untagged_decides_about_photos_without_tags(untagged, nothing):
    _, table = table_of(PHOTOS, untagged=untagged)
    assert [photo.name for photo in table.photos if photo.of_nothing] == nothing


def test_validation_photos_stay_though_nobody_looked():
    _, table = table_of(PHOTOS, tags=("cat", "dog", "2026 Trip"))
    assert len(table) == 5
    assert table.photos[4].unknown == ("cat", "dog", "2026 Trip")
    assert not table.photos[4].of_nothing


def test_dropped_tags_leave_photos_of_nothing():
    _, table = table_of(PHOTOS, drop=("2026 Trip",))
    assert table.tags == ("cat", "dog")
    assert [photo.tags for photo in table.photos] == [("cat",), ("dog",), (), ()]
    _, kept = table_of(PHOTOS, keep=("cat", "dog"))
    assert (kept.tags, [p.tags for p in kept.photos]) == (
        table.tags,
        [p.tags for p in table.photos],
    )


def test_two_names_of_one_tag_in_a_photo_count_once(tmp_path):
    (tmp_path / "n.csv").write_text("Dog,dog\n")
    listed = [row(0, ["dog", "Dog"]), row(1, ["cat"]), row(2, ["cat"])]
    _, table = table_of(listed, rename=tmp_path / "n.csv", min_count=2)
    assert table.tags == ("cat",)


def test_rare_tags_do_not_count():
    listed = [row(0, ["cat"]), row(1, ["cat", "elk"]), row(2, ["dog"]), row(3, ["dog"])]
    _, table = table_of(listed, min_count=2)
    assert table.tags == ("cat", "dog") and table.photos[1].tags == ("cat",)
    # In a validation set the counts decide nothing: the training tags do.
    _, val = table_of([row(0, ["cat"]), row(1, ["elk"])], tags=("cat", "dog"), min_count=2)
    assert [photo.tags for photo in val.photos] == [("cat",), ()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.toml", 'Puppy = "dog"\nDog = "dog"\n'),
        ("names.toml", 'dog = ["Puppy", "Dog"]\n'),
        ("names.csv", "Puppy,dog\nDog,dog\n"),
        ("names.csv", "old;new\nPuppy;dog\nDog;dog\n"),
    ],
)
def test_several_names_become_one(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    listed = [row(0, ["Puppy", "Dog"]), row(1, ["cat"], ("Dog",)), row(2, ["dog"], ("Puppy",))]
    _, table = table_of(listed, rename=tmp_path / name)
    assert table.tags == ("cat", "dog")
    assert [photo.tags for photo in table.photos] == [("dog",), ("cat",), ("dog",)]
    assert [photo.unknown for photo in table.photos] == [(), (), ("cat",)]


def test_outlines_follow_their_tags(tmp_path):
    (tmp_path / "names.toml").write_text('Dog = "dog"\n')
    shapes = (Shape("Dog", [[0, 0, 1, 0, 1, 1]]), Shape("tree", [[0, 0, 1, 0, 1, 1]]))
    listed = [Row(Path("a.jpg"), ("Dog", "tree"), "a", shapes)]
    settings = DataSettings(rename=tmp_path / "names.toml", drop=("tree",))
    (chosen,) = choose(Rows(Path("x.json"), listed), settings).rows
    assert [shape.tag for shape in chosen.shapes] == ["dog"]


def test_a_tag_that_means_nothing_makes_photos_of_nothing():
    listed = [row(0, ["crack"]), row(1, ["OK"]), row(2, ["OK", "crack"]), row(3, ["OK"], ())]
    chosen, table = table_of(listed, nothing=("OK",))
    assert table.tags == ("crack",)
    assert [photo.of_nothing for photo in table.photos] == [False, True, False, True]
    (finding,) = chosen.findings  # row 2 says both
    assert finding.severity == "error" and finding.where == "row 2"


def test_names_in_the_settings_that_no_photo_has_are_told():
    chosen, _ = table_of(PHOTOS, drop=("2026 trip",), keep=("cat", "dgo"), nothing=("none",))
    messages = [str(finding) for finding in chosen.findings]
    assert any("photos.drop" in m and 'did you mean "2026 Trip"?' in m for m in messages)
    assert any("photos.keep" in m and 'did you mean "dog"?' in m for m in messages)
    assert any("photos.nothing" in m for m in messages)


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("n.toml", "a = 3\n", "a = 3 is neither a name nor a list of names"),
        ("n.toml", "a = \n", "not valid TOML"),
        ("n.csv", "a,b,c\n", "row 1 has 3 cells; write two columns"),
        ("n.csv", 'a,"b\n', "not valid CSV"),
        ("n.csv", "a,b\na,c\n", '"a" has two new names, "b" and "c"'),
        ("n.csv", "a,\n", "an empty name"),
    ],
)
def test_a_faulty_file_of_names_says_why(tmp_path, name, text, part):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=part):
        read_names(tmp_path / name)


def test_names_of_other_data_are_an_error(tmp_path):
    (tmp_path / "n.csv").write_text("/m/1,cat\n")
    chosen, _ = table_of(PHOTOS, rename=tmp_path / "n.csv")
    assert any(f.severity == "error" and "none of its names" in f.what for f in chosen.findings)


def test_a_folder_of_photos_needs_no_other_one(tmp_path):
    picture(tmp_path / "data" / "cat" / "a.jpg")
    rows = read_rows(tmp_path / "data", DataSettings(images=tmp_path))
    (finding,) = rows.findings
    assert finding.severity == "warning" and "photos.images is not used" in finding.what
