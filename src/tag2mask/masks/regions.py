"""Regions vote: the probabilities of pixels and regions of the photo to sharper probabilities.

# Differs from CPC, which has no such step. Tools that find regions without names, such as Segment
Anything, know where things end; the scores know what they are (Chen et al. 2023, SAM-enhanced
pseudo labels, arXiv 2305.05803, with a vote in place of their rules). It takes the place of the
dense CRF, which moves what ends at the right place: benchmarks/results.md, Regions.
"""

from collections.abc import Sequence

import numpy as np


def vote(probs: np.ndarray, regions: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities (K, H, W), summing to 1, and regions, each the flat indices of its pixels, to
    the same: a region has the mean of its pixels, and a pixel that of its most certain region.

    Certain is a region with a large probability of one class. So the whole animal wins over a part
    of it and over a region that also has background. Pixels in no region do not change.
    """
    flat = probs.reshape(len(probs), -1)
    voted, certainty = flat.copy(), np.zeros(flat.shape[1], flat.dtype)
    for region in regions:
        mean = flat[:, region].mean(1)
        better = region[certainty[region] < mean.max()]
        voted[:, better], certainty[better] = mean[:, None], mean.max()
    return voted.reshape(probs.shape)
