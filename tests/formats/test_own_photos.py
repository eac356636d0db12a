import json
import os
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from tag2mask.errors import DataError
from tag2mask.formats import find_format, load_table
from tag2mask.formats.check import check
from tag2mask.formats.rows import photo_names
from tag2mask.photos.images import image_size, open_image
from tag2mask.photos.masks import Truth, read_mask


def picture(path: Path, color="red", size=(6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def table_file(folder: Path, text: str, name: str = "tags.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def photos(tmp_path):
    for name in ("a.jpg", "b.png", "sub/c.webp"):
        picture(tmp_path / name)
    return tmp_path


def test_csv_tags_are_stripped_ordered_and_relative_to_the_file(photos):
    table = load_table(
        table_file(
            photos,
            "file_name,tags\na.jpg, dog ;cat;\nb.png,cat\nsub/c.webp,traffic  light;cat;cat\n",
        )
    )
    assert table.tags == ("cat", "dog", "traffic light")
    assert [(p.name, p.tags) for p in table.photos] == [
        ("a", ("cat", "dog")),
        ("b", ("cat",)),
        ("sub/c", ("cat", "traffic light")),
    ]
    assert table.multi_hot.tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 1]]
    assert all(photo.open().size == (6, 4) for photo in table.photos)


def test_every_plain_form_gives_the_same_photos_and_tags(photos, tmp_path_factory):
    rows = {"a.jpg": ["cat"], "b.png": ["cat", "dog"], "sub/c.webp": ["dog"]}
    csv = table_file(
        photos,
        "file_name,tags\n" + "".join(f"{name},{';'.join(tags)}\n" for name, tags in rows.items()),
    )
    bom = table_file(photos, "\ufeff" + csv.read_text().replace("\n", "\r\n"), "excel.csv")
    lines = table_file(
        photos,
        "\n".join(json.dumps({"file_name": n, "tags": t}) for n, t in rows.items()),
        "tags.jsonl",
    )
    joined = table_file(
        photos,
        "\n".join(json.dumps({"tags": ";".join(t), "file_name": n}) for n, t in rows.items()),
        "joined.jsonl",
    )
    table_file(
        photos,
        "file_name,caption,tags\n"
        + "".join(f'{n},"a, b",{";".join(t)}\n' for n, t in rows.items()),
        "metadata.csv",
    )
    tables = [load_table(path) for path in (csv, bom, lines, joined, photos)]
    assert find_format(photos) == "metadata.csv"
    assert all((t.tags, t.photos) == (tables[0].tags, tables[0].photos) for t in tables)

    folder = tmp_path_factory.mktemp("folder")
    for name, tags in rows.items():
        picture(folder / ";".join(tags) / name)
    by_folder = load_table(folder)
    assert find_format(folder) == "folder"
    assert [photo.tags for photo in by_folder.photos] == [("cat",), ("cat", "dog"), ("dog",)]
    assert [photo.name for photo in by_folder.photos] == ["cat/a", "cat;dog/b", "dog/sub/c"]


def test_all_problems_come_at_once_with_file_and_row(photos):
    path = table_file(
        photos,
        "file_name,tags\na.jpg,\nmissing.jpg,cat\nb.png,cat,dog\na.jpg,Cat\n,cat\nsub/c.webp,background\n",
    )
    with pytest.raises(DataError) as caught:
        load_table(path)
    problems = caught.value.problems
    for part in (
        "row 3 (missing.jpg): no such file",
        "row 4: 3 cells under 2 columns; separate tags by ';'",
        "row 5 (a.jpg): duplicate row: the same picture as row 2 (a.jpg)",
        "row 6: no file_name",
        '"cat" (1 photo), "Cat" (1 photo)',
        '(sub/c.webp): "background" is the name of class 0',
    ):
        assert sum(part in problem for problem in problems) == 1, part
    assert len(problems) == 6
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text, part",
    [
        (
            "file_name,tags,labels\na.jpg,cat,dog\n",
            'may have the tags: "tags", "labels"; choose one with --photos.tag-column',
        ),
        ("file_name,mood\na.jpg,good\n", 'no column of tags among "file_name", "mood"; choose'),
        ("file_name\na.jpg\nb.png\n", 'no column of tags among "file_name"'),
        ("file_name,tags,tags\na.jpg,cat,dog\n", "may have the tags: 2 (tags), 3 (tags); choose"),
        ("name of it,tags\nx,cat\n", 'no column has file names among "name of it", "tags"; choose'),
        ("file_name,tags\n" + "a" * 300 + ".jpg,cat\n", "no such file"),
        ("", "no columns; the first row has their names"),
        ("file_name,tags\n", "no pictures"),
        ('file_name,tags\n"a.jpg,cat\n', "not valid CSV"),
    ],
)
def test_csv_that_cannot_be_read_says_why(photos, text, part):
    with pytest.raises(DataError, match=re.escape(part)):
        load_table(table_file(photos, text))


