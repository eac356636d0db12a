"""Every form in `FORMATS`: what it means, what is wrong with it, and that no mask is read."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import layouts
import pytest
from layouts import choices, picture, write
from PIL import Image

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats import FORMATS, find_format, json_files, load_table, read_rows
from tag2mask.formats.convert import convert
from tag2mask.formats.rows import row_findings
from tag2mask.forms import FORMS

PHOTOS = {
    "IMG_0001": ("cat",),
    "IMG_0002": ("cat", "dog"),
    "IMG_0003": (),
    "IMG_0004": ("dog",),
    "IMG_0005": ("dog", "horse"),
    "IMG_0006": ("horse",),
}


class Case(NamedTuple):
    """A form and how to make it. `lists`: a file names the pictures; `nothing`: it can say so."""

    form: str
    make: Callable[[Path, dict[str, tuple[str, ...]]], Path]
    lists: bool = True
    nothing: bool = True


def coco(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    return layouts.make_coco(folder, photos, "default", {"cat": 1, "dog": 2, "horse": 3})


def yolo(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    path = layouts.make_yolo(folder, photos, ["cat", "dog", "horse"])
    layouts.make_yolo(folder, {"v": ("cat",)}, ["cat", "dog", "horse"], "val")
    return path


CASES = {
    "voc": Case("voc", layouts.make_voc),
    "voc-lists": Case("voc-lists", layouts.make_voc_lists),
    "coco": Case("coco", coco),
    "camera-traps": Case("coco", layouts.make_traps),
    "label-studio": Case("label-studio", layouts.make_label_studio),
    "label-studio-min": Case("label-studio", layouts.make_label_studio_min),
    "fiftyone": Case("fiftyone", layouts.make_fiftyone),
    "mmpretrain": Case("mmpretrain", layouts.make_mmpretrain),
    "json": Case("json", layouts.make_dictionary),
    "yaml": Case("yaml", layouts.make_yaml),
    "manifest": Case("manifest", layouts.make_manifest),
    "vertex": Case("vertex", layouts.make_vertex),
    "vertex-csv": Case("vertex", layouts.make_vertex_csv, nothing=False),
    "cvat": Case("cvat", layouts.make_cvat),
    "camtrap-dp": Case("camtrap-dp", layouts.make_camtrap_dp),
    "labelme": Case("labelme", layouts.make_labelme),
    "labelme-flags": Case("labelme", layouts.make_flags),
    "roboflow": Case("roboflow", layouts.make_roboflow),
    "roboflow-split": Case("split", layouts.make_roboflow_split),
    "image-folder": Case("split", layouts.make_image_folder),
    "yolo": Case("yolo", yolo, lists=False),
    "split": Case("split", layouts.make_split, lists=False, nothing=False),
    "keywords": Case("keywords", layouts.make_keywords, lists=False),
    "folder": Case("folder", layouts.make_folder, lists=False, nothing=False),
}
# Forms that other tests have: tables, parquet.
OTHERS = {"csv", "xlsx", "jsonl", "txt", "metadata.csv", "metadata.jsonl", "parquet"}
LOOKED = {"folder": [".jpg"], "split": [".jpg"], "keywords": [".jpg"]}  # for keywords inside
every_form = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def photos_of(case: Case) -> dict[str, tuple[str, ...]]:
    return PHOTOS if case.nothing else {name: tags for name, tags in PHOTOS.items() if tags}


def stem(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def meaning(path: Path, **settings: object) -> dict[str, tuple[set[str], set[str]]]:
    """Picture -> tags that are present, tags that are unknown."""
    table = load_table(path, settings=DataSettings(**settings))
    return {stem(p.path): (set(p.tags), set(p.unknown)) for p in table.photos}


def known(photos: dict[str, tuple[str, ...]]) -> dict[str, tuple[set[str], set[str]]]:
    return {name: (set(tags), set()) for name, tags in photos.items()}


def problems(path: Path, **settings: object) -> list[str]:
    with pytest.raises(DataError) as caught:
        load_table(path, settings=DataSettings(**settings))
    return caught.value.problems


def warnings(path: Path, **settings: object) -> str:
    findings = list(row_findings(read_rows(path, DataSettings(**settings))))
    assert all(finding.severity == "warning" for finding in findings), findings
    return "\n".join(map(str, findings))


def test_all_forms_have_a_case():
    assert {case.form for case in CASES.values()} | OTHERS == FORMATS.keys()
    assert list(FORMS) == list(FORMATS)


@every_form
def test_a_form_is_understood_and_no_pixels_are_read(case, tmp_path, monkeypatch):
    photos = photos_of(case)
    path = case.make(tmp_path, photos)
    opened = []
    true_open = Image.open
    monkeypatch.setattr(Image, "open", lambda f, *a, **k: opened.append(f) or true_open(f, *a, **k))
    assert find_format(path) == case.form
    assert meaning(path) == known(photos)
    rows = read_rows(path)
    assert rows.form and not warnings(path)
    assert {Path(file).suffix for file in opened} <= set(LOOKED.get(case.form, ()))
    assert bool(rows.val) == (case.form in ("split", "yolo"))


@every_form
def test_a_form_comes_back_from_a_table(case, tmp_path):
    path = case.make(tmp_path / "in", photos_of(case))
    back = convert(path, "csv", tmp_path / "out")
    assert meaning(back) == meaning(path)
    val = read_rows(path).val
    if val:
        names = {Path(row.path).stem: set(row.tags) for row in val.rows}
        new = read_rows(tmp_path / "out" / "val.csv").rows
        assert {Path(row.path).stem: set(row.tags) for row in new} == names


@every_form
def test_a_missing_picture_is_one_error(case, tmp_path):
    path = case.make(tmp_path, photos_of(case))
    (file,) = tmp_path.rglob("*IMG_0004.jpg")
    file.unlink()
    if case.lists:
        (problem,) = problems(path)
        assert "IMG_0004" in problem and "no such file" in problem
    else:
        assert "IMG_0004" not in meaning(path)


def main_file(path: Path) -> Path:
    """The file that has the tags."""
    if path.is_file():
        return path
    names = (
        "_classes.csv",
        "metadata.csv",
        "labels.json",
        "observations.csv",
        "*_train.txt",
        "train.txt",
        "IMG_0002.json",
    )
    folder = path / "train" if (path / "train").is_dir() else path
    return next(file for name in names for file in sorted(folder.rglob(name)))


GARBAGE = {
    "cut": lambda text: text[: len(text) // 2],
    "other": lambda _: "<html>404</html>",
    "binary": lambda _: "\x00\x01\ufffd" * 50,
    "number": lambda _: "7",
    "brackets": lambda _: "[" * 100_000,
    "digits": lambda _: "[" + "1" * 5_000 + "]",
}


@pytest.mark.parametrize("kind", GARBAGE)
@every_form
def test_a_broken_file_is_an_error_that_names_it(case, kind, tmp_path):
    if not case.lists:
        return
    path = case.make(tmp_path, photos_of(case))
    file = main_file(path)
    file.write_text(GARBAGE[kind](file.read_text()))
    settings = DataSettings(form=case.form)
    if kind == "cut" and file.suffix not in (".json", ".xml"):
        with suppress(DataError):  # half of the lines may be a data set
            read_rows(path, settings)
        return
    with pytest.raises(DataError) as caught:
        load_table(path, settings=settings)
    assert len(str(caught.value)) < 5_000


VALUES = [None, True, -1, 1e308, "x", "", [], {}, [None], {"a": None}, "\ud800", "../../etc/passwd"]


def nodes(value: object, path: tuple = ()) -> Iterator[tuple]:
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(inner, (*path, key))


def changed(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


@pytest.mark.parametrize(
    "name",
    [n for n, c in CASES.items() if c.lists and c.form != "voc"],
)
def test_any_wrong_value_is_read_or_an_error(name, tmp_path):
    case = CASES[name]
    path = case.make(tmp_path, {"IMG_0002": ("cat", "dog"), "IMG_0004": ("dog",)})
    file = main_file(path)
    text = file.read_text()
    if file.suffix == ".json":
        value = json.loads(text)
        texts = (json.dumps(changed(value, n, new)) for n in nodes(value) for new in VALUES)
    elif text.startswith("{"):
        lines = [json.loads(line) for line in text.splitlines()]
        values = (changed(lines, node, new) for node in nodes(lines) for new in VALUES)
        texts = ("\n".join(map(json.dumps, v if isinstance(v, list) else [v])) for v in values)
    else:
        cuts = range(0, len(text), 3)
        texts = (text[:at] + junk + text[at + 2 :] for at in cuts for junk in ("", '"', "\0", ",,"))
    for text in texts:
        file.write_text(text)
        try:
            rows = read_rows(path)
            list(row_findings(rows))
        except DataError as error:
            assert str(error)


CAT, DOG = ("cat",), ("dog",)


def tasks(folder: Path, *annotations: list[dict]) -> Path:
    """Label Studio's tasks, each with some annotations, of the pictures p0.jpg, p1.jpg, ..."""
    for i in range(len(annotations)):
        picture(folder / f"p{i}.jpg", seed=i)
    return write(
        folder / "project.json",
        [
            {"id": i, "annotations": a, "data": {"image": f"/data/upload/7/0a1b2c3d-p{i}.jpg"}}
            for i, a in enumerate(annotations)
        ],
    )


