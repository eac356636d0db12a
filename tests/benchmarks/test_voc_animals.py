"""benchmarks/voc_animals/build.py makes the photos, tags and masks of the published figures."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tag2mask.photos.masks import read_mask

ROOT = Path(__file__).parents[2]
LISTS = ROOT / "benchmarks" / "voc_animals"


def names(list_name):
    return (LISTS / f"{list_name}.txt").read_text().split()


def tags_of(table):
    with table.open(newline="") as file:
        return {Path(row["file_name"]).stem: row["tags"].split(";") for row in csv.DictReader(file)}


def write_voc(data, shared):
    """The photos in the layout of `tag2mask download voc12`, with tags in XML files.

    The masks are VOC's for its own lists and SBD's for the others.
    """
    savemat = pytest.importorskip("scipy.io").savemat
    voc, sbd = data / "VOCdevkit" / "VOC2012", data / "benchmark_RELEASE" / "dataset"
    for folder in (voc / "Annotations", voc / "SegmentationClass", sbd / "cls"):
        folder.mkdir(parents=True)
    (voc / "JPEGImages").symlink_to(shared / "images")
    own = {*names("train_seg"), *names("val")}
    for name, tags in (tags_of(shared / "train.csv") | tags_of(shared / "val.csv")).items():
        part = "<part><name>head</name></part>"  # of people; not a tag
        objects = "".join(
            f"<object><name>{tag}</name><difficult>1</difficult>{part}</object>"
            for tag in [*reversed(tags), tags[0]]
        )
        (voc / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
        file = shared / "masks" / f"{name}.png"
        if name in own:
            (voc / "SegmentationClass" / file.name).symlink_to(file)
        else:
            savemat(
                sbd / "cls" / f"{name}.mat",
                {"GTcls": {"Segmentation": read_mask(file)}},
                do_compression=True,
            )
    return data


@pytest.mark.slow
@pytest.mark.real
def test_the_folder_equals_the_measured_one(shared, tmp_path):
    shared = shared / "voc-animals"
    data, out = write_voc(tmp_path / "data", shared), tmp_path / "out"
    subprocess.run([sys.executable, LISTS / "build.py", data, out], check=True)
    for file in ("train.csv", "val.csv", "train_seg.txt"):
        assert (out / file).read_bytes() == (shared / file).read_bytes(), file
    for kind, same in (
        ("images", lambda a, b: a.read_bytes() == b.read_bytes()),
        ("masks", same_mask),
    ):
        files = sorted(path.name for path in (shared / kind).iterdir())
        assert files == sorted(path.name for path in (out / kind).iterdir()) and len(files) == 1500
        assert [name for name in files if not same(shared / kind / name, out / kind / name)] == []


def same_mask(file, other):
    return np.array_equal(read_mask(file), read_mask(other))


def test_lists_are_complete_and_disjoint():
    train, val, scored = names("train"), names("val"), names("train_seg")
    assert (len(train), len(val), len(scored)) == (1300, 200, 437)
    assert set(scored) <= set(train) and not set(train) & set(val)


def test_a_missing_download_is_an_error(tmp_path):
    command = [sys.executable, LISTS / "build.py", tmp_path, tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "tag2mask download voc12" in result.stderr
