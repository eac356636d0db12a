"""A floor for quality on real photos: cats, dogs and horses, the wheel's weights, some 85 seconds
on one core, beside CAM as published.

The figures below, for these seeds: python tests/test_floor_real.py 0 1 2 3
"""

import csv
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tag2mask.api import run_config
from tag2mask.config_files import load_recipe, make_config, merged
from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.formats import load_table
from tag2mask.photos.masks import Truth
from tag2mask.photos.table import Photo

TAGS = ("cat", "dog", "horse")
EACH = 16  # photos of each tag
SMALL: dict[str, Any] = {  # size and steps, and few photos a step; everything else as it comes
    "classifier": {"image_size": 224, "epochs": 5, "batch_size": 6},
    "masks": {"image_size": 448},
}
CAM = {  # as in benchmarks/methods.py
    "clusters": {"source": "none"},
    "classifier": {"token": "none", "mixer": "none", "tag_loss": "mean"},
    "masks": {"image_size": 224, "affinity": False, "threshold": 0.3},
}


def figures(photos: Path, folder: Path, seed: int) -> dict[str, float]:
    """mIoU [%] of pseudo masks and of what they must be better than, over background and the three
    tags."""
    listed = set((photos / "train_seg.txt").read_text().split())
    rows = list(csv.DictReader((photos / "train.csv").open()))
    clear = {
        tag: [
            row["file_name"]
            for row in rows
            if row["tags"] == tag and Path(row["file_name"]).stem in listed
        ]
        for tag in TAGS
    }
    chosen = zip(
        *(random.Random(seed).sample(clear[tag], EACH) for tag in TAGS), strict=True
    )  # the next photo is another animal
    data = folder / "tags.csv"
    with data.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("file_name", "tags"),
                *(
                    (photos / name, tag)
                    for names in chosen
                    for name, tag in zip(names, TAGS, strict=True)
                ),
            ]
        )
    table = load_table(data)
    truth = Truth(photos / "masks", table, "voc")

    def run(name: str, *changes: dict[str, Any]) -> Path:
        settings = load_recipe("photos").model_dump() | {
            "data": data,
            "seed": seed,
            "out": folder / name,
        }
        for change in (SMALL, *changes):
            settings = merged(settings, change)
        run_config(make_config(settings), ("clusters", "classifier", "masks"))
        return folder / name / "masks"

    def score(masks: Path | None) -> float:
        def filled(photo: Photo) -> np.ndarray:
            return np.full_like(truth.read(photo), table.classes.index(photo.tags[0]))

        pairs = [
            (masks / f"{p.name}.png" if masks else filled(p), truth.read(p)) for p in table.photos
        ]
        return 100 * evaluate_masks(pairs, table.classes).miou

    miou = {
        "pseudo masks": score(run("ours")),
        "CAM": score(run("cam", CAM)),
        "all object": score(None),
    }
    return {name: round(value, 1) for name, value in miou.items()}


# 2026-11-26, seeds 0 to 3: mIoU [%] of masks of 48 training photos, made by the command above on a
# processor.
# All object: each photo is its tag from edge to edge. With seed 0, broken on purpose, pseudo masks
# and CAM: scores not spread 42.1 and
# 47.2, a classifier that never learns 36.1 and 25.0, the next photo's tags in training 26.4 and
# 18.3; by these figures each misses a bound.
MEASURED = {
    "pseudo masks": (52.9, 53.3, 49.2, 40.6),
    "CAM": (47.2, 42.3, 42.6, 42.1),
    "all object": (20.7, 22.9, 23.0, 22.0),
}
MARGINS = {
    "CAM": 5,
    "all object": 10,
}  # of mIoU [%] below seed 0's own difference: processors round otherwise


@pytest.mark.slow
@pytest.mark.real
def test_masks_of_photos_are_as_far_above_others_as_they_were(shared, tmp_path):
    """By the difference that the same seed, and so the same photos, had, less the margin.

    Not "above CAM": with seed 3's photos we are 1.5 below it, in the mean of the four 5.5 above.
    Forty steps on 48 photos are too few for
    that; it is measured in benchmarks/.
    """
    miou = figures(shared / "voc-animals", tmp_path, seed=0)
    for worse, margin in MARGINS.items():
        least = MEASURED["pseudo masks"][0] - MEASURED[worse][0] - margin
        assert miou["pseudo masks"] - miou[worse] > least, f"pseudo masks against {worse}: {miou}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as temporary:
            print(
                number,
                json.dumps(
                    figures(
                        Path(__file__).parents[2] / "shared/voc-animals", Path(temporary), number
                    )
                ),
                flush=True,
            )