def test_jsonl_problems_name_the_line(photos):
    path = table_file(
        photos,
        '{"file_name": "a.jpg", "tags": [[1]]}\n[]\n{"file_name": "b.png"\n'
        '{"file_name": "b.png"}\n',
        "x.jsonl",
    )
    with pytest.raises(DataError) as caught:
        load_table(path)
    assert [p.split(":")[0] for p in caught.value.problems][:3] == [
        "row 1 (a.jpg)",
        "row 2",
        "row 3",
    ]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_unusual_line_ends_within_a_text_end_no_row(photos, name):
    note = "a\u2028b\x85c"
    rows = (
        f"file_name,tags,note\na.jpg,cat,{note}\n"
        if name.endswith("csv")
        else f'{{"file_name": "a.jpg", "tags": "cat", "note": "{note}"}}\n'
    )
    assert [photo.tags for photo in load_table(table_file(photos, rows, name)).photos] == [("cat",)]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json", "x.xml", "x.yaml"])
def test_a_folder_called_as_a_file(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        load_table(tmp_path / name)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_make_trouble_later(tmp_path):
    for name in ("a" + "写" * 79, "ab" + "写" * 79):
        picture(tmp_path / "cat" / f"{name}.jpg")
    picture(tmp_path / "cat" / os.fsdecode(b"caf\xe9.jpg"))
    with pytest.raises(DataError) as caught:
        load_table(tmp_path)
    long, other = caught.value.problems
    assert (
        long.startswith("cat/ab")
        and "the name has 239 bytes: its mask could not be written" in long
    )
    assert other == "cat/caf\\udce9.jpg: not UTF-8; rename the file or its folder"
    str(caught.value).encode()


def test_linked_folders_are_read_once(tmp_path):
    for place in ("elsewhere", "photos/dog"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / place / "a.jpg")
    (tmp_path / "photos" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "photos")
    assert sorted(photo.name for photo in load_table(tmp_path / "photos").photos) == [
        "cat/a",
        "dog/a",
    ]


def test_what_cannot_be_read_in_a_folder_is_an_error(tmp_path, monkeypatch):
    """A folder that is not ours, a link that leads nowhere, one to itself; the others are found."""
    for name in ("cat/a.jpg", "cat/closed/b.jpg", "dog/c.jpg"):
        picture(tmp_path / name)
    (tmp_path / "cat/gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "cat/round.jpg").symlink_to("round.jpg")
    scandir = os.scandir

    def refuse(place):  # as `chmod 0`, which does not keep root out
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError) as caught:
        load_table(tmp_path)
    link = "no file, or a link that leads to none; remove or correct it"
    assert caught.value.problems == [
        f"{tmp_path}/cat/closed: the folder cannot be read (Permission denied); "
        "change who may read it",
        f"{tmp_path}/cat/gone.jpg: {link}",
        f"{tmp_path}/cat/round.jpg: {link}",
    ]


def test_pictures_of_formats_that_are_not_read_are_counted(tmp_path, caplog):
    picture(tmp_path / "cat" / "a.jpg")
    for name in ("IMG_1.JXL", "IMG_2.jxl", "b.bpg"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    what = "pictures of kinds that are not read are left out: 1 .bpg, 2 .jxl"
    text = f"{what}; convert them to JPEG"
    with caplog.at_level("INFO"):
        assert len(load_table(tmp_path)) == 1
    assert text in caplog.text
    assert [
        (f.severity, f"{f.what}; {f.do}") for f in check(tmp_path) if f.kind == "unread pictures"
    ] == [("warning", text)]
    (tmp_path / "cat" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"that are not read(.|\n)*no photo is left"):
        load_table(tmp_path)


def test_a_path_that_is_not_a_data_set_lists_the_formats(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        load_table(tmp_path / "x.csv")
    with pytest.raises(DataError, match="folder for each tag"):
        load_table(tmp_path)


def test_a_folder_with_a_table_is_not_a_folder_per_tag(photos):
    table_file(photos, "file_name,tags\na.jpg,cat\n", "train.csv")
    with pytest.raises(DataError, match=r"has train\.csv; give the file"):
        load_table(photos)


def test_validation_table_has_the_training_tables_tags(photos):
    train = load_table(table_file(photos, "file_name,tags\na.jpg,cat\nb.png,dog\n"))
    val = load_table(
        table_file(photos, "file_name,tags\nb.png,dog\na.jpg,\n", "val.csv"),
        tags=train.tags,
        untagged=True,
    )
    assert val.tags == ("cat", "dog") and val.multi_hot.tolist() == [[0, 1], [0, 0]]
    with pytest.raises(
        DataError,
        match=r'row 2 \(b.png\): tag "Dog" \(1 photo\) is not one of the 2 known tags; '
        'did you mean "dog"',
    ):
        load_table(table_file(photos, "file_name,tags\nb.png,Dog\n", "bad.csv"), tags=train.tags)


@pytest.mark.parametrize(
    ("name", "text"), [("val.csv", "file_name\na.jpg\n"), ("val.jsonl", '{"file_name": "a.jpg"}\n')]
)
def test_validation_photos_need_no_tags(photos, name, text):
    path = table_file(photos, text, name)
    assert [photo.tags for photo in load_table(path, tags=("cat",), untagged=True).photos] == [()]
    (photos / "masks").mkdir()
    Image.new("L", (30, 20), 1).save(photos / "masks" / "a.png")
    with pytest.raises(DataError, match=r"none of the photos .* has tags; give --evaluate"):
        Truth(photos / "masks", load_table(path, tags=("cat",), untagged=True))


def test_more_tags_than_a_mask_can_hold(photos):
    with pytest.raises(DataError, match="300 different tags; an 8-bit mask can hold at most 254"):
        load_table(
            table_file(
                photos, "file_name,tags\na.jpg," + ";".join(f"t{i}" for i in range(300)) + "\n"
            )
        )


def test_names_of_any_kind():
    names = [
        "ü b.jpg",
        "sub/🐈.v2.png",
        "no extension",
        "v1.2",
        "a.jpg",
        "a.png",
        "a.jpg.webp",
        "..jpg",
        "a.JPG",
    ]
    got = photo_names([Path("/x/y") / name for name in names])
    assert got == [
        "ü b",
        "sub/🐈.v2",
        "no extension",
        "v1.2",
        "a.jpg",
        "a.png",
        "a.jpg.webp",
        ".",
        "a.JPG",
    ]
    assert photo_names([Path("/x/b/../c/1.jpg"), Path("/x/d/2.jpg")]) == ["c/1", "d/2"]
    assert photo_names([Path("../up.jpg")]) == ["up"]


@given(
    st.lists(
        st.text(st.sampled_from("ab./jpgn"), min_size=1, max_size=12).map(
            lambda s: Path("/r/" + s.strip("/."))
        ),
        unique=True,
    )
)
def test_names_are_unique_and_stay_inside(paths):
    paths = [path for path in dict.fromkeys(paths) if path != Path("/r")]
    names = photo_names(paths)
    assert len(set(names)) == len(names)
    assert not any(name.startswith("/") or ".." in name.split("/") for name in names)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_read_upright(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.zeros((32, 80, 3), np.uint8)
    stored[:16, :40] = 255  # where the first row and the first column meet
    path = tmp_path / f"p.{kind}"
    Image.fromarray(stored).save(
        path, **({"tiffinfo": {274: orientation}} if kind == "tif" else {"exif": exif})
    )
    upright = np.asarray(open_image(path))[..., 0] > 127
    assert image_size(path) == upright.shape[::-1] == ((80, 32) if orientation < 5 else (32, 80))
    top, left = orientation in (1, 2, 5, 6), orientation in (1, 4, 5, 8)
    height, width = upright.shape
    corner = (
        slice(0, height // 2) if top else slice(height // 2, None),
        slice(0, width // 2) if left else slice(width // 2, None),
    )
    assert upright[corner].mean() > 0.9 and upright.mean() < 0.27


def test_pictures_with_broken_exif_are_read(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[274], exif[271] = 6, "Camera"
    Image.new("RGB", (60, 40)).save(path, exif=exif)
    path.write_bytes(
        path.read_bytes().replace(b"\x01\x0f\x00\x02", b"\x01\x55\x00\x02")
    )  # text where a number belongs
    with Image.open(path) as image, pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    assert open_image(path).size == image_size(path) == (40, 60)


@pytest.mark.parametrize("error", [struct.error, AttributeError, TypeError, KeyError, RuntimeError])
def test_every_error_of_pillow_is_an_unreadable_picture(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error("broken")

    path = tmp_path / "a.png"
    Image.new("L", (6, 4)).save(path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    for read in (open_image, read_mask):
        with pytest.raises(DataError, match=r"a\.png: not a readable"):
            read(path)
    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert image_size(picture(tmp_path / "b.bmp")) == (6, 4)


@pytest.mark.real
def test_real_photos(shared):
    train = load_table(shared / "voc-animals" / "train.csv")
    val = load_table(shared / "voc-animals" / "val.csv", tags=train.tags)
    assert (len(train), len(val), train.num_tags, int(train.multi_hot.sum())) == (
        1300,
        200,
        18,
        1940,
    )
    assert train.photos[0].name == "2007_000063"
