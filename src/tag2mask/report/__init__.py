"""Metrics and pictures to one self-contained page, and a model card in the segmenter's folder."""

from tag2mask.report.card import write_card
from tag2mask.report.page import write_report

__all__ = ["write_card", "write_report"]
