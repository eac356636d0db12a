"""The segmenter's losses."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.photos.table import BACKGROUND, IGNORE

HARDEST = 4  # other cells, at least, that count in a crop: those that look most like the thing
MARGIN = 3  # cells around a small thing that count for neither: masks do not know where it ends


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


def small_things_loss(logits: Tensor, mask: Tensor, small: Sequence[int]) -> Tensor:
    """How well small things are told from what looks most like them: logits (B, C, h, w), class
    numbers (B, H, W) and the classes whose things are small -> scalar; 0 if there are none.

    For each class and crop: the mean of -log p over the cells that show the class, if some do, and
    the mean of -log(1 - p) over as many others, at least HARDEST: those of the highest p (hard
    examples, as in Shrivastava et al. 2016). All these means count alike. Cells with an ignored
    pixel do not count, nor do others within MARGIN cells of the class.

    Differs from DeepLab, which has the mean over all pixels alone: there, a thing of a thousandth
    of the photo is next to nothing, and a network that never finds it loses little.
    """
    cells, values = logits.shape[2:], logits.float().flatten(2)
    whole, terms = values.logsumexp(1), [values.new_zeros(0)]

    def shown(pixels: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(pixels[:, None].float(), cells)

    unknown = shown(mask == IGNORE).flatten(1).bool()
    for number in small:
        things = shown(mask == number)
        near = F.max_pool2d(things, 2 * MARGIN + 1, stride=1, padding=MARGIN).flatten(1).bool()
        inside, outside = things.flatten(1).bool() & ~unknown, ~near & ~unknown
        # Not by p itself: where it rounds to 1, log(1 - p) would have no gradient.
        rest = torch.cat([values[:, :number], values[:, number + 1 :]], 1).logsumexp(1)
        missed, wrong = whole - values[:, number], whole - rest
        hardest = wrong.where(outside, 0).sort(1, descending=True).values
        count = inside.sum(1)
        others = count.clamp(min=HARDEST).minimum(outside.sum(1))
        hardest = hardest * (torch.arange(hardest.shape[1], device=mask.device) < others[:, None])
        for losses, number_of in ((missed * inside, count), (hardest, others)):
            terms.append((losses.sum(1) / number_of.clamp(min=1))[number_of > 0])
    means = torch.cat(terms)
    return means.sum() / max(1, len(means))
