"""The probabilities of a segmenter to a decision: threshold, object first, dense CRF.

PyTorch is not imported where the compiled CRF is installed.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from tag2mask.config import SegmenterSettings
from tag2mask.crf.inference import dense_crf
from tag2mask.crf.params import narrow
from tag2mask.errors import ConfigError
from tag2mask.photos.table import BACKGROUND

# Differs from DeepLab: classes that do not reach this probability in any pixel are left out of the
# CRF, because each class takes time
CRF_LEAST = 0.05
THRESHOLD = 0.5  # of the probability of all objects together


def decide(
    image: Image.Image,
    probs: np.ndarray,
    settings: SegmenterSettings,
    threshold: float = THRESHOLD,
    small: Sequence[int] = (),
    least: float | Sequence[float] = 0.0,
) -> np.ndarray:
    """Probabilities (C, h, w), summing to 1, of an RGB picture of that size to a decision of the
    same shape: the mask is its argmax. `small`: as in `refine`; `least`: as in `before_crf`."""
    return refine(image, before_crf(probs, settings, threshold, least), settings, small)


def before_crf(
    probs: np.ndarray,
    settings: SegmenterSettings,
    threshold: float = THRESHOLD,
    least: float | Sequence[float] = 0.0,
) -> np.ndarray:
    """Probabilities (C, h, w) to the decision without the CRF, which is the CRF's input.

    A class becomes background if in no pixel its probability is above `least` (for all classes, or
    C values). A lower threshold asks for more objects, so it makes this easier to reach.
    """
    changed = shifted(probs, threshold)
    decision = object_first(changed, settings)
    if not np.any(least):
        return decision
    lost = np.maximum(probs, changed).max((1, 2)) <= least
    kept = np.where(lost[:, None, None], 0, decision)
    kept[BACKGROUND] += decision[lost].sum(0)
    return kept


def check_threshold(threshold: float) -> None:
    """Raises ConfigError if no probability can be compared with it."""
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold = {threshold}: it should be between 0 and 1")


def shifted(probs: np.ndarray, threshold: float) -> np.ndarray:
    """Probabilities in which objects have together 0.5 where they had `threshold` (0 to 1,
    exclusive). The ratios between objects stay.

    This is what Bayes' rule makes of other shares of objects and background. So the CRF, which
    comes later, weighs the colors of the photo against probabilities, not against a hard edge.
    """
    if threshold == THRESHOLD:
        return probs
    check_threshold(threshold)
    factors = np.full((len(probs), 1, 1), 1 - threshold, np.float32)
    factors[BACKGROUND] = threshold
    changed = probs * factors
    changed /= changed.sum(0)
    return changed


def object_first(probs: np.ndarray, settings: SegmenterSettings) -> np.ndarray:
    """Probabilities (C, h, w) to a decision: in each pixel, the most likely object class gets the
    total probability of all object classes.

    So a pixel is background only if background is more likely than all objects together. A pixel
    that may be cow or sheep is not background.
    """
    if not settings.object_first:
        return probs
    first = np.zeros_like(probs)
    first[BACKGROUND] = probs[BACKGROUND]
    best = probs[BACKGROUND + 1 :].argmax(0)[None]
    np.put_along_axis(first[BACKGROUND + 1 :], best, probs[None, BACKGROUND + 1 :].sum(1), 0)
    return first


def refine(
    image: Image.Image,
    decision: np.ndarray,
    settings: SegmenterSettings,
    small: Sequence[int] = (),
) -> np.ndarray:
    """The dense CRF on the classes that may be in the photo: (C, h, w) to the same.

    It reaches less far where the decision shows a class of `small`, whose things are small.
    """
    if not settings.crf.iterations:
        return decision
    is_narrow = small and np.isin(decision.argmax(0), small).any()
    crf = narrow(settings.crf) if is_narrow else settings.crf
    likely = [number for number, most in enumerate(decision.max((1, 2))) if most > CRF_LEAST]
    likely = likely or np.unique(decision.argmax(0)).tolist()  # if no class reaches it
    return dense_crf(np.array(image), decision, crf, likely)
