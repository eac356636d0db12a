"""Masks to the forms of other tools and back: what each form loses, and how long it takes.

python benchmarks/round_trips.py ../shared/voc-animals
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from tag2mask.formats import load_table
from tag2mask.formats.convert import convert
from tag2mask.formats.mask_writers import MASK_WRITERS, write_outlines
from tag2mask.photos.masks import Truth, read_mask, write_mask
from tag2mask.photos.table import IGNORE


def main(data: Path) -> None:
    """Print a row for each form: true masks of the validation photos, 255 taken as background."""
    table = load_table(data / "val.csv")
    truth = Truth(data / "masks", table, "voc")
    photos = truth.photos_with_truth
    print("| form | mIoU | lowest IoU | pixels that differ | write, read | size |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        masks = Path(folder) / "masks"
        for photo in photos:
            mask = truth.read(photo)
            write_mask(masks / f"{photo.name}.png", np.where(mask == IGNORE, 0, mask))
        for to in MASK_WRITERS:
            start = time.perf_counter()
            there = write_outlines(to, photos, masks, table.classes, Path(folder) / to)
            wrote = time.perf_counter()
            if to == "label-studio":
                there = _submit(there)
            back = convert(there, "masks", Path(folder) / f"{to} back")
            seconds = wrote - start, time.perf_counter() - wrote
            kinds = (".json", ".xml", ".txt")
            files = [file for file in (Path(folder) / to).rglob("*") if file.suffix in kinds]
            row = _compare([photo.name for photo in photos], masks, back, table.classes)
            times = ", ".join(f"{1000 * s / len(photos):.0f} ms" for s in seconds)
            size = sum(file.stat().st_size for file in files) / len(photos) / 1000
            print(f"| {to} | {row} | {times} | {size:.0f} kB |", flush=True)


def _submit(tasks: Path) -> Path:
    """Label Studio's export after every prediction was submitted as it is."""
    values = json.loads(tasks.read_text())
    for task in values:
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
    tasks.write_text(json.dumps(values))
    return tasks


def _compare(names: list[str], masks: Path, back: Path, classes: tuple[str, ...]) -> str:
    order = json.loads((back / "masks.json").read_text())["classes"]
    numbers = np.array([classes.index(name) for name in order], np.uint8)
    both, either = np.zeros(len(classes)), np.zeros(len(classes))
    lowest, differ, pixels = 1.0, 0, 0
    for name in names:
        mask, other = (
            read_mask(masks / f"{name}.png"),
            numbers[read_mask(back / f"{name}.png")],
        )
        differ, pixels = differ + (mask != other).sum(), pixels + mask.size
        for number in np.unique(mask)[1:]:
            same = ((mask == number) & (other == number)).sum()
            union = ((mask == number) | (other == number)).sum()
            both[number], either[number] = both[number] + same, either[number] + union
            lowest = min(lowest, same / union)
    miou = (both[either > 0] / either[either > 0]).mean()
    return f"{100 * miou:.2f} | {100 * lowest:.1f} | {100 * differ / pixels:.2f} %"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder voc-animals")
    main(parser.parse_args().data)
