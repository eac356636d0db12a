"""The jobs of `quality.py`: from photos to the figures of one method, one seed, one kind of masks.

Pseudo masks are those of the photos in train_seg.txt, with the given tags. Segmenters are scored on
the validation photos, without tags.
"""

import argparse
import csv
import os
import platform
import shutil
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import (
    READERS,
    RUNS,
    SCORED,
    SETS,
    SPREAD,
    Task,
    configure,
    result_row,
    shared_by,
    views,
    with_masks,
)

from tag2mask.api import run_config
from tag2mask.cli.arguments import parse_config
from tag2mask.config import Config
from tag2mask.config_files import load_recipe
from tag2mask.crf import backend
from tag2mask.evaluate import evaluate_masks
from tag2mask.files import read_json, read_list, versions, write_json
from tag2mask.formats import load_table
from tag2mask.masks import MaskMaker, make_masks
from tag2mask.photos.masks import Truth, write_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.processes import cores
from tag2mask.progress import start_log
from tag2mask.runs.pipeline import run_stages
from tag2mask.runs.run import Run
from tag2mask.runs.stages import mask_maker
from tag2mask.segmenter.predict import predict_photos
from tag2mask.segmenter.train import train_segmenter

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
PSEUDO = {"split": "train_seg", "labels": "given"}
VAL_MASKS = "test photos"  # name of the masks of the validation photos in the results


def evenly(table: Table, count: int) -> Table:
    """`count` photos of a table at equal distances."""
    chosen = np.unique(np.linspace(0, len(table) - 1, min(count, len(table))).astype(int))
    return Table(table.tags, tuple(table.photos[i] for i in chosen))


@cache
def tables(data: Path, photos: int) -> tuple[Table, Table, Table]:
    """`photos` training photos, those of them that are scored, and the validation photos."""
    table = evenly(load_table(data / "train.csv"), photos)
    names = set(read_list(data / "train_seg.txt"))
    scored = Table(table.tags, tuple(photo for photo in table.photos if photo.name in names))
    val = load_table(data / "val.csv", tags=table.tags, untagged=True)
    return table, scored, evenly(val, photos)


def run_of(config: Config, table: Table) -> Run:
    """A run of these settings on these photos."""
    run = Run(config.out, config)
    run.given = table  # instead of a file that lists them
    return run


def figures(folder: Path, table: Table, data: Path, **context: Any) -> dict[str, Any]:
    """The metrics of the masks in a folder, with the `context` that gives them a meaning."""
    truth = Truth(data / "masks", table, "voc")
    pairs = [(folder / f"{photo.name}.png", partial(truth.read, photo)) for photo in table.photos]
    classes = [name for name in SCORED if name in table.classes]
    return result_row(evaluate_masks(pairs, table.classes, mean_over=classes).summary(**context))


def classifier_weights(folder: Path) -> str:
    """The weights that the classifier of a run started from."""
    weights: str = read_json(folder / "classifier" / "done.json")["counts"]["weights"]
    return weights


def finish(
    task: Task,
    rows: list[dict[str, Any]],
    weights: str,
    start: float,
    options: argparse.Namespace,
) -> None:
    """Write the result of a job that began at time `start`."""
    result = {
        "set": task.set,
        "method": task.method,
        "seed": task.seed,
        "learned_from": task.masks,
        **vars(shared_by(task.set, options)),
        "weights": weights,
        **made_on(start),
        "rows": rows,
    }
    write_json(options.out / f"{task.name}.json", result)
    for row in rows:
        print(f"{task.name}: {row['masks']}, CRF {row['crf']}: {100 * (row['miou'] or 0):.1f}")


def made_on(start: float) -> dict[str, Any]:
    """The machine, the versions and the date of a result that began at time `start`."""
    gpu = torch.cuda.is_available()
    return {
        "versions": versions(),
        "crf_backend": backend(),
        "device": torch.cuda.get_device_name() if gpu else cpu_name(),
        "date": date.today().isoformat(),
        "seconds": round(time.time() - start, 1),
    }


