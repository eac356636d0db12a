"""Small things: which tags they have, where they are exactly, and how far the CRF may reach.

K classes of a photo (background first), h x w patches.

# Differs from CPC, where all things are large. A thing of less than a patch fails three times: the
best patch lies beside it, because a patch score also sees what is around the patch; affinity
spreads its score over the photo, because nothing else looks like it; and the dense CRF, whose reach
suits photos of animals, erases it. All three follow the size that the evidence itself shows; the
CRF's reach is `crf.params.narrow`, for the segmenter too.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

# Photos (B, 3, S, S), labels (B, num_tags) and one class number of each photo (B,) to where the
# score of this class comes from: (B, h, w) in 0-1.
Closer = Callable[[Tensor, Tensor, Tensor], Tensor]

# The evidence of a small tag covers less of its photos than this. Chosen on half of the training
# photos of two data sets: 0.012 for defects of 0.14 % of the photo, 0.032 for those of 2 %; dogs,
# whose noses give the smallest evidence of all animals, have 0.050.
SMALL = 0.037


def covered(close: Tensor) -> Tensor:
    """What a `Closer` returned to the share of the photo that it covers: (B, h, w) -> (B,).

    (sum v)^2 / sum v^2 is the number of cells, if all of them have the same value v. 1 where all
    values are 0: no evidence is not small evidence.
    """
    v = close.flatten(1).double().square()  # as before the root in `close_scores`
    cells = v.sum(1).square() / v.square().sum(1).clamp(min=1e-30)
    return torch.where(cells > 0, cells / v.shape[1], 1.0)


def small_tags(shares: Iterable[tuple[int, float]]) -> frozenset[int]:
    """Class numbers with the shares that their evidence covers, of many photos, to the classes
    whose things are small: by the geometric mean of each."""
    logs: dict[int, list[float]] = {}
    for number, share in shares:
        logs.setdefault(number, []).append(share)
    return frozenset(
        number for number, values in logs.items() if torch.tensor(values).log().mean().exp() < SMALL
    )


def with_close(maps: Tensor, close: dict[int, Tensor]) -> Tensor:
    """Score maps (K, h, w), some of them {row: close scores (h', w')} instead: (K, h', w').

    These keep the largest value that the map had before.
    """
    if not close:
        return maps
    size = next(iter(close.values())).shape
    fine = F.interpolate(maps[None], size, mode="bilinear")[0]
    for row, values in close.items():
        fine[row] = values * maps[row].amax()
    return fine
