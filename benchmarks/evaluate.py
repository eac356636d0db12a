"""How fast masks are evaluated, beside a plain NumPy loop: `python benchmarks/evaluate.py [MASKS]`.

Ground truth: 1,449 masks, as many as VOC's val, from the folder MASKS or drawn by code.
Prediction: the same masks, moved by 7 pixels, a tenth of each erased.
"""

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tables import machine, rule, write

from tag2mask.evaluate.folders import evaluate_folders
from tag2mask.photos.masks import read_mask, write_mask

CLASSES = 21


def draw(rng: np.random.Generator) -> np.ndarray:
    """A mask of 500 x 375 with five discs and their rims."""
    mask = np.zeros((375, 500), np.uint8)
    y, x = np.mgrid[:375, :500]
    for _ in range(5):
        distance = np.hypot(y - rng.integers(375), x - rng.integers(500)) - rng.integers(20, 120)
        mask[distance < 5] = 255
        mask[distance < 0] = rng.integers(1, CLASSES)
    return mask


def write_masks(folder: Path, masks: Path | None, count: int) -> tuple[Path, Path]:
    """Write `count` pairs; returns the folders of predictions and ground truth."""
    rng = np.random.default_rng(0)
    files = sorted(masks.glob("*.png")) if masks else []
    for i in range(count):
        truth = read_mask(files[i % len(files)]) if files else draw(rng)
        predicted = np.roll(np.where(truth == 255, 0, truth), 7, axis=1)
        predicted[: len(predicted) // 10] = 0
        write_mask(folder / "truth" / f"{i}.png", truth)
        write_mask(folder / "predicted" / f"{i}.png", predicted)
    return folder / "predicted", folder / "truth"


def plain_loop(predicted: Path, truth: Path) -> float:
    """The loop that the field copies from repository to repository."""
    matrix = np.zeros((CLASSES, CLASSES))
    for file in truth.iterdir():
        true = np.array(Image.open(file)).flatten()
        classes = np.array(Image.open(predicted / file.name)).flatten()
        mask = (true >= 0) & (true < CLASSES)
        pairs = CLASSES * true[mask].astype(int) + classes[mask]
        matrix += np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    with np.errstate(invalid="ignore"):
        iou = np.diag(matrix) / (matrix.sum(1) + matrix.sum(0) - np.diag(matrix))
    return float(np.mean(iou[matrix.sum(1) > 0]))


def tag2mask(predicted: Path, truth: Path, **options: int) -> float:
    return evaluate_folders(predicted, truth, classes="voc", **options)[0].miou


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("masks", type=Path, nargs="?", help="a folder of masks in VOC's numbers")
    parser.add_argument("--count", type=int, default=1449, help="how many masks")
    options = parser.parse_args()
    ways = {
        "plain NumPy loop": plain_loop,
        "tag2mask, 1 thread": partial(tag2mask, workers=1),
        f"tag2mask, {os.cpu_count()} threads": tag2mask,
        "with boundary IoU": partial(tag2mask, boundary=True),
    }
    with tempfile.TemporaryDirectory() as folder:
        predicted, truth = write_masks(Path(folder), options.masks, options.count)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        scores = {}
        for _ in range(3):  # in turn, so that other load on the machine meets all alike
            for name, way in ways.items():
                start = time.perf_counter()
                scores[name] = way(predicted, truth)
                seconds[name].append(time.perf_counter() - start)
    reference = min(seconds["plain NumPy loop"])
    lines = rule(f"{options.count} masks", "seconds", "times as fast", "mIoU")
    for name, times in seconds.items():
        best, miou = min(times), 100 * scores[name]
        lines.append(f"| {name} | {best:.2f} | {reference / best:.2f} | {miou:.4f} |")
    lines += ["", machine()]
    write("evaluate", "python benchmarks/evaluate.py voc-animals/masks", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
