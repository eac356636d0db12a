"""The dense (fully connected) CRF. It can be used alone: `from tag2mask.crf import dense_crf`."""

from tag2mask.crf.inference import backend, dense_crf, dense_crf_many
from tag2mask.crf.params import PRESETS, CRFParams

__all__ = ["PRESETS", "CRFParams", "backend", "dense_crf", "dense_crf_many"]
