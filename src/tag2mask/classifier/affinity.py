"""Patch scores spread over the patches that look alike.

B images, C classes, h x w patches, D width of a feature map.

# Differs from CPC: neither paper has this step. It is the pixel correlation module of SEAM (Wang et al., CVPR 2020) with nothing to
# learn, over feature maps of several depths. A classifier is content with an object's telling parts; the features of the other parts
# resemble those of the telling ones, in the shallow maps (same fur) and in the deep ones (same animal) at once.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def affinity(maps: Sequence[Tensor], means: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Feature maps [(B, h_l, w_l, D_l)] and their means over the data [(D_l,)] to weights between patches: (B, N, N), rows summing to 1.

    A_ij is the product over maps of the root of relu(cos(f_i - mean, f_j - mean)): patches must agree in all of them. N = h * w of
    `grid`. Without the mean all cosines are near 1, as all features share a large common part.
    """
    product: Tensor | float = 1.0
    for features, mean in zip(maps, means, strict=True):
        f = F.adaptive_avg_pool2d((features.float() - mean).permute(0, 3, 1, 2), grid)
        f = F.normalize(f.flatten(2), dim=1)  # (B, D, N)
        product = product * (f.mT @ f).clamp(min=0).sqrt()
    assert isinstance(product, Tensor)
    return product / product.sum(-1, keepdim=True)


def spread(scores: Tensor, weights: Tensor) -> Tensor:
    """Each patch's scores become the weighted mean of all patches' scores: (B, C, h, w), (B, N, N) -> (B, C, h, w)."""
    return torch.einsum("bij,bcj->bci", weights, scores.flatten(2)).view_as(scores)
