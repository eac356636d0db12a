"""Compare methods that make masks from tags: `python benchmarks/quality.py voc-animals OUT`.

`voc-animals` is the folder that `benchmarks/voc_animals/build.py` makes from VOC 2012. By default
the command makes every figure of results.md, the most important first: `--jobs 12` at a time, on
the GPU if there is one. Each job (`jobs.py`) of a method (`methods.py`) writes one JSON file into
OUT. A job whose file exists is skipped, so run the command again to resume. `--set all`,
`--methods cam ours`, `--segment truth` and `--seeds 0` select jobs. Then
`python benchmarks/tables.py OUT` writes the tables.

`--set domains` compares the methods on several folders, and `--set ablation` switches off each part
of `photos` in turn: `python benchmarks/quality.py voc-animals magnetic-tiles runs/demo/scenes OUT
--set domains`. They report pseudo masks on the half of the photos that no choice was made on.
"""

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from domains import Domain
from jobs import do_task, done, perform
from methods import (
    METHODS,
    OPEN,
    RUNS,
    SEGMENTED,
    SETS,
    SPREAD,
    TRAINED,
    Task,
    shared_by,
    views,
)
from PIL import Image, ImageDraw

from tag2mask.photos.colors import overlay
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import Photo
from tag2mask.processes import cores
from tag2mask.report.pictures import photo_iou


def segmenters(task: Task, options: argparse.Namespace) -> list[str]:
    """The masks that the segmenters of a method are trained on."""
    if task.method in ("truth", *RUNS):
        return ["true" if task.method == "truth" else "own"]
    kinds = list(views(task, shared_by(task, options)))
    if task.set in OPEN:
        return [kind for kind in kinds if kind in SEGMENTED]
    return [kinds[0], SPREAD] if (task.method, task.set) == ("cam", "all") else kinds[:1]


