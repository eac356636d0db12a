"""The second view of ViT-PCM's equivariance loss: the photos, transformed, four to a tile.

B images, S x S pixels, h x h patches, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CROP_PROBABILITY = 0.3
CROP = 1 / 3  # side of the crop relative to the photo: 128 of 384 pixels


def second_view(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Photos (B, 3, S, S) and patch scores (B, h, h, C) to tiles (B // 4, 3, S, S) and their scores
    (B // 4, h, h, C).

    Each photo is mirrored, transposed, cropped on the patch grid with probability 0.3, changed in
    contrast, and reduced to a quarter of a tile; its scores change with it. A batch of fewer than
    4 photos is repeated.
    """
    B, _, S, _ = images.shape
    h = targets.shape[1]
    targets = targets.permute(0, 3, 1, 2)  # (B, C, h, h)
    order = range(max(4, B // 4 * 4))  # Python numbers: an index tensor would make a GPU wait
    parts = [_transform(images[i % B], targets[i % B], S, h) for i in order]
    photos, scores = (torch.stack(part) for part in zip(*parts, strict=True))
    return _tile(photos), _tile(scores).permute(0, 2, 3, 1)


def _transform(image: Tensor, target: Tensor, S: int, h: int) -> tuple[Tensor, Tensor]:
    mirror, flip, transpose = (torch.rand(3) < 0.5).tolist()
    if torch.rand(()) < CROP_PROBABILITY:
        side = max(1, round(h * CROP))
        top, left = (int(torch.randint(h - side + 1, ())) for _ in range(2))
        patch = S // h
        image = image[:, top * patch : (top + side) * patch, left * patch : (left + side) * patch]
        target = target[:, top : top + side, left : left + side]
    dims = [-1] * mirror + [-2] * flip
    image, target = image.flip(dims), target.flip(dims)
    if transpose:
        image, target = image.transpose(-1, -2), target.transpose(-1, -2)
    contrast = float(torch.empty(()).uniform_(0.5, 1.5))
    image = ((image - image.mean()) * contrast + image.mean()).clamp(0, 1)
    return _reduced(image, S // 2), _reduced(target.float(), h // 2)


def _reduced(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x[None], (side, side), mode="bilinear", antialias=True)[0]


def _tile(x: Tensor) -> Tensor:
    """(4 n, K, a, a) -> (n, K, 2 a, 2 a)."""
    n, K, a, _ = x.shape
    return x.view(n // 4, 2, 2, K, a, a).permute(0, 3, 1, 4, 2, 5).reshape(n // 4, K, 2 * a, 2 * a)
