"""A run takes in what its user corrected: tags, masks, masks changed by hand; and goes on."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from test_pipeline import SETTINGS as SMALL_RUN

from tag2mask.api import run_config
from tag2mask.config import STAGE_NAMES
from tag2mask.config_files import make_config, merged
from tag2mask.demo.scenes import make_scenes
from tag2mask.errors import DataError
from tag2mask.photos.corrections import Stroke
from tag2mask.photos.masks import read_mask, write_mask
from tag2mask.runs.corrected import keep_changed, take
from tag2mask.runs.run import Run

pytestmark = pytest.mark.usefixtures("few_steps")
SETTINGS = merged(
    SMALL_RUN,
    {"masks": {"crf": {"iterations": 1}}, "segmenter": {"steps": 8, "rounds": 1}},
)
HIGH = {"threshold": 0.9}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_scenes(folder, num_train=14, num_val=2, size=64, seed=0)
    return folder


@pytest.fixture(scope="module")
def first(scenes, tmp_path_factory, few_steps):
    return go(tmp_path_factory.mktemp("runs") / "first", scenes)


@pytest.fixture
def run(first, tmp_path):
    """A copy of a finished run."""
    return Run(shutil.copytree(first.folder, tmp_path / "run", copy_function=shutil.copy2))


def go(folder, scenes, data="tags.csv", last="evaluate", continued=False, **more):
    paths = {"data": scenes / data, "val": scenes / "val.csv", "val_masks": scenes / "masks"}
    config = make_config({**SETTINGS, **more, **paths, "out": folder})
    return run_config(config, STAGE_NAMES[: STAGE_NAMES.index(last) + 1], continued)


def last_log(run):
    """The log of the last command."""
    text = (run.folder / "log.txt").read_text()
    return text[text.rindex("  check: done") :]


def done(run, stage):
    return json.loads((run.folder / stage / "done.json").read_text())


def counts(run, stage):
    return done(run, stage)["counts"]


def test_nothing_is_made_again_without_corrections(run, scenes):
    go(run.folder, scenes)
    text = last_log(run)
    assert "starts" not in text and "correct" not in text
    assert (
        not (run.folder / "corrections").exists()
        and not (run.folder / "corrections.jsonl").exists()
    )


def test_corrected_tags_train_the_classifier_anew(run, scenes):
    one, two = run.given.photos[:2]
    missing = next(tag for tag in run.given.tags if tag not in one.tags)
    run.files.corrections.set_tag(one.name, missing, "present")
    run.files.corrections.set_tag(one.name, one.tags[0], "absent")
    run.files.corrections.set_tag(two.name, two.tags[0], "unknown")
    run.files.corrections.set_tag(two.name, missing, "absent")  # as it is: not counted
    expected = 3 + (missing in two.tags)
    again = go(run.folder, scenes)
    text = last_log(again)
    assert f"corrections: {expected} tags corrected in 2 photos" in text
    assert "classifier: starts again, because photos changed (2 corrected)" in text
    assert counts(again, "classifier")["corrected_tags"] == expected
    assert again.metrics["segmenter"]["corrected_tags"] == expected
    photo = again.table.photos[0]
    assert missing in photo.tags and one.tags[0] not in photo.tags
    assert (again.given.photos[0], again.given.photos[1]) == (one, two)
    while again.files.corrections.undo():
        pass
    assert Run(run.folder).table == again.given


def test_masks_train_the_segmenter_alone(run, scenes):
    """Mended ones replace pseudo masks, wrong ones are left out, and the figures say so."""
    log, photos = run.files.corrections, run.given.photos
    mended = np.zeros((64, 64), np.uint8)
    mended[:, :20] = 3
    before = read_mask(run.folder / "masks" / f"{photos[0].name}.png")
    log.mend(
        photos[0].name, mended, run.given.classes, [Stroke(tag="cat", points=[(1, 1)], radius=2)]
    )
    log.judge_wrong(photos[1].name)
    again = go(run.folder, scenes)
    text = last_log(again)
    assert "corrections: 1 mask mended, 1 left out" in text
    assert "classifier: done already" in text and "masks: done already" in text
    assert "segmenter: starts again, because corrected masks added" in text
    assert "segmenter: 13 photos" in text
    assert np.array_equal(read_mask(again.newest_masks / f"{photos[0].name}.png"), mended)
    assert np.array_equal(read_mask(again.folder / "masks" / f"{photos[0].name}.png"), before)
    assert [counts(again, "segmenter")[what] for what in ("photos", "mended_masks")] == [13, 1]
    assert again.metrics["pseudo"]["mended_masks"] == 1, "they are among the masks scored"
    assert again.metrics["segmenter"]["mended_masks"] == 1
    assert "mended_masks" not in json.dumps(Run(run.folder).files.done("classifier"))
    model = (again.folder / "segmenter" / "model.safetensors").read_bytes()
    log.undo()
    log.undo()
    third = go(run.folder, scenes, last="segmenter")
    assert not (third.folder / "segmenter" / "learned").exists()
    assert (third.folder / "segmenter" / "model.safetensors").read_bytes() != model
    assert counts(third, "segmenter").keys() == {"photos", "weights", "fingerprint"}


def test_a_mask_judged_right_trains_nothing_anew_but_stays(run, scenes):
    name = run.given.photos[0].name
    mask = read_mask(run.folder / "masks" / f"{name}.png")
    run.files.corrections.judge_right(name, mask, run.given.classes)
    again = go(run.folder, scenes)
    assert "corrections: 1 mask judged right" in last_log(again)
    assert "segmenter: done already" in last_log(again)
    other = go(run.folder, scenes, "tags.csv", "segmenter", masks={**SETTINGS["masks"], **HIGH})
    assert np.array_equal(read_mask(other.newest_masks / f"{name}.png"), mask)


def test_a_mask_changed_by_hand_is_a_correction(run, scenes):
    """Also if the stage masks runs anew (first-use, point 7): it was lost without a word."""
    one, two, three, four = (photo.name for photo in run.given.photos[:4])
    folder = run.folder / "masks"
    before = {name: (folder / f"{name}.png").read_bytes() for name in (one, two, three)}
    painted = np.full((64, 64), 1, np.uint8)
    write_mask(folder / f"{one}.png", painted)
    Image.open(folder / f"{two}.png").save(folder / f"{two}.png", compress_level=1)  # same pixels
    (run.folder / "corrections").mkdir()
    write_mask(run.folder / "corrections" / f"{three}.png", painted)  # as another tool gives it
    write_mask(run.folder / "segmenter/masks" / f"{four}.png", painted)  # the segmenter's new one
    again = go(run.folder, scenes)
    text = last_log(again)
    assert f"3 masks changed by hand: {one}, {four}, {three}; kept as corrections" in text
    assert "corrections: 3 masks mended" in text and "masks: done already" in text
    assert [line.photo for line in again.files.corrections.in_force] == [one, four, three]
    assert all(line.by_hand for line in again.files.corrections.in_force)
    assert {name: (folder / f"{name}.png").read_bytes() for name in before} == before
    other = go(run.folder, scenes, "tags.csv", "segmenter", masks={**SETTINGS["masks"], **HIGH})
    assert np.array_equal(read_mask(other.newest_masks / f"{one}.png"), painted)
    assert "masks: starts again" in last_log(other) and "by hand" not in last_log(other)
    other.files.corrections.undo()
    assert not (run.folder / "corrections" / f"{three}.png").exists()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (9, 9)), "is 9 x 9 pixels, but"),
        (Image.new("RGB", (64, 64)), "not RGB"),
        (Image.new("L", (64, 64), 77), "no class has the number 77; the classes are 0 background"),
    ],
)
def test_a_file_that_is_no_mask_stops_the_run_before_it_is_overwritten(run, scenes, mask, message):
    path = run.folder / "masks" / f"{run.given.photos[0].name}.png"
    mask.save(path)
    with pytest.raises(DataError, match=message):
        go(run.folder, scenes)
    assert Image.open(path).size == mask.size
    path.unlink()
    go(run.folder, scenes, last="masks")
    assert Image.open(path).size == (64, 64)


def test_masks_with_numbers_of_no_class_and_masks_of_no_photo_are_all_said(run, caplog):
    """An image editor saves a palette mask in gray: all objects became 255 without a word."""
    one, two, three = (photo.name for photo in run.given.photos[:3])
    corrections = run.files.corrections
    Image.new("L", (64, 64), 122).save(run.folder / "masks" / f"{one}.png")
    (corrections.folder / "photos").mkdir(parents=True)
    Image.new("L", (64, 64), 77).save(corrections.file(two))
    Image.new("L", (64, 64), 255).save(corrections.file(three))
    write_mask(corrections.folder / "nophoto.png", np.zeros((64, 64), np.uint8))
    with pytest.raises(DataError) as error:
        keep_changed(run)
    numbers = ("number 122", "number 77")
    assert all(n in text for n, text in zip(numbers, error.value.problems, strict=True))
    assert not corrections.lines
    assert "1 mask of no photo: nophoto; not used" in caplog.text
    corrections.mend(two, np.full((64, 64), 77, np.uint8), run.given.classes, [])
    (note,) = take(corrections, run.given, run.facts).notes
    assert "no class has the number 77" in note and "it is kept, and not used" in note


def test_photos_and_tags_that_are_gone_are_kept_and_said(run, scenes):
    log = run.files.corrections
    name = run.given.photos[0].name
    log.set_tag("gone", "cat", "absent")
    log.set_tag(name, "unicorn", "present")
    log.mend(name, np.full((64, 64), 1, np.uint8), ("background", "unicorn"), [])
    log.mend(run.given.photos[1].name, np.zeros((9, 9), np.uint8), run.given.classes, [])
    taken = take(log, run.given, run.facts)
    assert taken.table == run.given and list(taken.masks) == [name]
    notes = "\n".join(taken.notes)
    assert "corrections of 1 photo that the data do not have: gone" in notes
    assert "name unicorn, which is no tag" in notes and "is 9 x 9 pixels" in notes
    with (run.folder / "corrections.jsonl").open("a") as stream:
        stream.write('{"what": "ta')
    again = go(run.folder, scenes, last="segmenter")
    text = last_log(again)
    assert "warning: corrections of 1 photo" in text and "line 5 is cut off" in text
    assert (read_mask(again.newest_masks / f"{name}.png") == 255).all(), "its class is not known"
    assert len(log.lines) == 4


def more_photos(scenes, name):
    """A table in which one photo is gone, two are new (with its tags), one has another tag."""
    heading, gone, *rows = (scenes / "tags.csv").read_text().splitlines()
    file, tags = gone.split(",")
    for number in (1, 2):
        new = file.replace("photos/", f"photos/new{number}-")
        shutil.copy(scenes / file, scenes / new)
        rows.append(f"{new},{tags}")
    file, tags = rows[0].split(",")
    rows[0] = f"{file},{tags}{';dog' if 'dog' not in tags else ';cat'}"
    (scenes / name).write_text("\n".join([heading, *rows]) + "\n")


def test_continue_keeps_the_networks_and_makes_masks_of_what_is_new(run, scenes):
    more_photos(scenes, "more.csv")
    kept = run.given.photos[5].name
    mask = run.folder / "masks" / f"{kept}.png"
    before = mask.stat().st_mtime_ns
    again = go(run.folder, scenes, "more.csv", continued=True)
    text = last_log(again)
    changed = "photos changed (2 new, 1 gone, 1 corrected)"
    assert f"classifier: continues, because {changed}" in text
    assert "patch classifier: 15 photos, 1 steps" in text, "a quarter of 4"
    assert "masks: 12 kept, 3 to make" in text and mask.stat().st_mtime_ns == before
    assert "segmenter: 15 photos, 2 steps of 4" in text
    assert all(done(again, stage)["continued"] for stage in ("classifier", "masks", "segmenter"))
    assert not done(run, "evaluate")["continued"]
    third = go(run.folder, scenes, "more.csv")
    assert "starts" not in last_log(third) and "continues" not in last_log(third)


def test_without_continue_all_starts_from_nothing(run, scenes):
    more_photos(scenes, "more.csv")
    again = go(run.folder, scenes, "more.csv", last="classifier")
    assert "classifier: starts again, because photos changed (2 new, 1 gone, 1 corrected)" in (
        last_log(again)
    )
    assert "patch classifier: 15 photos, 4 steps" in last_log(again)


def test_continue_with_other_settings_starts_from_nothing_and_says_so(run, scenes):
    more_photos(scenes, "more.csv")
    other = {**SETTINGS["classifier"], "epochs": 1}
    again = go(run.folder, scenes, "more.csv", "masks", continued=True, classifier=other)
    assert "classifier: cannot continue, because classifier changed; this and" in (last_log(again))
    assert not any(done(again, stage)["continued"] for stage in ("classifier", "masks"))


def test_mended_masks_are_kept_in_all_rounds_and_continue_trains_the_last(run, scenes):
    rounds = {**SETTINGS["segmenter"], "rounds": 2}
    log, (one, two) = run.files.corrections, (photo.name for photo in run.given.photos[:2])
    painted = np.full((64, 64), 2, np.uint8)
    log.mend(one, painted, run.given.classes, [])
    again = go(run.folder, scenes, last="segmenter", segmenter=rounds)
    newest = again.newest_masks
    for folder in (newest, newest.parent / "round-1" / "masks"):
        assert np.array_equal(read_mask(folder / f"{one}.png"), painted)
    log.mend(two, painted, run.given.classes, [])
    again = go(run.folder, scenes, segmenter=rounds, continued=True)
    assert "segmenter: continues, because corrected masks changed" in last_log(again)
    assert all((read_mask(again.newest_masks / f"{name}.png") == 2).all() for name in (one, two))
    assert len(list(again.newest_masks.glob("*.png"))) == len(again.table)
    assert again.metrics["segmenter"]["mended_masks"] == 2
