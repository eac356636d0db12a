"""Losses against values computed by hand or by the double loop that the paper writes."""

import math

import pytest
import torch

from tag2mask.classifier.losses import equivariance, evidence_bce, mce, pce, top_k_pool
from tag2mask.classifier.views import second_view


def test_top_k_pool_by_hand():
    scores = torch.tensor([[[0.1, 0.9], [0.5, 0.5], [0.3, 0.7]]])  # one image, three patches, two classes
    assert torch.allclose(top_k_pool(scores, 2), torch.tensor([[0.4, 0.8]]))
    assert torch.allclose(top_k_pool(scores, 1), torch.tensor([[0.5, 0.9]]))
    assert torch.allclose(top_k_pool(scores, 99), scores.mean(1))


def test_mce_by_hand():
    pooled = torch.tensor([[0.8, 0.5, 0.1]])
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    assert mce(pooled, labels).item() == pytest.approx(-(math.log(0.8) + math.log(0.5) + math.log(0.9)) / 3)
    assert math.isfinite(mce(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])).item())


def double_loop(features, scores, labels, threshold):
    """CPC eq. 6 as it stands, eqs. 4 and 5 for each pair."""
    total = 0.0
    for f, z, y in zip(features, scores, labels, strict=True):
        for c in range(z.shape[1]):
            high = [f[i] for i in range(len(f)) if z[i, c] > threshold] if y[c] else []
            low = [f[i] for i in range(len(f)) if z[i, c] < 1 - threshold] if y[c] else []

            def similarity(a, b):
                return (1 + float(a @ b / (a.norm() * b.norm()))) / 2

            positive = [1 - similarity(a, b) for i, a in enumerate(high) for j, b in enumerate(high) if i != j]
            negative = [similarity(a, b) for a in high for b in low]
            total += sum(positive) / max(len(positive), 1) + sum(negative) / max(len(negative), 1)
    return total / len(features)


def test_pce_equals_the_double_loop():
    torch.manual_seed(0)
    features = torch.randn(3, 20, 5, dtype=torch.float64)
    scores = (torch.randn(3, 20, 4, dtype=torch.float64) * 6).softmax(-1)
    labels = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1]])
    got = pce(features, scores, labels, 0.85).item()
    assert got == pytest.approx(double_loop(features, scores, labels, 0.85), rel=1e-5)
    assert got > 0.5


def test_pce_is_as_exact_under_autocast():
    torch.manual_seed(0)
    features, labels = torch.randn(2, 400, 16) + 1, torch.ones(2, 2)
    scores = (torch.randn(2, 400, 2) * 6).softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        under = pce(features, scores, labels).item()
    assert under == pytest.approx(pce(features, scores, labels).item(), rel=1e-6)


def test_pce_by_hand_and_without_confident_patches():
    features = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    scores = torch.tensor([[[0.9], [0.9], [0.1]]])
    # high pair: cosine 0 -> 1 - 0.5; high-low pairs: cosines -1 and 0 -> mean of 0 and 0.5
    assert pce(features, scores, torch.ones(1, 1)).item() == pytest.approx(0.5 + 0.25)
    assert pce(features, torch.full((1, 3, 1), 0.5), torch.ones(1, 1)).item() == 0
    assert pce(features, scores, torch.zeros(1, 1)).item() == 0


def test_pce_gradient():
    torch.manual_seed(1)
    features = torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    scores = torch.tensor([[[0.9], [0.95], [0.1], [0.05], [0.5], [0.99]]], dtype=torch.float64)
    pce(features, scores, torch.ones(1, 1)).backward()
    assert features.grad[0, 4].abs().sum() == 0  # neither high nor low
    assert features.grad[0, 0].abs().sum() > 0


def test_evidence_bce_by_hand():
    logits = torch.tensor([[[9.0, 1.0, -3.0], [9.0, 3.0, -1.0]]])  # background's 9 takes no part
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    want = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))) / 2
    assert evidence_bce(logits, labels).item() == pytest.approx(want)


def test_equivariance_by_hand():
    target = torch.tensor([[[[0.25, 0.75]]]])
    scores = torch.tensor([[[[0.5, 0.5]]]])
    assert equivariance(scores, target).item() == pytest.approx(math.log(2))


def test_second_view_moves_scores_with_their_pixels():
    """Paint the picture from its scores: after any transformation they must still agree."""
    torch.manual_seed(0)
    h, patch = 12, 8
    scores = torch.zeros(8, h, h, 2)
    scores[:, :4, :, 1] = 1  # upper third
    scores[:, :, :3, 1] = 1
    scores[..., 0] = 1 - scores[..., 1]
    images = scores[..., 1].repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None].expand(-1, 3, -1, -1)
    views, targets = second_view(images.contiguous(), scores)
    assert views.shape == (2, 3, h * patch, h * patch) and targets.shape == (2, h, h, 2)
    bright = torch.nn.functional.avg_pool2d(views[:, :1], patch)[:, 0]
    for picture, target in zip(bright, targets[..., 1], strict=True):
        for corner in range(4):  # contrast differs from photo to photo
            half = (slice(6 * (corner // 2), 6 * (corner // 2) + 6), slice(6 * (corner % 2), 6 * (corner % 2) + 6))
            a, b = picture[half].flatten(), target[half].flatten()
            if b.std() > 0.1:
                assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.95
