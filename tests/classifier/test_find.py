"""Unknown tags that the classifier finds."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.classifier.find import find_unknown, is_found
from tag2mask.config import ClassifierSettings
from tag2mask.photos.table import Photo, Table

TAGS = ("blue", "green", "red")


class Colors(torch.nn.Module):
    """Finds a tag where a photo has much of its color, and tells its cluster vectors."""

    settings = ClassifierSettings(image_size=32)
    backbone = SimpleNamespace(side=int)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, images, u):
        self.seen += u[:, 0].tolist()
        logits = torch.nn.functional.avg_pool2d(images, 16).permute(0, 2, 3, 1) - 0.4
        return torch.cat([torch.zeros_like(logits[..., :1]), logits.flip(-1)], -1), None


def test_only_unknown_tags_that_are_found_stay_unknown(tmp_path):
    colors = {"purple": (200, 0, 200), "green": (0, 200, 0), "black": (0, 0, 0)}
    for name, color in colors.items():
        Image.fromarray(np.full((20, 30, 3), color, np.uint8)).save(tmp_path / f"{name}.png")
    photos = [
        Photo("a", tmp_path / "purple.png", ("blue",), ("green", "red")),
        Photo("b", tmp_path / "missing.png", ("blue",)),  # all is known: it is not opened
        Photo("c", tmp_path / "green.png", ("blue",), ("red",)),
        Photo("d", tmp_path / "purple.png", (), ("blue", "red")),
        Photo("e", tmp_path / "black.png", (), TAGS),
    ]
    model = Colors()
    table = find_unknown(model, Table(TAGS, tuple(photos), "s"), torch.arange(5.0)[:, None])
    assert [photo.unknown for photo in table.photos] == [("red",), (), (), ("blue", "red"), ()]
    assert [photo.tags for photo in table.photos] == [photo.tags for photo in photos]
    assert table.photos[4].of_nothing and not table.photos[3].of_nothing
    assert model.seen == [0, 2, 3, 4], "each with its own clusters"


@pytest.mark.parametrize("tag_loss", ["mean", "both", "top_k"])
def test_a_tag_is_found_by_the_score_that_was_taught(tag_loss):
    """The mean logit above 0, or the pooled score above one half."""
    settings = ClassifierSettings(tag_loss=tag_loss, top_k=6)
    logits = torch.zeros(1, 24, 24, 3)
    logits[..., 1] = -1.0
    logits[0, 0, :6, 1] = 9.0  # six patches are sure, the mean is not
    logits[..., 2] = 0.1  # everywhere a little: the softmax gives it less than one half
    assert is_found(logits, settings).tolist() == [
        [True, False] if tag_loss == "top_k" else [False, True]
    ]
