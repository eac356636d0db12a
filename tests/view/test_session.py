"""What the page gets of a run: finished, unfinished, changed, broken."""

import gzip
import json
import os
import shutil
import time

import numpy as np
import pytest

from tag2mask.config import SegmenterSettings
from tag2mask.errors import RunError
from tag2mask.evaluate.doubt import difference
from tag2mask.photos.masks import read_mask, write_mask
from tag2mask.runs.folder import MASKS, STARTED, RunFolder
from tag2mask.view.app import page_files
from tag2mask.view.facts import Worker, mask_facts
from tag2mask.view.gallery import Gallery
from tag2mask.view.progress import curves, stages


def value(server, path):
    status, _, body = server.ask(path)
    assert status == 200, body
    return json.loads(body)


def wait(server, enough, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run = value(server, "/api/run")
        if enough(run):
            return run
        time.sleep(0.1)
    raise AssertionError(run["facts"])


def test_the_files_of_the_page_are_installed_and_fetch_nothing_from_elsewhere():
    files = page_files()
    assert {"index.html", "main.js", "style.css"} <= files.keys()
    for name, data in files.items():
        text = data.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text, name
        assert "innerHTML" not in text and "eval(" not in text, name  # names of photos are text


def test_a_mask_on_the_page_is_the_mask_of_the_run(run, serve):
    server, gallery = serve(run), Gallery(run)
    for shown in list(gallery)[:3]:
        status, headers, body = server.ask(
            f"/api/photos/{shown.id}/mask?kind=pseudo", headers={"Accept-Encoding": "gzip"}
        )
        mask = read_mask(run / "segmenter/masks" / f"{shown.photo.name}.png")
        assert status == 200 and headers["X-Size"] == f"{mask.shape[1]} {mask.shape[0]}"
        body = gzip.decompress(body) if headers["Content-Encoding"] == "gzip" else body
        assert np.array_equal(np.frombuffer(body, np.uint8).reshape(mask.shape), mask)
        assert 0 <= float(headers["X-IoU"]) <= 1


def test_first_masks_made_since_are_those_shown(run):
    """Those of a training that has begun, or of a run that ended after the stage `masks`."""
    gallery = Gallery(run)
    shown = next(shown for shown in gallery if shown.split == "train")
    assert gallery.mask_file(shown, "pseudo").parent == run / "segmenter/masks"
    about = run / "masks" / MASKS
    os.utime(about, ns=(time.time_ns(), time.time_ns()))
    assert gallery.mask_file(shown, "pseudo").parent == run / "masks"
    assert gallery.mask_file(shown, "first") is None, "they are shown already"
    assert gallery.score_folder(shown) == run / "masks"


def test_a_run_may_replace_the_new_masks_while_the_page_asks_for_them(run, monkeypatch):
    folders = [run / "segmenter/masks", None, None]  # gone after the first look
    monkeypatch.setattr(Gallery, "new_masks", property(lambda _: folders.pop(0)))
    gallery = Gallery(run)
    shown = next(shown for shown in gallery if shown.split == "train")
    assert gallery.mask_file(shown, "pseudo").parent == run / "segmenter/masks"


def test_the_facts_say_what_is_in_the_masks(run):
    gallery = Gallery(run)
    for shown in gallery:
        if shown.split == "val":
            continue
        facts = mask_facts(gallery, shown)
        mask = read_mask(run / "segmenter/masks" / f"{shown.photo.name}.png")
        for number, share in facts["shares"].items():
            assert share == pytest.approx((mask == number).mean())
        assert set(np.unique(mask)) - {0} >= facts["shares"].keys()
        assert 0 <= facts["entropy"] <= 1 and 0 <= facts["crf"] <= 1 and 0 <= facts["iou"] <= 1


def test_doubt_compares_the_first_mask_with_the_segmenters(run):
    """The new mask is the segmenter's own: that these agree says nothing."""
    gallery = Gallery(run)
    shown = next(shown for shown in gallery if shown.split == "train")
    predicted = gallery.predict(shown).mask
    name = f"{shown.photo.name}.png"
    first, new = (run / folder / name for folder in ("masks", "segmenter/masks"))
    write_mask(first, np.full_like(predicted, 2))
    write_mask(new, predicted)
    expected = difference(np.full_like(predicted, 2), predicted)
    assert mask_facts(gallery, shown)["agree"] == pytest.approx(expected) and expected > 0


def test_a_tag_without_any_score_leaves_the_others_their_threshold(run):
    """In the score maps of the classifier; a segmenter's probabilities are never 0."""
    shutil.rmtree(run / "segmenter/masks")
    gallery = Gallery(run)
    train = [shown for shown in gallery if shown.split == "train"]
    without = [shown for shown in train if not gallery.scores(shown)[1].amax((1, 2)).all()]
    assert 0 < len(without) < len(train)
    for shown in train:
        threshold = gallery.threshold(shown)
        assert shown in without if threshold is None else 0 < threshold <= 1


def test_the_threshold_of_a_small_thing_is_that_of_its_mask(run):
    """Otsu's of the photo alone: the slider starts where the mask is."""
    shutil.rmtree(run / "segmenter/masks")
    path = run / "masks" / MASKS
    about = json.loads(path.read_text())
    tags = about["classes"][1:]
    thresholds = []
    for small in ([], tags):
        path.write_text(json.dumps(about | {"small": small}))
        gallery = Gallery(run)
        train = [shown for shown in gallery if shown.split == "train"]
        thresholds.append([gallery.threshold(shown) for shown in train])
        for shown, threshold in zip(train, thresholds[-1], strict=True):
            if threshold is not None and len(shown.photo.tags) == 1:
                assert np.array_equal(gallery.mended(shown, (), threshold), gallery.mended(shown))
    assert about["threshold"] and thresholds[0] != thresholds[1]


def test_the_worker_compares_both_networks_and_sees_a_changed_mask(run, serve):
    server = serve(run)
    state = wait(server, lambda run: run["facts"]["predicted"] == run["facts"]["of"])
    assert state["facts"]["of"] == 17
    news = value(server, "/api/facts?since=0")
    assert len(news["facts"]) == 17 and len(news["doubts"]) == 17
    train = [row for row in value(server, "/api/photos")["rows"] if row[1] == "train"]
    assert all("agree" in news["facts"][row[0]] for row in train)
    path = run / "segmenter/masks" / f"{train[0][2]}.png"
    write_mask(path, np.full_like(read_mask(path), 2))
    end = time.monotonic() + 20
    changed = {}
    while train[0][0] not in changed and time.monotonic() < end:
        time.sleep(0.2)
        server.ask("/api/run")
        changed = value(server, f"/api/facts?since={news['next']}")["facts"]
    assert changed[train[0][0]]["shares"] == {"2": 1.0}


def test_a_training_that_has_begun_is_shown_without_its_lock(run, serve):
    """Masks so far in .masks.part/, losses so far in .segmenter.part/, no validation photos."""
    config = run / "config.toml"
    lines = config.read_text().splitlines()
    config.write_text(
        "\n".join(line for line in lines if not line.startswith(("val ", "val_masks ")))
    )
    (run / "masks").rename(run / ".masks.part")
    for name in ("done.json", "masks.json"):
        (run / ".masks.part" / name).unlink()
    pngs = sorted((run / ".masks.part").glob("*.png"))
    for path in pngs[8:]:
        path.unlink()
    for name in ("segmenter", "evaluate", "report"):
        shutil.rmtree(run / name)
    (run / ".segmenter.part").mkdir()
    (run / ".segmenter.part" / STARTED).write_text('{"inputs": {}}')
    row = {"step": 10, "steps": 5, "lr": 0.1, "seconds_per_step": 0.1, "loss": 1.5}
    text = "".join(json.dumps({**row, "step": step}) + "\n" for step in (1, 2, 3, 4))
    (run / ".segmenter.part" / "metrics.jsonl").write_text(text + '{"step": 5, "st')
    server = serve(run)
    state = value(server, "/api/run")
    stages = {stage["name"]: stage for stage in state["stages"]}
    assert stages["masks"]["state"] == "running" and stages["masks"]["share"] == 8 / 14
    assert stages["segmenter"]["state"] == "running"
    assert stages["segmenter"]["share"] == pytest.approx(0.64)  # 0.8 of 1; new masks are 0.25 more
    assert stages["evaluate"]["state"] == "waiting" and stages["classifier"]["state"] == "done"
    rows = value(server, "/api/photos")["rows"]
    assert len(rows) == 14 and sum(bool(row[7]) for row in rows) == 8
    at = f"/api/photos/{rows[0][0]}"
    about = value(server, at)
    assert about["masks"] == ["pseudo", "before"] and not state["segmenter"]
    assert server.ask(f"{at}/layer")[0] == 200
    stroke = {"tag": "background", "points": [[5, 5]], "radius": 4}
    status, _, body = server.ask(
        f"{at}/strokes", "POST", json.dumps({"strokes": [stroke]}).encode()
    )
    assert status == 409 and b"not finished" in body


def test_rounds_and_new_masks_are_part_of_the_segmenters_work(tmp_path):
    """Two rounds: the second is a quarter of the first, and so are the new masks of each."""
    files, settings = RunFolder(tmp_path), SegmenterSettings(rounds=2)
    part = files.part("segmenter")

    def row():
        return {row["name"]: row for row in stages(files, settings, 4, 0)}["segmenter"]

    def metrics(folder, step):
        folder.mkdir(exist_ok=True)
        (folder / "metrics.jsonl").write_text(f'{{"step": {step}, "steps": 8}}\n')
        os.utime(folder / "metrics.jsonl", (0, 0))

    def masks(folder, count):
        for i in range(count):
            write_mask(folder / "masks" / "cats" / f"{i}.png", np.zeros((4, 4), np.uint8))

    files.begin("segmenter", {})
    shares = [row()["share"]]
    for do in (
        lambda: metrics(part / "round-1", 4),
        lambda: masks(part / "round-1", 2),
        lambda: metrics(part, 2),
        lambda: masks(part, 4),
    ):
        do()
        shares.append(row()["share"])
    assert shares == [0, 0.5 / 1.75, 1.125 / 1.75, 1.3125 / 1.75, 1]
    for folder in (part, part / "masks", part / "round-1" / "masks", part / "round-1"):
        os.utime(folder, (0, 0))
    os.utime(part / STARTED, (0, 0))
    assert row()["state"] == "running", "a mask in a folder of photos was written just now"


def test_the_curve_is_that_of_the_round_in_training(tmp_path):
    files, steps = RunFolder(tmp_path), []
    places = (".segmenter.part/round-1", ".segmenter.part", "segmenter")
    for number, place in enumerate(places):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        path = tmp_path / place / "metrics.jsonl"
        row = {"steps": 9, "seconds_per_step": 1.0, "loss": 2.0}
        path.write_text("".join(json.dumps(row | {"step": 5 + number + i}) + "\n" for i in (0, 1)))
        os.utime(path, ns=(number, number))
        steps.append(curves(files)["segmenter"]["steps"])
    assert steps == [6, 7, 7]
    shutil.rmtree(files.part("segmenter"))
    assert curves(files)["segmenter"]["steps"] == 8 and curves(files)["classifier"] is None


def test_the_run_is_read_again_when_it_has_changed(run, serve):
    server = serve(run)
    before = value(server, "/api/run")["version"]
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text + "\n")
    end = time.monotonic() + 10
    while value(server, "/api/run")["version"] == before and time.monotonic() < end:
        time.sleep(0.3)
    assert value(server, "/api/run")["version"] != before
    (run / "config.toml").write_text("data = 3\n")  # it keeps what it has, and says why
    while not value(server, "/api/run")["fault"] and time.monotonic() < end + 10:
        time.sleep(0.3)
    assert value(server, "/api/run")["fault"] and value(server, "/api/photos")["rows"]


