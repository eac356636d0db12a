"""Affinity: scores are spread over the patches that look alike.

B images, C classes, h x w patches, N = h * w, D width of a feature map.

# Differs from CPC: neither paper has this step. It is the pixel correlation module of SEAM (Wang et
al., CVPR 2020) with nothing to learn, over feature maps of several depths. A classifier is content
with the telling parts of an object. The features of its other parts resemble those of the telling
ones, in the shallow maps (same fur) and in the deep ones (same animal) at once.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def affinity(maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Feature maps [(B, h_l, w_l, D_l)] to weights between patches (B, N, N), rows summing to 1.

    A_ij is the product over maps of the root of relu(cos(f_i, f_j)): patches must agree in all of
    them. N = h * w of `grid`. The maps are centered, over the data: features share a large common
    part, without which all cosines would be near 1.
    """
    product: Tensor | float = 1.0
    for features in maps:
        f = F.adaptive_avg_pool2d(features.permute(0, 3, 1, 2), grid)
        f = F.normalize(f.flatten(2), dim=1)  # (B, D, N)
        product = product * (f.mT @ f).clamp(min=0).sqrt()
    assert isinstance(product, Tensor)
    return product / product.sum(-1, keepdim=True)


def spread(scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted means of the patches' scores: (B, C, h, w), weights (B, N, N) -> (B, C, h, w)."""
    return torch.einsum("bij,bcj->bci", weights, scores.flatten(2)).view_as(scores)
