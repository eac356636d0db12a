"""All parts of the GPU benchmark run on a CPU, in their small form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tag2mask.demo.scenes import make_scenes

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_every_part_runs_in_its_small_form(tmp_path):
    make_scenes(tmp_path / "scenes", num_train=14, num_val=3, size=96, seed=0)
    data = ["--data", "scenes/tags.csv", "--val", "scenes/val.csv", "--val-masks", "scenes/masks"]
    parts = ["steps", "crf", "vit", "backbones", "data", "sizes", "small", "masks"]
    subprocess.run(
        [sys.executable, SCRIPT, *data, "--out", "out", "--parts", *parts], cwd=tmp_path, check=True
    )
    rows = [
        row for part in parts for row in json.loads((tmp_path / "out" / f"{part}.json").read_text())
    ]
    assert not [row for row in rows if row["measured"].startswith(("failed", "not measured"))]
    exact = ("steps", "crf", "small")
    assert not [row for row in rows if row["met"] is False and row["part"] in exact]
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert all(f"| {row['what']} |" in page for row in rows)
