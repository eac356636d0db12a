"""Affinity: scores are spread over patches with similar features.

B images, C classes, h x w patches, N = h * w, D width of a feature map.

# Differs from CPC: neither paper has this step. It is the pixel correlation module of SEAM (Wang et
al., CVPR 2020) without learned weights, on feature maps of several depths. A classifier gives high
scores only to the typical parts of an object, such as a face. The other parts have similar
features, both in shallow maps (same fur) and in deep maps (same animal).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def affinity(maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Feature maps [(B, h_l, w_l, D_l)] to weights between patches (B, N, N), rows summing to 1.

    A_ij is the product over maps of sqrt(relu(cos(f_i, f_j))): patches must be similar in all maps.
    N = h * w of `grid`. The maps must be centered (their mean over the data subtracted): otherwise
    a large part common to all features brings all cosines close to 1.
    """
    product: Tensor | float = 1.0
    for features in maps:
        f = F.adaptive_avg_pool2d(features.permute(0, 3, 1, 2), grid)
        f = F.normalize(f.flatten(2), dim=1)  # (B, D, N)
        product = product * (f.mT @ f).clamp(min=0).sqrt()
    assert isinstance(product, Tensor)
    return product / product.sum(-1, keepdim=True)


def spread(scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted means of patch scores: (B, C, h, w) and weights (B, N, N) to (B, C, h, w)."""
    return torch.einsum("bij,bcj->bci", weights, scores.flatten(2)).view_as(scores)
