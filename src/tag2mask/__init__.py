"""tag2mask turns image tags into a segmentation model."""

__version__ = "0.1.0"
