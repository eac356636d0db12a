"""Runs on data sets as VOC, COCO, YOLO and a folder per tag lay them out."""

import json
import shutil

import numpy as np
import pytest
from formats.layouts import make_coco, make_voc, make_yolo
from test_pipeline import SETTINGS

import tag2mask
from tag2mask.formats.convert import convert
from tag2mask.photos.masks import read_mask

pytestmark = pytest.mark.usefixtures("few_steps")
TAGS = [("cat",), ("dog",), ("cat", "dog"), ("horse",), ("horse", "cat"), ("dog", "horse")]
SMALL = {
    **SETTINGS,
    "clusters": {"source": "auto"},
}


def photos(prefix, count=12):
    return {f"{prefix}_{i:04d}": TAGS[i % len(TAGS)] for i in range(count)}


@pytest.mark.slow
def test_voc_layout_runs_with_masks_in_vocs_numbers(tmp_path):
    train = make_voc(tmp_path / "a", photos("2007"))
    val = make_voc(tmp_path / "b", photos("2008", 6), "val")
    run = tag2mask.run(
        train, tmp_path / "run", val=val, val_masks=val / "SegmentationClass", **SMALL
    )
    assert (
        run.metrics["segmenter"]["images"] == 6
        and run.metrics["segmenter"]["iou"]["cat"] is not None
    )
    assert len(list((run.folder / "masks").glob("2007_*.png"))) == 12


@pytest.mark.slow
def test_coco_layout_runs_with_masks_drawn_from_its_json(tmp_path):
    categories = {"cat": 17, "dog": 18, "horse": 19}
    data = make_coco(tmp_path / "coco", photos("p"), categories=categories)
    masks = convert(data, "masks", tmp_path / "masks")
    folder = masks if masks.is_dir() else tmp_path / "masks"
    run = tag2mask.run(data, tmp_path / "run", val=data, val_masks=folder, **SMALL)
    assert run.metrics["pseudo"]["images"] == 12
    assert set(run.metrics["pseudo"]["iou"]) >= {"background", "cat", "dog", "horse"}


@pytest.mark.slow
def test_yolo_and_folders_run_on_tags_alone(tmp_path):
    yolo = make_yolo(tmp_path / "yolo", photos("p"), ["cat", "dog", "horse"])
    run = tag2mask.run(yolo, tmp_path / "run", **SMALL)
    metrics = run.metrics
    assert metrics["pseudo"] is None and metrics["segmenter"] is None
    assert metrics["finds"]["split"] == "train", "of the tags alone"
    for name, tags in photos("p").items():
        folder = tmp_path / "folders" / ";".join(tags)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(next((tmp_path / "yolo").rglob(f"{name}.*g")), folder)
    again = tag2mask.run(tmp_path / "folders", tmp_path / "again", **SMALL)
    assert len(list((again.folder / "masks").rglob("*.png"))) == 12


@pytest.mark.slow
@pytest.mark.real
def test_coco_mini_runs_as_coco_with_81_classes(shared, tmp_path):
    data = shared / "coco-mini" / "annotations" / "instances_train.json"
    convert(data, "masks", tmp_path / "masks")
    everything = json.loads(data.read_text())

    def first(count, name):
        images = everything["images"][:count]
        ids = {image["id"] for image in images}
        objects = [one for one in everything["annotations"] if one["image_id"] in ids]
        path = tmp_path / name / "annotations" / f"instances_{name}.json"
        path.parent.mkdir(parents=True)
        (tmp_path / name / "images").symlink_to(shared / "coco-mini" / "images")
        path.write_text(json.dumps({**everything, "images": images, "annotations": objects}))
        return path

    run = tag2mask.run(
        first(48, "train"),
        tmp_path / "run",
        val=first(16, "val"),
        val_masks=tmp_path / "masks",
        **{**SMALL, "clusters": {"source": "coco"}},
    )
    # of 48, one is of nothing, and val has the names of 16
    assert run.metrics["pseudo"]["images"] == 47 - 16
    assert run.metrics["segmenter"]["images"] == 16
    assert len(run.metrics["pseudo"]["iou"]) == 81
    highest = max(
        int(np.where((m := read_mask(p)) == 255, 0, m).max())
        for p in (run.folder / "masks").rglob("*.png")
    )
    assert 40 < highest <= 80
