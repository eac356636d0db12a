import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layouts import (
    ANIMALS,
    boxes,
    make_coco,
    make_cvat,
    make_labelme,
    make_voc,
    make_yolo,
    mask,
    picture,
    submit,
)

from tag2mask.errors import DataError
from tag2mask.formats import load_table
from tag2mask.formats.convert import WRITERS, convert
from tag2mask.formats.mask_writers import MASK_WRITERS
from tag2mask.formats.polygons import polygons
from tag2mask.formats.shapes import rle_coder
from tag2mask.photos.masks import Truth, read_mask, write_mask

NUMBERS = {"cat": 1, "dog": 2, "sofa": 3}


def content(table):
    """Tags by the last part of the name, and pictures: some forms lose the folders."""
    return {
        photo.name.split("__")[-1].split("/")[-1]: (
            set(photo.tags),
            np.asarray(photo.open()).tobytes(),
        )
        for photo in table.photos
    }


@pytest.fixture
def photos(tmp_path):
    """A CSV data set in two folders, with masks; returns the CSV and the folder of masks."""
    rows = ["file_name,tags"]
    for i, (name, tags) in enumerate(ANIMALS.items()):
        file = f"{'ä b' if i % 2 else 'c.d'}/{name}.png"
        picture(tmp_path / "in" / file, seed=i)
        rows.append(f"{file},{';'.join(tags)}")
        drawn = mask(tags, NUMBERS)
        drawn[-1] = 255
        write_mask(tmp_path / "in" / "masks" / file, drawn)
    (tmp_path / "in" / "tags.csv").write_text("\n".join(rows))
    return tmp_path / "in" / "tags.csv", tmp_path / "in" / "masks"


@pytest.mark.parametrize("to", [name for name in WRITERS if name not in ("masks", "yolo")])
def test_tags_go_there_and_back(photos, tmp_path, to):
    there = convert(photos[0], to, tmp_path / "there")
    there = submit(there) if to == "label-studio" else there
    back = convert(there, "csv", tmp_path / "back")
    assert content(load_table(there)) == content(load_table(back)) == content(load_table(photos[0]))


@pytest.mark.parametrize("to", [name for name in WRITERS if name != "masks"])
def test_tags_and_masks_go_there_and_back(photos, tmp_path, to):
    own = load_table(photos[0])
    there = convert(photos[0], to, tmp_path / "there", photos[1])
    there = submit(there) if to == "label-studio" else there
    masks = {"csv": "masks", "jsonl": "masks", "voc": "VOC2012/SegmentationClass"}.get(to)
    back = convert(there, "csv", tmp_path / "back", tmp_path / "there" / masks if masks else None)
    table = load_table(back)
    assert content(table) == content(own)
    before, after = Truth(photos[1], own), Truth(tmp_path / "back" / "masks", table)
    same = {photo.name.split("__")[-1].split("/")[-1]: after.read(photo) for photo in table.photos}
    for photo in own.photos:
        true, got = before.read(photo), same[photo.name.split("/")[-1]]
        if to in MASK_WRITERS:  # they know no ignore
            true = np.where(true == 255, 0, true)
        classes = np.array(
            [0, *(table.tags.index(tag) + 1 if tag in table.tags else 0 for tag in own.tags)]
            + [0] * 251
            + [255]
        )
        assert np.array_equal(classes[true], got), photo.name


def test_voc_keeps_vocs_numbers(tmp_path):
    root = make_voc(tmp_path)
    there = convert(root, "voc", tmp_path / "there", root / "SegmentationClass")
    for name in ANIMALS:
        assert np.array_equal(
            read_mask(there / "SegmentationClass" / f"{name}.png"),
            read_mask(root / "SegmentationClass" / f"{name}.png"),
        )