def test_label_studio_annotations_that_disagree_leave_a_tag_unknown(tmp_path):
    path = tasks(
        tmp_path,
        [choices(("cat", "dog")), choices(CAT)],
        [choices(CAT), choices(DOG, ground_truth=True)],
        [choices(CAT), choices(DOG, was_cancelled=True)],
        [choices(()), choices(DOG)],
        [choices(DOG), choices(CAT)],
    )
    assert meaning(path, untagged="nothing") == {
        "p0": ({"cat"}, {"dog"}),
        "p1": ({"dog"}, set()),
        "p2": ({"cat"}, set()),
        "p3": (set(), {"dog"}),
    }
    assert "annotations of 2 photos disagree" in warnings(path)
    assert "1 photo is left out: its annotations agree on no tag" in warnings(path)


def test_label_studio_tasks_without_annotation_are_left_out_and_counted(tmp_path):
    path = tasks(
        tmp_path, [choices(CAT)], [], [choices(DOG, was_cancelled=True)], [], [choices(())]
    )
    for untagged in ("auto", "nothing"):
        assert meaning(path, untagged=untagged) == known({"p0": CAT, "p4": ()})
    text = warnings(path)
    assert "2 photos are left out: not annotated yet" in text
    assert "1 photo is left out: skipped (canceled)" in text


