import json
import math
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from layouts import (
    ANIMALS,
    SIZE,
    make_coco,
    make_cvat,
    make_labelme,
    make_voc,
    make_yolo,
    mask,
    picture,
    xml,
)

from tag2mask.errors import DataError
from tag2mask.formats import find_format, load_table, read_rows
from tag2mask.formats.rows import Row, Shape
from tag2mask.formats.shapes import draw
from tag2mask.formats.voc import read_cls_labels
from tag2mask.photos.classes import COCO, COCO_IDS, VOC
from tag2mask.photos.masks import Truth


def tags_by_name(table):
    return {photo.name: set(photo.tags) for photo in table.photos}


TAGS = {name: set(tags) for name, tags in ANIMALS.items()}
COCO_ANIMALS = {
    name: tuple("couch" if tag == "sofa" else tag for tag in tags) for name, tags in ANIMALS.items()
}


def test_voc_by_every_path(tmp_path):
    root = make_voc(tmp_path)
    lists = root / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("2008_000006\n2007_000001\n")
    (lists / "pairs.txt").write_text(
        "/JPEGImages/2007_000002.jpg /SegmentationClassAug/2007_000002.png\n"
    )
    for path in (root, root.parent, lists / "train.txt"):
        table = load_table(path)
        assert find_format(path) == "voc" and table.tags == VOC and tags_by_name(table) == TAGS
    assert [photo.name for photo in load_table(lists / "val.txt").photos] == [
        "2008_000006",
        "2007_000001",
    ]
    assert tags_by_name(load_table(lists / "pairs.txt")) == {"2007_000002": {"dog"}}
    (lists / "train_aug.txt").write_text("2007_000001\n2007_000002\n")
    assert len(load_table(root)) == 2  # the augmented list goes before train
    truth = Truth(root / "SegmentationClass", load_table(lists / "train.txt"))
    assert truth.numbering in ("table", "voc") and len(truth.photos_with_truth) == 6


def test_voc_of_other_classes_has_those_that_occur(tmp_path):
    table = load_table(make_voc(tmp_path, {"a": ("cat",), "b": ("cat", "dog")}))
    assert table.tags == VOC
    root = make_voc(tmp_path / "own", {"a": ("cat",), "b": ("dog",)})
    (root / "Annotations" / "a.xml").write_text(xml("a", ("rabbit",)))
    assert load_table(root).tags == ("dog", "rabbit")


def cls_labels(path: Path, keys=str) -> Path:
    labels = {}
    for name, tags in ANIMALS.items():
        labels[keys(name)] = np.array([tag in tags for tag in VOC], np.float32)
    np.save(path, labels)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_cls_labels_of_any_pickle_protocol(tmp_path, protocol):
    root = make_voc(tmp_path)
    shutil.rmtree(root / "Annotations")
    path = cls_labels(root / "cls_labels_onehot.npy")
    labels = np.load(path, allow_pickle=True)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(labels, file, protocol=protocol)
    assert tags_by_name(load_table(root)) == tags_by_name(load_table(path)) == TAGS


def test_cls_labels_with_irns_integer_names(tmp_path):
    root = make_voc(tmp_path)
    path = cls_labels(root / "cls_labels.npy", lambda name: int(name.replace("_", "")))
    assert tags_by_name(load_table(path)) == TAGS


class Bomb:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_code_in_a_label_file_never_runs(tmp_path):
    root = make_voc(tmp_path)
    np.save(root / "cls_labels.npy", {"x": Bomb(tmp_path / "ran")})
    with pytest.raises(DataError, match=r"which is code.*No code in it was run.*CSV"):
        load_table(root / "cls_labels.npy")
    assert not (tmp_path / "ran").exists()
    np.load(root / "cls_labels.npy", allow_pickle=True)  # the bomb is live
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [np.zeros(3), {"a": np.zeros(7)}, {}, [1]])
def test_label_files_of_another_kind_are_refused(tmp_path, value):
    np.save(tmp_path / "x.npy", value)
    with pytest.raises(DataError, match="not a "):
        read_cls_labels(tmp_path / "x.npy")


