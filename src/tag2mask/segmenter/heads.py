"""The segmentation networks by name, and their files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tag2mask.config import SegmenterSettings
from tag2mask.segmenter.deeplab import DeepLabV2
from tag2mask.segmenter.fpn import FPN
from tag2mask.segmenter.network import Segmenter
from tag2mask.weights import load_network, save_network

HEADS: dict[str, type[DeepLabV2] | type[FPN]] = {"fpn": FPN, "deeplab_v2": DeepLabV2}


def create_segmenter(
    settings: SegmenterSettings, classes: Sequence[str], shifts: Sequence[float] | None = None
) -> Segmenter:
    """The network that `settings.head` names. `shifts`: as in `Backbone`.

    Raises ConfigError if the backbone cannot be used in it.
    """
    return HEADS[settings.head](settings, classes, shifts)


def save_segmenter(model: Segmenter, path: Path) -> None:
    """Write all that `load_segmenter` needs into one safetensors file."""
    save_network(model, path, classes=model.classes, small=model.small, least=model.least)


def load_segmenter(path: Path) -> Segmenter:
    """A file of `save_segmenter` to the network, in eval mode. Raises RunError.

    A file of a version that had no `segmenter.head` holds a DeepLabV2.
    """

    def build(settings: SegmenterSettings, about: dict[str, Any]) -> Segmenter:
        model = create_segmenter(settings, about["classes"], about["shifts"])
        model.small, model.least = tuple(about.get("small", ())), about.get("least", 0.0)
        return model

    return load_network(path, "segmenter", SegmenterSettings, build)