@pytest.mark.parametrize("to", ["csv", "jsonl", "masks", "voc"])
@pytest.mark.parametrize("tags", [("zebra", "apple"), ("dog", "cat"), ("toothbrush", "bear")])
@pytest.mark.parametrize("all_80", [False, True], ids=["own categories", "all 80"])
def test_classes_keep_their_pixels_in_every_order_of_the_source(tmp_path, to, tags, all_80):
    """Every photo has both tags: only the numbers in the masks can tell which is which."""
    source = make_coco(
        tmp_path / "in",
        {"a": tags, "b": tags},
        categories=None if all_80 else {tags[0]: 1, tags[1]: 2},
    )
    there = convert(source, to, tmp_path / "there")
    table = load_table(source if to == "masks" else there)
    truth = Truth(
        {"masks": there, "voc": there / "SegmentationClass"}.get(to, tmp_path / "there" / "masks"),
        table,
    )
    for photo in truth.photos_with_truth:
        assert np.array_equal(
            truth.read(photo), mask(tags, {tag: i for i, tag in enumerate(table.tags, 1)})
        )
    assert len(truth.photos_with_truth) == 2 and truth.numbering == "names"


@pytest.mark.parametrize("make", [make_labelme, make_cvat], ids=["labelme", "cvat"])
def test_corrected_masks_come_back_from_labeling_tools(tmp_path, make):
    folder = convert(make(tmp_path / "in", ANIMALS), "masks", tmp_path / "out")
    for name, tags in ANIMALS.items():
        assert np.array_equal(read_mask(folder / f"{name}.png"), mask(tags, NUMBERS))


def test_coco_export_is_coco(photos, tmp_path):
    from pycocotools.coco import COCO

    coco = COCO(str(convert(photos[0], "coco", tmp_path / "there", photos[1])))
    for image in coco.dataset["images"]:
        tags = ANIMALS[image["file_name"].split("/")[-1][:-4]]
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert {coco.cats[a["category_id"]]["name"] for a in annotations} == set(tags)
        for a in annotations:
            x, y, w, h = boxes(tags)[coco.cats[a["category_id"]]["name"]]
            assert (a["bbox"], a["area"], coco.annToMask(a).sum()) == ([x, y, w, h], w * h, w * h)


def test_the_truth_of_coco_in_one_command(tmp_path):
    tags = {"a": ("person", "toothbrush"), "b": ("couch",)}
    folder = convert(make_coco(tmp_path, tags), "masks", tmp_path / "out")
    assert np.unique(read_mask(folder / "a.png")).tolist() == [0, 1, 80]
    assert np.unique(read_mask(folder / "b.png")).tolist() == [0, 58]


def test_refusals(photos, tmp_path):
    for to, part in (
        ("masks", "needs masks.*give a folder of masks with --masks"),
        ("yolo", "needs masks.*give a folder of masks with --masks"),
        ("xml", "use one of csv, jsonl, masks, voc, coco, yolo, labelme, cvat, label-studio"),
    ):
        with pytest.raises(DataError, match=part):
            convert(photos[0], to, tmp_path / to)
    with pytest.raises(DataError, match="nothing is overwritten"):
        convert(photos[0], "csv", photos[1])


def test_all_masks_that_cannot_be_read_are_named(photos, tmp_path):
    for path in sorted(photos[1].rglob("*.png"))[:2]:
        write_mask(path, np.zeros((9, 9), np.uint8))
    with pytest.raises(DataError) as error:
        convert(photos[0], "coco", tmp_path / "there", photos[1], "table")
    assert len(error.value.problems) == 2 and not (tmp_path / "there").exists()
    path = make_coco(tmp_path / "coco", ANIMALS, categories=NUMBERS)
    values = json.loads(path.read_text())
    for annotation in values["annotations"][:3]:
        annotation["segmentation"] = [[1e9, 1e9, 2e9, 2e9, 1e9, 2e9]]
    path.write_text(json.dumps(values))
    with pytest.raises(DataError) as error:
        convert(path, "masks", tmp_path / "there")
    shown = {a["image_id"] for a in values["annotations"][:3]}
    assert len(error.value.problems) == len(shown) > 1


def test_photos_without_a_mask_and_masks_without_a_photo_are_said(photos, tmp_path, caplog):
    """A YOLO data set would take the photos for photos of nothing."""
    first, *others = sorted(photos[1].rglob("*.png"))
    first.rename(photos[1] / "zzz.png")
    table = load_table(convert(photos[0], "yolo", tmp_path / "there", photos[1]))
    assert len(table) == len(others) and all(photo.tags for photo in table.photos)
    assert f"1 of {len(others) + 1} photos have no mask in {photos[1]}" in caplog.text
    assert "1 mask of none of these photos left out: zzz.png" in caplog.text
    assert "1 photo with tags, but without a mask, left out" in caplog.text