def test_voc_without_any_tags_says_so(tmp_path):
    root = make_voc(tmp_path)
    shutil.rmtree(root / "Annotations")
    with pytest.raises(DataError, match=r"neither Annotations/\*\.xml nor cls_labels"):
        load_table(root)


def test_coco_by_folder_and_by_file(tmp_path):
    train = make_coco(tmp_path, COCO_ANIMALS)
    val = make_coco(tmp_path, {"COCO_val2014_000000000001": ("cat",)}, "val2014")
    for path in (tmp_path, train):
        table = load_table(path)
        assert find_format(path) == "coco" and table.tags == COCO and table.num_classes == 81
        assert tags_by_name(table) == {name: set(tags) for name, tags in COCO_ANIMALS.items()}
    assert load_table(val, tags=COCO).photos[0].path.parent.name == "val2014"
    make_coco(tmp_path, COCO_ANIMALS, "train2017")
    with pytest.raises(
        DataError, match=r"instances_train2014\.json and instances_train2017\.json; give the file"
    ):
        load_table(tmp_path)


def test_coco_pictures_without_objects_are_photos_of_nothing(tmp_path):
    table = load_table(make_coco(tmp_path, {**COCO_ANIMALS, "blank": ()}))
    assert tags_by_name(table)["blank"] == set() and table.photos[-1].unknown == ()


def test_coco_exports_of_own_classes(tmp_path):
    path = make_coco(
        tmp_path,
        {"a": ("zebra fish",), "b": ("ant",)},
        "default",
        {"things": 0, "zebra fish": 1, "ant": 2},
    )
    assert load_table(path).tags == ("zebra fish", "ant")


def test_coco_faults_are_named(tmp_path):
    path = make_coco(tmp_path, COCO_ANIMALS)
    values = json.loads(path.read_text())
    values["annotations"][0]["category_id"] = 12
    values["annotations"][1]["image_id"] = 999
    path.write_text(json.dumps(values))
    with pytest.raises(
        DataError, match=r"annotation 1: category 12 is not(.|\n)*annotation 2: image 999 is not"
    ):
        load_table(path)
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(DataError, match="no list annotations, categories"):
        load_table(path)
    del values["images"][0]["file_name"]
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match="entry 0 of images has no file_name"):
        load_table(path)


@pytest.mark.parametrize(
    "key, index, change, part",
    [
        ("annotations", 1, None, "entry 1 of annotations is not an object: None"),
        ("annotations", 1, {"area": "big"}, "entry 1 of annotations has 'big' as area"),
        (
            "annotations",
            1,
            {"category_id": [1]},
            r"entry 1 of annotations has \[1\] as category_id",
        ),
        ("images", 0, {"file_name": None}, "entry 0 of images has no file_name"),
        ("images", 0, {"width": "64"}, "entry 0 of images has '64' as width"),
        (
            "images",
            1,
            {"id": 1},
            r"image 1: 2007_000001\.jpg and 2007_000002\.jpg have the same id",
        ),
        ("categories", 1, {"id": 1}, r"category 1: \w+ and \w+ have the same id"),
        ("images", 0, {"file_name": "a" * 300}, r"image 1 \(a{300}\): no such file"),
        ("categories", 0, {"name": ""}, "entry 0 of categories has no name"),
        (
            "categories",
            0,
            {"name": "background"},
            r'image 1 \(2007_000001\.jpg\): "background" is the name of class 0',
        ),
    ],
)
def test_wrong_coco_entries_are_named(tmp_path, key, index, change, part):
    path = make_coco(tmp_path, ANIMALS, "default", {"cat": 1, "dog": 2, "sofa": 3})
    values = json.loads(path.read_text())
    values[key][index] = change and {**values[key][index], **change}
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=part):
        load_table(path)


def test_coco_ids_may_be_numbers_and_texts(tmp_path):
    path = make_coco(tmp_path, {"a": ("cat", "dog")}, "default", {"cat": "x", "dog": 2})
    assert load_table(path).tags == ("dog", "cat")


