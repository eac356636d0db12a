"""DeepLabV2 (Chen et al. 2018): a CNN at output stride 8 or 16 and four dilated heads, summed."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.backbone import Backbone
from tag2mask.config import SegmenterSettings
from tag2mask.segmenter.network import Segmenter

RATES = (6, 12, 18, 24)  # dilations of the heads at stride 8, half of these at 16


class DeepLabV2(Segmenter):
    """Photos (B, 3, H, W), RGB in 0-1, to logits (B, C, h, w); cell (i, j) is centered on pixel
    (stride i, stride j).

    H and W must be values that `backbone.side` returns: `interpolate(..., align_corners=True)` then
    places every logit at its own pixel. `classes`: names by number, background first. Batch norms
    are frozen, both statistics and weights, as in DeepLab: batches are small. `shifts`: as in
    `Backbone`. Raises ConfigError if the backbone cannot have this stride.
    """

    align_corners = True

    def __init__(
        self,
        settings: SegmenterSettings,
        classes: Sequence[str],
        shifts: Sequence[float] | None = None,
    ):
        super().__init__(settings, classes)
        self.backbone = Backbone(settings.backbone, settings.weights, self.stride, True, shifts)
        dilations = [rate * 8 // self.stride for rate in RATES]
        heads = [
            nn.Conv2d(self.backbone.dim, len(self.classes), 3, padding=rate, dilation=rate)
            for rate in dilations
        ]
        for head in heads:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.heads = nn.ModuleList(heads)
        for norm in self.backbone.batch_norms():
            norm.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        features = self.backbone(image)[0].permute(0, 3, 1, 2)
        # Differs from DeepLab: the largest stable learning rate of the heads decreases with the
        # square of the length of the features, and lengths vary widely between backbones. For
        # EfficientNet-Lite0, whose last layer is linear, the square is 2,400: training diverges at
        # learning rates from 1e-3 on.
        if self.settings.feature_length:
            features = self.settings.feature_length * F.normalize(features.float(), dim=1)
        return torch.stack([head(features) for head in self.heads]).sum(0)
