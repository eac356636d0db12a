"""The parts of `gpu.py` that go through files and whole runs: data, small, masks, runs."""

import csv
import functools
import io
import itertools
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_networks import DEVICE, GPU, Row, crf_here, full_float32, seconds_of, with_weights
from PIL import Image
from torch.utils.data import DataLoader

from tag2mask.api import Run
from tag2mask.classifier.net import PatchClassifier, load_classifier
from tag2mask.classifier.train import TaggedPhotos
from tag2mask.crf import dense_crf
from tag2mask.files import read_json
from tag2mask.loop import Draws, loader_workers
from tag2mask.masks import make, make_masks
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import Table
from tag2mask.processes import cores
from tag2mask.runs.folder import Job
from tag2mask.runs.stages import load_for_prediction, mask_maker
from tag2mask.segmenter.predict import predict_photos

STAGES = """
import sys
from tag2mask.api import run_config
from tag2mask.cli.arguments import parse_config
run_config(parse_config(sys.argv[2:]), sys.argv[1].split(","))
"""
ALL = "clusters,train,masks,segment,evaluate"


def photos_a_second(count: int, work: Callable[[], Any]) -> str:
    start = time.perf_counter()
    work()
    return f"{count / (time.perf_counter() - start):.1f} photos/s"


# ---- data ------------------------------------------------------------------------------------------------------------------------


