"""Metrics and pictures to one self-contained page, and a model card in the segmenter's folder."""
