"""Every benchmark runs at a tiny size, in a copy of benchmarks/ whose pages it may overwrite."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tag2mask.photos.masks import write_mask

ROOT = Path(__file__).parents[2]
TINY = ("--photos", "8", "--epochs", "1", "--steps", "4", "--seeds", "0", "--jobs", "2")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of benchmarks/ and README.md, without results."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(
        ROOT / "benchmarks",
        folder / "benchmarks",
        ignore=shutil.ignore_patterns("results", "__pycache__"),
    )
    shutil.copyfile(ROOT / "README.md", folder / "README.md")
    return folder


def script(copy, name, *words):
    """Run benchmarks/NAME and return its output."""
    command = [sys.executable, copy / "benchmarks" / name, *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def table(copy, name):
    """The lines of a table of results.md."""
    page = (copy / "benchmarks" / "results.md").read_text(encoding="utf-8")
    (body,) = re.findall(rf"<!-- table {name}: .*? -->\n(.*?)\n<!-- end -->", page, re.DOTALL)
    return body.splitlines()


def part(data, folder, every):
    """A folder as `data` with the first and then each `every`-th of its rows."""
    for name in ("images", "masks"):
        (folder / name).symlink_to(data / name)
    for name in ("train.csv", "val.csv"):
        header, *rows = (data / name).read_text().splitlines()
        (folder / name).write_text("\n".join([header, *rows[:: every[name]]]))
    return folder


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """voc-animals with 4 of its 200 validation photos."""
    shared = ROOT.parent / "shared" / "voc-animals"
    if not shared.is_dir():
        pytest.skip(f"needs the real photos in {shared}")
    folder = part(shared, tmp_path_factory.mktemp("animals"), {"train.csv": 1, "val.csv": 50})
    shutil.copyfile(shared / "train_seg.txt", folder / "train_seg.txt")
    return folder


@pytest.fixture(scope="module")
def measured(copy, animals):
    """OUT of quality.py: the jobs of the headline except `best`, on 8 photos."""
    out = copy / "out"
    jobs = ("--set", "all", "--methods", "photos", "cam", "--segment", "photos", "truth")
    output = script(copy, "quality.py", animals, out, *jobs, *TINY)
    assert "4 of 4 jobs done" in output, output
    return out


@pytest.mark.slow
@pytest.mark.real
def test_results_name_photos_weights_versions_device_and_seed(measured):
    files = {file.stem: json.loads(file.read_text()) for file in measured.glob("*.json")}
    assert files.keys() == {
        "all-photos-0",
        "all-photos-0-segmenter-own",
        "all-cam-0",
        "all-truth-0-segmenter-true",
    }
    for result in files.values():
        assert result["seed"] == 0 and result["photos"] == 8 and result["seconds"] > 1
        network = "lite2" if result.get("learned_from") else "lite0"
        assert result["device"] and result["date"] and network in result["weights"]
        assert {"torch", "tag2mask"} <= result["versions"].keys()
        for row in result["rows"]:
            assert 0 < row["miou"] < 1 and row["images"]
            assert row["labels"] == ("none" if row["split"] == "val" else "given")
    run = measured / "scratch" / "all-photos-0"
    stages = [json.loads(done.read_text()) for done in run.glob("*/done.json")]
    both = files["all-photos-0"], files["all-photos-0-segmenter-own"]
    seconds = sum(result["seconds"] for result in both)
    assert seconds == pytest.approx(sum(stage["seconds"] for stage in stages), abs=0.5)
    metrics = json.loads((run / "evaluate" / "metrics.json").read_text())
    # Two ways to the same figure. The run's own figure of pseudo masks is that of the new masks.
    new, row = files["all-photos-0-segmenter-own"]["rows"]
    assert row["miou"] == pytest.approx(metrics["segmenter"]["miou"], abs=1e-5)
    assert new["miou"] == pytest.approx(metrics["pseudo"]["miou"], abs=1e-5)
    first = files["all-photos-0"]["rows"][0]["miou"]
    assert abs(first - metrics["pseudo"]["miou"]) > 1e-3
    assert files["all-photos-0"]["rows"][0]["miou"] != files["all-cam-0"]["rows"][-1]["miou"]


@pytest.mark.slow
@pytest.mark.real
def test_finished_jobs_are_skipped(copy, animals, measured):
    before = {file: file.stat().st_mtime_ns for file in measured.glob("*.json")}
    jobs = ("--set", "all", "--methods", "photos", "cam")
    script(copy, "quality.py", animals, measured, *jobs, *TINY)
    assert {file: file.stat().st_mtime_ns for file in measured.glob("*.json")} == before


@pytest.mark.slow
@pytest.mark.real
def test_results_are_written_to_the_tables_and_the_readme(copy, measured):
    script(copy, "tables.py", measured)
    row = json.loads((measured / "all-photos-0.json").read_text())["rows"][0]
    figure = f"{100 * row['miou']:.1f}"
    assert any(
        line.startswith(f"| recipe `photos` | {figure} | 0 |") for line in table(copy, "headline")
    )
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert f"cut in the same way: {figure} and " in readme
    page = (copy / "benchmarks" / "results.md").read_text(encoding="utf-8")
    script(copy, "tables.py")
    assert page == (copy / "benchmarks" / "results.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.real
def test_masks(copy, measured):
    assert "photos a second" in script(copy, "masks.py", measured / "scratch" / "all-photos-0", 2)
    assert [line for line in table(copy, "masks") if line.startswith("| torch |")]


@pytest.mark.slow
def test_evaluate(copy):
    script(copy, "evaluate.py", "--count", 4)
    rows = [line for line in table(copy, "evaluate") if line.startswith(("| plain", "| tag2mask"))]
    assert len({row.split("|")[4] for row in rows}) == 1 and len(rows) == 3


@pytest.mark.slow
def test_clusters(copy):
    if not find_spec("sentence_transformers"):
        pytest.skip("needs the extra `offline`")
    script(copy, "clusters.py")
    assert table(copy, "clusters")[:-1] == table(ROOT, "clusters")[:-1]  # except the date


@pytest.mark.slow
@pytest.mark.real
def test_crf(copy, tmp_path, shared):
    pytest.importorskip("pydensecrf")
    before = (copy / "benchmarks" / "crf.md").read_text(encoding="utf-8")
    least = ("--count", 1, "--repeat", 1, "--rounds", 1)
    photo = next((shared / "voc-animals" / "images").iterdir())
    Image.open(photo).resize((160, 120)).save(tmp_path / "small.jpg")
    script(copy, "crf.py", "--photos", tmp_path, *least)
    after = (copy / "benchmarks" / "crf.md").read_text(encoding="utf-8")
    assert after != before and "--count 1 --repeat 1" in after


@pytest.mark.slow
@pytest.mark.real
def test_regions(copy, tmp_path, shared):
    pytest.importorskip("skimage")
    script(copy, "regions.py", shared / "voc-animals", tmp_path, "--photos", 4, "--epochs", 1)
    rows = [line.strip("| ").split(" | ") for line in table(copy, "regions") if " | 0 | " in line]
    assert [row[0] for row in rows] == [
        "neither",
        "dense CRF",
        "SLIC, 600 superpixels",
        "Felzenszwalb, scales 100 and 400",
        "true regions",
    ]
    figures = [float(row[2]) for row in rows]
    assert max(figures) == figures[-1] > figures[0] > 0


@pytest.mark.slow
@pytest.mark.real
def test_unknown_tags(copy, tmp_path, shared):
    words = ("--photos", 4, "--epochs", 1, "--shares", 0.5)
    for _ in range(2):  # results that are there are not made again
        script(copy, "unknown_tags.py", shared / "voc-animals", tmp_path, *words)
    assert len((tmp_path / "unknown_tags.jsonl").read_text().splitlines()) == 4
    rows = [line.split(" | ") for line in table(copy, "unknown") if line.startswith("| 50 %")]
    assert [row[1:3] for row in rows] == [
        ["left out", "not at all"],
        ["left out", "as found"],
        ["left out", "as they are"],
        ["absent", "not at all"],
    ]
    shown, right = (int(cell) for cell in rows[1][4:6])
    assert int(rows[0][4]) <= right <= shown


@pytest.mark.slow
@pytest.mark.real
def test_tiles(copy, tmp_path, shared):
    (tmp_path / "data").mkdir()
    every = {"train.csv": 20, "val.csv": 20}
    data = part(shared / "magnetic-tiles", tmp_path / "data", every)
    tiny = ["--clusters", "random"]
    tiny += ["--classifier.epochs", 1, "--classifier.image-size", 96, "--masks.image-size", 96]
    tiny += ["--segmenter.steps", 1, "--segmenter.crop-size", 65, "--segmenter.image-size", 97]
    # few steps at a higher rate learn background alone, and an untrained pyramid marks all photos
    tiny += ["--segmenter.head", "deeplab_v2", "--segmenter.lr", 1e-6]
    tiny += ["--segmenter.most-marked", 1]  # it is as certain of photos of nothing as of others
    script(copy, "tiles.py", data, tmp_path / "runs", "--settings", *tiny)
    lines = table(copy, "tiles")
    assert [line for line in lines if line.startswith("| with the good tiles | 0 |")]
    assert len([line for line in lines if line.startswith("| without them |")]) == 2


@pytest.mark.slow
def test_scale(copy, tmp_path, monkeypatch, few_steps):
    """Every part runs, in one process: most of their time is the start of each."""
    import tag2mask.classifier.train

    monkeypatch.syspath_prepend(copy / "benchmarks")
    import scale

    monkeypatch.setattr(tag2mask.classifier.train, "_phases", tag2mask.classifier.train._phases)
    monkeypatch.setattr(scale, "STEPS", 2)
    monkeypatch.setattr(scale, "VALIDATION", 2)
    monkeypatch.setitem(scale.SETTINGS["segmenter"], "steps", 2)
    parts = []

    def measure(part, folder):
        scale.PARTS[part](folder)
        parts.append(part)
        return {"seconds": 2.0 * len(parts), "cpu": 1.0, "mb": 50.0 + len(parts)}

    monkeypatch.setattr(scale, "measure", measure)
    words = ["--counts", "16", "--whole", "2", "--table", "8", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["scale.py", *words])
    scale.main()
    assert parts == [*scale.PARTS, "table"]
    log = (tmp_path / "16" / "run" / "log.txt").read_text()
    assert "masks: resumes" in log and log.count("done already") == 7, "a real second start"
    assert len(list((tmp_path / "16" / "predicted").rglob("*.png"))) == 16
    page = (copy / "benchmarks" / "scale.md").read_text(encoding="utf-8")
    assert "| predict | - | 1.0 (20.0) | - |" in page and "| 8 | 16 |" in page


@pytest.mark.slow
@pytest.mark.real
def test_speed(copy, shared):
    words = ("--photos", 6, "--epochs", 1, "--rounds", 1)
    script(copy, "speed.py", "bare", shared / "voc-animals", *words)
    page = (copy / "benchmarks" / "speed.md").read_text(encoding="utf-8")
    _, body = page.split("<!-- table bare:")
    (cells,) = re.findall(r"\| classifier \| (.*) \| (.*) \| (.*) \| (.*) \|", body)
    bare, stage = (list(map(float, re.findall(r"[\d.]+", cell))) for cell in cells[:2])
    for then, now, ratio in zip(bare, stage, cells[2:], strict=True):  # of the clock, of the cores
        assert now / then == pytest.approx(float(ratio), rel=0.15)


def test_speed_compares_results(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import speed

    for name, level in (("before", 0), ("now", 1)):
        for mask, numbers in (("a", np.zeros((2, 5))), ("b", np.full((2, 5), level))):
            write_mask(tmp_path / name / "masks" / f"{mask}.png", numbers.astype(np.uint8))
        model = tmp_path / name / "classifier" / "model.safetensors"
        model.parent.mkdir()
        save_file({"w": np.array([1, 2 + level / 4])}, model)
    both = tmp_path / "before", tmp_path / "now"
    assert speed.agreement("masks", *both).startswith("1 of 2 masks are the same, and 50.000 %")
    assert speed.agreement("classifier", *both).endswith("by at most 11 %")
    assert speed.row("masks", {"before": (4, 2), "now": (3, 1)}, "x").endswith(
        "| 0.75 | 0.50 | x |"
    )