def test_label_studio_uploads_with_and_without_their_prefix(tmp_path):
    path = tasks(tmp_path, [choices(CAT)], [choices(DOG)])
    (tmp_path / "p1.jpg").rename(tmp_path / "0a1b2c3d-p1.jpg")
    picture(tmp_path / "p1.jpg", seed=50)  # another picture: the whole name decides
    assert {p.path.name for p in load_table(path).photos} == {"p0.jpg", "0a1b2c3d-p1.jpg"}
    other = tmp_path / "elsewhere"
    for name in ("p0.jpg", "p1.jpg"):
        picture(other / "deep" / name, seed=60)
    assert {
        p.path.parent.name for p in load_table(path, settings=DataSettings(images=other)).photos
    } == {"deep"}


def test_label_studio_questions_and_pictures_are_chosen_by_options(tmp_path):
    path = tasks(tmp_path, [choices(CAT)], [choices(DOG)])
    values = json.loads(path.read_text())
    weather = {"from_name": "sky", "type": "choices", "value": {"choices": ["sunny"]}}
    box = {
        "from_name": "box",
        "type": "rectanglelabels",
        "value": {"x": 1, "y": 2, "rectanglelabels": ["horse"]},
    }
    taxonomy = {
        "from_name": "kind",
        "type": "taxonomy",
        "value": {"taxonomy": [["Animals", "Pets", "Rabbit"]]},
    }
    text = {"from_name": "note", "type": "textarea", "value": {"text": ["nice"]}}
    values[0]["annotations"][0]["result"] += [weather, box, taxonomy, text]
    write(path, values)
    assert meaning(path)["p0"][0] == {"cat", "sunny", "horse", "Rabbit"}
    assert meaning(path, tag_column="what") == known({"p0": CAT, "p1": DOG})
    assert meaning(path, tag_column="kind", level="any")["p0"][0] == {"Animals", "Pets", "Rabbit"}
    assert meaning(path, tag_column="kind", level="2")["p0"][0] == {"Pets"}
    (problem,) = problems(path, tag_column="wath")
    assert "(photos.tag_column) among what, sky, box, kind" in problem
    values[0]["data"]["thumb"] = "https://x.org/t.jpg?size=3"
    write(path, values)
    (problem,) = problems(path)
    assert "image, thumb; choose with --photos.file-column" in problem
    assert meaning(path, file_column="image", tag_column="what") == known({"p0": CAT, "p1": DOG})


