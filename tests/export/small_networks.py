"""Small networks and pictures for the tests of exports."""

import numpy as np
import torch
from PIL import Image

from tag2mask.config import SegmenterSettings
from tag2mask.segmenter.heads import create_segmenter

CLASSES = ("background", "disc", "日 box")
SETTINGS = {
    "deeplab_v2": {"output_stride": 16, "image_size": 97, "test_scales": (1.0, 1.5)},
    "fpn": {"output_stride": 8, "image_size": 96},
}


def network(head):
    """A small network with opinions that differ from pixel to pixel."""
    common = {"backbone": "test_efficientnet", "weights": "none", "crf": {"iterations": 2}}
    torch.manual_seed(0)
    made = create_segmenter(SegmenterSettings(**common, head=head, **SETTINGS[head]), CLASSES)
    for head_layer in made.heads if head == "deeplab_v2" else [made.classify]:
        torch.nn.init.normal_(head_layer.weight, std=0.5)
    return made.eval()


def picture(width, height, seed=0):
    """A picture with structure, PIL."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
