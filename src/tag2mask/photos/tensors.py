"""Pictures to tensors. What is random here draws from PyTorch's generator, see `seeded`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tag2mask.vision import torchvision  # noqa: F401  before its parts, see there

from torchvision.transforms import v2  # isort: skip


LIGHT = v2.Compose(
    [v2.RandomHorizontalFlip(), v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)]
)
# As in ViT-PCM's code. Its change of brightness, 0.2 of 255 levels, is left out.
VIT_PCM = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        # No lambda: it is sent to worker processes.
        v2.RandomApply([v2.Lambda(partial(torch.transpose, dim0=-1, dim1=-2))], p=0.5),
        v2.ColorJitter(contrast=(0.5, 2.0), saturation=(0.5, 1.5), hue=0.1),
        v2.RandomGrayscale(0.1),
    ]
)
AUGMENTATIONS = {"light": LIGHT, "vit_pcm": VIT_PCM}


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Inside the block PyTorch's random numbers depend on `key` alone; outside nothing changes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key)
        yield


def reduced(image: Image.Image, longest: int) -> Image.Image:
    """The picture with its longer side reduced to `longest` pixels; a smaller one unchanged."""
    factor = min(1.0, longest / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BILINEAR) if size != image.size else image


def enlarge(probs: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, h, w) to (C, H, W), `size` being (W, H), bilinear."""
    return F.interpolate(probs[None], (size[1], size[0]), mode="bilinear", align_corners=False)[0]


def likeliest(probs: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Scores (C, h, w) to the likeliest class of each pixel: (H, W) uint8; `size` is (W, H).

    The scores must sum to 1 over the classes.
    """
    if probs.shape[:0:-1] == size:
        return probs.argmax(0).byte().numpy()
    best = torch.full((size[1], size[0]), -1.0)
    mask = torch.zeros(best.shape, dtype=torch.uint8)
    # One class at a time: memory does not grow with their number.
    for number, highest in enumerate(probs.amax((1, 2)).tolist()):
        if highest * len(probs) < 1:
            continue  # the likeliest of C classes has at least 1/C
        score = enlarge(probs[number : number + 1], size)[0]
        better = score > best
        best[better], mask[better] = score[better], number
    return mask.numpy()


def to_tensor(image: Image.Image) -> Tensor:
    """PIL picture to (3, H, W) float32 in 0-1."""
    return v2.functional.to_dtype(v2.functional.pil_to_tensor(image), torch.float32, scale=True)


def to_square(image: Image.Image, size: int) -> Tensor:
    """PIL picture to (3, size, size) float32 in 0-1; the aspect is not kept, as in the papers."""
    return to_tensor(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))