def test_label_studio_texts_alone_are_no_tags(tmp_path):
    text = {"from_name": "note", "type": "textarea", "value": {"text": ["nice"]}}
    path = tasks(tmp_path, [{"result": [text]}])
    (problem,) = problems(path)
    assert "no choices and no labels among its results (textarea)" in problem


def test_fiftyone_targets(tmp_path):
    for name in "abcdefg":
        picture(tmp_path / "data" / "x" / f"{name}.png", seed=ord(name))
    labels = {
        "x/a": 1,
        "x/b.png": "cat",
        "c": {"label": "dog", "confidence": 0.9},
        "d": [{"label": "dog", "confidence": 0.2}, {"label": "cat", "bounding_box": [0, 0, 1, 1]}],
        "e": None,
        "f": [],
        "g": ["cat", 1],
    }
    picture(tmp_path / "thumbnails" / "a.png")  # not in data/
    path = write(tmp_path / "labels.json", {"classes": ["cat", "dog"], "labels": labels})
    expected = {"a": DOG, "b": CAT, "c": DOG, "d": CAT, "e": (), "f": (), "g": ("cat", "dog")}
    assert meaning(path) == known(expected)
    assert meaning(path, min_confidence=0.1)["d"][0] == {"cat", "dog"}
    write(path, {"classes": None, "labels": {"a": "dog", "b": 7}})
    assert meaning(path) == known({"a": DOG, "b": ("7",)})
    write(path, {"classes": ["cat"], "labels": {"a": 1, "b": {"label": "x", "confidence": 7}}})
    first, second = problems(path)
    assert "label 1: not a label of FiftyOne: there is no class 1 among 1" in first
    assert "7 is not a confidence" in second


def traps(folder: Path) -> tuple[Path, dict]:
    path = layouts.make_traps(folder, {"a": CAT, "b": DOG, "c": (), "d": ("cat", "dog")})
    return path, json.loads(path.read_text())


def test_camera_traps_with_bursts_corrupt_and_unlabeled_photos(tmp_path):
    path, value = traps(tmp_path)
    value["annotations"][0]["sequence_level_annotation"] = True
    value["images"][1]["corrupt"] = True
    empty = {"id": "x", "image_id": "a3", "category_id": 0}
    value["annotations"].append(empty)
    picture(tmp_path / "loc1" / "new.jpg", seed=77)
    value["images"].append({"id": "new", "file_name": "loc1/new.jpg"})
    write(path, value)
    assert meaning(path) == known({"a": CAT, "c": ()})
    assert "new" in meaning(path, untagged="nothing")
    text = warnings(path)
    assert "1 of 6 annotations hold for a burst of photos" in text
    assert "1 photo left out: marked as corrupt" in text
    assert "1 of 3 photos have no tag and are left out" in text
    assert '1 photo left out: "empty", but with objects (image a3)' in text


def test_an_empty_that_has_a_box_is_an_object(tmp_path):
    path, value = traps(tmp_path)
    for note in value["annotations"]:
        note["bbox"] = [1, 2, 3, 4]
    write(path, value)
    assert meaning(path)["c"][0] == {"empty"}


def test_coco_in_a_folder_has_its_validation_set(tmp_path):
    coco(tmp_path, PHOTOS).rename(tmp_path / "annotations" / "instances_train2017.json")
    (tmp_path / "default").rename(tmp_path / "train2017")
    layouts.make_coco(tmp_path, {"v": CAT, "w": ()}, "val2017", {"cat": 1, "dog": 2, "horse": 3})
    rows = read_rows(tmp_path)
    assert len(rows.rows) == 6 and [row.tags for row in rows.val.rows] == [CAT, ()]
    assert "instances_val2017.json is the validation set" in rows.form
    assert read_rows(tmp_path / "annotations" / "instances_train2017.json").val is None


