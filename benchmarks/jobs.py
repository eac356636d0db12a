"""The jobs of `quality.py`: from photos to the figures of one method, one seed, one kind of masks.

Pseudo masks have the given tags; those of voc-animals are of the photos in train_seg.txt.
Segmenters are scored on the validation photos, without tags.
"""

import argparse
import csv
import os
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import torch
from domains import Domain, halves
from figures import cpu_name
from methods import (
    NEW,
    OPEN,
    PREDICTIONS,
    READERS,
    RUNS,
    SPREAD,
    Task,
    configure,
    run_config_of,
    shared_by,
    views,
    with_masks,
)

from tag2mask.api import run_config
from tag2mask.config import STAGE_NAMES, Config, SegmenterSettings
from tag2mask.config_files import load_recipe
from tag2mask.crf import backend
from tag2mask.files import read_json, versions, write_json
from tag2mask.masks import MaskMaker, make_masks
from tag2mask.photos.masks import write_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.processes import cores
from tag2mask.progress import start_log
from tag2mask.runs.pipeline import run_stages
from tag2mask.runs.run import Run
from tag2mask.runs.stages import mask_maker
from tag2mask.segmenter.network import Segmenter
from tag2mask.segmenter.predict import predict_photos
from tag2mask.segmenter.train import train_segmenter

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
REPORTED = "second half"  # name of the training photos that no choice was made on
VAL_MASKS = "test photos"  # name of the masks of the validation photos in the results
WIDE = "wide CRF for small things, too"  # of the same segmenter
PSEUDO = {"split": "train_seg", "labels": "given"}
VAL = {"split": "val", "labels": "none"}


def pseudo_photos(task: Task, options: argparse.Namespace) -> tuple[Table, Table, dict[str, str]]:
    """The photos on which choices are made, those whose pseudo masks are reported, and the facts
    about them."""
    _, scored, _ = Domain(task.data).tables(shared_by(task, options).photos)
    if task.set in OPEN:
        return *halves(scored), PSEUDO | {"split": REPORTED}
    return scored, scored, PSEUDO


def run_of(config: Config, table: Table) -> Run:
    """A run of these settings on these photos."""
    run = Run(config.out, config)
    run.given = table  # instead of a file that lists them
    return run


def first_weights(folder: Path, stage: str = "classifier") -> str:
    """The weights that the network of a run's stage started from."""
    weights: str = read_json(folder / stage / "done.json")["counts"]["weights"]
    return weights


def finish(
    task: Task,
    rows: list[dict[str, Any]],
    weights: str,
    seconds: float | None,
    options: argparse.Namespace,
) -> None:
    """Write the result of a job that took so many seconds; None: not known."""
    result = {
        "set": task.set,
        "data": Domain(task.data).name,
        "method": task.method,
        "seed": task.seed,
        "learned_from": task.masks,
        **vars(shared_by(task, options)),
        "weights": weights,
        **made_on(seconds),
        "jobs": options.jobs,
        "rows": rows,
    }
    write_json(options.out / f"{task.name}.json", result)
    for row in rows:
        print(f"{task.name}: {row['masks']}, CRF {row['crf']}: {100 * (row['miou'] or 0):.1f}")


def made_on(seconds: float | None) -> dict[str, Any]:
    """The machine, the versions, the date and the seconds of a result."""
    gpu = torch.cuda.is_available()
    return {
        "versions": versions(),
        "crf_backend": backend(),
        "device": torch.cuda.get_device_name() if gpu else cpu_name(),
        "date": date.today().isoformat(),
        "seconds": seconds and round(seconds, 1),
    }


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
    domain, config = Domain(task.data), run_config_of(task, options)
    table, _, val = domain.tables(options.photos)
    tags = {tag for photo in table.photos for tag in photo.tags}
    data = {"data": domain.train, "val": domain.data / "val.csv"}
    if options.photos:  # a smaller size
        for name, photos in (("data", table), ("val", val)):
            data[name] = options.scratch / f"{task.name}-{name}.csv"
            write_tags(data[name], photos, tags)
    names = tuple(name for name in domain.mean_over if name in {"background", *tags})
    evaluation = config.evaluate.model_copy(update={"mean_over": names})
    config = config.model_copy(update={**data, "evaluate": evaluation})
    masks_alone = task.method == "photos" and not task.masks
    first = ("clusters", "classifier", "masks")
    run_config(config, first if masks_alone else STAGE_NAMES)
    result, rows = Run(config.out, config), []
    _, reported, about = pseudo_photos(task, options)
    scored = {photo.name for photo in reported.photos}
    # With few photos there are fewer tags, so the run's class numbers are others.
    own = tuple(photo for photo in result.table.photos if photo.name in scored)
    folder = config.out / "masks" if masks_alone else result.newest_masks
    metrics = domain.figures(folder, Table(result.table.tags, own), **about, crf=True)
    rows.append({"masks": SPREAD if masks_alone else NEW, **metrics})
    if not masks_alone and result.val:
        val = result.val
        predictions = config.out / "evaluate" / "predictions"
        metrics = domain.figures(predictions, val, **VAL, crf=True)
        rows.append({"masks": VAL_MASKS, **metrics})
        if task.set in OPEN and result.segmenter.small:
            result.segmenter.small = ()
            place = options.scratch / task.name / WIDE
            rows.append(predicted(domain, val, result.segmenter, result.settings, place))
    network = "segmenter" if task.masks else "classifier"
    rest = [name for name in STAGE_NAMES if not task.masks or name not in first]
    seconds = seconds_of(config.out, first if masks_alone else rest)
    finish(task, rows, first_weights(config.out, network), seconds, options)


