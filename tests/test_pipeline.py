"""The whole path on a small set of scenes: what is written, what is skipped, what a kill costs."""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tag2mask
import tag2mask.cli
from tag2mask.config import STAGE_NAMES
from tag2mask.config_files import load_recipe, make_config, merged
from tag2mask.demo.scenes import make_scenes
from tag2mask.errors import ConfigError, DataError, RunError, Tag2MaskError, TrainingError
from tag2mask.photos.masks import write_mask
from tag2mask.runs import judge
from tag2mask.runs.folder import RunFolder
from tag2mask.runs.pipeline import _same
from tag2mask.runs.run import Run
from tag2mask.vision import torchvision  # noqa: F401  before timm

import timm  # isort: skip

pytestmark = pytest.mark.usefixtures("few_steps")
# The same in programs that a test starts.
LET_THROUGH = """
from tag2mask.segmenter.train import BackgroundGuard
BackgroundGuard.check = lambda guard, model: None
from tag2mask.runs import judge
judge.refusal = lambda finds, config: ""
"""
SETTINGS = {
    "clusters": {"source": "demo"},
    "classifier": {
        "backbone": "test_vit",
        "weights": "none",
        "image_size": 64,
        "token_width": 16,
        "epochs": 2,
        "batch_size": 8,
    },
    "masks": {"image_size": 64, "crf": {"iterations": 2}},
    "segmenter": {
        "backbone": "test_resnet",
        "weights": "none",
        "crop_size": 65,
        "batch_size": 4,
        "steps": 20,
        "rounds": 2,
        "balanced": True,
        "lr": 1e-3,
        "image_size": 65,
        "crf": {"iterations": 1},
    },
    "report": {"photos_per_split": 2},
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_scenes(folder, num_train=20, num_val=4, size=96, seed=0)
    return folder


def data(scenes):
    return {"data": scenes / "tags.csv", "val": scenes / "val.csv", "val_masks": scenes / "masks"}


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory, few_steps):
    return tag2mask.run(out=tmp_path_factory.mktemp("runs") / "whole", **data(scenes), **SETTINGS)


MIDDLE_STAGES = STAGE_NAMES[1:-1]


def log_lines(folder, count):
    return (folder / "log.txt").read_text().splitlines()[-count:]


def log_of(run):
    return (run.folder / "log.txt").read_text()


def test_a_vit_whose_mean_is_pooled_is_warned_of(finished):
    assert "test_vit is a ViT" in log_of(finished) and "Use --recipe cpc" in log_of(finished)


def test_every_artefact_is_there_and_says_what_it_is(finished):
    folder = finished.folder
    assert {p.name for p in folder.iterdir()} >= {
        "config.toml",
        "check",
        "clusters",
        "classifier",
        "masks",
        "segmenter",
        "evaluate",
        "report",
        "log.txt",
    }
    assert json.loads((folder / "clusters/clusters.json").read_text())["clusters"]["animals"]
    for stage in STAGE_NAMES:
        done = json.loads((folder / stage / "done.json").read_text())
        assert done["seconds"] >= 0 and done["versions"]["torch"]
    masks = sorted((folder / "masks").glob("*.png"))
    assert (
        len(masks) == 20
        and Image.open(masks[0]).mode == "P"
        and Image.open(masks[0]).size == (96, 96)
    )
    about = json.loads((folder / "masks" / "masks.json").read_text())
    assert (about["classes"], about["ignore"]) == (list(finished.table.classes), 255)
    for name in ("pseudo", "segmenter"):
        figures = finished.metrics[name]
        assert 0 <= figures["miou"] <= 1 and figures["iou"].keys() >= {"background", "cat"}
        assert figures["crf"] is True and figures["seed"] == 0 and figures["weights"]
    assert (finished.metrics["pseudo"]["labels"], finished.metrics["segmenter"]["labels"]) == (
        "given",
        "none",
    )
    assert (finished.metrics["pseudo"]["images"], finished.metrics["segmenter"]["images"]) == (
        20,
        4,
    )
    assert "http-equiv" in finished.report.read_text()
    assert not list(folder.rglob("*.tmp")) and not list(folder.rglob("checkpoint"))


def test_a_segmenter_made_before_there_were_heads_is_up_to_date():
    """It is a DeepLabV2; only who asks for another head trains again."""
    now = {"segmenter": load_recipe("photos").segmenter.model_dump(mode="json")}
    then = {k: v for k, v in now["segmenter"].items() if k != "head"}
    assert not _same({"inputs": {"segmenter": then}}, now)
    now["segmenter"]["head"] = "deeplab_v2"
    assert _same({"inputs": {"segmenter": then}}, now)


def test_given_tags_bound_the_pseudo_masks(finished):
    """No other class may appear, nor in the masks that the segmenter makes."""
    from tag2mask.formats import load_table

    table = load_table(finished.config.data)
    first, second = finished.folder / "masks", finished.folder / "segmenter/round-1/masks"
    for photo in table.photos:
        for folder in (first, second, finished.folder / "segmenter/masks"):
            found = set(np.unique(np.array(Image.open(folder / f"{photo.name}.png"))).tolist())
            assert found <= {0, *(table.tags.index(tag) + 1 for tag in photo.tags)}
    assert any((first / p.name).read_bytes() != p.read_bytes() for p in second.glob("*.png"))


