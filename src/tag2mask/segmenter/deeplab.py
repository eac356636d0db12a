"""DeepLabV2 (Chen et al. 2018): a CNN at output stride 8 and four dilated heads, summed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.config import SegmenterSettings
from tag2mask.config_files import stored_settings
from tag2mask.errors import ConfigError
from tag2mask.weights import create_backbone, map_shifts, read_tensors, write_tensors

RATES = (6, 12, 18, 24)  # dilations of the heads at stride 8, half of these at 16


class DeepLabV2(nn.Module):
    """Pictures to logits: (B, 3, H, W) RGB in 0-1 -> (B, C, h, w), with cell (i, j) centred on pixel (stride i, stride j).

    H and W should be sides that `side` gives: then `interpolate(..., align_corners=True)` brings every logit to its own pixel.
    `classes` are the names by number, background first. Batch norms stay as they came with the weights, statistics and factors,
    as in DeepLab: batches are small. The picture is normalised here, and moved by `shift` pixels where the weights' last map lies beside
    it: a ResNet's does not, EfficientNet-Lite0's lies 12 right and below. Raises ConfigError if the backbone cannot have this stride.
    """

    net: Any
    mean: Tensor
    std: Tensor

    def __init__(self, settings: SegmenterSettings, classes: Sequence[str]):
        super().__init__()
        self.settings, self.classes = settings, tuple(classes)
        self.stride = settings.output_stride
        try:
            self.net, self.weights_used = create_backbone(
                settings.backbone,
                settings.weights,
                features_only=True,
                output_stride=settings.output_stride,
            )
        except (
            TypeError,
            NotImplementedError,
            AssertionError,
        ) as error:  # as timm's models refuse arguments
            raise ConfigError(
                f"segmenter.backbone {settings.backbone}: no CNN with a choice of output stride ({str(error) or 'its stride is fixed'})"
            ) from None
        if self.net.feature_info.reduction()[-1] != self.stride:
            raise ConfigError(
                f"segmenter.backbone {settings.backbone}: cannot have output stride {self.stride}; take another CNN"
            )
        width = self.net.feature_info.channels()[-1]
        rates = [rate * 8 // self.stride for rate in RATES]
        heads = [
            nn.Conv2d(width, len(self.classes), 3, padding=rate, dilation=rate) for rate in rates
        ]
        for head in heads:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.heads = nn.ModuleList(heads)
        for module in self._batch_norms():
            module.requires_grad_(False)
        cfg = self.net.pretrained_cfg
        self.register_buffer("mean", torch.tensor(cfg["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(cfg["std"]).view(1, 3, 1, 1), persistent=False)
        self.net.eval()
        (cells,) = map_shifts(lambda x: self.net(x)[-1:], self.mean, self.std, self.side(320))
        self.shift = 4 * round(cells * self.stride / 4)
        self.train()

    def _batch_norms(self) -> list[nn.Module]:
        return [
            module
            for module in self.net.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]

    def train(self, mode: bool = True) -> "DeepLabV2":
        """Batch norms keep their statistics."""
        super().train(mode)
        for module in self._batch_norms():
            module.eval()
        return self

    def side(self, pixels: float) -> int:
        """The nearest side of which both border pixels are centres of cells: a whole number of strides and one [pixels]."""
        return max(1, round((pixels - 1) / self.stride)) * self.stride + 1

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        x = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        before = max(-self.shift, -self.shift % self.stride)
        after = max(self.shift, -before % self.stride)
        first = (before + self.shift) // self.stride
        rows, columns = (
            slice(first, first + (side - 1) // self.stride + 1) for side in image.shape[-2:]
        )
        features = self.net(F.pad(x, [before, after] * 2))[-1][..., rows, columns]
        # Differs from DeepLab: the heads' largest stable learning rate goes down with the square of the features' length, which differs by
        # tens between backbones (2,400 for EfficientNet-Lite0's linear last layer: training diverges from a rate of 1e-3 on).
        if self.settings.feature_length:
            features = self.settings.feature_length * F.normalize(features.float(), dim=1)
        return torch.stack([head(features) for head in self.heads]).sum(0)


def save_segmenter(model: DeepLabV2, path: Path) -> None:
    """Write weights and all that is needed to build the network again into one safetensors file."""
    meta = {
        "settings": model.settings.model_dump_json(),
        "classes": json.dumps(model.classes),
        "weights_used": model.weights_used,
        "shift": str(model.shift),
    }
    write_tensors(path, model, meta)


def load_segmenter(path: Path) -> DeepLabV2:
    """A file of `save_segmenter` to the network, in eval mode. Raises RunError if it is missing or damaged."""
    meta, state = read_tensors(path, "segmenter")
    settings = stored_settings(SegmenterSettings, meta["settings"], path)
    model = DeepLabV2(settings.model_copy(update={"weights": "none"}), json.loads(meta["classes"]))
    model.load_state_dict(state)
    model.settings, model.weights_used = settings, meta["weights_used"]
    model.shift = int(
        meta.get("shift", 0)
    )  # without it, of a version that did not move the picture
    return model.eval()
