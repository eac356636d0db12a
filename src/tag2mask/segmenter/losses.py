"""The segmenter's loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.photos.table import BACKGROUND, IGNORE


def segmentation_loss(logits: Tensor, mask: Tensor, balanced: bool = False) -> Tensor:
    """Cross-entropy of logits (B, C, h, w) and class numbers (B, H, W) over pixels that are not
    ignored -> scalar; 0 if all pixels are ignored.

    H and W are odd: each logit is centered on a pixel, as with `align_corners` in `Segmenter`; or
    even: each is centered on a square of pixels.

    `balanced`: the average of the mean over background and the mean over object pixels.

    Differs from DSRG: the two means are averaged, not added, so that one learning rate suits both
    losses.

    Differs from DeepLab: only every second pixel of every second row is used. There is one logit
    per 8 or 16 pixels, so the others add little, and (B, C, H, W), the largest tensor, has a
    quarter of the size. With even sides, the logits lie between the pixels, so one of the four
    around each is drawn, the same for all: always the same one would move all objects by half a
    pixel.
    """
    odd = mask.shape[-1] % 2 == 1
    row, column = (0, 0) if odd else torch.randint(2, (2,)).tolist()
    target = mask[:, row::2, column::2].long()
    size = target.shape[1:]
    logits = F.interpolate(logits.float(), size, mode="bilinear", align_corners=odd)
    loss = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")  # 0 where ignored
    known = target != IGNORE
    if not balanced:
        return loss.sum() / known.sum().clamp(min=1)
    background = target == BACKGROUND
    first, second = (
        (loss * part).sum() / part.sum().clamp(min=1) for part in (background, known & ~background)
    )
    return (first + second) / 2