def test_new_masks_come_from_both_networks_and_the_tags(finished):
    """The scores by the last network's own prediction and the first masks' score maps. With the
    score maps beside them, a new mask can be mended."""
    from tag2mask.masks import both_score_maps, read_score_maps
    from tag2mask.masks.mend import mend
    from tag2mask.photos.masks import read_mask
    from tag2mask.photos.resize import reduced
    from tag2mask.segmenter.predict import probabilities

    folder, settings = finished.folder / "segmenter/masks", finished.settings
    about = json.loads((folder / "masks.json").read_text())
    assert about["settings"]["scores"] == "logits" and about["threshold"] is None
    assert about["finds"]["tagged"]["photos"] == len(finished.table)
    assert finished.newest_masks == folder
    for photo in finished.table.photos[:3]:
        numbers, maps = read_score_maps(folder, photo)
        picture = reduced(photo.open(), settings.image_size)
        probs = probabilities(finished.segmenter, picture, settings)[numbers]
        _, first = read_score_maps(finished.folder / "masks", photo)
        assert maps.shape == (len(numbers), *(math.ceil(side / 4) for side in probs.shape[1:]))
        assert not maps[0].any(), "the network's background is not asked"
        assert torch.allclose(maps, both_score_maps(probs, first), atol=0.01)
        assert not torch.allclose(maps, both_score_maps(probs, None), atol=0.01)
        mask = read_mask(folder / f"{photo.name}.png")
        assert np.array_equal(mend(folder, photo, finished.table.tags), mask)


def test_without_new_masks_those_are_scored_from_which_it_learned(finished, scenes, tmp_path):
    folder = copy_of(finished, tmp_path)
    rerun(folder, scenes, ["segmenter"], segmenter={"new_masks": False, "steps": 2, "rounds": 1})
    assert not (folder / "segmenter/masks").exists()
    assert Run(folder).newest_masks == folder / "masks"


def test_the_second_round_goes_on_with_the_network_of_the_first(finished):
    folder = finished.folder / "segmenter"
    files = (folder / "round-1/metrics.jsonl", folder / "metrics.jsonl")
    lines = [json.loads(file.read_text().splitlines()[-1]) for file in files]
    assert [line["steps"] for line in lines] == [20, 5]
    assert lines[1]["lr"] < 0.3 * finished.config.segmenter.lr, "the last rates of the schedule"


def test_later_stages_take_the_background_threshold_of_the_masks(finished):
    from tag2mask.runs.stages import mask_maker

    maker = mask_maker(finished)
    stored = json.loads((finished.folder / "masks" / "masks.json").read_text())["threshold"]
    assert stored == maker.overall == maker.measure(finished.table.photos)


def test_the_report_shows_the_scores_that_the_masks_were_made_of(finished, scenes, tmp_path):
    """No classifier is needed. Z is shown as it is, logits relative to the highest of the photo."""
    from tag2mask.runs.stages import shown_scores

    folder = copy_of(finished, tmp_path)
    for gone in ("classifier/model.safetensors", "report/index.html"):
        (folder / gone).unlink()
    rerun(folder, scenes, ["report"])
    assert "to the maximum in the photo" in (folder / "report/index.html").read_text()
    run = Run(folder)
    max_norm = run.config.masks.model_copy(update={"scores": "max_norm"})
    as_it_is = Run(folder, run.config.model_copy(update={"masks": max_norm}))
    for photo in run.table.photos:
        with np.load(folder / "masks" / f"{photo.name}.npz") as stored:
            classes, scores = stored["classes"], stored["scores"].astype(np.float32)
        drawn = shown_scores(run)(photo)
        assert drawn.shape == (run.table.num_classes, *scores.shape[1:])
        assert set(np.flatnonzero(drawn.any((1, 2)))) <= set(classes)
        assert np.allclose(drawn[classes], scores / scores.max((1, 2), keepdims=True).clip(1e-6))
        assert np.array_equal(shown_scores(as_it_is)(photo)[classes], scores)


def test_the_newest_masks_are_those_scored(finished, scenes):
    from tag2mask.evaluate.confusion import evaluate_masks
    from tag2mask.formats import load_table
    from tag2mask.photos.masks import Truth

    table = load_table(scenes / "tags.csv")
    truth = Truth(scenes / "masks", table)
    pairs = [
        (finished.folder / f"segmenter/masks/{p.name}.png", truth.read(p))
        for p in truth.photos_with_truth
    ]
    assert finished.metrics["pseudo"]["miou"] == evaluate_masks(pairs, table.classes).miou


