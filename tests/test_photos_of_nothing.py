"""Whole runs from the table to the page: one tag and photos without it; tags that are unknown."""

import csv
import json
import math

import numpy as np
import pytest
from test_pipeline import SETTINGS

import tag2mask
from tag2mask.config_files import merged
from tag2mask.demo.scenes import make_scenes
from tag2mask.formats.check import check
from tag2mask.masks import read_score_maps
from tag2mask.photos.masks import read_mask

pytestmark = pytest.mark.usefixtures("few_steps")
ONE_TAG = {**SETTINGS, "clusters": {"source": "auto"}}


@pytest.fixture(scope="module")
def cats(tmp_path_factory):
    """The demo's scenes with the tag cat or none: 30 photos, of which few have a cat."""
    folder = tmp_path_factory.mktemp("cats")
    make_scenes(folder, num_train=30, num_val=10, size=96, seed=0)
    for name in ("tags.csv", "val.csv"):
        with (folder / name).open(newline="") as file:
            header, *rows = list(csv.reader(file))
        with (folder / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows((path, "cat" if "cat" in tags else "") for path, tags in rows)
    return folder


def train(cats, out, **settings):
    return tag2mask.run(cats / "tags.csv", out, val=cats / "val.csv", **merged(ONE_TAG, settings))


@pytest.fixture(scope="module")
def run(cats, tmp_path_factory, few_steps):
    return train(cats, tmp_path_factory.mktemp("runs") / "one")


def log_of(run):
    return (run.folder / "log.txt").read_text()


def test_one_tag_is_learned_from_photos_with_it_and_of_nothing(run):
    with_cat = [photo for photo in run.table.photos if photo.tags]
    nothing = [photo for photo in run.table.photos if not photo.tags]
    assert run.table.tags == ("cat",) and 0 < len(with_cat) < len(nothing)
    log = log_of(run)
    assert f"30 photos, 1 tags (cat {len(with_cat)}); {len(nothing)} photos of nothing" in log
    photos, few = f"30 photos, {len(nothing)} of nothing", math.ceil(len(with_cat) / 4)
    assert f"patch classifier: {photos} ({len(with_cat)} in each epoch)" in log
    assert f"segmenter: {photos} ({few} in each epoch)" in log
    for folder in ("masks", "segmenter/round-1/masks", "segmenter/masks"):
        for photo in nothing:
            mask = read_mask(run.folder / folder / f"{photo.name}.png")
            assert mask.shape == (96, 96) and not mask.any()
    assert any(read_mask(run.folder / "masks" / f"{p.name}.png").any() for p in with_cat)
    about = json.loads((run.folder / "masks" / "masks.json").read_text())
    assert about["classes"] == ["background", "cat"] and about["photos"] == 30


def test_the_log_the_metrics_and_the_page_say_what_is_found(run):
    finds = run.metrics["finds"]
    val = run.val.photos
    assert finds["tags"]["cat"]["photos"] == sum(bool(photo.tags) for photo in val)
    assert finds["nothing"]["photos"] == sum(not photo.tags for photo in val)
    marked = [
        np.count_nonzero(read_mask(run.folder / "evaluate" / "predictions" / f"{photo.name}.png"))
        > 20
        for photo in val
        if not photo.tags
    ]
    assert finds["nothing"]["marked"] == sum(marked)
    text = f"marks something on {sum(marked)} of {len(marked)} photos of nothing"
    assert text in log_of(run)
    page = run.report.read_text()
    nothing = sum(not photo.tags for photo in run.table.photos)
    assert f"{nothing} of them show nothing" in page and "photos of nothing" in page


def test_left_out_of_training_they_still_judge_the_segmenter(cats, tmp_path):
    """`--photos.untagged leave_out` is about training photos."""
    run = train(cats, tmp_path / "run", photos={"untagged": "leave_out"}, segmenter={"rounds": 1})
    assert all(photo.tags for photo in run.table.photos) and len(run.table) < 30
    assert len(run.val) == 10 and run.metrics["finds"]["nothing"]["photos"] > 0


def test_one_tag_alone_is_warned_of_with_what_to_add(cats, tmp_path):
    path = tmp_path / "tags.csv"
    rows = [row for row in (cats / "tags.csv").read_text().splitlines() if row.endswith(",cat")]
    path.write_text("\n".join(["file_name,tags", *(f"{cats}/{row}" for row in rows)]))
    (finding,) = [finding for finding in check(path) if finding.kind == "tag everywhere"]
    assert f"in {len(rows)} of {len(rows)} photos" in finding.what
    assert (
        "add photos without it" in finding.do and "leave the cell of the tags empty" in finding.do
    )
    assert not [f for f in check(cats / "tags.csv") if f.kind == "tag everywhere"]


def test_tags_that_nobody_looked_for(tmp_path):
    """In every second photo, somebody looked for cats alone, as in Open Images."""
    make_scenes(tmp_path / "scenes", num_train=16, num_val=4, size=96, seed=0)

    scenes = tmp_path / "scenes"
    with (scenes / "tags.csv").open(newline="") as file:
        _, *rows = list(csv.reader(file))
    every = sorted({tag for _, tags in rows for tag in tags.split(";")})
    with (scenes / "verified.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "label", "confidence"))
        for i, (path, tags) in enumerate(rows):
            for tag in every if i % 2 else ["cat"]:
                writer.writerow((path, tag, int(tag in tags.split(";"))))
    run = tag2mask.run(
        scenes / "verified.csv",
        tmp_path / "run",
        val=scenes / "val.csv",
        val_masks=scenes / "masks",
        **SETTINGS,
    )
    unknown = [photo for photo in run.table.photos if photo.unknown]
    assert len(unknown) == 8 and not any(photo.of_nothing for photo in run.table.photos)
    log = log_of(run)
    assert "8 photos with unknown tags" in log
    shown = 0
    for photo in unknown:
        classes, _ = read_score_maps(run.folder / "masks", photo)
        tags = {run.table.classes[number] for number in classes} - {"background"}
        assert set(photo.tags) <= tags <= {*photo.tags, *photo.unknown}
        shown += len(tags) - len(photo.tags)
        assert {*np.unique(read_mask(run.folder / "masks" / f"{photo.name}.png"))} <= {*classes}
    assert f"8 photos have unknown tags; the classifier finds {shown} of these tags" in log
    assert run.metrics["pseudo"]["labels"] == "given and found"
    page = run.report.read_text()
    assert "In 8, some tags are unknown." in page and "of the unknown ones, those that" in page
