"""The photos of results.md: `python benchmarks/voc_animals/build.py data voc-animals`.

`data` is the folder of `tag2mask download voc12 --out data`, with VOC 2012 and SBD. The lists
beside this file name 1,300 training photos (cats, dogs, horses, cows, sheep, people, sofas, chairs
and a few others), 200 validation photos of VOC's own segmentation `val`, and the 437 training
photos that belong to VOC's own segmentation `train`.

`voc-animals` gets images/, masks/ (VOC's, or SBD's where VOC has none; class numbers as in VOC),
train.csv, val.csv and train_seg.txt. The tags are the objects in VOC's XML files.
"""

import argparse
import csv
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from tag2mask.files import read_list
from tag2mask.photos.masks import read_mask, write_mask
from tag2mask.progress import track

LISTS = Path(__file__).parent


def tags(voc: Path, name: str) -> list[str]:
    """Names of the objects in VOC's XML file of a photo."""
    objects = ElementTree.parse(voc / "Annotations" / f"{name}.xml").iter("object")
    return sorted({thing.findtext("name") or "" for thing in objects})


def mask(voc: Path, sbd: Path, name: str) -> np.ndarray:
    """The true mask of a photo, (H, W) uint8 in VOC's numbers: VOC's own, or SBD's without 255."""
    own = voc / "SegmentationClass" / f"{name}.png"
    if own.exists():
        return read_mask(own)
    from scipy.io import loadmat  # comes with the extra `offline`

    content = loadmat(sbd / "cls" / f"{name}.mat")
    return np.ascontiguousarray(content["GTcls"][0, 0]["Segmentation"], np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder of `tag2mask download voc12 --out`")
    parser.add_argument("out", type=Path, help="the folder to write")
    options = parser.parse_args()
    data, out = options.data, options.out
    voc, sbd = data / "VOCdevkit" / "VOC2012", data / "benchmark_RELEASE" / "dataset"
    if not voc.is_dir() or not sbd.is_dir():
        do = f"run `tag2mask download voc12 --out {data}` first"
        sys.exit(f"{voc} or {sbd} is missing; {do}")
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        names = read_list(LISTS / f"{split}.txt")
        with (out / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("file_name", "tags"))
            writer.writerows((f"images/{name}.jpg", ";".join(tags(voc, name))) for name in names)
        for name in track(names, split):
            shutil.copyfile(voc / "JPEGImages" / f"{name}.jpg", out / "images" / f"{name}.jpg")
            write_mask(out / "masks" / f"{name}.png", mask(voc, sbd, name))
    shutil.copyfile(LISTS / "train_seg.txt", out / "train_seg.txt")


if __name__ == "__main__":
    main()