def test_predict_needs_no_tags_and_keeps_the_size(finished, tmp_path):
    for mode, size in (("L", (70, 33)), ("RGBA", (41, 64)), ("P", (90, 90))):
        Image.effect_noise(size, 50).convert(mode).save(tmp_path / f"ä {mode}.png")
        mask = finished.predict(tmp_path / f"ä {mode}.png").mask
        assert mask.shape == size[::-1] and mask.dtype == np.uint8
    assert (
        tag2mask.load(finished.folder).predict(Image.new("RGB", (20, 30))).classes[0]
        == "background"
    )
    lying = Image.effect_noise((50, 30), 50)
    lying.getexif()[0x0112] = 6
    lying.save(tmp_path / "lying.png", exif=lying.getexif())
    assert np.array_equal(
        finished.predict(Image.open(tmp_path / "lying.png")).mask,
        finished.predict(tmp_path / "lying.png").mask,
    )
    cut = Image.open(tmp_path / "lying.png").crop((0, 0, 30, 10))
    assert finished.predict(cut).mask.shape == (10, 30), (
        "what is no file any more is taken as it is"
    )
    (tmp_path / "lying.png").unlink()
    rows = finished.predict_to(
        [tmp_path / "ä L.png", finished.config.data.parent / "photos" / "0001.jpg"],
        str(tmp_path / "flat"),
    )
    assert list(dict.fromkeys(row["mask"] for row in rows)) == ["ä L.png", "0001.png"]
    names = ["0001.png", "classes.json", "predictions.csv", "ä L.png"]
    assert sorted(p.name for p in (tmp_path / "flat").iterdir()) == names
    (tmp_path / "flat").rename(tmp_path.parent / f"{tmp_path.name} flat")
    (tmp_path / "below").mkdir()
    Image.new("RGB", (30, 30)).save(tmp_path / "below" / "x.webp")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        finished.predict_to([tmp_path], tmp_path / "out")
    assert {
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")
    } == {
        "ä L.png",
        "ä RGBA.png",
        "ä P.png",
        "below/x.png",
    }


def test_running_again_does_nothing_and_a_change_says_what_runs(finished, scenes):
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*.png")}
    again = tag2mask.run(out=finished.folder, **data(scenes), **SETTINGS)
    assert {p: p.stat().st_mtime_ns for p in again.folder.rglob("*.png")} == before
    assert log_of(again).count("done already") == 7
    changed = tag2mask.run(
        out=finished.folder,
        **data(scenes),
        **{**SETTINGS, "masks": {"image_size": 64, "crf": {"iterations": 1}}},
    )
    assert "masks: starts again, because masks.crf.iterations was 2, is 1" in log_of(changed)
    assert log_of(changed).count("classifier: done already") == 2
    tag2mask.run(out=finished.folder, **data(scenes), **SETTINGS)


def copy_of(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "copy")
    return tmp_path / "copy"


def contents(folder):
    return {
        p: p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name not in ("log.txt", ".lock", ".facts.jsonl")
    }


def rerun(folder, scenes, stages=STAGE_NAMES, **changes):
    from tag2mask.api import run_config

    values = merged(
        {**load_recipe("photos").model_dump(), **data(scenes), "out": folder},
        merged(SETTINGS, changes),
    )
    return run_config(make_config(values), stages)


def test_folders_that_no_run_wrote_are_left_alone(scenes, tmp_path):
    """People keep their own masks beside their photos, and may name that folder as --out."""
    shutil.copytree(scenes / "masks", tmp_path / "masks")
    before = {p.name: p.read_bytes() for p in (tmp_path / "masks").iterdir()}
    with pytest.raises(RunError, match=r"masks holds files that no run wrote.*another --out"):
        tag2mask.run(out=tmp_path, **data(scenes), **SETTINGS)
    assert {p.name: p.read_bytes() for p in (tmp_path / "masks").iterdir()} == before


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("classifier", {"classifier": {"backbone": "test_vti"}}),
        ("classifier", {"classifier": {"weights": "absent.safetensors"}}),
        ("segmenter", {"segmenter": {"weights": "absent.pth"}}),
        ("segmenter", {"segmenter": {"backbone": "mixer_s32_224", "weights": "none"}}),
        ("clusters", {"clusters": {"source": "absent.json"}}),
    ],
)
def test_a_setting_that_cannot_work_loses_nothing(finished, scenes, tmp_path, stage, changes):
    folder = copy_of(finished, tmp_path)
    before = contents(folder)
    with pytest.raises(Tag2MaskError):
        rerun(folder, scenes, [stage], **changes)
    assert contents(folder) == before
    tag2mask.cli.main([stage, "--out", str(folder)])
    assert f"{stage}: done already" in (folder / "log.txt").read_text().splitlines()[-1]


def test_going_back_after_a_change_that_failed_finds_all_as_it_was(finished, scenes, tmp_path):
    """The loss became NaN: the network before stays, and with its settings nothing is trained."""
    folder = copy_of(finished, tmp_path)
    rerun(folder, scenes, ["masks"])  # config.toml names the copy
    before = contents(folder)
    with pytest.raises(TrainingError):
        rerun(folder, scenes, ["classifier"], classifier={"lr": 1e30, "frozen_lr": 1e30})
    assert (
        before.items()
        <= (contents(folder) | {folder / "config.toml": before[folder / "config.toml"]}).items()
    )
    rerun(folder, scenes, ["classifier", "masks"])
    assert before.items() <= contents(folder).items()
    assert "masks: done already" in (folder / "log.txt").read_text().splitlines()[-1]


