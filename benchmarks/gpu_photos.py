"""The parts of `gpu.py` about photos: data (files to training examples), sizes, masks."""

import functools
import io
import itertools
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_networks import DEVICE, GPU, Row, crf_here, full_float32, seconds_of, with_weights
from PIL import Image
from torch.utils.data import DataLoader

from tag2mask.api import Run
from tag2mask.classifier.net import PatchClassifier
from tag2mask.classifier.train import TaggedPhotos
from tag2mask.crf import CRFParams, dense_crf
from tag2mask.loop import Draws, loader_workers
from tag2mask.masks import make, make_masks
from tag2mask.photos.table import Table
from tag2mask.processes import cores
from tag2mask.runs.stages import mask_maker
from tag2mask.segmenter.heads import create_segmenter
from tag2mask.segmenter.predict import predict_photos


def data(bench: Any) -> None:
    photos = bench.table.photos[: 256 if GPU else 8]
    size = 320 if GPU else 64
    files = [photo.path.read_bytes() for photo in photos]
    large = io.BytesIO()  # like a photo from a phone
    image = photos[0].open().resize((4000, 3000) if GPU else (800, 600), Image.Resampling.BICUBIC)
    image.save(large, "JPEG", quality=90)

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
        count = (steps - 1 - skipped) * batches.batch_sampler.batch_size
        return f"{count / (times[-1] - times[skipped]):.0f} photos/s", "", None

    def decode(read: Callable[[bytes], Any], threads: int, files: list[bytes]) -> Row:
        with ThreadPoolExecutor(threads) as pool:
            return photos_a_second(len(files), lambda: list(pool.map(read, files))), "", None

    def pillow(file: bytes, draft: int = 0) -> Image.Image:
        with Image.open(io.BytesIO(file)) as image:
            if draft:
                image.draft(None, (draft, draft))
            return image.convert("RGB")

    def nvjpeg(files: list[bytes]) -> Row:
        from torchvision.io import decode_jpeg

        tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        seconds = seconds_of(lambda: decode_jpeg(tensors, device=DEVICE.type), 1, 3)
        return f"{len(files) / seconds:.0f} photos/s", "", None

    def row(title: str, measure: Callable[..., Row], *arguments: Any) -> None:
        bench.row("data", title, functools.partial(measure, *arguments))

    for workers in sorted({0, loader_workers(-1), cores()}) if GPU else [0]:
        row(f"training examples at {size}, {workers} processes", loader, workers, size)
    if GPU:
        row(f"training examples at 384, {cores()} processes", loader, cores(), 384)
    sources = {
        "these photos": files,
        "photos of 12 megapixels": [large.getvalue()] * (32 if GPU else 2),
    }
    half = functools.partial(pillow, draft=size // 2)
    for name, source in sources.items():
        for threads in sorted({1, cores()}):
            row(f"{name} decoded by Pillow, {threads} threads", decode, pillow, threads, source)
        title = f"{name} decoded to at least {size // 2}, {cores()} threads"
        row(title, decode, half, cores(), source)
        if GPU:
            row(f"{name} decoded on the GPU by torchvision (nvJPEG)", nvjpeg, source)


def sizes(bench: Any) -> None:
    model = create_segmenter(with_weights("photos").segmenter, ["background", "thing"])
    model.to(DEVICE).eval()

    @torch.inference_mode()
    def with_cudnn(batch: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return model.probabilities(torch.from_numpy(batch).to(DEVICE), size).cpu().numpy()

    def row(run: Callable[..., np.ndarray], number: int) -> Row:
        times = []
        for step in range(4):  # sizes that no row had before
            sides = (320, 256) if GPU else (64, 32)
            width, height = (model.side(side + 64 * step + 32 * number) for side in sides)
            batch = np.random.rand(2, 3, height, width).astype(np.float32)
            for _ in range(2):
                start = time.perf_counter()
                run(batch, (height, width))
                times.append(time.perf_counter() - start)
        first, again = (np.median(part[1:]) for part in (times[::2], times[1::2]))
        return f"first photo {first:.3f} s, second {again:.3f} s", "", None

    title = "a photo of a new size and its mirror image, segmenter of `photos`"
    bench.row("sizes", f"{title}, cuDNN", functools.partial(row, with_cudnn, 0), 20)
    bench.row("sizes", f"{title}, as in predictions", functools.partial(row, model.run, 1))


def masks(bench: Any) -> None:
    run = Run(bench.options.out / "small" / "gpu")
    recipe = with_weights("photos").masks if GPU else run.config.masks
    run = Run(run.folder, run.config.model_copy(update={"masks": recipe}))
    tags = set(run.table.tags)
    photos = [photo for photo in bench.table.photos if set(photo.tags) <= tags][: 128 if GPU else 4]
    table = Table(run.table.tags, tuple(photos))
    maker = mask_maker(run)

    def network(batch: int) -> Row:
        maker.settings = recipe.model_copy(update={"batch_size": batch})
        for chunk in itertools.islice(maker.batches(photos), 1):
            maker.score_maps(chunk)
        rate = photos_a_second(
            len(photos), lambda: [maker.score_maps(chunk) for chunk in maker.batches(photos)]
        )
        return rate, "", None

    def stage(threads: int, crf: Callable[..., Any] = dense_crf, iterations: int = 10) -> Row:
        maker.settings = recipe.model_copy(update={"crf": CRFParams(iterations=iterations)})
        before, make.dense_crf = make.dense_crf, crf
        try:
            with tempfile.TemporaryDirectory() as folder:
                rate = photos_a_second(
                    len(photos), lambda: make_masks(table, maker, Path(folder), threads)
                )
        finally:
            make.dense_crf = before
        return rate, "", None

    for batch in (4, 16, 64) if GPU else (2,):
        title = f"scores alone (photos and network), batch {batch}"
        bench.row("masks", title, functools.partial(network, batch))
    bench.row("masks", "the stage without the CRF", lambda: stage(cores(), iterations=0))
    bench.row("masks", f"the stage, CRF in {cores()} threads", lambda: stage(cores()))
    for threads in (1, 4) if GPU else (1,):
        title = f"the stage, CRF in PyTorch on {DEVICE.type}, {threads} threads"
        bench.row("masks", title, functools.partial(stage, threads, crf_here))

    segmenter = run.segmenter

    def predictions(iterations: int) -> Row:
        settings = run.config.segmenter
        crf = settings.crf.model_copy(update={"iterations": iterations})
        settings = settings.model_copy(update={"crf": crf})
        first, again = (
            photos_a_second(len(photos), lambda: list(predict_photos(segmenter, photos, settings)))
            for _ in range(2)
        )
        return f"{first}; repeated, when all sizes are known, {again}", "", None

    bench.row("masks", "predictions without the CRF", lambda: predictions(0))
    bench.row("masks", f"predictions, CRF in {cores()} threads", lambda: predictions(10))
    if GPU:
        title = "cpc's ViT-B/16 at 960, batch 4: float32; tf32; bf16 (difference from float32)"
        bench.row("masks", title, precisions)


@torch.inference_mode()
def precisions() -> Row:
    """Speed and error of the scores of large images in other precisions than float32."""
    torch.manual_seed(0)
    model = PatchClassifier(with_weights("cpc").classifier, 21, 5).to(DEVICE).eval()
    images, u = torch.rand(4, 3, 960, 960, device=DEVICE), torch.ones(4, 5, device=DEVICE)
    with full_float32():
        reference = model.scores(images, u)[0]
    measured = []
    for matmul, autocast in (("highest", False), ("high", False), ("high", True)):
        torch.set_float32_matmul_precision(matmul)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            seconds = seconds_of(lambda: model.scores(images, u), 2, 5)
            error = (model.scores(images, u)[0] - reference).abs().max() / reference.abs().max()
        measured.append(f"{4 / seconds:.1f} photos/s ({float(error):.0e})")
    torch.set_float32_matmul_precision("highest")
    return "; ".join(measured), "", None


def photos_a_second(count: int, work: Callable[[], Any]) -> str:
    start = time.perf_counter()
    work()
    return f"{count / (time.perf_counter() - start):.1f} photos/s"
