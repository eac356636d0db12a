"""What all segmentation networks have in common."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.backbone import Backbone, without_cudnn
from tag2mask.config import SegmenterSettings


class Segmenter(nn.Module):
    """Photos (B, 3, H, W), RGB in 0-1, to logits (B, C, h, w), by a backbone and layers on it.

    H and W must be values that `backbone.side` returns. `classes`: names by number, background
    first.
    """

    backbone: Backbone
    align_corners: bool
    """Where the logits lie. True: cell (i, j) is centered on pixel (stride i, stride j); false: on
    its square of stride x stride pixels. As in PyTorch's `interpolate`."""

    def __init__(self, settings: SegmenterSettings, classes: Sequence[str]):
        super().__init__()
        stride = settings.output_stride
        self.stride = 8 if stride == "auto" else stride
        self.settings = settings.model_copy(update={"output_stride": self.stride})
        self.classes = tuple(classes)
        self.small: tuple[int, ...] = ()  # the classes whose things are small, as the masks say
        self.least: float | tuple[float, ...] = 0.0  # see `before_crf`

    def enlarge(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Logits (B, C, h, w) to (B, C, *size), float32, each at its own place in the photo."""
        size, corners = tuple(size), self.align_corners
        return F.interpolate(logits.float(), size, mode="bilinear", align_corners=corners)

    def probabilities(self, image: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Photos (B, 3, H, W) to the probabilities of the classes, (B, C, H, W), or at another
        `size` (height, width) [pixels]."""
        return self.enlarge(self(image), size or image.shape[-2:]).softmax(1)

    def side(self, pixels: float) -> int:
        """The nearest side of a photo that the network takes [pixels]."""
        return self.backbone.side(pixels)

    @property
    def in_threads(self) -> bool:
        """Whether several threads should call `run` at once, with one core each: on a CPU."""
        return next(self.parameters()).device.type == "cpu"

    @torch.inference_mode()
    def run(self, batch: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """`probabilities` of arrays: (B, 3, H, W) float32 to (B, C, *size) float32."""
        device = next(self.parameters()).device
        image = torch.from_numpy(batch).to(device)
        # cuDNN prepares each convolution anew for each size of a photo, which takes longer than
        # PyTorch's own convolutions (benchmarks/gpu.md).
        with without_cudnn(device):
            return self.eval().probabilities(image, size).cpu().numpy()