def test_the_segmenter_in_use_stays_until_a_new_one_is_done(
    finished, scenes, tmp_path, monkeypatch
):
    """Also where the new one is of another size: `predict` takes the settings of the one in use."""
    folder = copy_of(finished, tmp_path)
    picture = Image.effect_noise((90, 70), 50).convert("RGB")
    before = tag2mask.load(folder).predict(picture).mask
    written = contents(folder / "segmenter")
    leave: list[str] = []

    def stopped(table, masks, settings, place, *rest):
        assert np.array_equal(tag2mask.load(folder).predict(picture).mask, before)
        for name in leave:
            (place / name).mkdir(parents=True)
            (place / name / "state").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("tag2mask.segmenter.train.train_segmenter", stopped)
    new = {"steps": 21, "image_size": 97}
    why = "segmenter.steps was 20, is 21; segmenter.image_size was 65, is 97"
    for leave[:], line, steps in (
        ([], f"segmenter: starts again, because {why}", 20),
        (["checkpoint/00000001"], f"segmenter: starts again, because {why}", 21),
        (["checkpoint/00000002"], "segmenter: resumes", 21),
    ):
        with pytest.raises(KeyboardInterrupt):
            rerun(folder, scenes, ["segmenter"], segmenter=new)
        run = tag2mask.load(folder)
        stage = [text for text in log_lines(folder, 6) if "  segmenter: " in text]
        assert stage[-1].endswith(line)
        assert run.config.segmenter.steps == steps, "a run that can resume keeps the new settings"
        assert np.array_equal(run.predict(picture).mask, before)
        assert contents(folder / "segmenter") == written
    rerun(folder, scenes, ["segmenter"])
    assert "segmenter: done already" in log_lines(folder, 1)[0]


@pytest.mark.parametrize("moment", ["before the renames", "between them", "after them"])
def test_a_kill_while_a_result_is_replaced_is_repaired(finished, scenes, tmp_path, moment):
    folder = copy_of(finished, tmp_path)
    rerun(folder, scenes, MIDDLE_STAGES)  # config.toml names the copy
    part, old = folder / ".segmenter.part", folder / ".segmenter.trash"
    shutil.copytree(folder / "segmenter", old if moment == "after them" else part)
    if moment == "between them":
        (folder / "segmenter").rename(old)
    assert tag2mask.load(folder).predict(Image.new("RGB", (20, 30))).mask.shape == (30, 20)
    rerun(folder, scenes, MIDDLE_STAGES)
    assert all("done already" in line for line in log_lines(folder, 5))
    assert (folder / "segmenter").is_dir() and not part.exists() and not old.exists()


def test_photos_that_are_new_or_gone_are_counted(finished, scenes, tmp_path, monkeypatch):
    folder, own = copy_of(finished, tmp_path), tmp_path / "scenes"
    shutil.copytree(scenes, own)
    shutil.copy(own / "photos/0001.jpg", own / "photos/new.jpg")
    lines = (own / "tags.csv").read_text().splitlines()
    first = next(line for line in lines if "0001" in line)
    kept = [line for line in lines if line != first and "0003" not in line]
    (own / "tags.csv").write_text("\n".join([*kept, first, first.replace("0001", "new")]))

    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("tag2mask.classifier.train_classifier", stopped)
    with pytest.raises(KeyboardInterrupt):
        rerun(folder, own, ["classifier"])
    assert "starts again, because photos changed (1 new, 1 gone)" in log_of(tag2mask.load(folder))


def test_what_goes_in_and_empty_masks_are_logged(finished):
    log = log_of(finished)
    assert "20 photos, 14 tags (" in log
    assert "; 4 validation photos; true masks of 20 training and 4 validation photos" in log
    masks = [np.array(Image.open(path)) for path in (finished.folder / "masks").glob("*.png")]
    assert f"masks: {sum(not mask.any() for mask in masks)} of 20 are all background" in log
    assert ", on CPU" in log and "null" not in log


def test_what_the_tags_say_is_logged_and_stored(finished):
    log, folder = log_of(finished), finished.folder
    masks = json.loads((folder / "masks/masks.json").read_text())["finds"]
    assert masks["images"] == 20 and masks["tags"]["cat"]["patch"] == 1 / 16
    assert "pseudo masks, by the tags of their photos: finds " in log
    tried = json.loads((folder / "segmenter/finds.json").read_text())
    assert tried["split"] == "train" and tried["images"] == 20
    assert len(list((folder / "segmenter/sample").glob("*.png"))) == 20
    first = log.split("segmenter: done")[0]  # other tests run stages of this run again
    assert first.count("segmenter, by the tags of 20 training photos: finds ") == 2, "of each round"
    assert all(f"warning: {doubt}" in log for doubt in [*masks["doubts"], *tried["doubts"]])
    assert finished.metrics["finds"]["split"] == "val" and finished.metrics["finds"]["images"] == 4
    assert sum(row["photos"] for row in finished.metrics["pseudo"]["peaks"].values()) > 20
    assert "pseudo masks: the largest evidence lies on the object in " in log


