"""The segmenter's loss."""

import torch.nn.functional as F
from torch import Tensor

from tag2mask.photos.table import BACKGROUND, IGNORE


def segmentation_loss(logits: Tensor, mask: Tensor, balanced: bool = False) -> Tensor:
    """Cross-entropy of logits (B, C, h, w) with class numbers (B, H, W), H and W odd, where these
    are not ignored -> scalar; 0 if all are.

    `balanced`: the average of the mean over background and the mean over object pixels.

    Differs from DSRG: the two are averaged, not added: one learning rate serves both losses.

    Differs from DeepLab: every second pixel of every second row counts. Logits that change over 8
    pixels say nothing new in between, and (B, C, H, W), the largest tensor, becomes a quarter.
    """
    target = mask[:, ::2, ::2].long()
    size = target.shape[1:]
    logits = F.interpolate(logits.float(), size, mode="bilinear", align_corners=True)
    loss = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")  # 0 where ignored
    known = target != IGNORE
    if not balanced:
        return loss.sum() / known.sum().clamp(min=1)
    background = target == BACKGROUND
    first, second = (
        (loss * part).sum() / part.sum().clamp(min=1) for part in (background, known & ~background)
    )
    return (first + second) / 2
