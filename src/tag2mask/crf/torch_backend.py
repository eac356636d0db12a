"""The dense CRF in PyTorch: any device, several images at once, the same answer as the compiled core.

A permutohedral lattice is three sparse matrices (splat, blur, slice); each is an `embedding_bag`, so nothing is added atomically
and a run repeats bit for bit. Method and constants: Adams et al. (2010) as pydensecrf codes them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from tag2mask.crf.params import NO_ROOM, CRFParams
from tag2mask.errors import DataError


@dataclass(frozen=True)
class Lattice:
    """The lattice points that N features touch, with what is needed to filter (N, C) values over them."""

    vertex: Tensor  # (N, d + 1) int64: points around each feature
    weight: Tensor  # (N, d + 1): barycentric weights, times the kernel's normalisation
    order: Tensor  # (N (d + 1)): feature of each weight, sorted by point
    sorted_weight: Tensor  # (N (d + 1)): the weights in that order
    start: Tensor  # (M): where each point begins in `order`
    blur: Tensor  # (d + 1, M, 3): each point and its two neighbours along an axis; M, a row of zeros, where there is none
    taps: Tensor  # (M, 3): 1, 0.5, 0.5

    def filter(self, values: Tensor) -> Tensor:
        """Normalised Gaussian filter of `values`: (N, C) -> (N, C)."""
        lattice = embedding_bag(
            self.order, values, self.start, mode="sum", per_sample_weights=self.sorted_weight
        )
        for axis in self.blur:
            zero = lattice.new_zeros(1, lattice.shape[1])
            lattice = embedding_bag(
                axis, torch.cat([lattice, zero]), mode="sum", per_sample_weights=self.taps
            )
        alpha = 1 / (1 + 2.0 ** (1 - self.vertex.shape[1]))
        return embedding_bag(
            self.vertex, lattice, mode="sum", per_sample_weights=self.weight * alpha
        )


def build(features: Tensor, image: Tensor, images: int) -> Lattice:
    """The lattice of `features` (N, d) float32; features of different images (`image` (N) int64, each < `images`) never meet."""
    pixels, d = features.shape
    if (
        pixels // images % 4
    ):  # pydensecrf works in fours and fills the last four with pixels at the origin, which touch points too
        features = torch.cat([features, features.new_zeros(images, d)])
        image = torch.cat([image, torch.arange(images, device=image.device)])
    points, ranks, weight = simplex(features)
    # A point is (image, q_0 .. q_{d-1}, remainder), packed into one integer with room for a step to either side.
    low, high = points.amin(0) - 2, points.amax(0) + 2
    strides = [d + 1]
    for span in (high - low + 1).tolist()[: d - 1]:
        strides.append(strides[-1] * span)
    top = strides[-1] * int(high[d - 1] - low[d - 1] + 1)
    if top * images >= 2**63:
        raise DataError(NO_ROOM)
    stride = torch.tensor([*strides, 0], device=features.device)
    first = ((points - low) * stride).sum(1) + image * top
    dropped = torch.zeros_like(points).scatter_(1, d - ranks, stride.expand_as(ranks)).cumsum(1)
    keys = first[:, None] + torch.arange(d + 1, device=features.device)
    keys[:, 1:] -= dropped[:, :-1]
    unique, vertex = torch.unique(keys, return_inverse=True)
    neighbours = blur_neighbours(unique, stride, d)

    vertex, weight = vertex[:pixels], weight[:pixels]
    flat = vertex.flatten()
    by_point = torch.argsort(flat, stable=True)
    count = torch.bincount(flat, minlength=len(unique))
    taps = features.new_tensor([1, 0.5, 0.5]).repeat(len(unique), 1)
    order = by_point // (d + 1)
    lattice = Lattice(
        vertex, weight, order, weight.flatten()[by_point], count.cumsum(0) - count, neighbours, taps
    )
    norm = lattice.filter(features.new_ones(pixels, 1)).add_(1e-20).rsqrt_()
    weight = weight * norm
    return Lattice(
        vertex, weight, order, weight.flatten()[by_point], lattice.start, neighbours, taps
    )


def simplex(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where (N, d) features lie: nearest 0-coloured point / (d + 1), ranks of the differences, barycentric weights; all (N, d + 1).

    Operation for operation what pydensecrf does, so that a feature on a border falls to the same side.
    """
    d = features.shape[1]
    spread = torch.tensor(math.sqrt(2 / 3) * (d + 1)).item()  # a float32 there too
    scale = features.new_tensor([spread / math.sqrt((j + 2) * (j + 1)) for j in range(d)])
    elevated = torch.empty(d + 1, len(features), device=features.device)
    total = torch.zeros(len(features), device=features.device)
    for j in range(d, 0, -1):  # no fused multiply-add anywhere here: it would round otherwise
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


def blur_neighbours(keys: Tensor, stride: Tensor, d: int) -> Tensor:
    """(d + 1, M, 3) int64: each of the M sorted keys, the one before and the one after it along each axis, M where absent."""
    count = len(keys)
    own = torch.arange(count, device=keys.device)
    wraps = keys % (d + 1) == 0
    found = torch.full((d + 1, count + 1, 3), count, device=keys.device)
    for j in range(d + 1):
        wanted = torch.where(wraps, keys + d - (stride.sum() - stride[j]), keys - 1 + stride[j])
        at = torch.searchsorted(keys, wanted).clamp_(max=count - 1)
        at = torch.where(keys[at] == wanted, at, count)
        found[j, :count, 0] = own
        found[j, :count, 1] = at
        found[j, at, 2] = own
    return found[:, :count].contiguous()


@torch.no_grad()
def infer(images: Tensor, probs: Tensor, params: CRFParams) -> Tensor:
    """Mean field: images (B, H, W, 3) uint8 and probs (B, C, H, W) -> (B, C, H, W) float32, all on the device of `probs`."""
    count, labels, height, width = probs.shape
    device = probs.device
    image = torch.arange(count, device=device).repeat_interleave(height * width)
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    position = (
        torch.stack([x, y], -1).float().reshape(1, -1, 2).expand(count, -1, -1).reshape(-1, 2)
    )
    colour = images.to(device).reshape(-1, 3).float()

    unary = probs.float().clamp(1e-5, 1).log().permute(0, 2, 3, 1).reshape(-1, labels)
    kernels = []
    if params.iterations and params.gaussian_weight:
        kernels.append(
            (
                params.gaussian_weight,
                build(position / position.new_tensor(params.gaussian_sxy), image, count),
            )
        )
    if params.iterations and params.bilateral_weight:
        features = torch.cat([position, colour], 1) / position.new_tensor(
            [params.bilateral_sxy] * 2 + [params.bilateral_srgb] * 3
        )
        kernels.append((params.bilateral_weight, build(features, image, count)))
    q = unary.softmax(1)
    for _ in range(params.iterations):
        logits = unary
        for weight, lattice in kernels:
            logits = logits + weight * lattice.filter(q)
        q = logits.softmax(1)
    return q.reshape(count, height, width, labels).permute(0, 3, 1, 2).contiguous()