def cpu_name() -> str:
    """The cores of this machine, as results name them."""
    return f"{cores()} CPU cores ({platform.machine()})"


def do_task(task: Task, options: argparse.Namespace) -> None:
    """Do one job of `quality.py`."""
    (run if task.method in RUNS else segment if task.masks else pseudo)(task, options)


def perform(task: Any, options: argparse.Namespace, do: Callable[[Any, Any], None]) -> None:
    """Do one job in this process; its output goes to the scratch folder."""
    os.setpgrp()  # the processes that read photos end with it
    with (options.scratch / f"{task.name}.log").open("a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        torch.set_num_threads(max(1, cores() // options.jobs))
        try:
            do(task, options)
        except BaseException:
            traceback.print_exc()
            raise


def run(task: Task, options: argparse.Namespace) -> None:
    """`tag2mask run` with a recipe.

    For `photos`, the pseudo masks are one job and the rest another, in case time runs out.
    """
    start, shared = time.time(), shared_by(task.set, options)
    folder = options.scratch / Task(task.set, task.method, task.seed).name
    table, _, val = tables(options.data, shared.photos)
    tags = {tag for photo in table.photos for tag in photo.tags}
    data, argv = {"data": options.data / "train.csv", "val": options.data / "val.csv"}, []
    if shared != SETS[task.set]:  # a smaller size: fewer photos
        argv = f"--classifier.epochs {shared.epochs} --segmenter.steps {shared.steps}".split()
        argv += ["--evaluate.classes", "voc"]
        for name, photos in (("data", table), ("val", val)):
            data[name] = options.scratch / f"{task.name}-{name}.csv"
            write_tags(data[name], photos, tags)
    argv += ["--recipe", task.method, "--seed", str(task.seed), "--photos.workers", str(READERS)]
    argv += ["--out", str(folder), "--data", str(data["data"]), "--val", str(data["val"])]
    argv += ["--val-masks", str(options.data / "masks")]
    argv += ["--photos.pseudo-list", str(options.data / "train_seg.txt"), "--evaluate.mean-over"]
    argv += [name for name in SCORED if name in {"background", *tags}]
    config = parse_config(argv)
    if task.method == "photos" and not task.masks:
        run_config(config, ["clusters", "classifier", "masks"])
        result = Run(config.out, config)
        scored = Table(result.table.tags, result.pseudo_photos)
        metrics = figures(folder / "masks", scored, options.data, **PSEUDO, crf=True)
        rows = [{"masks": SPREAD, **metrics}]
    else:
        run_config(config)
        metrics = read_json(folder / "evaluate" / "metrics.json")
        rows = [{"masks": VAL_MASKS, **result_row(metrics["segmenter"])}]
        if task.method == "best":
            rows.insert(0, {"masks": "last round", **result_row(metrics["pseudo"])})
    finish(task, rows, classifier_weights(folder), start, options)


def write_tags(path: Path, table: Table, tags: set[str]) -> None:
    """A table as a CSV file, with these tags only."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "tags"))
        for photo in table.photos:
            writer.writerow((photo.path, ";".join(tag for tag in photo.tags if tag in tags)))


def pseudo(task: Task, options: argparse.Namespace) -> None:
    """Train one method with one seed and score all its views, before and after the CRF."""
    start, config, shared = time.time(), configure(task, options), shared_by(task.set, options)
    table, *_ = tables(options.data, shared.photos)
    start_log(config.out)
    run_stages(run_of(config, table), ["clusters", "classifier"])
    rows = []
    for view, changes in views(task.method, shared).items():
        rows += score_view(task, view, changes, options)
    finish(task, rows, classifier_weights(config.out), start, options)


def score_view(
    task: Task, view: str, changes: dict[str, Any], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Metrics before and after the CRF for one way to make masks.

    The threshold "best" becomes the one that is best after the CRF.
    """
    table, scored, _ = tables(options.data, shared_by(task.set, options).photos)
    thresholds = THRESHOLDS if changes.get("threshold") == "best" else ("otsu",)
    config = with_masks(configure(task, options), {**changes, "threshold": thresholds[0]})
    maker = mask_maker(run_of(config, table))
    overall = maker.measure(table.photos)
    maps = [scores for batch in maker.batches(scored.photos) for scores in maker.maps(batch)]

    def folder_of(threshold: Any, crf: bool) -> Path:
        return config.out / "views" / f"{view}, {threshold}, {crf}"

    def row(threshold: Any, crf: bool) -> dict[str, Any]:
        update = {"threshold": threshold}
        if not crf:
            update["crf"] = config.masks.crf.model_copy(update={"iterations": 0})
        settings = config.masks.model_copy(update=update)
        variant = MaskMaker(maker.score, maker.grid, table.tags, settings)
        variant.overall, variant.small = overall, maker.small
        folder = folder_of(threshold, crf)

        def write(photo: Photo, scores: torch.Tensor) -> None:
            write_mask(
                folder / f"{photo.name}.png",
                variant.mask(photo, variant.scores(scores, variant.present(photo))),
            )

        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(write, scored.photos, maps))
        chosen = {} if threshold == "otsu" else {"threshold": threshold}
        metrics = figures(folder, scored, options.data, **PSEUDO, crf=crf)
        return {"masks": view, **chosen, **metrics}

    best = max((row(threshold, True) for threshold in thresholds), key=lambda row: row["miou"])
    threshold = best.get("threshold", "otsu")
    if task.set == "320" and task.seed == 0:
        sheet = options.scratch / "sheet" / f"{task.method}, {view}"
        shutil.copytree(folder_of(threshold, True), sheet, dirs_exist_ok=True)
    return [row(threshold, False), best]