def test_yolo_by_file_folder_and_split(tmp_path):
    names = ["sofa", "dog", "cat"]
    path = make_yolo(tmp_path, ANIMALS, names)
    make_yolo(tmp_path, {"v": ("cat",)}, names, "val")
    picture(tmp_path / "images" / "train" / "nothing.jpg", seed=99)
    with (tmp_path / "labels" / "train" / "2007_000001.txt").open("a") as file:
        file.write("\n0 0.5 0.5 0.1 0.1\n")  # a box
    for data in (path, tmp_path):
        table = load_table(data)
        assert find_format(data) == "yolo" and table.tags == ("sofa", "dog", "cat")
        expected = {**TAGS, "2007_000001": {"cat", "sofa"}, "nothing": set()}
        assert tags_by_name(table) == expected
        assert [row.tags for row in read_rows(data).val.rows] == [("cat",)]
    assert tags_by_name(load_table(tmp_path / "images" / "val", tags=table.tags)) == {"v": {"cat"}}
    (tmp_path / "labels" / "train" / "2007_000002.txt").write_text("7 0.5 0.5 0.1 0.1\nx\n")
    with pytest.raises(DataError, match=r"2007_000002\.txt line 1: not a class(.|\n)*line 2"):
        load_table(path)


def test_a_background_that_no_label_names_is_no_tag(tmp_path):
    assert load_table(make_yolo(tmp_path, ANIMALS, ["background", "sofa", "dog", "cat"])).tags == (
        "sofa",
        "dog",
        "cat",
    )


def test_roboflow_names_a_folder_above_that_lies_beside(tmp_path):
    path = make_yolo(tmp_path, ANIMALS, ["sofa", "dog", "cat"])
    path.write_text('train: ../train/images\n"names": [sofa, dog, cat]\n')
    (tmp_path / "train").mkdir()
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").rename(tmp_path / "train" / kind)
    assert tags_by_name(load_table(tmp_path)) == TAGS


def test_yaml_files_of_other_tools_are_not_yolos(tmp_path):
    picture(tmp_path / "photos" / "cat" / "a.jpg")
    (tmp_path / "compose.yml").write_text("hostnames:\n- a\nservice:\n  names: [b]\n")
    (tmp_path / "folder.yaml").mkdir()
    assert find_format(tmp_path / "photos") == "folder"


@pytest.mark.parametrize(
    "names", ["{0: cat, x: dog}", "cat", "[cat, '  ']", "[cat, null]", "[cat", "null"]
)
def test_wrong_yolo_names_are_refused(tmp_path, names):
    make_yolo(tmp_path, {"a": ("cat",)}, ["cat"]).write_text(f"names: {names}\n")
    with pytest.raises(DataError, match=r"data\.yaml: not a YOLO data file with names"):
        load_table(tmp_path)


def test_yolo_faults_are_named(tmp_path):
    path = make_yolo(tmp_path, dict.fromkeys("abc", ("cat",)), ["cat"])
    labels = tmp_path / "labels" / "train"
    (labels / "a.txt").write_text("0 .1 .1 nan .1 .5 .5\n0 .1 .1 .5 .1 .5 inf\n")
    (labels / "b.txt").write_bytes("0 .1 .1 .2 .2 # Bär".encode("latin-1"))
    with pytest.raises(DataError) as caught:
        load_table(path)
    first, second, third = caught.value.problems
    assert (
        "a.txt line 1: not a class" in first
        and "a.txt line 2" in second
        and "b.txt: not UTF-8 text (byte 17)" in third
    )


def spaced(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f" {tag.replace(' ', '   ')} " for tag in tags)


def test_spaces_around_and_in_labels_do_not_count(tmp_path):
    photos = {"a": spaced(("traffic light", "cat")), "b": spaced(("cat",))}
    sources = {
        "coco": make_coco(
            tmp_path / "coco", photos, "default", {" cat ": 1, " traffic   light ": 2}
        ),
        "yolo": make_yolo(tmp_path / "yolo", photos, [" cat ", " traffic   light "]),
        "labelme": make_labelme(tmp_path / "labelme", photos),
        "cvat": make_cvat(tmp_path / "cvat", photos),
    }
    numbers = {"cat": 1, "traffic light": 2}
    for form, path in sources.items():
        table = load_table(path)
        assert table.tags == ("cat", "traffic light") and tags_by_name(table)["a"] == {
            "cat",
            "traffic light",
        }
        assert np.array_equal(
            painted(read_rows(path, outlines=True).rows[0], numbers),
            mask(("traffic light", "cat"), numbers),
        ), form


