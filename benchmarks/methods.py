"""What the jobs of `quality.py` do: the methods, the photos and training that they share, and one job from photos to figures.

Sets differ in photos and training (`SETS`); within one, every method trains the same backbone from the same weights on the same photos,
at the same size, for the same epochs. `photos` and `best` are `tag2mask run` with that recipe. Pseudo masks are those of the photos in
train_seg.txt, with given tags; segmenters are scored on the test photos, without.

A fixed threshold for background is chosen on the truth, for the control's benefit: `cam` shows the best of six after the CRF. What
is called ours uses none.
"""

import argparse
import csv
import os
import platform
import shutil
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tag2mask.api import run_config
from tag2mask.cli.arguments import parse_config
from tag2mask.config import Config
from tag2mask.config_files import load_recipe, make_config, merged
from tag2mask.crf import backend
from tag2mask.evaluate import evaluate_masks
from tag2mask.files import read_json, read_list, versions, write_json
from tag2mask.formats import load_table
from tag2mask.masks import MaskMaker, make_masks
from tag2mask.photos.masks import Truth, write_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.processes import cores
from tag2mask.progress import start_log
from tag2mask.runs.folder import Job
from tag2mask.runs.pipeline import STAGES, run_stages
from tag2mask.runs.stages import mask_maker
from tag2mask.segmenter.predict import predict_photos
from tag2mask.segmenter.train import train_segmenter

SCORED = ("background", "cat", "dog", "horse", "cow", "sheep", "person", "chair", "sofa")
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
PLAIN = {"token": "none", "mixer": "none", "tag_loss": "mean"}
SPREAD = "448 px, affinity, Otsu"  # the masks of `photos`
READERS = 2 if torch.cuda.is_available() else 0  # processes that read photos, for each job


@dataclass(frozen=True)
class Bench:
    """What all methods of a set share: photos, passes over them, side of the training photos [pixels], whether the heads alone train."""

    photos: int = 320
    epochs: int = 5
    size: int = 320
    frozen: bool = False
    backbone: str = "tf_efficientnet_lite0"
    steps: int = 800  # of a segmenter


SETS = {
    "all": Bench(photos=1300, epochs=6),
    "320": Bench(),
    "control": Bench(size=224, frozen=True),
    "vit": Bench(size=224, backbone="vit_small_patch14_dinov2"),
}
RUNS = ("photos", "best")  # methods that are a `tag2mask run` of the recipe

# Name: (recipe, changes to its classifier, source of its clusters).
METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "cam": ("photos", PLAIN, "none"),
    "vit_pcm": ("vit_pcm", {}, "none"),
    "ppc": ("ppc", {}, "voc-overlapping"),
    "cpc": ("cpc", {}, "voc"),
    "mean": ("photos", {"tag_loss": "mean"}, "voc"),
    "top_k": ("photos", {"tag_loss": "top_k"}, "voc"),
    "ours": ("photos", {}, "voc"),
}
TOKENS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"token": "none"}, "none"),
    "class": ({"token": "class"}, "none"),
    **{
        source: ({}, source) for source in ("random", "onehot", "supercategories", "offline", "voc")
    },
    "voc, dropout 0.5": ({"cluster_dropout": 0.5}, "voc"),
}
ARMS = {
    **{
        f"{base}: {name}": (METHODS[base][0], {**METHODS[base][1], **changes}, source)
        for base in ("cpc", "mean")
        for name, (changes, source) in TOKENS.items()
    },
    "cpc: voc, no PCE": ("cpc", {"pce_weight": 0.0}, "voc"),
    "mean: voc, no BiLSTM": ("photos", {"mixer": "none", "tag_loss": "mean"}, "voc"),
}
METHODS |= ARMS