def test_an_interrupted_conversion_can_be_run_again(photos, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tag2mask.formats.convert.write_mask", stop)
        convert(photos[0], "csv", tmp_path / "out", photos[1])
    assert convert(photos[0], "csv", tmp_path / "out", photos[1]).exists()


def test_boxes_are_tags_not_masks(tmp_path):
    path = make_yolo(tmp_path / "in", {"a": ("cat",)}, ["cat", "dog"])
    with (tmp_path / "in" / "labels" / "train" / "a.txt").open("a") as file:
        file.write("\n1 0.5 0.5 0.2 0.2\n")
    there = convert(path, "csv", tmp_path / "out")
    assert load_table(there).photos[0].tags == ("cat", "dog")
    assert np.array_equal(
        read_mask(tmp_path / "out" / "masks" / "a.png"), mask(("cat",), {"cat": 1})
    )


def test_names_that_are_equal_without_folders_stay_unique(tmp_path):
    rows = {"a__b-2.png": "car", "a/b.png": "cat", "a__b.png": "dog", "a__b.jpg": "sofa"}
    for i, file in enumerate(rows):
        picture(tmp_path / file, seed=i)
    lines = "".join(f"{file},{tag}\n" for file, tag in rows.items())
    (tmp_path / "tags.csv").write_text(f"file_name,tags\n{lines}")
    table = load_table(convert(tmp_path / "tags.csv", "voc", tmp_path / "out"))
    assert sorted(photo.tags for photo in table.photos) == [("car",), ("cat",), ("dog",), ("sofa",)]


def rasterised(shapes: list[np.ndarray], height: int, width: int) -> np.ndarray:
    coder = rle_coder()
    if not shapes:
        return np.zeros((height, width), bool)
    return coder.decode(
        coder.merge(coder.frPyObjects([shape.ravel().tolist() for shape in shapes], height, width))
    ).astype(bool)


@settings(max_examples=200)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 10), st.integers(1, 10))))
def test_polygons_are_exact_holes_and_corners_included(region):
    assert np.array_equal(rasterised(polygons(region, tolerance=0), *region.shape), region)


def test_one_polygon_a_part_and_holes_belong_to_theirs():
    region = np.zeros((20, 30), bool)
    region[2:18, 2:18] = True
    region[5:15, 5:15] = False
    region[8:12, 8:12] = True  # an island in the hole
    region[2:6, 22:26] = True
    assert len(polygons(region, 0)) == 3
    assert np.array_equal(rasterised(polygons(region), 20, 30), region)


@pytest.mark.real
def test_simplified_outlines_of_real_masks_keep_their_area(shared):
    overlaps, corners = [], []
    for path in sorted((shared / "voc-animals" / "masks").glob("*.png"))[:40]:
        values = read_mask(path)
        for number in set(np.unique(values).tolist()) - {0, 255}:
            region = values == number
            shapes = polygons(region)
            drawn = rasterised(shapes, *region.shape)
            overlaps.append((drawn & region).sum() / (drawn | region).sum())
            corners.append(sum(map(len, shapes)) / max(1, sum(map(len, polygons(region, 0)))))
    assert min(overlaps) > 0.9 and np.mean(overlaps) > 0.97
    assert np.mean(corners) < 0.5


@pytest.mark.real
def test_coco_mini_goes_to_masks_and_is_found_again(shared, tmp_path):
    path = shared / "coco-mini" / "annotations" / "instances_train.json"
    folder = convert(path, "masks", tmp_path / "masks")
    table = load_table(path)
    truth = Truth(folder, table)
    assert (
        truth.numbering == "names"  # of the file masks.json there
        and len(truth.photos_with_truth)
        == len(table)
        == len(json.loads(path.read_text())["images"])
    )
    assert sum(photo.of_nothing for photo in table.photos) == 30
    (folder / "masks.json").unlink()
    assert Truth(folder, table).numbering in ("table", "coco")


def test_the_command_line_says_what_the_numbers_mean(tmp_path, capfd):
    from tag2mask.cli import main

    path = make_yolo(tmp_path / "in", {"a": ("zebra", "apple")}, ["zebra", "apple"])
    assert (
        main(["convert", "--data", str(path), "--to", "masks", "--out", str(tmp_path / "out")]) == 0
    )
    assert "class numbers in the masks: 1 zebra, 2 apple" in capfd.readouterr().err
