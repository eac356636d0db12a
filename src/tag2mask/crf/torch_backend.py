"""The dense CRF in PyTorch, on any device, with the same answer as the compiled core.

A permutohedral lattice is three sparse matrices (splat, blur, slice). Each is an `embedding_bag`,
so there are no atomic additions and results are reproducible bit for bit. Method and constants:
Adams et al. (2010) as implemented in pydensecrf.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from tag2mask.config import CRFSettings
from tag2mask.crf.params import LATTICE_FULL
from tag2mask.errors import DataError


@dataclass(frozen=True)
class Lattice:
    """The lattice points that N features touch, and how to filter (N, C) values over them."""

    vertex: Tensor  # (N, d + 1) int64: points around each feature
    weight: Tensor  # (N, d + 1): barycentric weights, times the kernel's normalization
    order: Tensor  # (N (d + 1)): feature of each weight, sorted by point
    sorted_weight: Tensor  # (N (d + 1)): the weights in that order
    start: Tensor  # (M): where each point begins in `order`
    blur: Tensor  # (d + 1, M, 3): each point and its two neighbors along an axis; M if missing
    taps: Tensor  # (M, 3): 1, 0.5, 0.5

    def filter(self, values: Tensor) -> Tensor:
        """Normalized Gaussian filter of `values`: (N, C) -> (N, C)."""
        lattice = embedding_bag(
            self.order, values, self.start, mode="sum", per_sample_weights=self.sorted_weight
        )
        for axis in self.blur:
            padded = torch.cat([lattice, lattice.new_zeros(1, lattice.shape[1])])  # row M
            lattice = embedding_bag(axis, padded, mode="sum", per_sample_weights=self.taps)
        alpha = 1 / (1 + 2.0 ** (1 - self.vertex.shape[1]))
        return embedding_bag(
            self.vertex, lattice, mode="sum", per_sample_weights=self.weight * alpha
        )


def build(features: Tensor) -> Lattice:
    """The lattice of (N, d) float32 features. Raises DataError if its points cannot be numbered."""
    pixels, d = features.shape
    if pixels % 4:
        # pydensecrf pads to a multiple of 4 with pixels at the origin, which also touch points.
        features = torch.cat([features, features.new_zeros(1, d)])
    points, ranks, weight = simplex(features)
    # A point is (q_0 .. q_{d-1}, remainder), packed into one integer, with a margin for one step
    # in each direction.
    low, high = points.amin(0) - 2, points.amax(0) + 2
    strides = [d + 1]
    for span in (high - low + 1).tolist()[:d]:
        strides.append(strides[-1] * span)
    if strides.pop() >= 2**63:
        raise DataError(LATTICE_FULL)
    stride = torch.tensor([*strides, 0], device=features.device)
    first = ((points - low) * stride).sum(1)
    dropped = torch.zeros_like(points).scatter_(1, d - ranks, stride.expand_as(ranks)).cumsum(1)
    keys = first[:, None] + torch.arange(d + 1, device=features.device)
    keys[:, 1:] -= dropped[:, :-1]
    unique, vertex = torch.unique(keys, return_inverse=True)

    vertex, weight = vertex[:pixels], weight[:pixels]
    flat = vertex.flatten()
    by_point = torch.argsort(flat, stable=True)
    count = torch.bincount(flat, minlength=len(unique))
    lattice = Lattice(
        vertex,
        weight,
        order=by_point // (d + 1),
        sorted_weight=weight.flatten()[by_point],
        start=count.cumsum(0) - count,
        blur=blur_neighbors(unique, stride, d),
        taps=features.new_tensor([1, 0.5, 0.5]).repeat(len(unique), 1),
    )
    norm = lattice.filter(features.new_ones(pixels, 1)).add_(1e-20).rsqrt_()
    weight = weight * norm
    return replace(lattice, weight=weight, sorted_weight=weight.flatten()[by_point])


def simplex(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex around each of (N, d) features -> nearest 0-colored point / (d + 1), ranks of the
    differences, barycentric weights; all (N, d + 1).

    The same operations as in pydensecrf, so that a feature on a border rounds to the same side.
    """
    d = features.shape[1]
    spread = torch.tensor(math.sqrt(2 / 3) * (d + 1)).item()  # float32, as in pydensecrf
    scale = features.new_tensor([spread / math.sqrt((j + 2) * (j + 1)) for j in range(d)])
    elevated = torch.empty(d + 1, len(features), device=features.device)
    total = torch.zeros(len(features), device=features.device)
    for j in range(d, 0, -1):  # no fused multiply-add here: it rounds differently
        step = features[:, j - 1] * scale[j - 1]
        elevated[j] = total - j * step
        total = total + step
    elevated[0] = total
    down = elevated.new_tensor(1 / (d + 1))
    rounded = (elevated * down).round()
    rest = elevated - rounded * (d + 1)
    ranks = torch.zeros(d + 1, len(features), dtype=torch.int64, device=features.device)
    for i in range(d):
        for j in range(i + 1, d + 1):
            less = rest[i] < rest[j]
            ranks[i] += less
            ranks[j] += ~less
    ranks += rounded.sum(0).long()
    shift = (ranks < 0).long() - (ranks > d).long()
    ranks += shift * (d + 1)
    points = rounded.long() + shift
    rest = (elevated - (points * (d + 1)).float()) * down
    by_rank = torch.zeros_like(rest).scatter_(0, d - ranks, rest)
    weight = by_rank.clone()
    weight[1:] -= by_rank[:-1]
    weight[0] += 1 - by_rank[d]
    return points.t().contiguous(), ranks.t().contiguous(), weight.t().contiguous()