@pytest.mark.parametrize(
    "point, part",
    [('"x"', "could not convert"), ("null", "NoneType"), ("NaN", "NoneType"), ("1e999", "not a n")],
)
def test_wrong_labelme_points_are_refused(tmp_path, point, part):
    make_labelme(tmp_path, ANIMALS)
    file = tmp_path / "2007_000002.json"
    file.write_text(file.read_text().replace("[[4,", f"[[{point},"))
    with pytest.raises(DataError, match=rf"2007_000002\.json: not a LabelMe file.*{part}"):
        load_table(tmp_path)


def test_cvat_faults_are_named_all_at_once(tmp_path):
    path = make_cvat(tmp_path, ANIMALS)
    text = (
        path.read_text()
        .replace(' width="64"', "", 1)
        .replace('rle="0, ', 'rle="7, ', 1)
        .replace("4.00,6.00", "nan,6.00")
    )
    path.write_text(text.replace('label="dog"', 'label=" "', 1))
    with pytest.raises(DataError) as caught:
        load_table(path)
    text = "\n".join(caught.value.problems)
    for part in (
        "image 0 (2007_000001.jpg): not an image",
        "no 'width'",
        "image 2 (2007_000003.jpg)",
        "without a name",
        "not a number",
    ):
        assert part in text


def test_labelme_and_cvat(tmp_path):
    for path, form in (
        (make_labelme(tmp_path / "a", ANIMALS), "labelme"),
        (make_cvat(tmp_path / "b", ANIMALS), "cvat"),
    ):
        assert find_format(path) == form
        assert tags_by_name(load_table(path)) == TAGS
    (tmp_path / "a" / "2007_000001.json").write_text('{"shapes": [{"points": []}]}')
    with pytest.raises(DataError, match=r"2007_000001\.json: not a LabelMe file"):
        load_table(tmp_path / "a")
    (tmp_path / "x.xml").write_text("<html/>")
    with pytest.raises(DataError, match="begins with <html>"):
        load_table(tmp_path / "x.xml")


def test_outlines_of_every_tool_draw_the_same_masks(tmp_path):
    sources = {
        "coco": make_coco(tmp_path / "coco", ANIMALS, "default", {"cat": 5, "dog": 7, "sofa": 9}),
        "yolo": make_yolo(tmp_path / "yolo", ANIMALS, ["sofa", "dog", "cat"]),
        "labelme": make_labelme(tmp_path / "labelme", ANIMALS),
        "cvat": make_cvat(tmp_path / "cvat", ANIMALS),
    }
    numbers = {"cat": 1, "dog": 2, "sofa": 3}
    for form, path in sources.items():
        rows = read_rows(path, outlines=True)
        assert rows.names == list(ANIMALS)
        for name, row in zip(rows.names, rows.rows, strict=True):
            assert np.array_equal(painted(row, numbers), mask(ANIMALS[name], numbers)), (form, name)
        assert not any(row.shapes for row in read_rows(path).rows), "no training sees an outline"


def painted(row: Row, numbers: dict[str, int]) -> np.ndarray:
    return draw(row, numbers, Path("data.json"), Counter())


def drawn(
    folder: Path, shapes: list[Shape], numbers: dict[str, int], where: str = ""
) -> np.ndarray:
    row = Row(picture(folder / "a.png"), (), where, tuple(shapes), SIZE)
    return painted(row, numbers)


