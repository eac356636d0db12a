"""The parts of `gpu.py` that measure one network or function at a time: steps, crf, vit, backbones."""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tag2mask.classifier.net import PatchClassifier
from tag2mask.classifier.train import classifier_loss
from tag2mask.config import Config
from tag2mask.config_files import load_recipe
from tag2mask.crf import CRFParams, backend, dense_crf_batch, dense_crf_many
from tag2mask.processes import cores
from tag2mask.segmenter.deeplab import DeepLabV2
from tag2mask.segmenter.losses import segmentation_loss

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
Step = Callable[[], Tensor]  # one forward pass to its loss
Row = tuple[str, str, bool | None]  # what was measured, the aim, whether it is met


def wait() -> None:
    if GPU:
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], Any], warm: int = 3, repeat: int = 8) -> float:
    """Median seconds of one call, after `warm` calls."""
    times = []
    for i in range((warm + repeat) if GPU else 2):
        wait()
        start = time.perf_counter()
        step()
        wait()
        if i >= (warm if GPU else 1):
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def flops(step: Callable[[], Any]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(
        display=False
    ) as counter:  # products, convolutions, attention; cuDNN's LSTMs are not counted
        step()
    return counter.get_total_flops()


def busy(step: Callable[[], Any], repeat: int = 5) -> float:
    """Share of the time in which the GPU computes."""
    from torch.profiler import ProfilerActivity, profile

    step()
    wait()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        start = time.perf_counter()
        for _ in range(repeat):
            step()
        wait()
        wall = time.perf_counter() - start
    print(
        profiler.key_averages().table(
            sort_by="self_device_time_total", row_limit=8, max_name_column_width=70
        )
    )
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6 / wall


# ---- networks --------------------------------------------------------------------------------------------------------------------


def classifier_step(
    config: Config, size: int, batch: int, tags: int = 8, clusters: int = 3
) -> tuple[PatchClassifier, Step]:
    """A patch classifier with random pictures, and its training step."""
    settings = config.classifier.model_copy(update={"dropout": 0.0})
    model = PatchClassifier(settings, tags + 1, clusters)
    model.backbone.requires_grad_(False)
    for parameter in model.backbone.last_parameters(settings.trained_blocks):
        parameter.requires_grad_(True)
    rng = torch.Generator().manual_seed(1)
    side = model.backbone.grid_size(size)
    labels = (torch.rand(batch, tags, generator=rng) < 0.3).float()
    images = smooth(torch.rand(batch, 3, side // 8, side // 8, generator=rng), side)
    moved = functools.cache(
        lambda device: (
            images.to(device),
            labels.to(device),
            torch.ones(batch, clusters, device=device),
        )
    )

    def step() -> Tensor:
        return classifier_loss(model, moved(next(model.parameters()).device), settings)["loss"]

    return model.train(), step


def segmenter_step(
    config: Config, size: int, batch: int, classes: int = 9
) -> tuple[DeepLabV2, Step]:
    """A DeepLabV2 with random pictures and masks, and its training step."""
    model = DeepLabV2(config.segmenter, [str(i) for i in range(classes)])
    rng = torch.Generator().manual_seed(1)
    side = model.side(size)
    images = smooth(torch.rand(batch, 3, side // 8, side // 8, generator=rng), side)
    masks = smooth(torch.rand(batch, classes, 6, 6, generator=rng), side).argmax(1).to(torch.uint8)

    moved = functools.cache(lambda device: (images.to(device), masks.to(device)))

    def step() -> Tensor:
        pictures, targets = moved(next(model.parameters()).device)
        return segmentation_loss(model(pictures), targets, config.segmenter.balanced)

    return model.train(), step


def smooth(x: Tensor, side: int) -> Tensor:
    return torch.nn.functional.interpolate(x, (side, side), mode="bilinear")


def with_weights(name: str, **settings: Any) -> Config:
    """A recipe with a backbone's random weights (the speed is the same), or `weights` of its own."""
    config = load_recipe(name)
    parts = {
        part: getattr(config, part).model_copy(update={"weights": "none", **settings})
        for part in ("classifier", "segmenter")
    }
    return config.model_copy(update=parts)


def backward(model: torch.nn.Module, step: Step, autocast: bool) -> float:
    model.zero_grad()
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
        loss = step()
    loss.backward()
    return float(loss.detach())


def gradient(model: torch.nn.Module) -> Tensor:
    return torch.cat(
        [p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None]
    )


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


# ---- steps -----------------------------------------------------------------------------------------------------------------------

# Largest difference of the loss and of the gradient (length of the difference over the gradient's length), from the CPU's in float32.
# float32 differs by the order of sums alone; bf16 keeps 8 bits of each product's factors through some hundred layers.
BOUNDS = {"float32": (1e-4, 1e-2), "tf32": (1e-2, 0.1), "bf16": (3e-2, 0.5)}


def steps(bench: Any) -> None:
    full = GPU
    wheel = with_weights("photos", weights="auto")
    networks: dict[str, Callable[[], tuple[torch.nn.Module, Step]]] = {
        "classifier, EfficientNet-Lite0 (photos)": lambda: classifier_step(
            wheel, 320 if full else 64, 8 if full else 2
        ),
        "segmenter, EfficientNet-Lite0 (photos)": lambda: segmenter_step(
            wheel, 225 if full else 65, 8 if full else 2
        ),
    }
    if full:
        networks["classifier, ViT-B/16, HV-BiLSTM (cpc, random weights)"] = lambda: classifier_step(
            with_weights("cpc"), 384, 4
        )
        networks["segmenter, ResNet-101, stride 8 (cpc, random weights)"] = lambda: segmenter_step(
            with_weights("cpc"), 321, 2
        )

    def one(make: Callable[[], tuple[torch.nn.Module, Step]]) -> Row:
        torch.manual_seed(0)
        model, step = make()
        loss = backward(model, step, autocast=False)
        reference, said, met = gradient(model), [], True
        model.to(DEVICE)
        for name, (most, most_of_gradient) in BOUNDS.items():
            with full_float32() if name == "float32" else contextlib.nullcontext():
                off = abs(backward(model, step, name == "bf16") - loss) / abs(loss)
            turned = float((gradient(model) - reference).norm() / reference.norm())
            said.append(f"{name} {off:.1e}, {turned:.1e}")
            met &= off <= most and turned <= most_of_gradient
        return (
            "; ".join(said),
            "; ".join(f"{name} {a:g}, {b:g}" for name, (a, b) in BOUNDS.items()),
            met,
        )

    for name, make in networks.items():
        bench.row(
            "steps", f"{name}: loss and gradient off the CPU's by", functools.partial(one, make), 10
        )
    bench.row("steps", "HV-BiLSTM under bf16 autocast against without", bilstm)


def bilstm() -> Row:
    from tag2mask.classifier.hv_bilstm import HVBiLSTM

    torch.manual_seed(0)
    mixer, x = HVBiLSTM(64).to(DEVICE), torch.randn(2, 6, 6, 64, device=DEVICE)
    found = []
    for autocast in (False, True):
        mixer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            out = mixer(x)
        (out.float().sum() * 1e-9).backward()  # fp16 would make these gradients 0
        found.append((out, mixer.rows.weight_ih_l0.grad.clone()))
    same = all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    nonzero = float((found[1][1] != 0).float().mean())
    measured = f"{'the same bits' if same else 'other bits'}, {found[1][0].dtype}, {nonzero:.0%} of small gradients are not 0"
    return measured, "the same bits, all", same and nonzero > 0.99


# ---- crf -------------------------------------------------------------------------------------------------------------------------


def crf(bench: Any) -> None:
    photos = bench.table.photos[: 16 if GPU else 2]
    pictures = [np.asarray(photo.open()) for photo in photos]
    if not GPU:
        pictures = [picture[:96, :96] for picture in pictures]
    rng = torch.Generator().manual_seed(0)
    probs = [smooth_probs(rng, *picture.shape[:2]) for picture in pictures]
    reference: list[np.ndarray] = []

    def threads(count: int) -> Row:
        start = time.perf_counter()
        reference[:] = dense_crf_many(zip(pictures, probs, strict=True), workers=count)
        return f"{len(pictures) / (time.perf_counter() - start):.1f} photos/s", "", None

    def on_gpu() -> Row:
        found = [crf_here(picture, p) for picture, p in zip(pictures, probs, strict=True)]
        again = crf_here(pictures[0], probs[0])
        off = max(float(np.abs(a - b).mean()) for a, b in zip(found, reference, strict=True))
        same = min(
            float((a.argmax(0) == b.argmax(0)).mean())
            for a, b in zip(found, reference, strict=True)
        )
        bits = "bit for bit" if np.array_equal(again, found[0]) else "NOT bit for bit"
        aim = "1e-4; 99.9 %; bit for bit"
        return (
            f"mean difference {off:.1e}, {same:.3%} of pixels the same, repeats {bits}",
            aim,
            off < 1e-4 and same > 0.999 and "NOT" not in bits,
        )

    def one_by_one() -> Row:
        seconds = seconds_of(
            lambda: [crf_here(picture, p) for picture, p in zip(pictures, probs, strict=True)], 1, 3
        )
        return f"{len(pictures) / seconds:.1f} photos/s", "faster than all cores", None

    def together(count: int) -> Row:
        images = torch.from_numpy(np.stack([pictures[0]] * count)).to(DEVICE)
        scores = torch.from_numpy(np.stack([probs[0]] * count)).to(DEVICE)
        seconds = seconds_of(lambda: dense_crf_batch(images, scores), 1, 5)
        return f"{count / seconds:.1f} photos/s", "faster than all cores", None

    bench.row("crf", f"{backend()}, one thread", lambda: threads(1))
    bench.row("crf", f"{backend()}, {cores()} threads", lambda: threads(cores()))
    bench.row("crf", "PyTorch here against C++", on_gpu)
    bench.row("crf", "PyTorch here, one photo at a time", one_by_one)
    for count in (4, 16, 64) if GPU else (2,):
        bench.row(
            "crf", f"PyTorch here, {count} of one size at once", functools.partial(together, count)
        )


def crf_here(picture: np.ndarray, probs: np.ndarray, params: CRFParams | None = None) -> np.ndarray:
    """As `dense_crf`, in PyTorch on this device."""
    return (
        dense_crf_batch(
            torch.tensor(picture[None]), torch.from_numpy(probs[None]).to(DEVICE), params
        )[0]
        .cpu()
        .numpy()
    )


def smooth_probs(rng: torch.Generator, height: int, width: int, labels: int = 4) -> np.ndarray:
    grid = 3 * torch.randn(1, labels, height // 40 + 2, width // 40 + 2, generator=rng)
    return (
        torch.nn.functional.interpolate(grid, (height, width), mode="bicubic")[0].softmax(0).numpy()
    )


# ---- vit, backbones --------------------------------------------------------------------------------------------------------------


def product() -> float:
    """TFLOP/s of a large bf16 product of random numbers."""
    n = 8192 if GPU else 256
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds_of(lambda: a @ b, 5, 20) / 1e12


def trainer(
    model: torch.nn.Module, step: Step, fused: bool = False, channels_last: bool = False
) -> Callable[[], None]:
    """A whole step as `loop.fit` takes it: forward and backward under bf16, Adam."""
    model.to(DEVICE)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], fused=fused or None
    )

    def whole() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = step()
        loss.backward()
        optimizer.step()
        model.zero_grad()

    return whole


def rate(
    bench: Any,
    make: Callable[[], tuple[Any, Step]],
    batch: int,
    compiled: bool = False,
    **how: bool,
) -> Row:
    torch.manual_seed(0)
    model, step = make()
    whole = trainer(model, step, **how)
    counted = not any(
        getattr(module, "groups", 1) > 1 for module in model.modules()
    )  # PyTorch counts backward of these far too high
    operations = flops(whole) if counted else 0
    if compiled:
        part = model.backbone if isinstance(model, PatchClassifier) else model
        part.forward = torch.compile(part.forward)
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(whole)
    achieved = operations / seconds / 1e12
    said = f"{batch / seconds:.0f} photos/s"
    said += (
        f", {achieved:.0f} TFLOP/s, {achieved / bench.ceiling:.0%} of the product"
        if counted
        else ""
    )
    if GPU:
        said += f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        with contextlib.suppress(RuntimeError):  # where the profiler may not look
            said += f", GPU busy {busy(whole):.0%}"
    return said, "", None


def vit(bench: Any) -> None:
    def ceiling() -> Row:
        bench.ceiling = product()
        return f"{bench.ceiling:.0f} TFLOP/s", "", None

    bench.row("vit", "a product of two 8192 x 8192 matrices in bf16", ceiling)
    config, whole, size = vit_recipes()
    batches = (16, 64, 128) if GPU else (2,)
    for name, recipe in {"last 5 blocks": config, "all blocks": whole}.items():
        for batch in batches:
            bench.row(
                "vit",
                f"cpc's step, {name} trained, batch {batch}",
                functools.partial(vit_rate, bench, recipe, size, batch),
                10,
            )
    for name, how in {
        "fused Adam": {"fused": True},
        "channels_last": {"channels_last": True},
    }.items():
        what = f"cpc's step, all blocks trained, batch {batches[-1]}, {name}"
        bench.row(
            "vit", what, functools.partial(vit_rate, bench, whole, size, batches[-1], **how), 10
        )


def compiled(bench: Any) -> None:
    if np.isnan(bench.ceiling):
        bench.ceiling = product()
    _, whole, size = vit_recipes()
    batch = 64 if GPU else 2
    step = functools.partial(vit_rate, bench, whole, size, batch, compiled=True)
    bench.row(
        "compiled",
        f"cpc's step, all blocks trained, batch {batch}, torch.compile of the backbone",
        step,
        60,
    )


def vit_recipes() -> tuple[Config, Config, int]:
    """The recipe cpc with random weights, the same with all blocks trained, and its size; the smallest ViT without a GPU."""
    config, size = (
        (with_weights("cpc"), 384)
        if GPU
        else (with_weights("cpc", backbone="vit_tiny_patch16_224"), 64)
    )
    return (
        config,
        config.model_copy(
            update={"classifier": config.classifier.model_copy(update={"trained_blocks": 0})}
        ),
        size,
    )


def vit_rate(bench: Any, config: Config, size: int, batch: int, **how: bool) -> Row:
    measured, _, _ = rate(bench, lambda: classifier_step(config, size, batch), batch, **how)
    share = float(measured.split("% of the product")[0].rsplit(" ", 1)[1])
    return measured, "50 % of the product", share >= 50


def backbones(bench: Any) -> None:
    if np.isnan(bench.ceiling):
        bench.ceiling = product()
    small = not GPU
    for name, size in {
        "tf_efficientnet_lite0": 320,
        "tf_efficientnet_lite2": 320,
        "vit_small_patch14_dinov2": 322,
    }.items():
        config = with_weights("photos", backbone=name)
        batch, size = (2, 64) if small else (16, size)
        for how in (
            ({}, {"channels_last": True}, {"fused": True})
            if name == "tf_efficientnet_lite0"
            else ({},)
        ):
            said = f"classifier {name} at {size}, batch {batch}{''.join(f', {key}' for key in how)}"
            bench.row(
                "backbones",
                said,
                functools.partial(
                    rate,
                    bench,
                    functools.partial(classifier_step, config, size, batch),
                    batch,
                    **how,
                ),
            )
    segmenters = {"segmenter EfficientNet-Lite0 at 225": (with_weights("photos"), 225)}
    if GPU:
        segmenters["segmenter ResNet-101 at 321, stride 8"] = (with_weights("cpc"), 321)
    for name, (config, size) in segmenters.items():
        batch, size = (2, 65) if small else (10, size)
        for how in ({}, {"channels_last": True}):
            said = f"{name}, batch {batch}{''.join(f', {key}' for key in how)}"
            bench.row(
                "backbones",
                said,
                functools.partial(
                    rate,
                    bench,
                    functools.partial(segmenter_step, config, size, batch),
                    batch,
                    **how,
                ),
            )
