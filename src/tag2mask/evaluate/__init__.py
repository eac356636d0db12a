"""Masks and true masks to metrics, from one confusion matrix."""

from tag2mask.evaluate.confusion import Result, check_mean_over, evaluate_masks
from tag2mask.evaluate.finds import count_finds, finds_text
from tag2mask.evaluate.folders import evaluate_folders, list_hash
from tag2mask.evaluate.show import result_table

__all__ = [
    "Result",
    "check_mean_over",
    "count_finds",
    "evaluate_folders",
    "evaluate_masks",
    "finds_text",
    "list_hash",
    "result_table",
]
