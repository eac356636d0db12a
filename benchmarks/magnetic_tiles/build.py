"""The photos of a factory: `python benchmarks/magnetic_tiles/build.py tiles magnetic-tiles`.

`tiles` is a clone of github.com/abin24/Magnetic-tile-defect-datasets. (with the dot), the photos of
Huang, Qiu, Yuan: Surface defect saliency of magnetic tile (2018). The lists beside this file name
525 training photos, of which 300 are good tiles, and 186 validation photos, 100 of them good.

`magnetic-tiles` gets images/ (JPEG, encoded again with quality 88), masks/ (0 background, 1
blowhole, 2 break, 3 crack, 4 fray, 5 uneven), train.csv and val.csv. A good tile has no tag.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.files import read_list
from tag2mask.photos.masks import write_mask
from tag2mask.progress import track

LISTS = Path(__file__).parent
DEFECTS = ("blowhole", "break", "crack", "fray", "uneven")
GOOD = "free"  # the authors' name of good tiles


def mask(source: Path, kind: str) -> np.ndarray:
    """The true mask, (H, W) uint8: the number of the defect where the authors' mask is white."""
    with Image.open(source.with_suffix(".png")) as image:
        white = np.asarray(image.convert("L")) > 127
    return white * np.uint8(0 if kind == GOOD else DEFECTS.index(kind) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tiles", type=Path, help="the clone with the authors' photos")
    parser.add_argument("out", type=Path, help="the folder to write")
    options = parser.parse_args()
    if not (options.tiles / "MT_Free" / "Imgs").is_dir():
        sys.exit(
            f"{options.tiles / 'MT_Free' / 'Imgs'} is missing; clone the authors' photos first"
        )
    for folder in ("images", "masks"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        names = read_list(LISTS / f"{split}.txt")
        with (options.out / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("file_name", "tags"))
            for name in track(names, split):
                kind, number = name.split("_", 1)
                source = options.tiles / f"MT_{kind.title()}" / "Imgs" / f"{number}.jpg"
                with Image.open(source) as image:
                    image.save(options.out / "images" / f"{name}.jpg", quality=88)
                write_mask(options.out / "masks" / f"{name}.png", mask(source, kind))
                writer.writerow((f"images/{name}.jpg", "" if kind == GOOD else kind))


if __name__ == "__main__":
    main()
