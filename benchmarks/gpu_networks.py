"""What the parts of `gpu.py` share: networks with their training steps, and how they are timed."""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tag2mask.classifier.losses import classifier_loss
from tag2mask.classifier.net import PatchClassifier
from tag2mask.config import Config, CRFSettings
from tag2mask.config_files import load_recipe
from tag2mask.crf import CRFParams
from tag2mask.crf.inference import _infer
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


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def crf_here(image: np.ndarray, probs: np.ndarray, params: CRFSettings | None = None) -> np.ndarray:
    """`dense_crf` in PyTorch on this device."""
    return _infer(image, probs, params or CRFParams(), "torch", DEVICE.type)