def test_camtrap_dp_events_types_videos_and_addresses(tmp_path):
    for i, name in enumerate(["a", "b", "c", "d", "e"]):
        picture(tmp_path / "media" / f"{name}.JPG", seed=i)
    time = "2020-05-30T02:57:0"
    head = "mediaID,deploymentID,timestamp,filePath,fileName,fileMediatype"
    address = "https://multimedia.agouti.eu/assets/1a2b/file"
    media = [
        head,
        f"m1,d1,{time}1Z,{address},a.JPG,image/jpeg",
        f"m2,d1,{time}2Z,{address},b.JPG,image/jpeg",
        f"m3,d1,{time}9Z,{address},c.JPG,image/jpeg",
        f"m4,d2,{time}2Z,{address},d.JPG,image/jpeg",
        f"m5,d1,{time}3Z,{address},v.MP4,video/mp4",
        f"m6,d3,{time}3Z,{address},e.JPG,image/jpeg",
    ]
    head = (
        "observationID,deploymentID,mediaID,eventStart,eventEnd,observationLevel,"
        "observationType,scientificName,classificationProbability"
    )
    notes = [
        head,
        f"o1,d1,,{time}1Z,{time}3+00:00,event,animal,Vulpes vulpes,",
        f"o2,d1,,{time}1Z,{time}3Z,event,human,,0.8",
        f"o3,d1,m2,{time}2Z,{time}2Z,media,blank,,",
        f"o4,d2,m4,{time}2Z,{time}2Z,media,vehicle,,0.9",
        f"o5,d2,m4,{time}2Z,{time}2Z,media,animal,Meles meles,0.1",
        f"o6,d3,m6,{time}2Z,{time}2Z,media,unclassified,,",
    ]
    write(tmp_path / "media.csv", "\n".join(media))
    write(tmp_path / "observations.csv", "\n".join(notes))
    write(tmp_path / "datapackage.json", {"resources": []})
    for path in (tmp_path, tmp_path / "datapackage.json"):
        assert find_format(path) == "camtrap-dp"
        expected = {"a": ("Vulpes vulpes", "human"), "b": (), "d": ("vehicle",)}
        assert meaning(path) == known(expected)
    text = warnings(tmp_path)
    assert "1 photo with the tags of an event" in text
    assert "1 photo is left out: videos" in text and "2 of 5 photos have no tag" in text


def test_dictionaries_keep_what_is_unknown(tmp_path):
    for i, name in enumerate("abcdef"):
        picture(tmp_path / f"{name}.jpg", seed=i)
    value = {
        "a.jpg": {"cat": 1, "dog": 0, "horse": None},
        "b.jpg": {"cat": 0.2, "dog": 0.7},
        "c.jpg": ["horse"],
        "d.jpg": None,
        "e.jpg": [],
        "f.jpg": {"cat": False, "dog": False, "horse": True},
    }
    path = write(tmp_path / "tags.json", value)
    assert meaning(path) == {
        "a": ({"cat"}, {"horse"}),
        "b": ({"dog"}, {"horse"}),
        **known({"c": ("horse",), "e": (), "f": ("horse",)}),
    }
    assert "1 of 6 photos have no tag and are left out" in warnings(path)
    write(path, {"a.jpg": "cat", "b.jpg": "cat; dog", "c.jpg": ""})
    assert meaning(path) == known({"a": CAT, "b": ("cat", "dog"), "c": ()})
    write(path, {"a.jpg": "cat, dog", "b.jpg": "cat"})
    (problem,) = problems(path)
    assert "one tag or several?" in problem and "--photos.separator" in problem
    assert meaning(path, separator=",") == known({"a": ("cat", "dog"), "b": CAT})
    assert meaning(path, separator="none") == known({"a": ("cat, dog",), "b": CAT})


def test_yaml_dictionaries_are_texts(tmp_path):
    for i, name in enumerate(["000.jpg", "001.jpg", "002.jpg", "0123.jpg"]):
        picture(tmp_path / name, seed=i)
    path = write(
        tmp_path / "labels.yaml",
        "000.jpg: [no, 12]\n001.jpg: []\n002.jpg: null\n0123: {no: yes, 12: 0}\n",
    )
    assert find_format(path) == "yaml"
    assert meaning(path) == known({"000": ("no", "12"), "001": (), "0123": ("no",)})
    bomb = "a: &a [x]\n" + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghijk")
    )
    write(path, bomb)
    (problem,) = problems(path)
    assert "of no form that is known" in problem and len(problem) < 500
    write(path, "names: [cat")
    assert find_format(path) == "yolo"


