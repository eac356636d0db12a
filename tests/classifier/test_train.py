"""One step of each recipe's training, and what its loss is made of."""

import pickle

import pytest
import torch

from tag2mask.classifier.net import PatchClassifier
from tag2mask.classifier.train import classifier_loss, train_classifier
from tag2mask.config import load_recipe
from tag2mask.data.table import Photo, Table
from tag2mask.data.transforms import AUGMENTATIONS
from tag2mask.errors import ConfigError

PARTS = {
    "cpc": {"mce", "pce"},
    "ppc": {"mce"},
    "vit_pcm": {"mce", "equivariance", "l2"},
    "photos": {"mce", "evidence"},
    "demo": {"mce", "evidence"},
}


@pytest.mark.parametrize("recipe", PARTS)
def test_every_recipe_learns_with_its_own_loss(recipe):
    torch.manual_seed(0)
    small = {"backbone": "test_vit", "weights": "none", "image_size": 96, "dropout": 0.0}
    settings = load_recipe(recipe).classifier.model_copy(update=small)
    net = PatchClassifier(settings, 4, 0 if recipe == "vit_pcm" else 2).train()
    images, tags = torch.rand(5, 3, 96, 96), torch.eye(3)[[0, 1, 2, 0, 1]]
    u = torch.ones(5, 0 if recipe == "vit_pcm" else 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    values = []
    for _ in range(12):
        torch.manual_seed(1)  # the same second view each time
        parts = classifier_loss(net, (images, tags, u), settings)
        assert parts.keys() == {"loss"} | PARTS[recipe]
        optimizer.zero_grad()
        parts["loss"].backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
        optimizer.step()
        values.append(parts["loss"].item())
    assert values[-1] < values[0]


def test_the_loss_is_the_weighted_sum_of_its_parts():
    torch.manual_seed(0)
    settings = load_recipe("cpc").classifier.model_copy(
        update={"backbone": "test_vit", "weights": "none", "pce_weight": 0.5, "pce_threshold": 0.51, "classifier_l2": 0.1}
    )
    net = PatchClassifier(settings, 2, 1).eval()
    parts = classifier_loss(net, (torch.rand(2, 3, 64, 64), torch.ones(2, 1), torch.ones(2, 1)), settings)
    assert parts["pce"] > 0
    assert parts["loss"].item() == pytest.approx((parts["mce"] + 0.5 * parts["pce"] + 0.1 * parts["l2"]).item())


def test_few_photos_are_gone_through_more_often():
    settings = load_recipe("photos").classifier
    assert [settings.num_epochs(photos) for photos in (1, 42, 320, 1300)] == [100, 34, 6, 6]  # batches of 16
    assert load_recipe("cpc").classifier.num_epochs(42) == 50


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_photos_can_be_read_by_other_processes(augment):
    pickle.dumps(AUGMENTATIONS[augment])  # as macOS, Windows and Python 3.14 start them


def test_a_grid_that_the_equivariance_loss_cannot_halve_is_refused(tmp_path):
    settings = load_recipe("vit_pcm").classifier.model_copy(update={"backbone": "test_vit", "weights": "none", "image_size": 80})
    table = Table(("cat",), (Photo("a", tmp_path / "a.jpg", ("cat",)),))
    with pytest.raises(ConfigError, match=r"image_size = 80 gives 5 x 5 patches.*use 64 or 96"):
        train_classifier(table, torch.zeros(1, 0), settings, tmp_path, 0, 0)