def blur_neighbors(keys: Tensor, stride: Tensor, d: int) -> Tensor:
    """(d + 1, M, 3) int64: each of M sorted keys, the one before, the one after; M if missing."""
    count = len(keys)
    own = torch.arange(count, device=keys.device)
    wraps = keys % (d + 1) == 0
    neighbors = torch.full((d + 1, count + 1, 3), count, device=keys.device)
    for j in range(d + 1):
        before = torch.where(wraps, keys + d - (stride.sum() - stride[j]), keys - 1 + stride[j])
        at = torch.searchsorted(keys, before).clamp_(max=count - 1)
        at = torch.where(keys[at] == before, at, count)
        neighbors[j, :count, 0] = own
        neighbors[j, :count, 1] = at
        neighbors[j, at, 2] = own
    return neighbors[:, :count].contiguous()


@torch.no_grad()
def infer(image: Tensor, probs: Tensor, params: CRFSettings) -> Tensor:
    """Mean field: image (H, W, 3) uint8, probs (C, H, W) -> (C, H, W) float32, on their device."""
    labels, height, width = probs.shape
    rows, columns = torch.arange(height), torch.arange(width)
    position = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).reshape(-1, 2)
    position = position.to(probs.device, torch.float32)
    color = image.to(probs.device).reshape(-1, 3).float()

    unary = probs.float().clamp(1e-5, 1).log().permute(1, 2, 0).reshape(-1, labels)
    kernels = []
    if params.iterations and params.gaussian_weight:
        features = position / position.new_tensor(params.gaussian_sxy)
        kernels.append((params.gaussian_weight, build(features)))
    if params.iterations and params.bilateral_weight:
        scale = [params.bilateral_sxy] * 2 + [params.bilateral_srgb] * 3
        features = torch.cat([position, color], 1) / position.new_tensor(scale)
        kernels.append((params.bilateral_weight, build(features)))
    q = unary.softmax(1)
    for _ in range(params.iterations):
        logits = unary
        for weight, lattice in kernels:
            logits = logits + weight * lattice.filter(q)
        q = logits.softmax(1)
    return q.T.reshape(labels, height, width).contiguous()
