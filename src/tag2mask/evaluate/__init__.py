"""Masks, true masks and tags to metrics, and to what is doubtful about the masks."""

from tag2mask.evaluate.advice import mask_doubts, refusal, segmenter_doubts
from tag2mask.evaluate.confusion import Result, check_mean_over, evaluate_masks
from tag2mask.evaluate.finds import count_finds, finds_text, sample_photos
from tag2mask.evaluate.folders import evaluate_folders, list_hash
from tag2mask.evaluate.objects import count_peaks, peaks_text
from tag2mask.evaluate.show import finds_table, result_table

__all__ = [
    "Result",
    "check_mean_over",
    "count_finds",
    "count_peaks",
    "evaluate_folders",
    "evaluate_masks",
    "finds_table",
    "finds_text",
    "list_hash",
    "mask_doubts",
    "peaks_text",
    "refusal",
    "result_table",
    "sample_photos",
    "segmenter_doubts",
]
