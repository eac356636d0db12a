"""The parts of `gpu.py` that compare results with the CPU's: steps, crf."""

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
    crf_here,
    full_float32,
    seconds_of,
    segmenter_step,
    with_weights,
)
from torch import Tensor

from tag2mask.crf import backend, dense_crf_many
from tag2mask.processes import cores

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
        # On 2 photos of 65 pixels, its norms see few cells: bf16 changes the gradient by 0.8.
        "segmenter, EfficientNet-Lite2 (photos)": functools.partial(
            segmenter_step, photos, 224 if GPU else 129, 8
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


def backward(model: torch.nn.Module, step: Step, autocast: bool) -> float:
    model.zero_grad()
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
        loss = step()
    loss.backward()
    return float(loss.detach())


def gradient(model: torch.nn.Module) -> Tensor:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.cat([grad.flatten().double().cpu() for grad in grads])


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


def smooth_probs(rng: torch.Generator, height: int, width: int, labels: int = 4) -> np.ndarray:
    """Smooth random probabilities (C, H, W)."""
    grid = 3 * torch.randn(1, labels, height // 40 + 2, width // 40 + 2, generator=rng)
    logits = torch.nn.functional.interpolate(grid, (height, width), mode="bicubic")[0]
    return logits.softmax(0).numpy()
