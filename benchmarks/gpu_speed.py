"""The parts of `gpu.py` that measure the speed of training steps: vit, compiled, backbones."""

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_networks import (
    DEVICE,
    GPU,
    Row,
    Step,
    classifier_step,
    seconds_of,
    segmenter_step,
    wait,
    with_weights,
)

from tag2mask.classifier.net import PatchClassifier
from tag2mask.config import Config


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
    segmenters = {"segmenter EfficientNet-Lite2 at 224": (with_weights("photos"), 224)}
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


def product() -> float:
    """TFLOP/s of a large bf16 product of random numbers."""
    n = 8192 if GPU else 256
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds_of(lambda: a @ b, 5, 20) / 1e12


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
