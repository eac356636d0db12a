"""The parts of `gpu.py` that start whole runs: small, runs."""

import csv
import functools
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_networks import GPU, Row

from tag2mask.api import Run
from tag2mask.classifier.net import PatchClassifier, load_classifier
from tag2mask.files import read_json
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.processes import cores

STAGES = """
import sys
from tag2mask.api import run_config
from tag2mask.cli.arguments import parse_config
run_config(parse_config(sys.argv[2:]), sys.argv[1].split(","))
"""
CLASSIFIER = "clusters,classifier"
ALL = f"{CLASSIFIER},masks,segmenter,evaluate"
RESUMED = "resumes at step"  # in the log of a training
SMALL_GPU = (
    "--classifier.epochs 8 --classifier.image-size 224 --masks.image-size 320 "
    "--segmenter.steps 100 --photos.workers 2"
)
SMALL_CPU = (
    "--classifier.epochs 3 --classifier.image-size 64 --classifier.batch-size 4 "
    "--masks.image-size 64 --masks.mask-size 64 --segmenter.steps 20 --segmenter.balanced "
    "--segmenter.crop-size 65 --segmenter.image-size 65 --segmenter.batch-size 4 "
    "--segmenter.lr 0.001"
)


class Small:
    """Small runs of the same photos, each in its own process."""

    def __init__(self, bench: Any):
        self.folder = bench.options.out.absolute() / "small"
        self.masks = bench.options.val_masks.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        train = self.photos_with_masks(bench.table, 96 if GPU else 8)
        # Every tag is needed: the masks keep their class numbers.
        first = {tag: photo for photo in reversed(bench.table.photos) for tag in photo.tags}
        train += [first[tag] for tag in sorted(first.keys() - {t for p in train for t in p.tags})]
        self.write("train", train)
        self.write("val", self.photos_with_masks(bench.val, 32 if GPU else 3))
        self.settings = (SMALL_GPU if GPU else SMALL_CPU).split()

    def photos_with_masks(self, table: Table, count: int) -> list[Photo]:
        """`count` photos of a table that have a ground-truth mask, at equal distances."""
        photos = [photo for photo in table.photos if (self.masks / f"{photo.name}.png").exists()]
        return photos[:: max(1, len(photos) // count)][:count]

    def write(self, name: str, photos: list[Photo]) -> None:
        """Write `name`.csv, a table of photos and their tags."""
        with (self.folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file_name", "tags"])
            for photo in dict.fromkeys(photos):
                writer.writerow([photo.path.absolute(), ";".join(photo.tags)])

    def start(
        self, name: str, stages: str, *settings: str, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start these stages of the run `name`; its output goes to `name`.log."""
        command = [sys.executable, "-c", STAGES, stages, "--data", str(self.folder / "train.csv")]
        command += ["--val", str(self.folder / "val.csv"), "--val-masks", str(self.masks)]
        command += ["--out", str(self.folder / name), *self.settings, *settings]
        variables = os.environ | {"OMP_NUM_THREADS": str(max(1, cores() // 4))} | environment
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=variables, start_new_session=True
            )

    def wait(self, name: str, process: subprocess.Popen[bytes], seconds: float = 240) -> Path:
        """Wait for the end of a run -> its folder. Raises RuntimeError with its last line."""
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise RuntimeError(f"{name}: not finished after {seconds:.0f} s") from None
        if code:
            lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
            raise RuntimeError(f"{name}: ended with {code}: {' '.join(lines[-1:])}")
        return self.folder / name

    def weights(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights of a classifier after and before its training."""
        model = load_classifier(self.folder / name / "classifier" / "model.safetensors")
        torch.manual_seed(0)
        settings = Run(self.folder / name).config.classifier
        untrained = PatchClassifier(
            settings, model.classifier.out_features, len(model.cluster_embedding)
        )
        after, before = (
            torch.cat([p.detach().double().flatten() for p in network.parameters()])
            for network in (model, untrained)
        )
        return after, before

    def distance(self, name: str, other: str) -> float:
        """Distance between the weights after two trainings, relative to the change by the first."""
        (after, before), (other_after, _) = self.weights(name), self.weights(other)
        return float((other_after - after).norm() / (after - before).norm())


def small(bench: Any) -> None:
    runs = Small(bench)
    shutil.rmtree(runs.folder / "killed", ignore_errors=True)
    names = ("whole", "killed", *["again"] * GPU)
    processes = {name: runs.start(name, CLASSIFIER) for name in names}
    processes["gpu"] = runs.start("gpu", ALL)
    if GPU:
        processes["cpu"] = runs.start("cpu", ALL, CUDA_VISIBLE_DEVICES="")
    # Both in float32: bf16 rounds the sums of a batch and of its halves differently, and Adam
    # makes this difference large.
    same = ("--classifier.dropout", "0", "--classifier.precision", "no")
    processes["one"] = runs.start("one", CLASSIFIER, *same)
    both = [runs.start("two", CLASSIFIER, *same, **rank_variables(rank)) for rank in range(2)]

    def resumed() -> Row:
        process, run = processes["killed"], runs.folder / "killed"
        files = f".classifier.part/checkpoint/{'[0-9]' * 8}"
        while process.poll() is None and not glob(files, root_dir=run):  # noqa: PTH207
            time.sleep(0.01)
        if process.poll() is not None:
            raise RuntimeError("the training ended before it could be killed")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        runs.wait("killed", runs.start("killed", CLASSIFIER))
        log = (runs.folder / "killed.log").read_text()
        message = next((line for line in log.splitlines() if RESUMED in line), "did not resume")
        for name in ("whole", *["again"] * GPU):
            runs.wait(name, processes[name])
        distance = runs.distance("whole", "killed")
        usual = runs.distance("whole", "again") if GPU else 0.0  # CPUs repeat
        measured = f"{message.strip()}; distance {distance:.1e} of the change by the training; "
        measured += f"between two that were not killed {usual:.1e}"
        return measured, "as two not killed", distance <= 2 * usual and RESUMED in message

    def two_processes() -> Row:
        for process in both:
            runs.wait("two", process, 90)
        runs.wait("one", processes["one"])
        distance = runs.distance("one", "two")
        return f"distance {distance:.1e} of the change by the training", "0.1", distance <= 0.1

    def same_classifier() -> Row:
        run, copy = runs.wait("gpu", processes["gpu"]), runs.folder / "same"
        shutil.rmtree(copy, ignore_errors=True)
        for name in ("clusters", "classifier"):
            shutil.copytree(run / name, copy / name)
        runs.wait("same", runs.start("same", "masks", CUDA_VISIBLE_DEVICES=""))
        files = [file.relative_to(run) for file in sorted((run / "masks").rglob("*.png"))]
        same = [(read_mask(run / file) == read_mask(copy / file)).mean() for file in files]
        measured = f"{np.mean(same):.3%} of the pixels of {len(files)} masks are the same"
        return measured, "99.5 %", float(np.mean(same)) >= 0.995

    def whole_run() -> Row:
        here, cpu = (
            read_json(runs.wait(name, processes[name]) / "evaluate" / "metrics.json")
            for name in ("gpu", "cpu")
        )
        parts, met = [], True
        for name in ("pseudo", "segmenter"):
            a, b = here[name]["miou"], cpu[name]["miou"]
            parts.append(f"{name} {100 * a:.1f} here, {100 * b:.1f} without")
            met &= abs(a - b) < 0.03
        return f"mIoU [%]: {', '.join(parts)}", "within 3 points", met

    backend = "NCCL" if GPU else "gloo"
    title = f"two processes on one device ({backend}), training in float32, compared with one"
    bench.row("small", "a training killed after its first checkpoint, and resumed", resumed, 60)
    bench.row("small", title, two_processes, 30)
    title = "masks of the same classifier, made here and on the CPU"
    bench.row("small", title, same_classifier, 30)
    if GPU:
        bench.row("small", "the whole run with the GPU and without", whole_run, 60)
    for process in [*processes.values(), *both]:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def rank_variables(rank: int) -> dict[str, str]:
    """The environment of one of two processes on one device.

    NCCL refuses two processes of one host on one GPU, so each has its own host name.
    """
    port = str(20000 + os.getpid() % 20000)
    return {
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "RANK": str(rank),
        "NCCL_HOSTID": f"host{rank}",
        "NCCL_SOCKET_IFNAME": "lo",
    }


def runs(bench: Any) -> None:
    """All seeds of a recipe at the same time: the minutes are those of a busy machine."""
    options = bench.options
    command = [sys.executable, "-m", "tag2mask", "run", "--data", str(options.data)]
    command += ["--val", str(options.val), "--val-masks", str(options.val_masks)]

    def recipe(name: str) -> Row:
        folders = {seed: options.out / f"{name}-{seed}" for seed in options.seeds}
        processes = [
            subprocess.Popen(
                [*command, "--recipe", name, "--seed", str(seed), "--out", str(folder)]
            )
            for seed, folder in folders.items()
        ]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError("a run ended with an error; see its log.txt")
        minutes = [
            sum(read_json(done)["seconds"] for done in folder.glob("*/done.json")) / 60
            for folder in folders.values()
        ]
        metrics = [read_json(f / "evaluate" / "metrics.json") for f in folders.values()]
        figures = [
            f"{part} {spread(100 * values[part]['miou'] for values in metrics)}"
            for part in ("pseudo", "segmenter")
        ]
        return f"{spread(minutes)} minutes; mIoU [%]: {', '.join(figures)}", "", None

    for name in options.recipes:
        seeds = ", ".join(map(str, options.seeds))
        title = f"`tag2mask run --recipe {name}`, seeds {seeds} at the same time"
        bench.row("runs", title, functools.partial(recipe, name), 60)


def spread(values: Iterable[float]) -> str:
    """Mean and standard deviation."""
    numbers = list(values)
    deviation = f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.1f}{deviation}"
