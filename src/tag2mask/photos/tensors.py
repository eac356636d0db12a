"""Pictures to tensors. What is random here draws from PyTorch's generator, see `seeded`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
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


def to_tensor(image: Image.Image) -> Tensor:
    """PIL picture to (3, H, W) float32 in 0-1."""
    return v2.functional.to_dtype(v2.functional.pil_to_tensor(image), torch.float32, scale=True)


def to_square(image: Image.Image, size: int) -> Tensor:
    """PIL picture to (3, size, size) float32 in 0-1; the aspect is not kept, as in the papers."""
    return to_tensor(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))
