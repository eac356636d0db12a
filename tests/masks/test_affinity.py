"""Scores spread over patches that look alike: by hand, and what must hold for any features."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tag2mask.classifier.net import PatchClassifier, load_classifier, save_classifier
from tag2mask.config import ClassifierSettings
from tag2mask.masks.affinity import affinity, spread


def test_by_hand():
    """Three patches: cosines 1, 0.6 and 0 to the first, in one map; roots, then rows that sum to
    1."""
    features = torch.tensor([[[[2.0, 0.0], [0.6, 0.8], [0.0, 3.0]]]])  # (1, 1, 3, 2)
    weights = affinity([features], (1, 3))[0]
    a, b = 0.6**0.5, 0.8**0.5
    want = torch.tensor([[1, a, 0], [a, 1, b], [0, b, 1]])
    assert torch.allclose(weights, want / want.sum(1, keepdim=True), atol=1e-6)
    assert torch.allclose(
        spread(torch.tensor([[[[1.0, 0.0, 0.0]]]]), weights[None]).flatten(), weights[:, 0]
    )


def test_maps_must_all_agree_and_any_resolution_will_do():
    alike = torch.ones(1, 4, 4, 3)
    halves = torch.zeros(1, 2, 2, 2)
    halves[:, :, 0, 0] = halves[:, :, 1, 1] = 1  # left and right differ
    weights = affinity([alike, halves], (2, 2))[0]
    assert torch.allclose(weights, torch.tensor([[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]] * 2))
    assert torch.equal(affinity([halves, alike], (2, 2))[0], weights)


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 5))
def test_a_mean_over_patches(seed, h, w):
    """Spread scores stay between the smallest and the largest, and a constant stays what it is."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, h, w, 7, generator=generator)
    scores = torch.rand(2, 3, h, w, generator=generator)
    scores[:, 2] = 0.25
    out = spread(scores, affinity([features], (h, w)))
    assert out.shape == scores.shape
    assert out.min() >= scores.min() - 1e-6 and out.max() <= scores.max() + 1e-6
    assert torch.allclose(out[:, 2], scores[:, 2], atol=1e-6)


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet", "resnet18"])
def test_the_classifier_centers_its_maps(backbone, tmp_path):
    torch.manual_seed(0)
    net = PatchClassifier(
        ClassifierSettings(backbone=backbone, weights="none", token_width=8), 4, 3
    ).eval()
    photos = torch.rand(3, 3, 64, 96)
    net.measure_feature_means(photos)
    maps, _ = net.backbone.feature_maps(photos)
    for mean, features in zip(net.feature_means, maps, strict=True):
        assert torch.allclose(mean, features.mean((0, 1, 2)), atol=1e-4)
    scores, centered = net.scores(photos, torch.ones(3, 3))
    for mean, features, rest in zip(net.feature_means, maps, centered, strict=True):
        assert torch.equal(rest, features - mean)
    save_classifier(net, tmp_path / "m.safetensors", ("a", "b", "c"), 3)
    again = load_classifier(tmp_path / "m.safetensors").scores(photos, torch.ones(3, 3))
    assert torch.equal(again[0], scores)
    assert all(torch.equal(a, b) for a, b in zip(again[1], centered, strict=True))