def test_a_file_is_parsed_once_and_not_kept(tmp_path, monkeypatch):
    path = layouts.make_dictionary(tmp_path, PHOTOS)
    parsed = []
    parse = json_files.parse_json
    monkeypatch.setattr(json_files, "parse_json", lambda *a: parsed.append(a) or parse(*a))
    assert meaning(path) == known(PHOTOS)
    assert len(parsed) == 1 and not json_files._kept
    write(path, {"IMG_0001": ["cat"]})
    assert meaning(path) == known({"IMG_0001": CAT})


def test_a_json_of_no_form_names_the_forms(tmp_path):
    path = write(tmp_path / "x.json", {"type": "FeatureCollection", "features": [{"a": []}]})
    (problem,) = problems(path)
    assert "an object with 'type', 'features'" in problem and "Label Studio" in problem
    write(path, '{\n"a.jpg": ["cat"]\n"b.jpg": []}')
    (problem,) = problems(path)
    assert "not valid JSON (line 3, column 1" in problem
    write(path, {"shapes": [{}], "imagePath": "a.jpg"})
    (problem,) = problems(path)
    assert "one file of LabelMe; give the folder" in problem


def lines(path: Path, *values: dict) -> Path:
    return write(path, "\n".join(map(json.dumps, values)))


def test_sagemaker_jobs_of_one_label_boxes_and_failures(tmp_path):
    for i, name in enumerate("abcde"):
        picture(tmp_path / f"{name}.png", seed=i)
    one = {"class-name": "cat", "confidence": 0.95, "type": "groundtruth/image-classification"}
    boxes = {"annotations": [{"class_id": 0, "left": 1}, {"class_id": 1, "left": 2}]}
    about = {
        "class-map": {"0": "dog", "1": "ant"},
        "objects": [{"confidence": 0.6}, {"confidence": 0}],
    }
    several = {"class-map": {"3": "dog", "4": "bee"}, "confidence-map": {"3": 0.7, "4": 0.3}}
    failed = {"failure-reason": "ClientError", "type": "groundtruth/image-classification"}
    path = lines(
        tmp_path / "out.jsonl",
        {"source-ref": "s3://b/x/a.png", "job": 0, "job-metadata": one},
        {"source-ref": "s3://b/x/b.png", "job": 0, "job-metadata": {**one, "confidence": 0.1}},
        {"source-ref": "s3://b/x/c.png", "box": boxes, "box-metadata": about},
        {"source-ref": "s3://b/x/d.png", "many": [3, 4], "many-metadata": several},
        {"source-ref": "s3://b/x/e.png", "job": 0, "job-metadata": failed},
    )
    assert find_format(path) == "manifest"
    assert meaning(path) == known({"a": CAT, "b": (), "c": DOG, "d": DOG})
    assert "1 photo is left out: not labeled, or the job failed" in warnings(path)
    assert meaning(path, tag_column="many") == known({"d": DOG})
    assert "no label 'nope'" in problems(path, tag_column="nope")[0]


def test_vertex_splits_boxes_and_unlabeled_pictures(tmp_path):
    for i, name in enumerate("abcdef"):
        picture(tmp_path / f"{name}.jpg", seed=i)
    use = "aiplatform.googleapis.com/ml_use"
    path = lines(
        tmp_path / "import.jsonl",
        {"imageGcsUri": "gs://b/a.jpg", "classificationAnnotation": {"displayName": "cat"}},
        {"imageGcsUri": "gs://b/b.jpg", "boundingBoxAnnotations": [{"displayName": "dog"}] * 2},
        {"imageGcsUri": "gs://b/c.jpg"},
        {
            "imageGcsUri": "gs://b/d.jpg",
            "classificationAnnotations": [],
            "dataItemResourceLabels": {use: "validation"},
        },
    )
    assert meaning(path) == known({"a": CAT, "b": DOG})
    assert [(row.path.stem, row.tags, row.absent) for row in read_rows(path).val.rows] == [
        ("d", (), None)
    ]
    text = "UNASSIGNED,gs://b/a.jpg,cat,dog\nTEST,gs://b/b.jpg,cat\ngs://b/c.jpg\n"
    text += (
        "TRAIN,gs://b/d.jpg,cat,0.1,0.1,,,0.5,0.5,,\nTRAIN,gs://b/d.jpg,dog,0.1,0.1,,,0.5,0.5,,\n"
    )
    path = write(tmp_path / "import.csv", text)
    assert find_format(path) == "vertex"
    assert meaning(path) == known({"a": ("cat", "dog"), "d": ("cat", "dog")})
    assert "1 photo for the test not used" in read_rows(path).form
    write(path, "TRAIN,gs://b/a.jpg,cat\nTRIAN,gs://b/b.jpg,cat\n")
    (problem,) = problems(path)
    assert "row 2: 'TRIAN' is neither an address nor" in problem


