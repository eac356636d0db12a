"""Patch scores to pseudo masks."""

from tag2mask.masks.contrast import CONTRAST, Contrast
from tag2mask.masks.make import MaskMaker, make_masks, read_score_maps, write_nothing

__all__ = ["CONTRAST", "Contrast", "MaskMaker", "make_masks", "read_score_maps", "write_nothing"]
