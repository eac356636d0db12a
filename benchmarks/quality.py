"""Masks from tags on real photos, method beside method: `python benchmarks/quality.py voc-animals OUT`.

`voc-animals` is what `benchmarks/voc_animals/build.py` makes of VOC 2012. Without more options every figure of results.md is made, the
most important first: `--jobs 12` at a time, on the GPU if there is one. Each job (`methods.py`) writes one JSON into OUT; what is there is
not made again, so the same command goes on where it was stopped. `--set control`, `--methods cam ours`, `--segment truth` and `--seeds 0`
choose some jobs. Then `python benchmarks/tables.py OUT` writes the tables.
"""

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from methods import ARMS, METHODS, RUNS, SETS, SPREAD, Task, done, perform, shared_by, tables, views
from PIL import Image, ImageDraw

from tag2mask.photos.colors import overlay
from tag2mask.photos.masks import Truth, read_mask
from tag2mask.processes import cores
from tag2mask.report.pictures import photo_iou


def segmenters(name: str, method: str, options: argparse.Namespace) -> list[str]:
    """The masks from which segmenters of a method learn."""
    if method in ("truth", *RUNS):
        return ["true" if method == "truth" else "own"]
    kinds = list(views(method, shared_by(name, options)))
    return [kinds[0], SPREAD] if method == "cam" and name == "all" else kinds[:1]


def all_tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Every job, the most important first."""
    order: list[tuple[str, Iterable[str], bool, Iterable[int]]] = [
        ("all", ["photos"], False, options.seeds),
        ("all", ["photos"], True, options.seeds),
        ("all", ["cam"], False, options.seeds),
        ("all", ["truth"], True, options.seeds),
        ("all", ["cam"], True, options.seeds),
        ("320", ["cam", "cpc", "ppc", "vit_pcm", "ours"], False, options.seeds),
        ("all", ["best"], False, options.seeds),
        ("control", ["cam", *ARMS], False, options.seeds),
        ("320", ["mean", "top_k"], False, options.seeds),
        ("320", ["truth", "cam", "vit_pcm", "ppc", "cpc", "ours"], True, options.seeds[:1]),
        ("all", ["cpc"], False, options.seeds),
    ]
    if options.methods or options.segment:
        name = options.set or "320"
        order = [
            (name, options.methods, False, options.seeds),
            (name, options.segment, True, options.seeds),
        ]
    elif options.set:
        order = [part for part in order if part[0] == options.set]
    for name, methods, segmenter, seeds in order:
        for method in methods:
            for masks in segmenters(name, method, options) if segmenter else [""]:
                yield from (Task(name, method, seed, masks) for seed in seeds)


def work_off(tasks: list[Task], options: argparse.Namespace) -> list[str]:
    """Do the jobs, some at a time, those in front first, until the time is up; returns the names of those that failed."""
    context, failed, running = multiprocessing.get_context("spawn"), [], dict[Task, Any]()
    end = time.monotonic() + (options.until or 10**9)
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // options.jobs))
    waiting = [task for task in tasks if not done(task, options)]
    try:
        while (waiting or running) and time.monotonic() < end:
            for task, process in list(running.items()):
                if process.exitcode is not None:
                    del running[task]
                    said = (
                        (options.scratch / f"{task.name}.log")
                        .read_text(errors="replace")
                        .splitlines()
                    )
                    if process.exitcode:
                        failed.append(task.name)
                        print(f"FAILED {task.name}: " + "\n  ".join(said[-12:]), flush=True)
                    else:
                        print(
                            "\n".join(line for line in said if line.startswith(f"{task.name}: ")),
                            flush=True,
                        )
            ready = [task for task in waiting if task.before is None or done(task.before, options)]
            for task in ready[: options.jobs - len(running)]:
                waiting.remove(task)
                running[task] = context.Process(target=perform, args=(task, options))
                running[task].start()
            if not running:
                break  # what the others need has failed, or is not among the jobs
            time.sleep(0.2)
    finally:
        for process in running.values():
            with contextlib.suppress(
                ProcessLookupError
            ):  # it has ended, or has no group of its own yet
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()
    left = [task.name for task in [*running, *waiting] if not done(task, options)]
    print(
        f"{len(tasks) - len(left) - len(failed)} of {len(tasks)} jobs done"
        + f", left: {', '.join(left)}" * bool(left)
    )
    return failed


def sheet(options: argparse.Namespace, count: int = 5, width: int = 220) -> None:
    """A picture of the photos on which ours is best and worst, with the true masks and those of other methods, if these were just made."""
    _, scored, _ = tables(options.data, shared_by("320", options).photos)
    truth, size = Truth(options.data / "masks", scored, "voc"), SETS["320"].size
    wanted = (
        "cam, 448 px",
        f"cpc, {size} px",
        f"cpc, {size} px, logits, Otsu",
        f"cam, {SPREAD}",
        f"ours, {SPREAD}",
    )
    folders = {name: options.scratch / "sheet" / name for name in wanted}
    if not all(folder.exists() for folder in folders.values()):
        return
    last = folders[wanted[-1]]
    ranked = sorted(
        scored.photos,
        key=lambda photo: (
            -(photo_iou(truth.read(photo), read_mask(last / f"{photo.name}.png")) or 0)
        ),
    )
    rows = [*ranked[:count], *ranked[-count:]]
    page = Image.new("RGB", (width * (2 + len(wanted)), (width + 16) * len(rows)), "white")
    for y, photo in enumerate(rows):
        masks = [
            truth.read(photo),
            *(read_mask(folder / f"{photo.name}.png") for folder in folders.values()),
        ]
        picture = photo.open()
        for x, (caption, mask) in enumerate(
            zip([", ".join(photo.tags), "truth", *wanted], [None, *masks], strict=True)
        ):
            shown = picture.copy() if mask is None else overlay(picture, mask, scored.classes)
            shown.thumbnail((width - 4, width - 4))
            page.paste(shown, (x * width, y * (width + 16) + 14))
            ImageDraw.Draw(page).text((x * width + 2, y * (width + 16)), caption[:36], "black")
    page.save(options.out / "quality.jpg", quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data",
        type=Path,
        help="folder with train.csv, val.csv, train_seg.txt, images/ and masks/ (voc_animals/build.py)",
    )
    parser.add_argument(
        "out",
        type=Path,
        help="folder for one JSON a job, and the picture of the best and worst masks",
    )
    parser.add_argument(
        "--scratch", type=Path, help="folder for networks, masks and logs; default OUT/scratch"
    )
    parser.add_argument(
        "--set",
        choices=SETS,
        help="the jobs of this set alone; with --methods or --segment 320 if not given",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[],
        choices=[*RUNS, *METHODS],
        metavar="NAME",
        help=f"pseudo masks of these: {', '.join([*RUNS, *METHODS])}",
    )
    parser.add_argument(
        "--segment",
        nargs="+",
        default=[],
        choices=["photos", "truth", *METHODS],
        metavar="NAME",
        help="segmenters from the masks of these, or truth",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument(
        "--until", type=float, help="stop after so many seconds; the same command goes on"
    )
    parser.add_argument("--weights", help="a weights file for the backbone")
    parser.add_argument("--photos", type=int, help="training photos, to try it out; as are:")
    parser.add_argument("--epochs", type=int, help="passes over them")
    parser.add_argument("--steps", type=int, help="training steps of a segmenter")
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    options.scratch = (options.scratch or options.out / "scratch").resolve()
    for folder in (options.out, options.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(1)
    )  # through the end of work_off, which stops the jobs
    failed = work_off(list(dict.fromkeys(all_tasks(options))), options)
    sheet(options)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
