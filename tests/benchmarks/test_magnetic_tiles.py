"""benchmarks/magnetic_tiles/build.py makes the photos, tags and masks of the published figures."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.photos.masks import read_mask

BUILD = Path(__file__).parents[2] / "benchmarks" / "magnetic_tiles" / "build.py"


@pytest.mark.slow
@pytest.mark.real
def test_the_folder_equals_the_measured_one(shared, tmp_path):
    """From the authors' layout: a folder for each kind, masks of black and white."""
    shared, tiles, out = shared / "magnetic-tiles", tmp_path / "tiles", tmp_path / "out"
    for photo in (shared / "images").iterdir():
        kind, number = photo.stem.split("_", 1)
        folder = tiles / f"MT_{kind.title()}" / "Imgs"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").symlink_to(photo)
        white = read_mask(shared / "masks" / f"{photo.stem}.png") > 0
        gray = np.where(white, 200, 100).astype(np.uint8)  # edges in the authors' masks are gray
        Image.fromarray(gray).save(folder / f"{number}.png")
    subprocess.run([sys.executable, BUILD, tiles, out], check=True)
    for file in ("train.csv", "val.csv"):
        assert (out / file).read_text().split() == (shared / file).read_text().split(), file
    for kind in ("images", "masks"):
        names = sorted(path.name for path in (shared / kind).iterdir())
        assert names == sorted(path.name for path in (out / kind).iterdir()) and len(names) == 711
    for mask in (shared / "masks").iterdir():
        assert np.array_equal(read_mask(mask), read_mask(out / "masks" / mask.name)), mask.name


def test_a_missing_clone_is_an_error(tmp_path):
    command = [sys.executable, BUILD, tmp_path, tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "clone the authors' photos first" in result.stderr