def test_warnings_of_new_masks_are_those_of_the_segmenter(finished, monkeypatch):
    asked = []
    monkeypatch.setattr(judge, "mask_doubts", lambda *_, new: asked.append(new) or [])
    first = judge.judge_masks(finished, finished.files.result("masks"), ())
    judge.judge_masks(finished, finished.newest_masks, (), first)
    assert asked == [False, True]


def test_the_report_runs_no_network(finished, scenes, tmp_path, monkeypatch):
    folder = copy_of(finished, tmp_path)

    def loaded(*arguments):
        raise AssertionError("a network is loaded")

    monkeypatch.setattr("tag2mask.classifier.load_classifier", loaded)
    monkeypatch.setattr("tag2mask.segmenter.heads.load_segmenter", loaded)
    run = rerun(folder, scenes, ["report"], report={"photos_per_split": 4})
    assert run.report.read_text().count('"strip"') == 7  # 3 ranked, 4 predictions


def test_a_segmenter_of_no_use_is_refused_and_the_earlier_one_stays(
    finished, scenes, tmp_path, monkeypatch, capfd
):
    """Weights that call all pixels background, as a training with a wrong learning rate leaves."""
    from tag2mask.evaluate.advice import refusal
    from tag2mask.segmenter.heads import create_segmenter

    folder = copy_of(finished, tmp_path)
    before = (folder / "segmenter/model.safetensors").read_bytes()

    def train(table, masks, settings, *arguments):
        model = create_segmenter(settings, table.classes)
        model.classify.weight.data.zero_()
        model.classify.bias.data[:] = 9.0 * (torch.arange(table.num_classes) == 0)
        return model.eval()

    monkeypatch.setattr("tag2mask.runs.judge.refusal", refusal)
    monkeypatch.setattr("tag2mask.segmenter.train.train_segmenter", train)
    command = [
        "segmenter",
        "--out",
        str(folder),
        "--segmenter.steps",
        "9",
        "--segmenter.rounds",
        "1",
    ]
    for _ in range(2):  # the same command again is no way around it
        assert tag2mask.cli.main(command) == 2
        error = capfd.readouterr().err
        assert "the segmenter is of no use: it marks nothing on 20 training photos. Look" in error
        assert "without --segmenter.balanced" in error
    assert (folder / "segmenter/model.safetensors").read_bytes() == before
    assert (folder / ".segmenter.part/sample").is_dir()
    # the report, and predictions, still come from the earlier one
    assert tag2mask.load(folder).segmenter.classes == finished.segmenter.classes


def test_a_run_that_never_started_leaves_no_folder(tmp_path):
    (tmp_path / "tags.csv").write_text("file_name,tags\nabsent.jpg,cat\n")
    for data in ("tags.csv", "absent.csv"):
        with pytest.raises(DataError):
            tag2mask.run(tmp_path / data, tmp_path / "r", **SETTINGS)
    for stages in (STAGE_NAMES, ["report"]):
        with pytest.raises(ConfigError):
            rerun(tmp_path / "r", tmp_path, stages, data=None)
    assert not (tmp_path / "r").exists()


