"""Time and peak memory of each part with 1,000 to 1,000,000 photos, and of a second start.

    python benchmarks/scale.py [--counts 1000 10000 100000] [--whole 10000] [--out /tmp/scale]

The photos are small (64 x 48 pixels), the networks tiny, and each training does 20 steps: what is
measured is what a photo costs beside its pixels. Each part is a process of its own, its start and
imports included. With more than `--whole` photos, all masks but the last of them are written
directly, and the stage `masks` resumes there. What is in `--out` is not measured again.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

PAGE = Path(__file__).with_name("scale.md")
COLORS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 70, 200), "gray": (128,) * 3}
SIZE, IN_FOLDER, VALIDATION, PREDICTED = (64, 48), 1000, 200, 2000
STEPS = 20  # of each training
SETTINGS = {
    "clusters": {"source": "none"},
    "classifier": {
        "backbone": "test_vit",
        "weights": "none",
        "image_size": 64,
        "token_width": 16,
        "batch_size": 64,
        "epochs": 1,
    },
    "masks": {"image_size": 64, "crf": {"iterations": 1}},
    "segmenter": {
        "steps": STEPS,
        "batch_size": 4,
        "crop_size": 65,
        "image_size": 65,
        "lr": 1e-6,
        "crf": {"iterations": 1},
    },
}


# ---- what is measured: a photo, a table, a mask --------------------------------------------------


def photo_name(number: int) -> str:
    return f"{number // IN_FOLDER:04d}/{number:07d}"


def tags_of(number: int) -> list[str]:
    return [tag for i, tag in enumerate(COLORS) if number >> i & 1]  # each 16th photo has none


def make_photos(folder: Path, count: int, first: int = 0) -> None:
    """`count` JPEG files in folders of 1,000, and their table `folder`.csv."""
    lines = ["file_name,tags"]
    for number in range(first, first + count):
        path = folder / f"{photo_name(number)}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines.append(f"{path.relative_to(folder.parent)},{';'.join(tags_of(number))}")
        random = np.random.default_rng(number)
        pixels = random.integers(90, 160, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8)
        pixels = pixels.repeat(8, 0).repeat(8, 1)
        for i, tag in enumerate(tags_of(number)):
            pixels[8:40, 16 * i : 16 * i + 12] = COLORS[tag]
        Image.fromarray(pixels).save(path, quality=80)
    folder.with_suffix(".csv").write_text("\n".join(lines) + "\n")


def make_table(folder: Path, count: int) -> None:
    """As `make_photos`, but the photos are empty files."""
    lines = ["file_name,tags"]
    for number in range(count):
        path = folder / f"{photo_name(number)}.jpg"
        if number % IN_FOLDER == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        lines.append(f"{path.relative_to(folder.parent)},{';'.join(tags_of(number))}")
    folder.with_suffix(".csv").write_text("\n".join(lines) + "\n")


def write_masks(out: Path, real: int) -> None:
    """All masks and score maps but the last `real`, as if the stage `masks` had been stopped."""
    from tag2mask.photos.masks import mask_png
    from tag2mask.runs.pipeline import _inputs
    from tag2mask.runs.run import Run

    run = Run(out)
    run.files.begin("masks", _inputs(run, "masks"))
    for number, photo in enumerate(run.table.photos[:-real]):
        mask = np.zeros(SIZE[::-1], np.uint8)
        numbers = [0, *(run.table.tags.index(tag) + 1 for tag in photo.tags)]
        for i, value in enumerate(numbers[1:]):
            mask[8:40, 16 * i : 16 * i + 12] = value
        mask[0, 0] = number % 5  # masks of equal photos are not all equal
        path = run.files.part("masks") / f"{photo.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mask_png(mask))
        scores = np.zeros((len(numbers), 4, 4), np.float16)
        scores[1:] = np.random.default_rng(number).random((len(numbers) - 1, 4, 4))
        np.savez_compressed(
            path.with_suffix(".npz"), scores=scores, classes=np.array(numbers, np.uint8)
        )


# ---- how it is measured --------------------------------------------------------------------------


def shorten_trainings() -> None:
    """A few steps of each training, and no complaint of a network that has learned nothing."""
    from tag2mask.classifier import train
    from tag2mask.runs import judge
    from tag2mask.segmenter.train import BackgroundGuard

    phases = train._phases
    train._phases = lambda *a, **k: [replace(phases(*a, **k)[-1], end=STEPS)]
    BackgroundGuard.check = lambda guard, model: None  # type: ignore[method-assign]
    judge.refusal = lambda finds, config: ""  # type: ignore[assignment]


def stage(name: str, folder: Path) -> None:
    """One stage of the run."""
    from tag2mask.api import run_config
    from tag2mask.config_files import base_config, changed_config

    if name != "check":
        shorten_trainings()
    out = folder / "run"
    data = {"data": folder / "photos.csv", "val": folder / "val.csv", "out": out}
    run_config(changed_config(base_config(out, "photos"), SETTINGS | data, "scale"), [name])


def again(folder: Path) -> None:
    """`tag2mask run` where all is done."""
    from tag2mask.cli import main

    assert main(["run", "--out", str(folder / "run")]) == 0


def predict(folder: Path) -> None:
    """Masks of up to PREDICTED photos, as if they were new."""
    import tag2mask

    photos = sorted((folder / "photos").iterdir())[: PREDICTED // IN_FOLDER]
    tag2mask.load(folder / "run").predict_to(photos, folder / "predicted")


def table(folder: Path) -> None:
    """The photos and their tags in memory, and no more."""
    from tag2mask.formats import load_table

    assert len(load_table(folder / "photos.csv"))


PARTS: dict[str, Callable[[Path], None]] = {
    "table": table,
    "check": partial(stage, "check"),
    "clusters": partial(stage, "clusters"),
    "classifier": partial(stage, "classifier"),
    "masks": partial(stage, "masks"),
    "segmenter": partial(stage, "segmenter"),
    "evaluate": partial(stage, "evaluate"),
    "report": partial(stage, "report"),
    "second start": again,
    "predict": predict,
}


def measure(part: str, folder: Path) -> dict[str, float]:
    """Seconds of the clock and of the processor, and peak memory [MB], of a process."""
    argv = [sys.executable, __file__, "--child", part, "--out", str(folder)]
    start = time.monotonic()
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)} failed: see {folder / 'log.txt'}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": seconds, "cpu": cpu, "mb": usage.ru_maxrss / 1024}


def measure_all(folder: Path, count: int, whole: int, names: list[str]) -> None:
    """Every part with `count` photos, to `folder`/parts.json; what is there is not made again."""
    store = folder / "parts.json"
    parts = json.loads(store.read_text()) if store.exists() else {}
    if names == ["table"] and not parts:
        make_table(folder / "photos", count)
    elif not (folder / "val.csv").exists():
        make_photos(folder / "photos", count)
        make_photos(folder / "val", VALIDATION, first=count)
    for name in names:
        if name in parts:
            continue
        if name == "masks" and count > whole:
            write_masks(folder / "run", whole)
        parts[name] = measure(name, folder) | {"masks": min(count, whole)}
        print(f"{count:>9,} {name}: {parts[name]}", flush=True)
        store.write_text(json.dumps(parts, indent=1))


Measured = dict[int, dict[str, float]]  # number of photos -> what was measured of one part


def slope(of: Measured, what: str, factor: float) -> str:
    """What a photo more costs, between the two largest runs."""
    if len(of) < 2:
        return "-"
    (less, a), (more, b) = sorted(of.items())[-2:]
    return f"{factor * (b[what] - a[what]) / (more - less):.2f}"


def table_rows(found: dict[int, dict[str, dict[str, float]]]) -> dict[str, list[list[str]]]:
    """The rows of both tables, their heads first."""
    counts = sorted(found)
    numbers = [f"{count:,}" for count in counts]
    times = [["seconds of a core (of the clock)", *numbers, "a photo more [ms]"]]
    memory = [["peak memory [MB]", *numbers, "a photo more [KB]"]]
    for name in PARTS:
        of = {count: found[count][name] for count in counts if name in found[count]}
        real = {min(n, PREDICTED): one for n, one in of.items()} if name == "predict" else of
        cells = {n: f"{one['cpu']:.1f} ({one['seconds']:.1f})" for n, one in of.items()}
        per_photo = "-" if name == "masks" else slope(real, "cpu", 1000)  # not all were made
        times.append([name, *(cells.get(n, "-") for n in counts), per_photo])
        cells = {n: f"{one['mb']:.0f}" for n, one in of.items()}
        memory.append([name, *(cells.get(n, "-") for n in counts), slope(real, "mb", 1024)])
    return {"scale-time": times, "scale-memory": memory}


def write_page(out: Path, page: Path) -> None:
    """The tables of scale.md, from all that was measured in `out`."""
    files = {int(file.parent.name): file for file in out.glob("*/parts.json")}
    found = {count: json.loads(file.read_text()) for count, file in files.items()}
    made = max(part["masks"] for parts in found.values() for part in parts.values())
    about = (
        f"Of more than {made:,} photos, the other masks were written directly; at most "
        f"{PREDICTED:,} are predicted. Measured on "
        f"{os.cpu_count()} CPU cores ({platform.machine()}) that other work shared, "
        f"{time.strftime('%Y-%m-%d')}."
    )
    text = page.read_text(encoding="utf-8")
    for name, rows in table_rows(found).items():
        lines = [f"| {' | '.join(row)} |" for row in rows]
        body = "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:], "", about])
        start = re.search(rf"<!-- table {name}: .*? -->\n", text)
        assert start
        text = text[: start.end()] + body + text[text.index("\n<!-- end -->", start.end()) :]
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--counts", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--table", type=int, default=1_000_000, help="photos of the table alone")
    parser.add_argument("--whole", type=int, default=10_000, help="most masks that are made")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("/tmp/scale"))
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        PARTS[options.child](options.out)
        return
    for count in options.counts:
        measure_all(options.out / str(count), count, options.whole, options.parts)
    if options.table:
        measure_all(options.out / str(options.table), options.table, 0, ["table"])
    write_page(options.out, PAGE)


if __name__ == "__main__":
    main()
