import pytest
import torch
from painted import paint, shapes

from tag2mask.config import SegmenterSettings
from tag2mask.photos.table import Table


@pytest.fixture
def settings():
    return SegmenterSettings(
        backbone="test_efficientnet",
        weights="none",
        head="deeplab_v2",
        output_stride=8,
        crop_size=49,
        batch_size=4,
        steps=12,
        lr=0.01,
        weight_decay=5e-4,
        image_size=65,
        flip=False,
        precision="no",
        crf={"iterations": 0},
    )


@pytest.fixture
def data(tmp_path):
    """Six pictures with a red disc and a blue box on green, and their masks."""
    photos = tuple(paint(tmp_path, f"p{i}", shapes(i), noise=12) for i in range(6))
    return Table(("disc", "box"), photos), tmp_path / "masks"


@pytest.fixture(autouse=True)
def _threads():
    torch.set_num_threads(1)