def test_files_may_be_read_by_whom_the_umask_lets(finished):
    """safetensors would write its files for their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    files = [path for path in finished.folder.rglob("*") if path.is_file()]
    modes = {path.name: path.stat().st_mode & 0o777 for path in files}
    assert set(modes.values()) == {0o666 & ~umask}, modes


def test_a_run_of_an_older_version_is_out_of_date_and_no_more(finished, scenes, tmp_path):
    folder = copy_of(finished, tmp_path)
    for stage in ("classifier", "segmenter"):
        path = folder / stage / "done.json"
        done = json.loads(path.read_text())
        done["inputs"] = {"photos": done["inputs"]["photos"], stage: {"pooling": "both"}}
        path.write_text(json.dumps(done))
    with pytest.raises(RunError, match=r"classifier is out of date \(classifier.pooling was both,"):
        rerun(folder, scenes, ["report"])
    assert tag2mask.load(folder).predict(Image.new("RGB", (20, 30))).mask.shape == (30, 20)


def test_weights_that_have_moved_or_gone_are_the_same_weights(finished, scenes, tmp_path):
    folder, weights = tmp_path / "run", tmp_path / "w.pth"
    torch.save(timm.create_model("test_vit").state_dict(), weights)
    rerun(folder, scenes, ["clusters", "classifier"], classifier={"weights": str(weights)})
    weights.rename(tmp_path / "moved.pth")
    rerun(folder, scenes, ["masks"], classifier={"weights": str(weights)})
    assert "masks: done" in (folder / "log.txt").read_text().splitlines()[-1]
    weights.write_bytes(b"others")
    with pytest.raises(
        RunError, match=r"classifier is out of date \(classifier\.weights changed\)"
    ):
        rerun(folder, scenes, ["masks"], classifier={"weights": str(weights)})


def test_a_stage_does_not_build_on_what_has_changed(finished, scenes, tmp_path):
    folder = copy_of(finished, tmp_path)
    for stage, changes, message in (
        (
            "segmenter",
            {"masks": {"crf": {"iterations": 0}}},
            "masks is out of date (masks.crf.iterations was 2, is 0); run `tag2mask masks --out",
        ),
        (
            "report",
            {"classifier": {"epochs": 77}},
            "is out of date (classifier.epochs was 2, is 77); run `tag2mask classifier --out",
        ),
    ):
        with pytest.raises(RunError, match=re.escape(message)):
            rerun(folder, scenes, [stage], **changes)


def test_settings_that_an_upgrade_brings_change_nothing(finished, scenes, tmp_path):
    """Settings that an older version did not know count as their defaults, others as changes."""
    folder = copy_of(finished, tmp_path)
    rerun(folder, scenes)  # config.toml names the copy
    for path in folder.glob("*/*.json"):
        if path.name in ("done.json", "started.json"):
            content = json.loads(path.read_text())
            for section, key in (
                ("classifier", "lr_decay"),
                ("masks", "mask_size"),
                ("segmenter", "feature_length"),
                ("evaluate", "boundary"),
            ):
                if isinstance(content.get("inputs", {}).get(section), dict):
                    content["inputs"][section].pop(key, None)
            path.write_text(json.dumps(content))
    rerun(folder, scenes, MIDDLE_STAGES)
    assert all(
        f"{stage}: done already" in line
        for stage, line in zip(MIDDLE_STAGES, log_lines(folder, 5), strict=True)
    )
    rerun(folder, scenes, ["masks"], masks={"mask_size": 64})
    assert (
        "masks: starts again, because masks.mask_size is now 64" in (folder / "log.txt").read_text()
    )


def test_a_stage_whose_result_is_gone_runs_again(finished, scenes, tmp_path):
    folder = copy_of(finished, tmp_path)
    gone = [
        folder / name for name in ("evaluate/metrics.json", "report/index.html", "masks/0001.npz")
    ]
    for path in gone:
        path.unlink()
    rerun(folder, scenes)
    assert all(path.exists() for path in gone) and tag2mask.load(folder).metrics == finished.metrics


def test_a_stage_folder_is_no_link(finished, scenes, tmp_path):
    folder = copy_of(finished, tmp_path)
    (folder / "masks").rename(tmp_path / "elsewhere")
    (folder / "masks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"masks is a link.*a link instead"):
        rerun(folder, scenes)


def test_a_mask_that_is_gone_is_made_again(finished, scenes, tmp_path):
    folder = copy_of(finished, tmp_path)
    gone = next((folder / "masks").glob("*.png"))
    before = gone.read_bytes()
    gone.unlink()
    rerun(folder, scenes)
    assert gone.read_bytes() == before
    later = [line for line in log_lines(folder, 4) if "done already" in line]
    assert len(later) == 3, (
        "what is made again with equal content changes nothing: not segmenter, evaluate, report"
    )


def test_a_damaged_network_is_named_and_made_again_when_deleted(finished, scenes, tmp_path):
    folder = copy_of(finished, tmp_path)
    model = folder / "segmenter/model.safetensors"
    whole = {
        name: tensor.clone() for name, tensor in load_file(model).items()
    }  # the file is mapped, and about to be damaged
    model.write_bytes(model.read_bytes()[:100_000])
    with pytest.raises(
        RunError,
        match=r"model\.safetensors is damaged .*delete it and run `tag2mask segmenter` again",
    ):
        tag2mask.load(folder).predict(Image.new("RGB", (20, 30)))
    model.unlink()
    rerun(folder, scenes, ["segmenter"])
    assert all(torch.equal(whole[name], tensor) for name, tensor in load_file(model).items())


def test_figures_follow_the_true_masks(finished, scenes, tmp_path):
    folder, own = copy_of(finished, tmp_path), tmp_path / "scenes"
    shutil.copytree(scenes, own)
    rerun(folder, own, ["evaluate"])
    mask = sorted((own / "masks").iterdir())[0]
    write_mask(mask, np.zeros_like(np.array(Image.open(mask))))
    rerun(folder, own, ["evaluate"])
    assert "evaluate: starts again, because true masks of " in (folder / "log.txt").read_text()
    with pytest.raises(DataError, match="mean over unicorn: no such class"):
        rerun(folder, own, ["evaluate"], evaluate={"mean_over": ("unicorn",)})
    (tmp_path / "list.txt").write_text("0001.jpg\n0002.jpg\n")
    with pytest.raises(DataError, match=r"list\.txt: none of its 2 names .* named like 0\d+"):
        rerun(folder, own, ["evaluate"], photos={"pseudo_list": tmp_path / "list.txt"})


def test_test_photos_named_like_training_photos_keep_their_masks(finished, scenes, tmp_path):
    """train/0001.jpg and test/0001.jpg: 0001.png is the mask of the test photo alone."""
    folder = copy_of(finished, tmp_path)
    for source, part in (("val.csv", "test"), ("tags.csv", "train")):
        (tmp_path / part).mkdir()
        lines = (scenes / source).read_text().splitlines()[: 5 if part == "test" else None]
        rows = [line.partition(",") for line in lines[1:]]
        for number, (file, _, _) in enumerate(rows):
            shutil.copy(scenes / file, tmp_path / part / f"{number:04d}{Path(file).suffix}")
        named = [
            f"{part}/{number:04d}{Path(file).suffix},{tags}"
            for number, (file, _, tags) in enumerate(rows)
        ]
        (tmp_path / f"{part}.csv").write_text("\n".join(["file_name,tags", *named]))
    (tmp_path / "masks").mkdir()
    for number, line in enumerate((scenes / "val.csv").read_text().splitlines()[1:5]):
        shutil.copy(
            scenes / "masks" / f"{Path(line.partition(',')[0]).stem}.png",
            tmp_path / "masks" / f"{number:04d}.png",
        )
    paths = {
        "data": tmp_path / "train.csv",
        "val": tmp_path / "test.csv",
        "val_masks": tmp_path / "masks",
    }
    run = Run(folder, tag2mask.load(folder).config.model_copy(update=paths))
    assert run.truths["train"] is None and run.pseudo_photos == ()
    assert len(run.truths["val"].photos_with_truth) == 4


def test_python_keeps_the_settings_of_a_run_as_the_command_line_does(finished, scenes, tmp_path):
    folder = copy_of(finished, tmp_path)
    rerun(folder, scenes)
    again = tag2mask.run(scenes / "tags.csv", folder)
    assert again.config.classifier == finished.config.classifier
    last = log_lines(folder, 10)
    assert sum("done already" in line for line in last) == 7
    assert any("settings that differ from recipe photos" in line for line in last)


def test_a_run_does_not_put_masks_among_the_photos(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "cat" / "a.jpg")
    for out in (tmp_path, tmp_path / "runs/a"):
        with pytest.raises(RunError, match="is inside the folder of photos"):
            tag2mask.run(tmp_path, out)
    assert [p.name for p in tmp_path.iterdir()] == ["cat"]


def test_two_commands_do_not_share_a_run_folder(finished, scenes, tmp_path):
    folder = copy_of(finished, tmp_path)
    with (
        RunFolder(folder).opened(),
        pytest.raises(RunError, match="another tag2mask command is running"),
    ):
        rerun(folder, scenes, ["report"])
    rerun(folder, scenes, ["report"])


def test_masks_are_never_written_over_pictures_or_each_other(finished, tmp_path):
    for name in ("a/1.jpg", "b/1.jpg", "deep/2024/1.jpg", "pngs/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), "green").save(tmp_path / name)
    before = (tmp_path / "pngs/x.png").read_bytes()
    with pytest.raises(DataError, match=r"x\.png: the mask would overwrite this photo"):
        finished.predict_to([tmp_path / "pngs/x.png"], tmp_path / "pngs")
    assert (tmp_path / "pngs/x.png").read_bytes() == before
    for pictures, names in (
        ([tmp_path / "a", tmp_path / "b"], {"a/1.png", "b/1.png"}),
        ([tmp_path / "a/1.jpg", tmp_path / "b"], {"a/1.png", "b/1.png"}),
        ([tmp_path / "deep"], {"2024/1.png"}),
    ):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        assert {row["mask"] for row in finished.predict_to(pictures, out)} == names
        assert {p.relative_to(out).as_posix() for p in out.rglob("*.png")} == names
    twice = [tmp_path / "a/1.jpg", tmp_path / "a", tmp_path / "a/1.jpg"]
    assert {row["mask"] for row in finished.predict_to(twice, tmp_path / "once")} == {"1.png"}
    assert (tmp_path / "once/1.png").exists()
    for _ in range(2):  # the second time does not take the masks of the first for pictures
        rows = finished.predict_to([tmp_path / "deep"], tmp_path / "deep/masks")
        assert {row["mask"] for row in rows} == {"2024/1.png"}
    with pytest.raises(DataError, match="deep: the masks would be among these photos"):
        finished.predict_to([tmp_path / "deep"], tmp_path / "deep")
    (tmp_path / "empty").mkdir()
    for pictures, said in (([tmp_path / "empty"], "no photos in"), ([], "no photos given")):
        with pytest.raises(DataError, match=said):
            finished.predict_to(pictures, tmp_path / "out")


def test_a_run_is_found_from_any_folder(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(finished.folder.parent)
    run = tag2mask.load("whole")
    monkeypatch.chdir(tmp_path)
    assert run.metrics == finished.metrics and run.predict(
        Image.new("RGB", (20, 30))
    ).mask.shape == (30, 20)


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_of_it(scenes, tmp_path):
    """Spawned processes import the script, which must not start the run again in each of them."""
    script = tmp_path / "script.py"
    recipe = load_recipe("photos").model_dump()
    settings = merged(recipe, {**data(scenes), **SETTINGS, "photos": {"workers": 1}})
    settings["out"] = tmp_path / "r"
    run = f"run_config(make_config({settings!r}), ['check', 'clusters', 'classifier'])"
    start = (
        "import multiprocessing\nfrom pathlib import *\nfrom tag2mask.api import run_config\n"
        "from tag2mask.config_files import make_config\n"
        "multiprocessing.set_start_method('spawn', force=True)\n"
    )
    for guard, code in (("", 1), ("if __name__ == '__main__':\n    ", 0)):
        script.write_text(f"{start}{guard}{run}\n")
        done = subprocess.run(
            [sys.executable, script],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        assert ('below `if __name__ == "__main__":`' in done.stderr) == (not guard)


def test_a_stage_without_the_one_before_it_says_so(scenes, tmp_path):
    from tag2mask.api import run_config

    config = make_config(
        {**load_recipe("photos").model_dump(), **data(scenes), "out": tmp_path / "r", **SETTINGS}
    )
    with pytest.raises(RunError, match="run `tag2mask classifier --out"):
        run_config(config, ["clusters"]) and run_config(config, ["masks"])


def test_no_data_and_bad_data_stop_before_any_training(tmp_path):
    with pytest.raises(ConfigError, match="--data"):
        from tag2mask.api import run_config

        run_config(make_config({"out": tmp_path / "r"}))
    (tmp_path / "tags.csv").write_text("file_name,tags\nabsent.jpg,cat\nalso.jpg,\n")
    with pytest.raises(DataError, match="none of the 2 pictures exists"):
        tag2mask.run(tmp_path / "tags.csv", tmp_path / "r", **SETTINGS)
    assert not (tmp_path / "r" / "classifier").exists()


@pytest.mark.parametrize(
    ("section", "setting", "message"),
    [
        ("clusters", {"source": "absent.json"}, "absent.json"),
        ("segmenter", {"weights": "absent.pth"}, "no such weights"),
        ("segmenter", {"backbone": "resnt18"}, "timm has no model"),
    ],
)
def test_a_setting_that_cannot_work_is_not_kept(scenes, tmp_path, section, setting, message):
    """Nor is anything trained before the error: not the classifier if the segmenter is wrong."""
    settings = {**SETTINGS, section: {**SETTINGS[section], **setting}}
    with pytest.raises(Tag2MaskError, match=message):
        tag2mask.run(scenes / "tags.csv", tmp_path / "r", **settings)
    assert not (tmp_path / "r" / "config.toml").exists()
    assert not list((tmp_path / "r").glob("*cl*"))


COMMAND = f"""
import sys, tag2mask.loop
from tag2mask.cli import main
{LET_THROUGH}
tag2mask.loop.CHECKPOINT_SECONDS = 0.0
sys.exit(main(sys.argv[1:]))
"""
MIDDLE = {  # what lies in the run folder when a stage is under way
    "classifier": ".classifier.part/checkpoint/[0-9]*",
    "masks": ".masks.part/*.png",
    "segmenter": ".segmenter.part/round-1/checkpoint/[0-9]*",
    "second round": ".segmenter.part/round-1/masks/*.png",
    "evaluate": ".evaluate.part/predictions/*.png",
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", MIDDLE)
def test_kill_and_go_on_equals_uninterrupted(finished, scenes, tmp_path, stage):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text((finished.folder / "config.toml").read_text())
    out = tmp_path / "cut"
    command = [sys.executable, "-c", COMMAND, "run", "--recipe", str(recipe), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while not list(out.glob(MIDDLE[stage])):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    part = out / MIDDLE[stage].split("/")[0]
    if unfinished := part.exists():
        (part / ".0001.png.1.tmp").touch()  # what a kill in the middle of a file leaves
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    for path in finished.folder.rglob("*.png"):
        assert path.read_bytes() == (out / path.relative_to(finished.folder)).read_bytes(), path
    assert finished.metrics == tag2mask.load(out).metrics
    assert not list(out.rglob("*.tmp")) and not list(out.glob(".*.part"))
    resumed = f"{part.name[1:].removesuffix('.part')}: resumes"
    assert (resumed in (out / "log.txt").read_text()) == unfinished


@pytest.mark.slow
def test_two_processes_share_a_run(finished, scenes, tmp_path):
    """torchrun: every stage ends, each mask is written once, and metrics come out."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text((finished.folder / "config.toml").read_text())
    out = tmp_path / "two"
    script = tmp_path / "script.py"
    script.write_text(COMMAND)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command = [*launch, str(script), "run", "--recipe", str(recipe), "--out", str(out)]
    subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    assert {p.name for p in (out / "masks").glob("*.png")} == {
        p.name for p in (finished.folder / "masks").glob("*.png")
    }
    assert len(list((out / "evaluate/predictions").glob("*.png"))) == 4
    assert tag2mask.load(out).metrics["segmenter"]["images"] == 4


@pytest.mark.slow
def test_processes_that_share_a_run_say_an_error_once(tmp_path):
    (tmp_path / "tags.csv").write_text("file_name,tags\nabsent.jpg,cat\n")
    command = [sys.executable, "-m", "tag2mask", "run", "--data", str(tmp_path / "tags.csv")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [*command, "--out", str(tmp_path / "r")],
            env={**os.environ, "OMP_NUM_THREADS": "1", **shared, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = (process.communicate(timeout=300)[1] for process in processes)
    assert [process.returncode for process in processes] == [2, 2]
    assert "absent.jpg" in first and "Traceback" not in first + second
    assert "absent.jpg" not in second and "another process of this run has ended" in second
