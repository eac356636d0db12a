"""Patch scores to score maps of a photo's tags, and Otsu's threshold.

C classes (background 0), h x w patches, H x W pixels.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.config import MaskSettings
from tag2mask.masks.affinity import affinity, spread
from tag2mask.photos.table import BACKGROUND

CELL = 4  # pixels of the segmenter's photo for each cell of the score maps of both networks
DOUBTED = 0.75  # the classifier's exponent in those, of a tag that the segmenter does not find

# Photos (B, 3, S, S) and labels (B, num_tags) to patch scores (B, C, h, w), a softmax or positive
# logits (0 for background), and centered feature maps [(B, h_l, w_l, D_l)].
Scorer = Callable[[Tensor, Tensor], tuple[Tensor, list[Tensor]]]


@torch.inference_mode()
def mean_scores(
    score: Scorer, images: Sequence[Tensor], labels: Tensor, settings: MaskSettings
) -> Tensor:
    """Photos (B, 3, S, S) at each scale and labels (B, num_tags) to the mean patch scores over
    scales and mirror: (B, C, h, w), h x w of the first scale."""

    def scored(photos: Tensor) -> Tensor:
        z, maps = score(photos, labels)
        if settings.affinity:
            z = spread(z, affinity(maps, (z.shape[2], z.shape[3])))
        return z.cpu()

    maps = []
    for photos in images:
        maps.append(scored(photos))
        if settings.flip:
            maps.append(scored(photos.flip(-1)).flip(-1))
    size = maps[0].shape[-2:]
    same = [m if m.shape[-2:] == size else F.interpolate(m, size, mode="bilinear") for m in maps]
    return torch.stack(same).mean(0)


def tag_scores(
    scores: Tensor,
    settings: MaskSettings,
    overall: float | None = None,
    small: Sequence[int] = (),
) -> Tensor:
    """Patch scores (K, h, w) of background and a photo's tags to the same, each patch summing to 1.

    `softmax` and `softmax_of_tags` do not change Z. `max_norm` divides each class, also background,
    by its largest score in the photo: a tag with low scores everywhere (at least 1e-6) still gets
    its best patches. `logits` has no score for background: after the same division, background is
    where no tag reaches its threshold. This is `settings.threshold`; with "otsu", the mean of
    Otsu's threshold in this photo and `overall`, that of many photos. The first alone would split
    an animal that fills its photo. A small thing fills none: for the rows `small`, it is alone, and
    of the patches without a score it counts a single one. A `Contrast` gives most patches none.
    """
    # Differs from CPC, which takes Z as it is: max_norm is what ViT-PCM's code does.
    z = relative(scores) if settings.scores in ("max_norm", "logits") else scores
    if settings.scores == "logits":
        for row in range(1, len(z)):
            if row in small:
                z[row] /= _threshold(F.pad(z[row][z[row] > 0], (1, 0)), settings, None)
            else:
                z[row] /= _threshold(z[row], settings, overall)
        z[BACKGROUND] = 1
    return z / z.sum(0).clamp(min=1e-6)


def _threshold(tag: Tensor, settings: MaskSettings, overall: float | None) -> float:
    if settings.threshold != "otsu":
        return settings.threshold
    own = otsu(tag)
    return own if overall is None else (own + overall) / 2


def relative(scores: Tensor) -> Tensor:
    """Each class's scores divided by its largest: (K, h, w) to the same."""
    return scores / scores.amax((1, 2), keepdim=True).clamp(min=1e-6)


def otsu(values: Tensor) -> float:
    """The threshold that splits values into two groups with the largest variance between them (Otsu
    1979): any shape in 0-1 -> 0.05-1.

    A fixed threshold would have to be tuned on true masks, and the best one depends on the data
    set: 0.3 for photos of animals, 0.4 for the demo's scenes.
    """
    v = values.flatten().double().sort().values
    n, total = len(v), v.cumsum(0)
    low = torch.arange(1, n, dtype=torch.float64)  # patches in the low group
    between = low * (n - low) * (total[:-1] / low - (total[-1] - total[:-1]) / (n - low)).square()
    cut = int(between.argmax()) if n > 1 else 0
    return max(0.05, float(v[cut] + v[min(cut + 1, n - 1)]) / 2)


def both_score_maps(probs: np.ndarray, first: Tensor | None) -> Tensor:
    """A segmenter's probabilities (K, H, W) of a photo's classes and the classifier's score maps
    (K, h', w') of the same, if they are logits, to score maps with a cell for CELL x CELL pixels:
    (K, h, w) in 0-1, background 0.

    The segmenter's background is not used. It was trained on masks that miss parts of objects, and
    would remove more. Background is where no tag reaches its threshold, as in the pseudo masks.
    The scores of both, each divided by its largest, are multiplied: their weighted geometric mean.
    The classifier knows things that the segmenter does not learn. So it counts for more, the less
    certain the segmenter is of the tag, by its largest probability in the photo. A tag without any
    score by the classifier is the segmenter's alone; else a cell without one has none.
    """
    size = [math.ceil(side / CELL) for side in probs.shape[1:]]
    maps = F.interpolate(torch.from_numpy(probs)[None], size, mode="area")[0]
    if first is not None:
        first = relative(F.interpolate(first[None], size, mode="bilinear")[0])
        certain = maps.amax((1, 2), keepdim=True)
        exponent = DOUBTED * (1 - certain) * first.amax((1, 2), keepdim=True)  # 0 without a score
        maps = first**exponent * relative(maps) ** (1 - exponent)
    maps[BACKGROUND] = 0
    return maps


def to_pixels(scores: Tensor, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation to the photo's size: (K, h, w) -> (K, H, W) float32."""
    size = (height, width)
    return F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0].numpy()