def test_voc_lists_know_present_absent_and_difficult(tmp_path):
    root = tmp_path / "VOC2012"
    for i, name in enumerate(["2008_01", "2008_02", "2008_03"]):
        picture(root / "JPEGImages" / f"{name}.jpg", seed=i)
    main = root / "ImageSets" / "Main"
    write(main / "cat_train.txt", "2008_01  1\n2008_02 -1\n")
    write(main / "dog_train.txt", "2008_01  0\n2008_02 -1\n")
    write(main / "dog_val.txt", "2008_03  1\n")
    write(main / "train.txt", "2008_01\n2008_02\n")
    for path in (root, main):
        assert find_format(path) == "voc-lists"
        assert meaning(path) == {"2008_01": ({"cat"}, {"dog"}), "2008_02": (set(), set())}
        (row,) = read_rows(path).val.rows
        assert row.tags == DOG and row.absent == ()  # nobody says whether there is a cat
    assert meaning(main / "cat_train.txt") == known({"2008_01": CAT, "2008_02": ()})
    assert find_format(main / "train.txt") == "voc"
    (root / "Annotations").mkdir()
    assert find_format(root) == "voc"
    (main / "cat_train.txt").write_text("2008_01  1\n2008_02 2\n")
    (problem,) = problems(main)
    assert "cat_train.txt line 2: not a name and -1, 0 or 1: '2008_02 2'" in problem


def test_labelme_flags_and_shapes_are_one_set_of_tags(tmp_path):
    layouts.make_labelme(tmp_path, {"a": CAT, "b": (), "c": ()})
    for name, flags in (("a", {"dog": True, "sun": False}), ("b", {"dog": False})):
        file = tmp_path / f"{name}.json"
        write(file, {**json.loads(file.read_text()), "flags": flags})
    picture(tmp_path / "new.jpg", seed=9)
    assert meaning(tmp_path) == {
        "a": ({"cat", "dog"}, set()),
        "b": (set(), set()),
        "c": (set(), {"dog"}),
    }
    assert "1 of 4 photos have no tag and are left out" in warnings(tmp_path)
    write(tmp_path / "b.json", {"shapes": [], "flags": {"dog": 1}, "imagePath": "b.jpg"})
    (problem,) = [p for p in problems(tmp_path) if "left out" not in p]
    assert "b.json: not a LabelMe file: the flag 'dog' is neither true nor false" in problem


def test_a_split_in_any_form(tmp_path):
    for name in ("train", "Valid"):
        layouts.make_flags(tmp_path / "labelme" / name, {"a": CAT, "b": DOG})
    for name in ("train", "valid", "test"):
        path = coco(tmp_path / "robo" / name, {"a": CAT, "b": DOG})
        path.rename(tmp_path / "robo" / name / "_annotations.coco.json")
        for file in (tmp_path / "robo" / name / "default").iterdir():
            file.rename(tmp_path / "robo" / name / file.name)
        (tmp_path / "robo" / name / "default").rmdir()
    for name in ("labelme", "robo"):
        rows = read_rows(tmp_path / name)
        assert find_format(tmp_path / name) == "split"
        assert [row.tags for row in rows.rows] == [CAT, DOG] == [row.tags for row in rows.val.rows]
    assert len(read_rows(tmp_path / "robo", DataSettings(form="split")).val.rows) == 2
    assert "test/ is not used" in rows.form and "valid/ for validation (2 photos)" in rows.form
    outlines = read_rows(tmp_path / "robo", outlines=True)
    assert all(row.shapes for row in (*outlines.rows, *outlines.val.rows))


