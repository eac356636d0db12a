"""The second view of ViT-PCM's equivariance loss: the batch, transformed, four photos tiled into one.

B images, S x S pixels, h x h patches, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CROP_PROBABILITY = 0.3
CROP = 1 / 3  # side of the crop relative to the photo: 128 of 384 pixels


def second_view(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Photos (B, 3, S, S) and their patch scores (B, h, h, C) to transformed ones, (B // 4, 3, S, S) and (B // 4, h, h, C).

    Each photo is mirrored, transposed, with probability 0.3 cropped on the patch grid, changed in contrast,
    reduced to half its side, and put into a corner of a tile; its scores follow. B below 4 is filled up by repetition.
    """
    B, _, S, _ = images.shape
    h = targets.shape[1]
    targets = targets.permute(0, 3, 1, 2)  # (B, C, h, h)
    order = range(max(4, B // 4 * 4))  # no tensor: to index by one on a GPU waits for it each time
    pictures, scores = zip(
        *(_transform(images[i % B], targets[i % B], S, h) for i in order), strict=True
    )
    return _tile(torch.stack(pictures)), _tile(torch.stack(scores)).permute(0, 2, 3, 1)


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
    image = F.interpolate(image[None], (S // 2, S // 2), mode="bilinear", antialias=True)[0]
    return image, F.interpolate(
        target[None].float(), (h // 2, h // 2), mode="bilinear", antialias=True
    )[0]


def _tile(x: Tensor) -> Tensor:
    """(4 n, K, a, a) -> (n, K, 2 a, 2 a)."""
    n, K, a, _ = x.shape
    return x.view(n // 4, 2, 2, K, a, a).permute(0, 3, 1, 4, 2, 5).reshape(n // 4, K, 2 * a, 2 * a)