def all_tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Every job, the most important first."""
    # set, methods, whether it is their segmenters, seeds
    order: list[tuple[str, Iterable[str], bool, Iterable[int]]] = [
        ("all", ["photos"], False, options.seeds),
        ("all", ["photos"], True, options.seeds),
        ("all", ["cam"], False, options.seeds),
        ("all", ["truth"], True, options.seeds),
        ("all", ["cam"], True, options.seeds),
        ("320", ["cam", "cpc", "ppc", "vit_pcm", "ours"], False, options.seeds),
        ("all", ["best"], False, options.seeds),
        ("320", ["mean", "top_k"], False, options.seeds),
        ("all", ["cpc"], False, options.seeds),
        ("domains", ["photos"], False, options.seeds),
        ("domains", ["photos"], True, options.seeds),
        ("domains", ["cam"], False, options.seeds),
        ("domains", ["truth"], True, options.seeds),
        ("domains", ["best", "cpc"], False, options.seeds),
        ("domains", ["cam", "cpc"], True, options.seeds),
        ("ablation", TRAINED, False, options.seeds),
        ("ablation", ["rounds"], False, options.seeds),
        ("ablation", ["ours"], True, options.seeds),
    ]
    name = options.set or ("domains" if len(options.data) > 1 else "")
    if options.methods or options.segment:
        name = name or "320"
        order = [
            (name, options.methods, False, options.seeds),
            (name, options.segment, True, options.seeds),
        ]
    else:
        order = [part for part in order if part[0] == name or (not name and part[0] not in OPEN)]
    for name, methods, segmenter, seeds in order:
        for data, method in product(options.data, methods):
            task = Task(data, name, method, 0)
            for masks in segmenters(task, options) if segmenter else [""]:
                yield from (replace(task, seed=seed, masks=masks) for seed in seeds)


def work_off(
    tasks: list[Any], options: argparse.Namespace, do: Callable[[Any, Any], None] = do_task
) -> list[str]:
    """Do the jobs in order, some at a time, until the time is up; returns names of failed jobs.

    A job is a Task, or has `name` and `before` too. `do` writes OUT/NAME.json.
    """
    context, failed, running = multiprocessing.get_context("spawn"), [], dict[Any, Any]()
    end = time.monotonic() + (options.until or 10**9)
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // options.jobs))
    waiting = [task for task in tasks if not done(task, options)]
    try:
        while (waiting or running) and time.monotonic() < end:
            for task, process in list(running.items()):
                if process.exitcode is not None:
                    del running[task]
                    log = options.scratch / f"{task.name}.log"
                    lines = log.read_text(errors="replace").splitlines()
                    if process.exitcode:
                        failed.append(task.name)
                        print(f"FAILED {task.name}: " + "\n  ".join(lines[-12:]), flush=True)
                    else:
                        results = [line for line in lines if line.startswith(f"{task.name}: ")]
                        print("\n".join(results), flush=True)
            ready = [task for task in waiting if task.before is None or done(task.before, options)]
            for task in ready[: options.jobs - len(running)]:
                waiting.remove(task)
                running[task] = context.Process(target=perform, args=(task, options, do))
                running[task].start()
            if not running:
                break  # the jobs that the others need have failed or are not on the list
            time.sleep(0.2)
    finally:
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):  # it ended or has no own group yet
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()
    left = [task.name for task in [*running, *waiting] if not done(task, options)]
    count = len(tasks) - len(left) - len(failed)
    print(f"{count} of {len(tasks)} jobs done" + f", left: {', '.join(left)}" * bool(left))
    return failed


def sheet(options: argparse.Namespace, count: int = 5, width: int = 220) -> None:
    """Draw quality.jpg: photos with the best and the worst masks, beside those of other methods.

    Does nothing unless the masks of all these methods were just made.
    """
    domain = Domain(options.data[0])
    _, scored, _ = domain.tables(options.photos or SETS["320"].photos)
    truth, size = domain.truth(scored), SETS["320"].size
    columns = (
        "cam, 448 px",
        f"cpc, {size} px",
        f"cpc, {size} px, logits, Otsu",
        f"cam, {SPREAD}",
        f"ours, {SPREAD}",
    )
    folders = {name: options.scratch / "sheet" / name for name in columns}
    if not all(folder.exists() for folder in folders.values()):
        return
    last = folders[columns[-1]]

    def quality(photo: Photo) -> float:
        return photo_iou(truth.read(photo), read_mask(last / f"{photo.name}.png")) or 0

    ranked = sorted(scored.photos, key=quality, reverse=True)
    rows = [*ranked[:count], *ranked[-count:]]
    page = Image.new("RGB", (width * (2 + len(columns)), (width + 16) * len(rows)), "white")
    for y, photo in enumerate(rows):
        masks = [
            truth.read(photo),
            *(read_mask(folder / f"{photo.name}.png") for folder in folders.values()),
        ]
        picture = photo.open()
        for x, (caption, mask) in enumerate(
            zip([", ".join(photo.tags), "truth", *columns], [None, *masks], strict=True)
        ):
            image = picture.copy() if mask is None else overlay(picture, mask, scored.classes)
            image.thumbnail((width - 4, width - 4))
            page.paste(image, (x * width, y * (width + 16) + 14))
            ImageDraw.Draw(page).text((x * width + 2, y * (width + 16)), caption[:36], "black")
    page.save(options.out / "quality.jpg", quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data",
        type=Path,
        nargs="+",
        help="the folder that voc_animals/build.py made; with --set domains or ablation, any",
    )
    parser.add_argument(
        "out",
        type=Path,
        help="folder for one JSON file per job, and quality.jpg",
    )
    parser.add_argument(
        "--scratch", type=Path, help="folder for networks, masks and logs; default OUT/scratch"
    )
    parser.add_argument(
        "--set",
        choices=SETS,
        help="only the jobs of this set; default with --methods or --segment: 320",
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
        choices=[*RUNS[:1], "truth", *METHODS],
        metavar="NAME",
        help="segmenters trained on the masks of these methods, or on true masks: truth",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes at the same time")
    parser.add_argument(
        "--until", type=float, help="stop after so many seconds; run it again to resume"
    )
    parser.add_argument("--photos", type=int, help="training photos, for a quick test, as are:")
    parser.add_argument("--epochs", type=int, help="epochs of the classifier")
    parser.add_argument("--steps", type=int, help="training steps of a segmenter")
    options = parser.parse_args()
    options.data = [folder.resolve() for folder in options.data]
    options.out = options.out.resolve()
    options.scratch = (options.scratch or options.out / "scratch").resolve()
    for folder in (options.out, options.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    # An exit runs the end of work_off, which stops the jobs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    failed = work_off(list(dict.fromkeys(all_tasks(options))), options)
    sheet(options)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
