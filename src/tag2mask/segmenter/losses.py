"""The segmenter's loss."""

import torch.nn.functional as F
from torch import Tensor

from tag2mask.photos.table import BACKGROUND, IGNORE


def segmentation_loss(logits: Tensor, mask: Tensor, balanced: bool = False) -> Tensor:
    """Cross-entropy of logits (B, C, h, w) with class numbers (B, H, W), H and W odd, where these are not ignored -> scalar; 0 if all are.

    `balanced`: the mean over background pixels and that over object pixels, averaged (class-balanced cross-entropy).

    Differs from DSRG: the two are averaged, not added, so that the same learning rate serves both losses.

    Differs from DeepLab: every second pixel of every second row counts. Logits that change over 8 pixels say nothing new in between,
    and the maps (B, C, H, W), the largest tensors of the training, get a quarter as large.
    """
    target = mask[:, ::2, ::2].long()
    logits = F.interpolate(
        logits.float(), target.shape[1:], mode="bilinear", align_corners=True
    )  # onto those very pixels
    loss = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")  # 0 where ignored
    known = target != IGNORE
    if not balanced:
        return loss.sum() / known.sum().clamp(min=1)
    background = target == BACKGROUND
    objects = known & ~background
    return sum((loss * part).sum() / part.sum().clamp(min=1) for part in (background, objects)) / 2  # type: ignore[return-value]