def segment(task: Task, options: argparse.Namespace) -> None:
    """Train a segmenter on a method's masks or the ground truth; score it on validation photos."""
    start, shared = time.time(), shared_by(task.set, options)
    table, _, val = tables(options.data, shared.photos)
    folder = options.scratch / task.name
    settings = load_recipe("photos").segmenter.model_copy(update={"steps": shared.steps})
    start_log(folder)
    if task.method == "truth":
        truth = Truth(options.data / "masks", table, "voc")
        for photo in table.photos:
            write_mask(folder / "masks" / f"{photo.name}.png", truth.read(photo))
    else:
        changes = views(task.method, shared)[task.masks]
        if changes.get("threshold") == "best":
            changes = {**changes, "threshold": best_threshold(task, options)}
        config = with_masks(configure(task, options), changes)
        maker = mask_maker(run_of(config, table))
        maker.overall = maker.measure(table.photos)
        make_masks(table, maker, folder / "masks", cores())
    model = train_segmenter(table, folder / "masks", settings, folder, task.seed, READERS)
    for photo, prediction in predict_photos(model, val.photos, settings):
        prediction.save(folder / "predictions" / f"{photo.name}.png")
    context = {"split": "val", "labels": "none", "crf": True}
    metrics = figures(folder / "predictions", val, options.data, **context)
    finish(task, [{"masks": VAL_MASKS, **metrics}], model.backbone.weights_used, start, options)


def best_threshold(task: Task, options: argparse.Namespace) -> float:
    """The threshold that was best for the masks that a segmenter is trained on."""
    assert task.before
    rows = read_json(options.out / f"{task.before.name}.json")["rows"]
    threshold: float = next(row["threshold"] for row in rows if row["masks"] == task.masks)
    return threshold


def done(task: Task, options: argparse.Namespace) -> bool:
    """Whether the result of a job exists."""
    return (options.out / f"{task.name}.json").exists()