def square(x: int, y: int, side: int) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def test_where_objects_overlap_the_smaller_is_on_top(tmp_path):
    shapes = [Shape("small", square(4, 4, 4), 16.0), Shape("large", square(0, 0, 12), 144.0)]
    for order in (shapes, shapes[::-1]):
        mask = drawn(tmp_path, order, {"small": 1, "large": 2})
        assert (mask == 1).sum() == 16 and (mask == 2).sum() == 144 - 16
    # The size that counts is the one in the file, as in the masks the field uses.
    lying = [Shape("small", square(4, 4, 4), 500.0), Shape("large", square(0, 0, 12), 144.0)]
    assert (drawn(tmp_path, lying, {"small": 1, "large": 2}) == 1).sum() == 0
    same = [Shape("first", square(0, 0, 4)), Shape("second", square(2, 0, 4))]
    assert (drawn(tmp_path, same, {"first": 1, "second": 2}) == 1).sum() == 16


def test_crowds_are_drawn_and_wrong_outlines_refused(tmp_path):
    counts = [0, 48 * 2, 48 * 62]  # the two leftmost columns
    crowd = Shape("cat", {"size": [48, 64], "counts": counts})
    assert (drawn(tmp_path, [crowd], {"cat": 1})[:, :2] == 1).all()
    size = [48, 64]
    for outline in (
        [[1, 2, 3]],
        [[1, 2, "a", 4, 5, 6]],
        [[1, 2, math.nan, 4, 5, 6]],  # these three would kill the process
        [[1, 2, math.inf, 4, 5, 6]],
        [[1, 2, 1e12, 4, 5, 6]],
        {"size": [3, 3], "counts": [9]},
        {"counts": [1]},
        {"size": size, "counts": [5, 5]},
        {"size": size, "counts": [-5, 48 * 64 + 5]},
        {"size": size, "counts": "é"},
    ):
        with pytest.raises(DataError, match="picture 7: the outline of a cat cannot be drawn"):
            drawn(tmp_path, [Shape("cat", outline)], {"cat": 1}, "picture 7")


@pytest.mark.real
def test_coco_mini_equals_pycocotools(shared):
    from pycocotools.coco import COCO as PyCOCO  # noqa: N811

    path = shared / "coco-mini" / "annotations" / "instances_train.json"
    coco = PyCOCO(str(path))
    table = load_table(path)
    rows = read_rows(path, outlines=True).rows
    images = {image["file_name"].removesuffix(".jpg"): image for image in coco.dataset["images"]}
    assert table.num_classes == 81
    assert {photo.name for photo in table.photos} == images.keys()
    numbers = {tag: i for i, tag in enumerate(COCO, 1)}
    classes = dict(zip(COCO_IDS, range(1, 81), strict=True))
    for photo, row in zip(table.photos, rows, strict=True):
        annotations = coco.loadAnns(coco.getAnnIds(images[photo.name]["id"]))
        assert set(photo.tags) == {
            coco.cats[annotation["category_id"]]["name"] for annotation in annotations
        }
        expected = np.zeros(row.size[::-1], np.uint8)
        for annotation in sorted(annotations, key=lambda annotation: annotation["area"]):
            expected = np.where(
                (expected == 0) & (coco.annToMask(annotation) == 1),
                classes[annotation["category_id"]],
                expected,
            )
        assert np.array_equal(painted(row, numbers), expected), photo.name


@pytest.mark.real
def test_real_photos_laid_out_as_voc(shared, tmp_path):
    animals = shared / "voc-animals"
    own = load_table(animals / "train.csv")
    root = tmp_path / "VOCdevkit" / "VOC2012"
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "JPEGImages").symlink_to(animals / "images")
    (root / "SegmentationClass").symlink_to(animals / "masks")
    for photo in own.photos:
        (root / "Annotations" / f"{photo.name}.xml").write_text(xml(photo.name, photo.tags))
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text(
        "\n".join(photo.name for photo in own.photos)
    )
    voc = load_table(root)
    assert tags_by_name(voc) == tags_by_name(own) and voc.tags == VOC
    truth = Truth(root / "SegmentationClass", voc)
    assert len(truth.photos_with_truth) == 1300
    names = {photo.name: photo for photo in own.photos}
    own_truth = Truth(animals / "masks", own)
    for photo in voc.photos[:20]:
        as_csv = own_truth.read(names[photo.name])
        as_voc = truth.read(photo)
        for tag in photo.tags:
            assert np.array_equal(as_voc == VOC.index(tag) + 1, as_csv == own.tags.index(tag) + 1)
