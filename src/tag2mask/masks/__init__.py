"""Patch scores to pseudo masks."""

from tag2mask.masks.contrast import CONTRAST, Contrast
from tag2mask.masks.make import MaskMaker, make_masks, read_score_maps, write_nothing
from tag2mask.masks.scores import both_score_maps

__all__ = [
    "CONTRAST",
    "Contrast",
    "MaskMaker",
    "both_score_maps",
    "make_masks",
    "read_score_maps",
    "write_nothing",
]