def data(bench: Any) -> None:
    photos = bench.table.photos[: 256 if GPU else 8]
    size = 320 if GPU else 64
    files = [photo.path.read_bytes() for photo in photos]
    large = io.BytesIO()  # as a phone takes them
    photos[0].open().resize((4000, 3000) if GPU else (800, 600), Image.Resampling.BICUBIC).save(
        large, "JPEG", quality=90
    )

    def loader(workers: int, size: int) -> Row:
        examples = TaggedPhotos(bench.table, torch.zeros(len(bench.table), 1), size, "light")
        steps = (120 if workers else 30) if GPU else 4
        batches: Any = DataLoader(
            examples,  # type: ignore[arg-type]
            batch_sampler=Draws(len(examples), 16 if GPU else 2, 0, 0, steps),
            num_workers=workers,
            pin_memory=GPU,
        )
        times = [time.perf_counter() for _ in batches]
        skipped = steps // 4  # while the processes start
        return (
            f"{(steps - 1 - skipped) * batches.batch_sampler.batch_size / (times[-1] - times[skipped]):.0f} photos/s",
            "",
            None,
        )

    def decoded(read: Callable[[bytes], Any], threads: int, what: list[bytes]) -> Row:
        with ThreadPoolExecutor(threads) as pool:
            return photos_a_second(len(what), lambda: list(pool.map(read, what))), "", None

    def pillow(file: bytes, draft: int = 0) -> Image.Image:
        with Image.open(io.BytesIO(file)) as image:
            if draft:
                image.draft(None, (draft, draft))
            return image.convert("RGB")

    def nvjpeg(what: list[bytes]) -> Row:
        from torchvision.io import decode_jpeg

        tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in what]
        seconds = seconds_of(lambda: decode_jpeg(tensors, device=DEVICE.type), 1, 3)
        return f"{len(what) / seconds:.0f} photos/s", "", None

    counts = sorted({0, loader_workers(-1), cores()}) if GPU else [0]
    for workers in counts:
        bench.row(
            "data",
            f"training examples at {size}, {workers} processes",
            functools.partial(loader, workers, size),
        )
    if GPU:
        bench.row(
            "data",
            f"training examples at 384, {cores()} processes",
            functools.partial(loader, cores(), 384),
        )
    for name, what in {
        "these photos": files,
        "photos of 12 megapixels": [large.getvalue()] * (32 if GPU else 2),
    }.items():
        for threads in sorted({1, cores()}):
            bench.row(
                "data",
                f"{name} decoded by Pillow, {threads} threads",
                functools.partial(decoded, pillow, threads, what),
            )
        half = functools.partial(pillow, draft=size // 2)
        bench.row(
            "data",
            f"{name} decoded to {size // 2} or more, {cores()} threads",
            functools.partial(decoded, half, cores(), what),
        )
        if GPU:
            bench.row(
                "data",
                f"{name} decoded on the GPU by torchvision (nvJPEG)",
                functools.partial(nvjpeg, what),
            )


# ---- small -----------------------------------------------------------------------------------------------------------------------


class Small:
    """Small runs of the same photos, each in a process of its own."""

    def __init__(self, bench: Any):
        self.folder, self.masks = (
            bench.options.out.absolute() / "small",
            bench.options.val_masks.absolute(),
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, table, count in (
            ("train", bench.table, 96 if GPU else 8),
            ("val", bench.val, 32 if GPU else 3),
        ):
            marked = [
                photo for photo in table.photos if (self.masks / f"{photo.name}.png").exists()
            ]
            some = marked[:: max(1, len(marked) // count)][:count]
            first = {
                tag: photo for photo in reversed(table.photos) for tag in photo.tags
            }  # every tag, so that masks keep their numbers
            some += (
                []
                if name == "val"
                else [
                    first[tag]
                    for tag in sorted(set(first) - {tag for photo in some for tag in photo.tags})
                ]
            )
            some = list(dict.fromkeys(some))
            with (self.folder / f"{name}.csv").open("w", newline="") as stream:
                rows = csv.writer(stream)
                rows.writerow(["file_name", "tags"])
                rows.writerows([photo.path.absolute(), ";".join(photo.tags)] for photo in some)
        self.settings = (
            "--classifier.epochs 8 --classifier.image-size 224 --masks.image-size 320 --segmenter.steps 100 --photos.workers 2"
            if GPU
            else "--classifier.epochs 3 --classifier.image-size 64 --classifier.batch-size 4 --masks.image-size 64 --masks.mask-size 64 "
            "--segmenter.steps 20 --segmenter.balanced --segmenter.crop-size 65 --segmenter.image-size 65 --segmenter.batch-size 4 "
            "--segmenter.lr 0.01"
        ).split()

    def start(
        self, name: str, stages: str, *settings: str, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Begin these stages of the run `name`; what it says goes to `name`.log."""
        command = [
            sys.executable,
            "-c",
            STAGES,
            stages,
            "--data",
            str(self.folder / "train.csv"),
            "--val",
            str(self.folder / "val.csv"),
        ]
        command += [
            "--val-masks",
            str(self.masks),
            "--out",
            str(self.folder / name),
            *self.settings,
            *settings,
        ]
        with (self.folder / f"{name}.log").open("ab") as log:
            threads = {"OMP_NUM_THREADS": str(max(1, cores() // 4))}
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=os.environ | threads | environment,
                start_new_session=True,
            )

    def ended(self, name: str, process: subprocess.Popen[bytes], seconds: float = 240) -> Path:
        """The folder of the run when it has ended well; RuntimeError with its last line if not."""
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise RuntimeError(f"{name}: not done after {seconds:.0f} s") from None
        if code:
            last = (
                (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1:]
            )
            raise RuntimeError(f"{name}: ended with {code}: {' '.join(last)}")
        return self.folder / name

    def weights(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The classifier's trained weights, and what the training began with."""
        model = load_classifier(self.folder / name / "classifier" / "model.safetensors")
        torch.manual_seed(0)
        settings = Run(self.folder / name).config.classifier
        start = PatchClassifier(
            settings, model.classifier.out_features, len(model.cluster_embedding)
        )
        trained, began = (
            torch.cat([p.detach().double().flatten() for p in network.parameters()])
            for network in (model, start)
        )
        return trained, began

    def apart(self, name: str, other: str) -> float:
        """How far two trainings ended from one another, relative to the way that the first has gone."""
        (end, began), (other_end, _) = self.weights(name), self.weights(other)
        return float((other_end - end).norm() / (end - began).norm())


def small(bench: Any) -> None:
    runs = Small(bench)
    shutil.rmtree(runs.folder / "killed", ignore_errors=True)
    begun = {
        name: runs.start(name, "clusters,train") for name in ("whole", "killed", *["again"] * GPU)
    }
    begun["gpu"] = runs.start("gpu", ALL)
    if GPU:
        begun["cpu"] = runs.start("cpu", ALL, CUDA_VISIBLE_DEVICES="")
    # Both in float32: bf16 rounds sums of a whole batch and of two halves differently, and Adam makes much of that.
    alike = ("--classifier.dropout", "0", "--classifier.precision", "no")
    begun["one"] = runs.start("one", "clusters,train", *alike)
    # NCCL refuses two processes of one host on one GPU, so each says that it is another host.
    port = str(20000 + os.getpid() % 20000)
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    ranks = [
        {**shared, "RANK": rank, "NCCL_HOSTID": f"host{rank}", "NCCL_SOCKET_IFNAME": "lo"}
        for rank in ("0", "1")
    ]
    both = [runs.start("two", "clusters,train", *alike, **rank) for rank in ranks]

    def resumed() -> Row:
        process, checkpoints = begun["killed"], runs.folder / "killed" / "classifier" / "checkpoint"
        while process.poll() is None and not any(
            path.name.isdigit() for path in checkpoints.glob("*")
        ):
            time.sleep(0.01)
        if process.poll() is not None:
            raise RuntimeError("the training ended before it could be killed")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        runs.ended("killed", runs.start("killed", "clusters,train"))
        said = next(
            (
                line
                for line in (runs.folder / "killed.log").read_text().splitlines()
                if "goes on from" in line
            ),
            "did not go on",
        )
        for name in ("whole", *["again"] * GPU):
            runs.ended(name, begun[name])
        off, usual = (
            runs.apart("whole", "killed"),
            runs.apart("whole", "again") if GPU else 0.0,
        )  # CPUs repeat
        measured = f"{said.strip()}; ends {off:.1e} of the way from one not killed; two not killed end {usual:.1e} apart"
        return measured, "as two not killed", off <= 2 * usual and "goes on" in said

    def two_processes() -> Row:
        for process in both:
            runs.ended("two", process, 90)
        runs.ended("one", begun["one"])
        off = runs.apart("one", "two")
        return f"ends {off:.1e} of the way from one process", "0.1", off <= 0.1

    def same_classifier() -> Row:
        made = runs.ended("gpu", begun["gpu"])
        shutil.rmtree(runs.folder / "same", ignore_errors=True)
        for name in ("clusters", "classifier"):
            shutil.copytree(made / name, runs.folder / "same" / name)
        runs.ended("same", runs.start("same", "masks", CUDA_VISIBLE_DEVICES=""))
        files = sorted((made / "masks").rglob("*.png"))
        pairs = [
            (read_mask(file), read_mask(runs.folder / "same" / file.relative_to(made)))
            for file in files
        ]
        same = float(np.mean([(a == b).mean() for a, b in pairs]))
        return (
            f"{same:.3%} of the pixels of {len(pairs)} masks are the same",
            "99.5 %",
            same >= 0.995,
        )

    def whole_run() -> Row:
        with_gpu = read_json(runs.ended("gpu", begun["gpu"]) / "evaluate" / "metrics.json")
        without = read_json(runs.ended("cpu", begun["cpu"]) / "evaluate" / "metrics.json")
        pairs = {
            name: (with_gpu[name]["miou"], without[name]["miou"])
            for name in ("pseudo", "segmenter")
        }
        said = ", ".join(
            f"{name} {100 * a:.1f} here, {100 * b:.1f} without" for name, (a, b) in pairs.items()
        )
        return (
            f"mIoU [%]: {said}",
            "within 3 points",
            all(abs(a - b) < 0.03 for a, b in pairs.values()),
        )

    bench.row("small", "a training killed after its first checkpoint, and resumed", resumed, 60)
    bench.row(
        "small",
        f"two processes on one device ({'NCCL' if GPU else 'gloo'}), training in float32",
        two_processes,
        30,
    )
    bench.row(
        "small", "masks of the same classifier, made here and on the CPU", same_classifier, 30
    )
    if GPU:
        bench.row("small", "the whole run with the GPU and without", whole_run, 60)
    for process in [*begun.values(), *both]:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


# ---- masks -----------------------------------------------------------------------------------------------------------------------


def masks(bench: Any) -> None:
    run = Run(bench.options.out / "small" / "gpu")
    job = Job(run.config.model_copy(update={"out": run.folder}))
    known = [photo for photo in bench.table.photos if set(photo.tags) <= set(job.table.tags)]
    photos = known[: 128 if GPU else 4]
    table = Table(job.table.tags, tuple(photos))
    recipe = with_weights("photos").masks if GPU else run.config.masks
    job.config = job.config.model_copy(update={"masks": recipe})
    maker = mask_maker(job)

    def network(batch: int) -> Row:
        maker.settings = recipe.model_copy(update={"batch_size": batch})
        for chunk in itertools.islice(maker.batches(photos), 1):
            maker.maps(chunk)
        return (
            photos_a_second(
                len(photos), lambda: [maker.maps(chunk) for chunk in maker.batches(photos)]
            ),
            "",
            None,
        )

    def stage(threads: int, crf: Callable[..., Any] = dense_crf, iterations: int = 10) -> Row:
        maker.settings = recipe
        before, make.dense_crf = make.dense_crf, crf
        maker.crf = type(maker.crf)(iterations=iterations)
        try:
            with tempfile.TemporaryDirectory() as folder:
                return (
                    photos_a_second(
                        len(photos), lambda: make_masks(table, maker, Path(folder), threads)
                    ),
                    "",
                    None,
                )
        finally:
            make.dense_crf = before

    for batch in (4, 16, 64) if GPU else (2,):
        bench.row(
            "masks",
            f"scores alone (photos and network), batch {batch}",
            functools.partial(network, batch),
        )
    bench.row("masks", "the stage without the CRF", lambda: stage(cores(), iterations=0))
    bench.row("masks", f"the stage, CRF in {cores()} threads", lambda: stage(cores()))
    for threads in (1, 4) if GPU else (1,):
        bench.row(
            "masks",
            f"the stage, CRF in PyTorch on {DEVICE.type}, {threads} threads",
            functools.partial(stage, threads, crf_here),
        )

    segmenter = load_for_prediction(run.folder / "segmenter" / "model.safetensors")

    def predictions(iterations: int) -> Row:
        settings = run.config.segmenter
        settings = settings.model_copy(
            update={"crf": settings.crf.model_copy(update={"iterations": iterations})}
        )
        first, again = (
            photos_a_second(len(photos), lambda: list(predict_photos(segmenter, photos, settings)))
            for _ in range(2)
        )
        return f"{first}; again, with all sizes seen, {again}", "", None

    bench.row("masks", "predictions without the CRF", lambda: predictions(0))
    bench.row("masks", f"predictions, CRF in {cores()} threads", lambda: predictions(10))
    if GPU:
        bench.row(
            "masks",
            "cpc's ViT-B/16 at 960, batch 4: float32; tf32; bf16 (difference of its scores from float32's)",
            precisions,
        )


@torch.inference_mode()
def precisions() -> Row:
    """How fast and how far off the scores of a large picture come in other arithmetic than the masks stage's, float32."""
    torch.manual_seed(0)
    model = PatchClassifier(with_weights("cpc").classifier, 21, 5).to(DEVICE).eval()
    images, u = torch.rand(4, 3, 960, 960, device=DEVICE), torch.ones(4, 5, device=DEVICE)
    with full_float32():
        reference = model.scores(images, u)
    said = []
    for matmul, cast in (("highest", False), ("high", False), ("high", True)):
        torch.set_float32_matmul_precision(matmul)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=cast):
            seconds = seconds_of(lambda: model.scores(images, u), 2, 5)
            off = float((model.scores(images, u) - reference).abs().max() / reference.abs().max())
        said.append(f"{4 / seconds:.1f} photos/s ({off:.0e})")
    torch.set_float32_matmul_precision("highest")
    return "; ".join(said), "", None


# ---- runs ------------------------------------------------------------------------------------------------------------------------


def runs(bench: Any) -> None:
    """All seeds of a recipe at once: they share the GPU and the cores, so the minutes are those of a busy machine."""
    options = bench.options
    paths = [
        "--data",
        str(options.data),
        "--val",
        str(options.val),
        "--val-masks",
        str(options.val_masks),
    ]

    def recipe(name: str) -> Row:
        folders = [options.out / f"{name}-{seed}" for seed in options.seeds]
        begun = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tag2mask",
                    "run",
                    "--recipe",
                    name,
                    *paths,
                    "--seed",
                    str(seed),
                    "--out",
                    str(folder),
                ]
            )
            for folder, seed in zip(folders, options.seeds, strict=True)
        ]
        if any(process.wait() for process in begun):
            raise RuntimeError("a run ended with an error; its log.txt says which")
        minutes = [
            sum(read_json(done)["seconds"] for done in folder.glob("*/done.json")) / 60
            for folder in folders
        ]
        metrics = [read_json(folder / "evaluate" / "metrics.json") for folder in folders]
        figures = [
            f"{part} {spread(100 * found[part]['miou'] for found in metrics)}"
            for part in ("pseudo", "segmenter")
        ]
        return f"{spread(minutes)} minutes; mIoU [%]: {', '.join(figures)}", "", None

    for name in options.recipes:
        seeds = ", ".join(map(str, options.seeds))
        bench.row(
            "runs",
            f"`tag2mask run --recipe {name}`, seeds {seeds} at once",
            functools.partial(recipe, name),
            60,
        )


def spread(values: Iterable[float]) -> str:
    numbers = list(values)
    return f"{statistics.mean(numbers):.1f}" + (
        f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
    )
