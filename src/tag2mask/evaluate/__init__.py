"""Masks, true masks and tags to metrics, and to what is doubtful about the masks."""