def test_containers_are_no_tags(tmp_path):
    animals = {"a": CAT, "b": DOG}
    layouts.make_folder(tmp_path / "alone" / "train", animals)
    rows = read_rows(tmp_path / "alone")
    assert [row.tags for row in rows.rows] == [CAT, DOG] and rows.val is None
    layouts.pictures(tmp_path / "flat" / "train", animals)
    layouts.pictures(tmp_path / "traps" / "images" / "loc1", animals)
    layouts.pictures(tmp_path / "segmentation" / "images", animals)
    layouts.pictures(tmp_path / "segmentation" / "masks", animals)
    for name, part in (
        ("flat", "train/, which seems to be no tag"),
        ("traps", f"or {tmp_path / 'traps' / 'images'}, if its folders are the tags"),
        ("segmentation", "images/ and masks/"),
    ):
        (problem,) = problems(tmp_path / name)
        assert part in problem and "--photos.images" in problem, name
    assert meaning(tmp_path / "flat", form="folder") == known({"a": ("train",), "b": ("train",)})
    layouts.pictures(tmp_path / "kaggle" / "train", animals)
    layouts.pictures(tmp_path / "kaggle" / "test", animals)
    write(tmp_path / "kaggle" / "labels.csv", "file_name,tags\na.jpg,cat\n")
    (problem,) = problems(tmp_path / "kaggle")
    assert "2 photos, but no tags" in problem and "(labels.csv?)" in problem
    layouts.make_folder(tmp_path / "vehicles", {"a": ("train",), "b": ("bus",)})
    assert meaning(tmp_path / "vehicles") == known({"a": ("train",), "b": ("bus",)})
    layouts.make_folder(tmp_path / "odd", {"a": ("masks",), "b": CAT})
    assert "its name is read as a tag" in warnings(tmp_path / "odd")
    layouts.make_split(tmp_path / "two", animals)
    layouts.make_folder(tmp_path / "two" / "val", animals)
    (problem,) = problems(tmp_path / "two")
    assert "val/ and validation/ are both for one purpose" in problem


def test_xml_bombs_and_files_outside_are_errors(tmp_path):
    path = layouts.make_cvat(tmp_path, {"a": CAT})
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><annotations>&l11;</annotations>'
    secret = tmp_path / "secret"
    secret.write_text("cat")
    outside = f'<!DOCTYPE x [<!ENTITY o SYSTEM "file://{secret}">]>'
    image = '<image id="0" name="a.jpg" width="64" height="48">{}</image>'
    outside += f"<annotations>{image.format('&o;')}</annotations>"
    for text in (bomb, outside):
        path.write_text(text)
        (problem,) = problems(path)
        assert "document type" in problem
    root = layouts.make_voc(tmp_path / "voc", {"a": CAT})
    (root / "Annotations" / "a.xml").write_text(bomb)
    (problem,) = problems(root)
    assert "document type" in problem
    mask = '<mask label="cat" left="0" top="0" width="99999999" height="99999999" rle="0, 9"/>'
    for runs in ("0, 999999999999999", "5, 5"):  # more than the memory; not the whole box
        text = image.format(mask.replace("99999999", "9").replace("0, 9", runs))
        path.write_text(f"<annotations>{text}</annotations>")
        (problem,) = problems(path)
        assert "a mask that does not fill its box" in problem
    large = image.format(mask).replace("64", "99999999").replace("48", "99999999")
    path.write_text(f"<annotations>{large}</annotations>")
    (problem,) = problems(path)
    assert "a mask that does not fill its box" in problem


def test_lists_and_dictionaries_of_objects_are_tables(tmp_path):
    for i, name in enumerate("abc"):
        picture(tmp_path / f"{name}.jpg", seed=i)
    values = {"a.jpg": {"labels": ["cat"]}, "b.jpg": {"labels": []}, "c.jpg": {"labels": ["dog"]}}
    expected = known({"a": CAT, "b": (), "c": DOG})
    assert meaning(write(tmp_path / "x.json", values)) == expected
    listed = [{"image": name, **value} for name, value in values.items()]
    assert meaning(write(tmp_path / "y.json", listed)) == expected


def test_yolo_lists_of_pictures_and_a_validation_folder_that_is_missing(tmp_path):
    path = yolo(tmp_path, {"a": CAT, "b": DOG, "c": CAT})
    write(tmp_path / "train.txt", "./images/train/a.jpg\n\n./images/train/b.jpg\n")
    text = "path: .\ntrain: [train.txt]\nval: images/nope\nnames: [cat, dog, horse]\n"
    write(path, text)
    assert meaning(path) == known({"a": CAT, "b": DOG})
    assert "the folder of its validation pictures does not exist" in warnings(path)
    write(path, text.replace("images/nope", "images/val"))
    assert [row.path.name for row in read_rows(path).val.rows] == ["v.jpg"]
