"""Regions vote: the probabilities of pixels and regions of the photo to sharper probabilities.

# Differs from CPC, which has no such step. Tools that find regions without names, such as Segment
Anything, know where things end; the scores know what they are (Chen et al. 2023, SAM-enhanced
pseudo labels, arXiv 2305.05803, with a vote in place of their rules). It takes the place of the
dense CRF, which would move edges that are right already: benchmarks/results.md, Regions.
"""

from collections.abc import Sequence

import numpy as np

from tag2mask.photos.table import BACKGROUND


def vote(probs: np.ndarray, regions: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities (K, H, W), summing to 1, background first, and regions, each the flat indices
    of its pixels, to the same. A region has the mean of its pixels. A pixel has that of its
    smallest region: a large one may hold several things. Pixels in no region do not change.

    One exception: if the smallest region is background, the pixel goes to the next larger region
    of an object that is more certain. A leg alone may look like grass; the animal with it does not.
    """
    flat = probs.reshape(len(probs), -1)
    voted, certainty = flat.copy(), np.full(flat.shape[1], -1, flat.dtype)
    in_object = np.zeros(flat.shape[1], bool)
    for region in sorted(regions, key=len):
        mean = flat[:, region].mean(1)
        certain, is_object = mean.max(), mean.argmax() != BACKGROUND
        mine = certainty[region] < 0  # no smaller region has these pixels
        if is_object:
            mine |= ~in_object[region] & (certainty[region] < certain)
        pixels = region[mine]
        voted[:, pixels], certainty[pixels], in_object[pixels] = mean[:, None], certain, is_object
    return voted.reshape(probs.shape)
