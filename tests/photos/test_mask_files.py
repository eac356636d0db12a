from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.errors import DataError
from tag2mask.photos.classes import COCO, COCO_IDS, COCO_SUPERCATEGORIES, VOC
from tag2mask.photos.colors import PALETTE
from tag2mask.photos.masks import (
    Truth,
    class_names,
    read_mask,
    true_photos,
    write_class_names,
    write_mask,
)
from tag2mask.photos.table import Photo, Table

SIZE = (4, 6)


def table(folder: Path, tags: tuple[str, ...], photos: list[tuple[str, ...]]) -> Table:
    photo_list = []
    for i, named in enumerate(photos):
        path = folder / "images" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(path)
        photo_list.append(Photo(str(i), path, named))
    return Table(tags, tuple(photo_list))


def masks(folder: Path, numbers: list[tuple[int, ...]]) -> Path:
    for i, values in enumerate(numbers):
        mask = np.zeros(SIZE, np.uint8)
        mask.flat[: len(values)] = values
        mask[-1, -1] = 255
        write_mask(folder / "masks" / f"{i}.png", mask)
    return folder / "masks"


def test_write_then_read_gives_the_same_numbers_in_the_colors_of_the_palette(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "sub" / "m.png", mask)
    assert np.array_equal(read_mask(tmp_path / "sub" / "m.png"), mask)
    with Image.open(tmp_path / "sub" / "m.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image.convert("RGB")), PALETTE[mask])
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["m.png"]


def test_gray_masks_are_read_others_refused(tmp_path):
    Image.fromarray(np.full(SIZE, 7, np.uint8)).save(tmp_path / "grey.png")
    assert (read_mask(tmp_path / "grey.png") == 7).all()
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    Image.new("L", (4, 4)).save(tmp_path / "grey.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:50])
    for name, part in (
        ("rgb.png", "not RGB"),
        ("grey.jpg", "not JPEG"),
        ("cut.png", "not a readable mask"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(DataError, match=part):
            read_mask(tmp_path / name)


def test_coco_lists_agree_with_the_field():
    assert (len(VOC), len(COCO), len(COCO_IDS)) == (20, 80, 80)
    ids = dict(zip(COCO, COCO_IDS, strict=True))
    assert (ids["person"], ids["stop sign"], ids["toothbrush"], COCO[79]) == (
        1,
        13,
        90,
        "toothbrush",
    )
    assert len(COCO_SUPERCATEGORIES) == 12


@pytest.mark.parametrize(
    "numbering, numbers",
    [
        ("table", {"cat": 1, "dog": 2}),
        ("voc", {"cat": 8, "dog": 12}),
        ("coco", {"cat": 16, "dog": 17}),
        ("coco91", {"cat": 17, "dog": 18}),
    ],
)
def test_the_numbering_is_found_from_the_tags(tmp_path, numbering, numbers):
    photos = [("cat",), ("dog",), ("cat", "dog"), ("dog",), ("cat",)]
    data = table(tmp_path, ("cat", "dog"), photos)
    truth = Truth(masks(tmp_path, [tuple(numbers[tag] for tag in tags) for tags in photos]), data)
    assert truth.numbering == numbering
    for photo in truth.photos_with_truth:
        mask = truth.read(photo)
        assert set(np.unique(mask)) == {0, 255, *(data.tags.index(tag) + 1 for tag in photo.tags)}
        assert mask.dtype == np.uint8


def test_one_wrong_mask_in_five_is_accepted_two_are_not(tmp_path):
    photos = [("cat",), ("dog",), ("cat", "dog"), ("dog",), ("cat",)]
    data = table(tmp_path, ("cat", "dog"), photos)
    assert Truth(masks(tmp_path, [(8,), (12,), (8, 12), (12,), ()]), data).numbering == "voc"
    folder = masks(tmp_path, [(8,), (12,), (8, 12), (), ()])
    with pytest.raises(
        DataError,
        match=r"table 0, voc 3, coco 0, coco91 0. Examples: 0.png has \[8\], its tags are cat;"
        r".*give --evaluate\.classes",
    ):
        Truth(folder, data)
    assert Truth(folder, data, classes="voc").read(data.photos[0]).flat[0] == 1
    assert Truth(folder, data, classes=",".join(VOC)).read(data.photos[1]).flat[0] == 2
    with pytest.raises(DataError, match='"vooc" is neither one of auto, table, voc'):
        Truth(folder, data, classes="vooc")


def test_spellings_of_other_sets_are_understood(tmp_path):
    data = table(tmp_path, ("TV monitor", "potted_plant"), [("TV monitor",), ("potted_plant",)])
    truth = Truth(masks(tmp_path, [(20,), (16,)]), data)
    assert truth.numbering == "voc" and truth.read(data.photos[0]).flat[0] == 1


def test_classes_that_the_table_does_not_have_are_not_scored(tmp_path):
    data = table(tmp_path, ("cat",), [("cat",)])
    assert truth_values(Truth(masks(tmp_path, [(8, 15)]), data), data) == {0, 1, 255}
    with pytest.raises(DataError, match=r"has the number \[99\] \(evaluate.classes: voc"):
        Truth(masks(tmp_path, [(8, 99)]), data, classes="voc").read(data.photos[0])


def truth_values(truth: Truth, data: Table) -> set[int]:
    return set(np.unique(truth.read(data.photos[0])).tolist())


def test_sizes_must_agree_and_photos_without_a_mask_are_left_out(tmp_path):
    data = table(tmp_path, ("cat", "dog"), [("cat",), ("dog",), ("dog",)])
    folder = masks(tmp_path, [(1,), (2,)])
    truth = Truth(folder, data)
    assert [photo.name for photo in truth.photos_with_truth] == ["0", "1"]
    write_mask(folder / "0.png", np.zeros((6, 4), np.uint8))
    with pytest.raises(DataError, match=r"4 x 6, but .* is 6 x 4"):
        truth.read(data.photos[0])


def test_photos_in_folders_and_masks_in_one(tmp_path):
    flat = table(tmp_path, ("cat", "dog"), [("cat",), ("dog",)])
    nested = Table(
        flat.tags, tuple(Photo(f"x{i}/{p.name}", p.path, p.tags) for i, p in enumerate(flat.photos))
    )
    assert len(Truth(masks(tmp_path, [(1,), (2,)]), nested).photos_with_truth) == 2
    same = Table(
        flat.tags, tuple(Photo(f"x{i}/0", p.path, p.tags) for i, p in enumerate(flat.photos))
    )
    with pytest.raises(
        DataError, match=r"the first should be x0/0\.png, the folder has 0\.png, 1\.png"
    ):
        Truth(tmp_path / "masks", same)


def test_masks_of_other_photos_of_the_same_name_are_not_the_training_photos(tmp_path):
    def photos(*files: str) -> Table:
        return Table(
            (), tuple(Photo(file.split("/", 1)[1], tmp_path / f"{file}.jpg", ()) for file in files)
        )

    def true(train: Table, val: Table | None, *masks: str) -> list[str]:
        folder = tmp_path / f"masks{len(list(tmp_path.iterdir()))}"
        for mask in masks:
            write_mask(folder / f"{mask}.png", np.zeros((2, 2), np.uint8))
        return [photo.name for photo in true_photos(train, val, folder).photos]

    train, test = (
        photos("train/1", "train/cat/2", "train/dog/3", "train/4"),
        photos("test/1", "test/2", "test/bird/4"),
    )
    assert true(train, None, "1") == ["1", "cat/2", "dog/3", "4"] and true(train, None, "5") == []
    assert true(train, test, "1", "2", "4") == []
    assert true(train, test, "1", "2", "4", "dog/3") == ["dog/3"]
    assert true(train, test, "1", "2", "4", "bird/4", "cat/2") == ["cat/2", "dog/3", "4"], (
        "beside those of test/2 and test/4"
    )
    assert true(train, photos("train/1", "test/5"), "1", "5") == ["1", "cat/2", "dog/3", "4"], (
        "the same picture in both sets"
    )
    elsewhere = tuple(
        replace(photo, path=tmp_path / "x" / ".." / photo.path.relative_to(tmp_path))
        for photo in train.photos
    )
    assert true(train, replace(train, photos=elsewhere), "1") == ["1", "cat/2", "dog/3", "4"]


@pytest.mark.real
def test_real_masks(shared):
    from tag2mask.formats import load_table

    data = load_table(shared / "voc-animals" / "train.csv")
    truth = Truth(shared / "voc-animals" / "masks", data)
    assert truth.numbering == "voc" and len(truth.photos_with_truth) == 1300
    photo = data.photos[0]
    assert {data.classes[i] for i in np.unique(truth.read(photo)) if i != 255} == {
        "background",
        *photo.tags,
    }


@pytest.mark.parametrize(
    "text",
    [
        '["blowhole", "crack"]',
        '{"1": "blowhole", "2": "crack"}',
        '{"0": "background", "1": "blowhole", "2": "crack"}',
        '{"blowhole": 1, "crack": 2}',
        '{"classes": ["background", "blowhole", "crack"], "ignore": 255}',
    ],
)
def test_class_names_from_a_file(tmp_path, text):
    file = tmp_path / "names.json"
    file.write_text(text)
    assert class_names(str(file)) == class_names("blowhole, crack") == {1: "blowhole", 2: "crack"}


@pytest.mark.parametrize("text", ["3", "[1, ", '{"cat": "dog"}', '{"999": "cat"}', '{"1": [2]}'])
def test_a_faulty_file_of_class_names_is_an_error(tmp_path, text):
    file = tmp_path / "names.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"names\.json: not class names and their numbers"):
        class_names(str(file))


def test_numbers_that_do_not_fit_the_tags_are_not_used_in_silence(tmp_path):
    tags = ("OK", "blowhole", "crack")
    photos = [("blowhole",), ("crack",), ("OK",), ("blowhole", "crack")]
    data = table(tmp_path, tags, photos)
    folder = masks(tmp_path, [(1,), (2,), (), (1, 2)])
    with pytest.raises(DataError, match="the class names of 1, 2"):
        Truth(folder, data)
    (warning,) = Truth(folder, data, "table").warnings
    assert "photo's tags in only 0 of 4 photos; check --evaluate.classes" in warning
    truth = Truth(folder, data, "blowhole,crack")
    assert truth.read(data.photos[0]).flat[0] == 2
    assert truth.warnings == ["no number in the masks means OK"]


def test_a_wrong_class_name_is_told(tmp_path):
    data = table(tmp_path, ("cat", "dog"), [("cat",), ("dog",)])
    warnings = Truth(masks(tmp_path, [(1,), (2,)]), data, "cat,dogg").warnings
    assert "classes that are no tags of the photos: dogg; they are not scored" in warnings
    assert "no number in the masks means dog" in warnings


def test_own_masks_are_always_understood(tmp_path):
    data = table(tmp_path, ("cat", "dog"), [("cat",), ("dog",), ("cat",)])
    folder = masks(tmp_path, [(2,), (), ()])  # two are empty: the tags alone would not tell
    write_class_names(folder, ("background", "dog", "cat"))
    assert Truth(folder, data).read(data.photos[0]).flat[0] == 1