def seconds_of(folder: Path, stages: Sequence[str]) -> float | None:
    """What the finished stages of a run took [seconds]. None: one was stopped and resumed, and what
    its starts before took is not known."""
    done = [read_json(folder / stage / "done.json") for stage in stages]
    return None if any(d["resumed"] for d in done) else sum(d["seconds"] for d in done)


def write_tags(path: Path, table: Table, tags: set[str]) -> None:
    """A table as a CSV file, with these tags only."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "tags"))
        for photo in table.photos:
            writer.writerow((photo.path, ";".join(tag for tag in photo.tags if tag in tags)))


def pseudo(task: Task, options: argparse.Namespace) -> None:
    """Train one method with one seed and score all its views, before and after the CRF."""
    start, config, shared = time.time(), configure(task, options), shared_by(task, options)
    table, *_ = Domain(task.data).tables(shared.photos)
    start_log(config.out)
    run_stages(run_of(config, table), ["clusters", "classifier"])
    rows = []
    for view, changes in views(task, shared).items():
        rows += score_view(task, view, changes, options)
    finish(task, rows, first_weights(config.out), time.time() - start, options)


def score_view(
    task: Task, view: str, changes: dict[str, Any], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Metrics before and after the CRF for one way to make masks.

    The threshold "best" becomes the one that is best after the CRF.
    """
    domain = Domain(task.data)
    table, scored, _ = domain.tables(shared_by(task, options).photos)
    chosen_on, reported, about = pseudo_photos(task, options)
    chooses = changes.get("threshold") == "best"
    config = configure(task, options)
    config = with_masks(config, changes | {"threshold": THRESHOLDS[0]} if chooses else changes)
    maker = mask_maker(run_of(config, table))
    overall = maker.measure(table.photos)
    maps = dict(maker.all_score_maps(scored.photos))

    def row(threshold: Any, crf: bool, part: Table) -> dict[str, Any]:
        update = {"threshold": threshold}
        if not crf:
            update["crf"] = config.masks.crf.model_copy(update={"iterations": 0})
        settings = config.masks.model_copy(update=update)
        variant = MaskMaker(maker.score, maker.grid, table.tags, settings)
        variant.overall, variant.small = overall, maker.small
        variant.contrast = maker.contrast
        folder = config.out / "views" / f"{view}, {threshold}, {crf}".replace("/", "-")

        def write(photo: Photo) -> None:
            present = variant.present(photo)
            mask = variant.mask(photo, variant.scores(maps[photo], present))
            write_mask(folder / f"{photo.name}.png", mask)

        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(write, part.photos))
        chosen = {"threshold": threshold} if chooses else {}
        metrics = domain.figures(folder, part, **about, crf=crf)
        if task.set == "320" and task.seed == 0 and crf:  # for quality.jpg
            sheet = options.scratch / "sheet" / f"{task.method}, {view}"
            shutil.copytree(folder, sheet, dirs_exist_ok=True)
        return {"masks": view, **chosen, **metrics}

    threshold = config.masks.threshold
    if chooses:
        tried: dict[Any, float] = {v: row(v, True, chosen_on)["miou"] for v in THRESHOLDS}
        threshold = max(THRESHOLDS, key=lambda value: tried[value])
    return [row(threshold, crf, reported) for crf in (False, True)]


def segment(task: Task, options: argparse.Namespace) -> None:
    """Train a segmenter on a method's masks or the ground truth; score it on validation photos."""
    start, shared, domain = time.time(), shared_by(task, options), Domain(task.data)
    table, _, val = domain.tables(shared.photos)
    folder = options.scratch / task.name
    start_log(folder)
    if task.method == "truth":
        truth = domain.truth(table)
        recipe = domain.recipe if task.set in OPEN else load_recipe("photos")
        settings = recipe.segmenter.model_copy(update={"steps": shared.steps})
        for photo in table.photos:
            write_mask(folder / "masks" / f"{photo.name}.png", truth.read(photo))
    else:
        changes = views(task, shared)[task.masks]
        if changes.get("threshold") == "best":
            changes = {**changes, "threshold": best_threshold(task, options)}
        config = with_masks(configure(task, options), changes)
        settings = config.segmenter
        maker = mask_maker(run_of(config, table))
        maker.overall = maker.measure(table.photos)
        make_masks(table, maker, folder / "masks", cores())
    model = train_segmenter(table, folder / "masks", settings, folder, task.seed, READERS)
    variants: dict[str, dict[str, Any]] = {VAL_MASKS: {}}
    if task.set == "ablation" and task.masks == "whole":
        variants |= PREDICTIONS
    rows = []
    for name, changed in variants.items():
        used = settings.model_copy(update=changed)
        rows.append(predicted(domain, val, model, used, folder / "predictions" / name))
    finish(task, rows, model.backbone.weights_used, time.time() - start, options)


def predicted(
    domain: Domain, val: Table, model: Segmenter, settings: SegmenterSettings, place: Path
) -> dict[str, Any]:
    """The metrics of a segmenter's masks of the validation photos, which are written to `place`."""
    for photo, prediction in predict_photos(model, val.photos, settings):
        prediction.save(place / f"{photo.name}.png")
    metrics = domain.figures(place, val, **VAL, crf=settings.crf.iterations > 0)
    return {"masks": place.name, **metrics}


def best_threshold(task: Task, options: argparse.Namespace) -> float:
    """The threshold that was best for the masks that a segmenter is trained on."""
    assert task.before
    rows = read_json(options.out / f"{task.before.name}.json")["rows"]
    threshold: float = next(row["threshold"] for row in rows if row["masks"] == task.masks)
    return threshold


def done(task: Task, options: argparse.Namespace) -> bool:
    """Whether the result of a job exists."""
    return (options.out / f"{task.name}.json").exists()