def views(method: str, bench: Bench) -> dict[str, dict[str, Any]]:
    """Ways to make masks of a trained classifier's scores, the one of its own first: name -> changes to the mask settings of its recipe."""
    size = bench.size
    same = {"scales": [1.0], "flip": True, "affinity": False, "image_size": size}
    if method == "cam":
        larger = (
            {}
            if bench.photos > 320
            else {"448 px": {**same, "image_size": 448, "threshold": "best"}}
        )
        return {f"{size} px": {**same, "threshold": "best"}, **larger, SPREAD: {}}
    if method in ARMS:
        return {f"{size} px{', Otsu' * (METHODS[method][0] == 'photos')}": same}
    if METHODS[method][0] == "photos":
        return {
            SPREAD: {},
            f"{size} px, Otsu": same,
            "3 scales, affinity, Otsu": {"scales": [1.0, 0.75, 1.3]},
        }
    spread = {**same, "affinity": True, "image_size": 448}
    return {
        f"{size} px": same,
        f"{size} px, affinity": {**same, "affinity": True},
        "448 px, affinity": spread,
        f"{size} px, logits, Otsu": {**same, "scores": "logits"},
        "448 px, logits, affinity, Otsu": {**spread, "scores": "logits"},
    }


@dataclass(frozen=True)
class Task:
    """One job: a method's pseudo masks, or, if `masks` names one of its views (or "true"), the segmenter that learns from these."""

    set: str
    method: str
    seed: int
    masks: str = ""

    @property
    def name(self) -> str:
        """What its files are called."""
        words = (
            self.set,
            self.method,
            str(self.seed),
            *(("segmenter", self.masks) if self.masks else ()),
        )
        return "-".join(
            "".join(
                c if c.isalnum() or c in "._" else "_"
                for c in word.replace(", ", "_").replace(": ", "_")
            )
            for word in words
        )

    @property
    def before(self) -> "Task | None":
        """The job whose classifier it needs."""
        return (
            Task(self.set, self.method, self.seed)
            if self.masks and self.method != "truth"
            else None
        )


def shared_by(name: str, options: argparse.Namespace) -> Bench:
    """A set with what the command line says otherwise."""
    given = {
        key: value
        for key in ("photos", "epochs", "steps")
        if (value := getattr(options, key)) is not None
    }
    return Bench(**{**vars(SETS[name]), **given})


def configure(task: Task, options: argparse.Namespace) -> Config:
    """A method's recipe with what all methods of its set share."""
    shared = shared_by(task.set, options)
    recipe, changes, source = METHODS[task.method]
    ours = load_recipe("photos")
    classifier = {
        name: getattr(ours.classifier, name)
        for name in ("trained_blocks", "batch_size", "lr_decay", "head_lr_factor")
    }
    classifier |= {
        "backbone": shared.backbone,
        "weights": options.weights or "auto",
        "image_size": shared.size,
        "epochs": shared.epochs,
    }
    classifier |= {"frozen_epochs": shared.epochs if shared.frozen else 1, **changes}
    segmenter = ours.segmenter.model_dump() | {"steps": shared.steps}
    given = {
        "out": options.scratch / Task(task.set, task.method, task.seed).name,
        "seed": task.seed,
        "photos": {"workers": READERS},
        "clusters": {"source": source},
        "classifier": classifier,
        "segmenter": segmenter,
    }
    return make_config(merged(load_recipe(recipe).model_dump(), given))


def evenly(table: Table, count: int) -> Table:
    """`count` photos of a table at even distances."""
    chosen = np.unique(np.linspace(0, len(table) - 1, min(count, len(table))).astype(int))
    return Table(table.tags, tuple(table.photos[i] for i in chosen))


@cache
def tables(data: Path, photos: int) -> tuple[Table, Table, Table]:
    """`photos` training photos, those of them that are scored, and the test photos."""
    table, listed = (
        evenly(load_table(data / "train.csv"), photos),
        set(read_list(data / "train_seg.txt")),
    )
    scored = Table(table.tags, tuple(photo for photo in table.photos if photo.name in listed))
    return (
        table,
        scored,
        evenly(load_table(data / "val.csv", tags=table.tags, untagged=True), photos),
    )


def job_of(config: Config, table: Table) -> Job:
    """A run of these settings on these photos."""
    job = Job(config)
    job.table = table  # instead of a file that names them
    return job


def figures(
    folder: Path, table: Table, options: argparse.Namespace, **stated: Any
) -> dict[str, Any]:
    """The figures of the masks in a folder, and what they are worthless without."""
    truth = Truth(options.data / "masks", table, "voc")
    pairs = [(folder / f"{photo.name}.png", partial(truth.read, photo)) for photo in table.photos]
    over = [name for name in SCORED if name in table.classes]
    return kept(evaluate_masks(pairs, table.classes, mean_over=over).summary(**stated))


