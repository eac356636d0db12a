"""FPN (Lin et al. 2017), a feature pyramid: a CNN's maps at several strides, summed from the
deepest to the finest."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.backbone import Backbone
from tag2mask.config import SegmenterSettings
from tag2mask.segmenter.network import Segmenter

DEEPEST = 32  # stride of a CNN's last map [pixels]
GROUPS = 16  # of the group norms


class FPN(Segmenter):
    """Photos (B, 3, H, W), RGB in 0-1, to logits (B, C, h, w); cell (i, j) is centered on its
    square of `output_stride` pixels.

    Each map of the backbone gets the same width by a 1 x 1 convolution; from the deepest on, the
    sum is enlarged, added to the next map, and smoothed by a 3 x 3 convolution. Unlike DeepLabV2's
    backbone, which is dilated, this one is used as it was trained: it costs less, and small things
    are still there in its finer maps. A ViT gives maps of three depths, and logits at the stride of
    its patches. Raises ConfigError if the backbone has no such maps.
    """

    align_corners = False

    def __init__(
        self,
        settings: SegmenterSettings,
        classes: Sequence[str],
        shifts: Sequence[float] | None = None,
    ):
        super().__init__(settings, classes)
        self.backbone = Backbone(
            settings.backbone,
            settings.weights,
            DEEPEST,
            shifts=shifts,
            finest=settings.output_stride,
        )
        width = settings.width
        # A norm behind each: EfficientNet-Lite0's finer maps have six times the spread of what
        # comes from the deeper ones, which know the classes and would be lost in the sum.
        self.lateral = nn.ModuleList(_layer(dim, width, 1) for dim in self.backbone.dims)
        self.smooth = nn.ModuleList(
            nn.Sequential(_layer(width, width, 3), nn.ReLU(inplace=True))
            for _ in self.backbone.dims
        )
        self.classify = nn.Conv2d(width, len(self.classes), 1)
        for norm in self.backbone.batch_norms():
            norm.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        maps = [features.permute(0, 3, 1, 2) for features in self.backbone.maps(image)[0]]
        total: Tensor | None = None
        for features, lateral, smooth in reversed(
            list(zip(maps, self.lateral, self.smooth, strict=True))
        ):
            here = lateral(features)
            if total is not None:
                here = here + F.interpolate(total, here.shape[-2:], mode="bilinear")
            total = smooth(here)
        return self.classify(total)


def _layer(channels: int, width: int, side: int) -> nn.Sequential:
    """A convolution of side x side cells, and a group norm."""
    convolution = nn.Conv2d(channels, width, side, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, width))