def test_a_photo_that_is_gone_is_a_sentence(run, serve, trained):
    folder = run.parent / "scenes"
    shutil.copytree(trained / "scenes", folder)
    config = (run / "config.toml").read_text().replace(str(trained / "scenes"), str(folder))
    (run / "config.toml").write_text(config)
    server = serve(run)
    row = value(server, "/api/photos")["rows"][0]
    next(iter((folder / "photos").glob(f"{row[2]}.*"))).unlink()
    status, _, body = server.ask(f"/api/photos/{row[0]}/picture")
    assert status == 409 and "no such file" in json.loads(body)["error"]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        Gallery(tmp_path)


def test_nothing_is_computed_while_nobody_looks(run):
    gallery = Gallery(run)
    worker = Worker(gallery, lambda: False)
    worker.seen = time.monotonic() - 3600
    worker._stop.set()
    assert worker._wait() and not worker.facts


def test_strokes_add_up_and_undo_takes_the_last(run, serve):
    server, gallery = serve(run), Gallery(run)
    shown = next(shown for shown in gallery if shown.photo.tags)
    at, log = f"/api/photos/{shown.id}", gallery.run.files.corrections

    def stroke(tag, x):
        value = {"strokes": [{"tag": tag, "points": [[x, 20], [x + 10, 30]], "radius": 6}]}
        status, headers, _ = server.ask(f"{at}/strokes", "POST", json.dumps(value).encode())
        assert status == 200 and headers["X-Size"] == "160 160"
        return read_mask(run / "corrections" / f"{shown.photo.name}.png")

    number = gallery.classes.index(shown.photo.tags[0])
    first = stroke("background", 20)
    second = stroke(shown.photo.tags[0], 110)
    assert first[20, 20] == 0 and second[20, 20] == 0 and second[20, 110] == number
    assert [s.tag for s in log.of(shown.photo.name).strokes] == ["background", shown.photo.tags[0]]
    _, _, body = server.ask(f"{at}/undo", "POST", b"{}")
    answer = json.loads(body)
    assert answer["about"]["corrected"]["count"] == 1
    again = read_mask(run / "corrections" / f"{shown.photo.name}.png")
    assert np.array_equal(again, first)
    redo = json.dumps({"of": answer["undone"]}).encode()
    assert server.ask(f"{at}/undo", "POST", redo)[0] == 200
    again = read_mask(run / "corrections" / f"{shown.photo.name}.png")
    assert np.array_equal(again, second)
    other = next(one for one in gallery if one.split == "train" and one.id != shown.id)
    status, _, _ = server.ask(f"/api/photos/{other.id}/undo", "POST", redo)
    assert status == 400  # a correction of another photo


def test_a_true_mask_is_no_correction(run, serve):
    """It was kept, and trained the segmenter."""
    server = serve(run)
    shown = next(shown for shown in Gallery(run) if shown.split == "train")
    for kind in ("truth", "before", "errors"):
        body = json.dumps({"value": "right", "kind": kind}).encode()
        assert server.ask(f"/api/photos/{shown.id}/judge", "POST", body)[0] == 400
    assert not (run / "corrections.jsonl").exists()


def test_validation_photos_are_not_corrected(run, serve):
    server = serve(run)
    shown = next(shown for shown in Gallery(run) if shown.split == "val")
    for path, body in (("judge", b'{"value":"wrong"}'), ("undo", b"{}")):
        assert server.ask(f"/api/photos/{shown.id}/{path}", "POST", body)[0] == 400
    assert not (run / "corrections.jsonl").exists()