def kept(summary: dict[str, Any]) -> dict[str, Any]:
    """What of a summary goes into a result."""
    iou = {name: round(value, 5) for name, value in summary["iou"].items() if value is not None}
    return {key: summary[key] for key in ("split", "images", "labels", "crf", "mean_over")} | {
        "miou": round(summary["miou"], 5),
        "iou": iou,
    }


def finish(
    task: Task,
    rows: list[dict[str, Any]],
    weights: str,
    seconds: float,
    options: argparse.Namespace,
) -> None:
    """Write what a job has found."""
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{cores()} CPU cores ({platform.machine()})"
    )
    told = {
        "set": task.set,
        "method": task.method,
        "seed": task.seed,
        "learned_from": task.masks,
        **vars(shared_by(task.set, options)),
        "weights": weights,
    }
    made = {
        "versions": versions(),
        "crf_backend": backend(),
        "device": device,
        "date": date.today().isoformat(),
        "seconds": round(seconds, 1),
    }
    write_json(options.out / f"{task.name}.json", {**told, **made, "rows": rows})
    for row in rows:
        print(f"{task.name}: {row['masks']}, CRF {row['crf']}: {100 * (row['miou'] or 0):.1f}")


def perform(task: Task, options: argparse.Namespace) -> None:
    """Do one job in this process: its output goes to the scratch folder."""
    os.setpgrp()  # the processes that read photos end with it
    with (options.scratch / f"{task.name}.log").open("a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        torch.set_num_threads(max(1, cores() // options.jobs))
        try:
            (run if task.method in RUNS else segment if task.masks else pseudo)(task, options)
        except BaseException:
            traceback.print_exc()
            raise


def run(task: Task, options: argparse.Namespace) -> None:
    """`tag2mask run` with a recipe; of `photos` the pseudo masks are one job and the rest another, should time run out."""
    start, shared, folder = (
        time.time(),
        shared_by(task.set, options),
        options.scratch / Task(task.set, task.method, task.seed).name,
    )
    table, _, val = tables(options.data, shared.photos)
    named = {tag for photo in table.photos for tag in photo.tags}
    files, argv = {"train": options.data / "train.csv", "val": options.data / "val.csv"}, []
    if shared != SETS[task.set]:  # at a smaller size
        argv = [
            "--classifier.epochs",
            str(shared.epochs),
            "--segmenter.steps",
            str(shared.steps),
            "--photos.numbering",
            "voc",
        ]
        for name, part in (("train", table), ("val", val)):
            files[name] = options.scratch / f"{task.name}-{name}.csv"
            with files[name].open("w", newline="") as file:
                csv.writer(file).writerows(
                    [
                        ("file_name", "tags"),
                        *(
                            (photo.path, ";".join(tag for tag in photo.tags if tag in named))
                            for photo in part.photos
                        ),
                    ]
                )
    argv += [
        "--recipe",
        task.method,
        "--seed",
        str(task.seed),
        "--photos.workers",
        str(READERS),
        "--out",
        str(folder),
    ]
    argv += [
        "--data",
        str(files["train"]),
        "--val",
        str(files["val"]),
        "--val-masks",
        str(options.data / "masks"),
    ]
    argv += [
        "--photos.pseudo-list",
        str(options.data / "train_seg.txt"),
        "--evaluate.mean-over",
        *(name for name in SCORED if name in {"background", *named}),
    ]
    first = task.method == "photos" and not task.masks
    config = parse_config(argv)
    run_config(config, ["clusters", "train", "masks"] if first else list(STAGES))
    if first:
        job = Job(config)
        scored = Table(job.table.tags, job.pseudo_photos)
        rows = [
            {
                "masks": SPREAD,
                **figures(
                    folder / "masks", scored, options, split="train_seg", labels="given", crf=True
                ),
            }
        ]
    else:
        metrics = read_json(folder / "evaluate" / "metrics.json")
        found = {"pseudo": {"masks": "last round"}, "segmenter": {"masks": "test photos"}}
        rows = [
            {**told, **kept(metrics[name])}
            for name, told in found.items()
            if task.method == "best" or name == "segmenter"
        ]
    finish(
        task,
        rows,
        read_json(folder / "classifier" / "done.json")["counts"]["weights"],
        time.time() - start,
        options,
    )


def pseudo(task: Task, options: argparse.Namespace) -> None:
    """Train one method with one seed and score all its views, before and after the CRF."""
    start, config, shared = time.time(), configure(task, options), shared_by(task.set, options)
    table, *_ = tables(options.data, shared.photos)
    start_log(config.out)
    run_stages(job_of(config, table), ["clusters", "train"])
    rows = [
        row
        for view, changes in views(task.method, shared).items()
        for row in score_view(task, view, changes, options)
    ]
    finish(
        task,
        rows,
        read_json(config.out / "classifier" / "done.json")["counts"]["weights"],
        time.time() - start,
        options,
    )


def mask_settings(config: Config, changes: dict[str, Any]) -> Config:
    """A method's settings with those of one of its views."""
    return make_config(merged(config.model_dump(), {"masks": changes}))


def score_view(
    task: Task, view: str, changes: dict[str, Any], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Figures before and after the CRF for one way to make masks; with background "best" for the threshold that is best after it."""
    table, scored, _ = tables(options.data, shared_by(task.set, options).photos)
    thresholds = THRESHOLDS if changes.get("threshold") == "best" else ("otsu",)
    config = mask_settings(configure(task, options), {**changes, "threshold": thresholds[0]})
    maker = mask_maker(job_of(config, table))
    overall = maker.measure(table.photos)
    maps = [found for batch in maker.batches(scored.photos) for found in maker.maps(batch)]

    def row(threshold: Any, crf: bool) -> dict[str, Any]:
        off = {} if crf else {"crf": config.masks.crf.model_copy(update={"iterations": 0})}
        one = MaskMaker(
            maker.score,
            maker.grid,
            table.tags,
            config.masks.model_copy(update={"threshold": threshold, **off}),
        )
        one.overall, folder = overall, config.out / "views" / f"{view}, {threshold}, {crf}"

        def write(photo: Photo, found: torch.Tensor) -> None:
            write_mask(folder / f"{photo.name}.png", one.mask(photo, one.scores(found)))

        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(write, scored.photos, maps))
        chosen = {} if threshold == "otsu" else {"threshold": threshold}
        return {
            "masks": view,
            **chosen,
            **figures(folder, scored, options, split="train_seg", labels="given", crf=crf),
        }

    best = max((row(threshold, True) for threshold in thresholds), key=lambda found: found["miou"])
    threshold = best.get("threshold", "otsu")
    if task.set == "320" and task.seed == 0:
        seen = options.scratch / "sheet" / f"{task.method}, {view}"
        shutil.copytree(
            config.out / "views" / f"{view}, {threshold}, True", seen, dirs_exist_ok=True
        )
    return [row(threshold, False), best]


def segment(task: Task, options: argparse.Namespace) -> None:
    """A segmenter from the masks of a method or from the true ones, scored on the test photos."""
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
        config, changes = configure(task, options), views(task.method, shared)[task.masks]
        if changes.get("threshold") == "best":  # the threshold that was best, chosen on the truth
            assert task.before
            found = read_json(options.out / f"{task.before.name}.json")["rows"]
            changes = {
                **changes,
                "threshold": next(row["threshold"] for row in found if row["masks"] == task.masks),
            }
        config = mask_settings(config, changes)
        maker = mask_maker(job_of(config, table))
        maker.overall = maker.measure(table.photos)
        make_masks(table, maker, folder / "masks", cores())
    model = train_segmenter(table, folder / "masks", settings, folder, task.seed, READERS)
    for photo, found in predict_photos(model, val.photos, settings):
        found.save(folder / "predictions" / f"{photo.name}.png")
    rows = [
        {
            "masks": "test photos",
            **figures(folder / "predictions", val, options, split="val", labels="none", crf=True),
        }
    ]
    finish(task, rows, model.weights_used, time.time() - start, options)


def done(task: Task, options: argparse.Namespace) -> bool:
    """Whether a job's result is there."""
    return (options.out / f"{task.name}.json").exists()
