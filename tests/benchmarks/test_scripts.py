"""Every benchmark runs, at a tiny size, in a copy of benchmarks/ whose pages it may write."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ("--photos", "16", "--epochs", "1", "--steps", "12", "--seeds", "0", "--jobs", "2")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A checkout's benchmarks/ and README.md, without results."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(
        ROOT / "benchmarks",
        folder / "benchmarks",
        ignore=shutil.ignore_patterns("results", "__pycache__"),
    )
    shutil.copyfile(ROOT / "README.md", folder / "README.md")
    return folder


def script(copy, name, *words):
    """Run benchmarks/NAME; returns what it printed."""
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


@pytest.fixture(scope="module")
def measured(copy):
    """OUT of quality.py: the headline but `best`, on 16 photos."""
    shared = ROOT.parent / "shared"
    if not shared.is_dir():
        pytest.skip(f"needs the real photos in {shared}")
    out = copy / "out"
    jobs = ("--set", "all", "--methods", "photos", "cam", "--segment", "photos", "truth")
    said = script(copy, "quality.py", shared / "voc-animals", out, *jobs, *TINY)
    assert "4 of 4 jobs done" in said, said
    return out


@pytest.mark.slow
@pytest.mark.real
def test_a_job_says_all_that_its_figures_are_worthless_without(measured):
    files = {file.stem: json.loads(file.read_text()) for file in measured.glob("*.json")}
    assert files.keys() == {
        "all-photos-0",
        "all-photos-0-segmenter-own",
        "all-cam-0",
        "all-truth-0-segmenter-true",
    }
    for found in files.values():
        assert found["seed"] == 0 and found["photos"] == 16 and found["seconds"] > 1
        assert (
            {"torch", "tag2mask"} <= found["versions"].keys()
            and found["device"]
            and found["date"]
            and "lite0" in found["weights"]
        )
        for row in found["rows"]:
            assert (
                0 < row["miou"] < 1
                and row["images"]
                and row["labels"] == ("none" if row["split"] == "val" else "given")
            )
    metrics = json.loads(
        (measured / "scratch" / "all-photos-0" / "evaluate" / "metrics.json").read_text()
    )
    for name, file in (
        ("pseudo", "all-photos-0"),
        ("segmenter", "all-photos-0-segmenter-own"),
    ):  # two ways to the same figure
        assert files[file]["rows"][0]["miou"] == pytest.approx(metrics[name]["miou"], abs=1e-5)
    assert files["all-photos-0"]["rows"][0]["miou"] != files["all-cam-0"]["rows"][-1]["miou"]


@pytest.mark.slow
@pytest.mark.real
def test_what_is_there_is_not_made_again(copy, measured):
    before = {file: file.stat().st_mtime_ns for file in measured.glob("*.json")}
    script(
        copy,
        "quality.py",
        ROOT.parent / "shared" / "voc-animals",
        measured,
        "--set",
        "all",
        "--methods",
        "photos",
        "cam",
        *TINY,
    )
    assert {file: file.stat().st_mtime_ns for file in measured.glob("*.json")} == before


@pytest.mark.slow
@pytest.mark.real
def test_results_become_tables_and_readme_s_figures(copy, measured):
    script(copy, "tables.py", measured)
    row = json.loads((measured / "all-photos-0.json").read_text())["rows"][0]
    figure = f"{100 * row['miou']:.1f}"
    assert any(
        line.startswith(f"| recipe `photos` | {figure} | 0 |") for line in table(copy, "headline")
    )
    assert f"| recipe `photos` | {figure} (seeds 0) |" in (copy / "README.md").read_text(
        encoding="utf-8"
    )
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
    assert table(copy, "clusters")[:-1] == table(ROOT, "clusters")[:-1]  # all but the date


@pytest.mark.slow
@pytest.mark.real
def test_crf(copy, shared):
    pytest.importorskip("pydensecrf")
    before = (copy / "benchmarks" / "crf.md").read_text(encoding="utf-8")
    script(
        copy,
        "crf.py",
        "--photos",
        shared / "voc-animals" / "images",
        "--count",
        1,
        "--repeat",
        1,
        "--rounds",
        1,
    )
    after = (copy / "benchmarks" / "crf.md").read_text(encoding="utf-8")
    assert after != before and "--count 1 --repeat 1" in after
