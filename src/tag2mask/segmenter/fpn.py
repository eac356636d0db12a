"""FPN (Lin et al. 2017), a feature pyramid: a CNN's maps at several strides, summed from the
deepest to the finest."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.backbone import Backbone
from tag2mask.config import SegmenterSettings
from tag2mask.segmenter.network import Segmenter

DEEPEST = 32  # stride of a CNN's last map [pixels]
WIDTH = 128  # channels of all layers
DROPOUT = 0.1  # of whole channels, before the last layer


class FPN(Segmenter):
    """Photos (B, 3, H, W), RGB in 0-1, to logits (B, C, h, w); cell (i, j) is centered on its
    square of `output_stride` pixels.

    Each map of the backbone gets the same width by a 1 x 1 convolution. From the deepest on, the
    sum is enlarged and added to the next map. Each sum is smoothed by a 3 x 3 convolution, and the
    class is read from all smoothed sums together, enlarged to the finest (Kirillov et al. 2019,
    without their extra layers): so the deepest map, which knows the classes, has a short way to the
    logits. Unlike DeepLabV2's backbone, which is dilated, this one is used as it was trained: it
    costs less, and small things are still there in its finer maps. A ViT gives maps of three
    depths, and logits at the stride of its patches. Raises ConfigError if the backbone has no such
    maps.
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
            finest=self.stride,
            top=True,
        )
        self.lateral = nn.ModuleList(nn.Conv2d(dim, WIDTH, 1) for dim in self.backbone.dims)
        # Batch norms here learn: with group norms, mIoU was 2 points lower.
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
                nn.BatchNorm2d(WIDTH),
                nn.ReLU(inplace=True),
            )
            for _ in self.backbone.dims
        )
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classify = nn.Conv2d(WIDTH, len(self.classes), 1)
        for norm in self.backbone.batch_norms():
            norm.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        maps = [features.permute(0, 3, 1, 2) for features in self.backbone.feature_maps(image)[0]]
        levels = zip(maps, self.lateral, self.smooth, strict=True)
        total = smoothed = image.new_zeros(())  # nothing lies below the deepest level
        for features, lateral, smooth in reversed(list(levels)):
            total = lateral(features) + _enlarged(total, features)
            smoothed = smooth(total) + _enlarged(smoothed, features)
        return self.classify(self.dropout(smoothed))


def _enlarged(values: Tensor, like: Tensor) -> Tensor:
    """Maps (B, D, h, w) to the height and width of `like`; a scalar stays."""
    return F.interpolate(values, like.shape[-2:], mode="bilinear") if values.ndim else values
