"""The parts of `gpu.py` that measure one network or function: steps, crf, vit, backbones."""

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
from tag2mask.config import Config, CRFSettings
from tag2mask.config_files import load_recipe
from tag2mask.crf import CRFParams, backend, dense_crf_many
from tag2mask.crf.inference import _infer
from tag2mask.processes import cores
from tag2mask.segmenter.heads import create_segmenter
from tag2mask.segmenter.losses import segmentation_loss
from tag2mask.segmenter.network import Segmenter

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
Step = Callable[[], Tensor]  # a forward pass that returns its loss
Row = tuple[str, str, bool | None]  # what was measured, the aim, whether it was reached


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

    # Counts products, convolutions and attention, not the LSTMs of cuDNN.
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def busy(step: Callable[[], Any], repeat: int = 5) -> float:
    """Share of the time during which the GPU computes."""
    from torch.profiler import ProfilerActivity, profile

    step()
    wait()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        start = time.perf_counter()
        for _ in range(repeat):
            step()
        wait()
        wall = time.perf_counter() - start
    events = profiler.key_averages()
    print(events.table("self_device_time_total", row_limit=8, max_name_column_width=70))
    return sum(event.self_device_time_total for event in events) / 1e6 / wall


# ---- networks


def classifier_step(
    config: Config, size: int, batch: int, tags: int = 8, clusters: int = 3
) -> tuple[PatchClassifier, Step]:
    """A patch classifier with random images, and its training step."""
    settings = config.classifier.model_copy(update={"dropout": 0.0})
    model = PatchClassifier(settings, tags + 1, clusters)
    model.backbone.requires_grad_(False)
    for parameter in model.backbone.last_parameters(settings.trained_blocks):
        parameter.requires_grad_(True)
    rng = torch.Generator().manual_seed(1)
    side = model.backbone.side(size)
    labels = (torch.rand(batch, tags, generator=rng) < 0.3).float()
    images = smooth(torch.rand(batch, 3, side // 8, side // 8, generator=rng), side)
    vectors = torch.ones(batch, clusters)
    batch_on = functools.cache(lambda device: [x.to(device) for x in (images, labels, vectors)])

    def step() -> Tensor:
        return classifier_loss(model, batch_on(next(model.parameters()).device), settings)["loss"]

    return model.train(), step


def segmenter_step(
    config: Config, size: int, batch: int, classes: int = 9
) -> tuple[Segmenter, Step]:
    """A segmenter with random images and masks, and its training step."""
    model = create_segmenter(config.segmenter, [str(i) for i in range(classes)])
    rng = torch.Generator().manual_seed(1)
    side = model.backbone.side(size)
    images = smooth(torch.rand(batch, 3, side // 8, side // 8, generator=rng), side)
    masks = smooth(torch.rand(batch, classes, 6, 6, generator=rng), side).argmax(1).to(torch.uint8)
    batch_on = functools.cache(lambda device: (images.to(device), masks.to(device)))
    for module in model.modules():  # devices draw other numbers
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0

    def step() -> Tensor:
        torch.manual_seed(0)  # the loss draws which pixels it sees
        inputs, targets = batch_on(next(model.parameters()).device)
        return segmentation_loss(model(inputs), targets, config.segmenter.balanced)

    return model.train(), step


def smooth(x: Tensor, side: int) -> Tensor:
    return torch.nn.functional.interpolate(x, (side, side), mode="bilinear")


def with_weights(name: str, **settings: Any) -> Config:
    """A recipe with other settings of both networks; by default with random weights."""
    config, update = load_recipe(name), {"weights": "none", **settings}
    classifier, segmenter = (
        part.model_copy(update=update) for part in (config.classifier, config.segmenter)
    )
    return config.model_copy(update={"classifier": classifier, "segmenter": segmenter})


def backward(model: torch.nn.Module, step: Step, autocast: bool) -> float:
    model.zero_grad()
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
        loss = step()
    loss.backward()
    return float(loss.detach())


def gradient(model: torch.nn.Module) -> Tensor:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.cat([grad.flatten().double().cpu() for grad in grads])


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


# ---- steps

# Largest relative difference of the loss, and of the gradient (the length of the difference), from
# float32 on the CPU. float32 differs only by the order of sums; bf16 keeps 8 bits of the factors of
# each product, through about a hundred layers.
BOUNDS = {"float32": (1e-4, 1e-2), "tf32": (1e-2, 0.1), "bf16": (3e-2, 0.5)}


def steps(bench: Any) -> None:
    photos, cpc = with_weights("photos", weights="auto"), with_weights("cpc")
    batch = 8 if GPU else 2
    networks: dict[str, Callable[[], tuple[torch.nn.Module, Step]]] = {
        "classifier, EfficientNet-Lite0 (photos)": functools.partial(
            classifier_step, photos, 320 if GPU else 64, batch
        ),
        "segmenter, EfficientNet-Lite0 (photos)": functools.partial(
            segmenter_step, photos, 224 if GPU else 65, batch
        ),
    }
    if GPU:
        networks |= {
            "classifier, ViT-B/16, HV-BiLSTM (cpc, random weights)": functools.partial(
                classifier_step, cpc, 384, 4
            ),
            "segmenter, ResNet-101, stride 8 (cpc, random weights)": functools.partial(
                segmenter_step, cpc, 321, 2
            ),
        }

    def differences(make: Callable[[], tuple[torch.nn.Module, Step]]) -> Row:
        torch.manual_seed(0)
        model, step = make()
        loss = backward(model, step, autocast=False)
        reference, measured, met = gradient(model), [], True
        model.to(DEVICE)
        for name, (max_of_loss, max_of_gradient) in BOUNDS.items():
            with full_float32() if name == "float32" else contextlib.nullcontext():
                of_loss = abs(backward(model, step, name == "bf16") - loss) / abs(loss)
            of_gradient = float((gradient(model) - reference).norm() / reference.norm())
            measured.append(f"{name} {of_loss:.1e}, {of_gradient:.1e}")
            met &= of_loss <= max_of_loss and of_gradient <= max_of_gradient
        aim = "; ".join(f"{name} {a:g}, {b:g}" for name, (a, b) in BOUNDS.items())
        return "; ".join(measured), aim, met

    for name, make in networks.items():
        title = f"{name}: loss and gradient differ from the CPU's by"
        bench.row("steps", title, functools.partial(differences, make), 10)
    bench.row("steps", "HV-BiLSTM under bf16 autocast against without", bilstm)


def bilstm() -> Row:
    from tag2mask.classifier.hv_bilstm import HVBiLSTM

    torch.manual_seed(0)
    mixer, x = HVBiLSTM(64).to(DEVICE), torch.randn(2, 6, 6, 64, device=DEVICE)
    results = []
    for autocast in (False, True):
        mixer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            out = mixer(x)
        (out.float().sum() * 1e-9).backward()  # fp16 would make these gradients 0
        results.append((out, mixer.rows.weight_ih_l0.grad.clone()))
    same = all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    out, grad = results[1]
    nonzero = float((grad != 0).float().mean())
    bits = "the same bits" if same else "different bits"
    measured = f"{bits}, {out.dtype}, {nonzero:.0%} of small gradients are not 0"
    return measured, "the same bits, all", same and nonzero > 0.99


# ---- crf


def crf(bench: Any) -> None:
    photos = bench.table.photos[: 16 if GPU else 2]
    images = [np.asarray(photo.open()) for photo in photos]
    if not GPU:
        images = [image[:96, :96].copy() for image in images]
    rng = torch.Generator().manual_seed(0)
    pairs = [(image, smooth_probs(rng, *image.shape[:2])) for image in images]
    reference: list[np.ndarray] = []

    def threads(count: int) -> Row:
        start = time.perf_counter()
        reference[:] = dense_crf_many(pairs, workers=count)
        return f"{len(pairs) / (time.perf_counter() - start):.1f} photos/s", "", None

    def agreement() -> Row:
        results = [crf_here(*pair) for pair in pairs]
        repeats = np.array_equal(crf_here(*pairs[0]), results[0])
        both = list(zip(results, reference, strict=True))
        difference = max(float(np.abs(a - b).mean()) for a, b in both)
        same = min(float((a.argmax(0) == b.argmax(0)).mean()) for a, b in both)
        measured = f"mean difference {difference:.1e}, {same:.3%} of pixels the same, "
        measured += f"repeats {'' if repeats else 'NOT '}bit for bit"
        met = difference < 1e-4 and same > 0.999 and repeats
        return measured, "1e-4; 99.9 %; bit for bit", met

    def speed() -> Row:
        seconds = seconds_of(lambda: [crf_here(*pair) for pair in pairs], 1, 3)
        return f"{len(pairs) / seconds:.1f} photos/s", "faster than all cores", None

    bench.row("crf", f"{backend()}, one thread", lambda: threads(1))
    bench.row("crf", f"{backend()}, {cores()} threads", lambda: threads(cores()))
    bench.row("crf", "PyTorch here compared with C++", agreement)
    bench.row("crf", "PyTorch here", speed)


def crf_here(image: np.ndarray, probs: np.ndarray, params: CRFSettings | None = None) -> np.ndarray:
    """`dense_crf` in PyTorch on this device."""
    return _infer(image, probs, params or CRFParams(), "torch", DEVICE.type)


def smooth_probs(rng: torch.Generator, height: int, width: int, labels: int = 4) -> np.ndarray:
    """Smooth random probabilities (C, H, W)."""
    grid = 3 * torch.randn(1, labels, height // 40 + 2, width // 40 + 2, generator=rng)
    logits = torch.nn.functional.interpolate(grid, (height, width), mode="bicubic")[0]
    return logits.softmax(0).numpy()


# ---- vit, backbones


def product() -> float:
    """TFLOP/s of a large bf16 product of random numbers."""
    n = 8192 if GPU else 256
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds_of(lambda: a @ b, 5, 20) / 1e12


def trainer(
    model: torch.nn.Module, step: Step, fused: bool = False, channels_last: bool = False
) -> Callable[[], None]:
    """A whole step as in `loop.fit`: forward and backward under bf16, Adam."""
    model.to(DEVICE)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, fused=fused or None)

    def full_step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = step()
        loss.backward()
        optimizer.step()
        model.zero_grad()

    return full_step


def rate(
    bench: Any,
    make: Callable[[], tuple[Any, Step]],
    batch: int,
    compiled: bool = False,
    **options: bool,
) -> Row:
    """Speed, arithmetic and memory of training steps; `options` go to `trainer`."""
    torch.manual_seed(0)
    model, step = make()
    full_step = trainer(model, step, **options)
    # For grouped convolutions, PyTorch counts the backward pass far too high.
    counted = not any(getattr(module, "groups", 1) > 1 for module in model.modules())
    operations = flops(full_step) if counted else 0
    if compiled:
        part = model.backbone if isinstance(model, PatchClassifier) else model
        part.forward = torch.compile(part.forward)
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(full_step)
    measured = f"{batch / seconds:.0f} photos/s"
    if counted:
        achieved = operations / seconds / 1e12
        measured += f", {achieved:.0f} TFLOP/s, {achieved / bench.ceiling:.0%} of the product"
    if GPU:
        measured += f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        with contextlib.suppress(RuntimeError):  # profiling may be forbidden
            measured += f", GPU busy {busy(full_step):.0%}"
    return measured, "", None


def vit(bench: Any) -> None:
    def ceiling() -> Row:
        bench.ceiling = product()
        return f"{bench.ceiling:.0f} TFLOP/s", "", None

    bench.row("vit", "a product of two 8192 x 8192 matrices in bf16", ceiling)
    config, all_blocks, size = vit_recipes()
    batches = (16, 64, 128) if GPU else (2,)
    for name, recipe in {"last 5 blocks": config, "all blocks": all_blocks}.items():
        for batch in batches:
            measure = functools.partial(vit_rate, bench, recipe, size, batch)
            bench.row("vit", f"cpc's step, {name} trained, batch {batch}", measure, 10)
    for name, option in {"fused Adam": "fused", "channels_last": "channels_last"}.items():
        title = f"cpc's step, all blocks trained, batch {batches[-1]}, {name}"
        measure = functools.partial(
            vit_rate, bench, all_blocks, size, batches[-1], **{option: True}
        )
        bench.row("vit", title, measure, 10)


def compiled(bench: Any) -> None:
    if np.isnan(bench.ceiling):
        bench.ceiling = product()
    _, all_blocks, size = vit_recipes()
    batch = 64 if GPU else 2
    measure = functools.partial(vit_rate, bench, all_blocks, size, batch, compiled=True)
    title = f"cpc's step, all blocks trained, batch {batch}, torch.compile of the backbone"
    bench.row("compiled", title, measure, 60)


def vit_recipes() -> tuple[Config, Config, int]:
    """The recipe cpc with random weights, the same with all blocks trained, and its image size.

    Without a GPU: the smallest ViT.
    """
    if GPU:
        config, size = with_weights("cpc"), 384
    else:
        config, size = with_weights("cpc", backbone="vit_tiny_patch16_224"), 64
    classifier = config.classifier.model_copy(update={"trained_blocks": 0})
    return config, config.model_copy(update={"classifier": classifier}), size


def vit_rate(bench: Any, config: Config, size: int, batch: int, **options: bool) -> Row:
    make = functools.partial(classifier_step, config, size, batch)
    measured, _, _ = rate(bench, make, batch, **options)
    share = float(measured.split("% of the product")[0].rsplit(" ", 1)[1])
    return measured, "50 % of the product", share >= 50


def backbones(bench: Any) -> None:
    if np.isnan(bench.ceiling):
        bench.ceiling = product()
    sizes = {
        "tf_efficientnet_lite0": 320,
        "tf_efficientnet_lite2": 320,
        "vit_small_patch14_dinov2": 322,
    }
    for name, size in sizes.items():
        config = with_weights("photos", backbone=name)
        batch, size = (16, size) if GPU else (2, 64)
        make: Any = functools.partial(classifier_step, config, size, batch)
        for option in ("", "channels_last", "fused") if name == "tf_efficientnet_lite0" else ("",):
            backbone_row(bench, f"classifier {name} at {size}", make, batch, option)
    segmenters = {"segmenter EfficientNet-Lite0 at 224": (with_weights("photos"), 224)}
    if GPU:
        segmenters["segmenter ResNet-101 at 321, stride 8"] = (with_weights("cpc"), 321)
    for name, (config, size) in segmenters.items():
        batch, size = (10, size) if GPU else (2, 65)
        make = functools.partial(segmenter_step, config, size, batch)
        for option in ("", "channels_last"):
            backbone_row(bench, name, make, batch, option)


def backbone_row(bench: Any, name: str, make: Callable[[], Any], batch: int, option: str) -> None:
    options = {option: True} if option else {}
    title = ", ".join([name, f"batch {batch}", *options])
    bench.row("backbones", title, functools.partial(rate, bench, make, batch, **options))
