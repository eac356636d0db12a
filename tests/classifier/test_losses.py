"""Losses against values computed by hand or by the double loop that the paper writes."""

import math

import pytest
import torch

from tag2mask.classifier.losses import (
    classifier_loss,
    equivariance,
    mce,
    mean_logit_bce,
    pce,
    pooled_patches,
    possible_scores,
    top_k_pool,
)
from tag2mask.classifier.views import second_view
from tag2mask.config import ClassifierSettings


def test_top_k_pool_by_hand():
    scores = torch.tensor(
        [[[0.1, 0.9], [0.5, 0.5], [0.3, 0.7]]]
    )  # one image, three patches, two classes
    for k, want in ((2, [0.4, 0.8]), (1, [0.5, 0.9]), (99, [0.3, 0.7])):
        log_p, log_not_p = top_k_pool(
            scores.log() + 5, k
        )  # a softmax does not see what is added to all
        assert torch.allclose(log_p.exp(), torch.tensor([want])) and torch.allclose(
            log_not_p.exp(), 1 - torch.tensor([want])
        )


def test_mce_by_hand():
    pooled = torch.tensor([[0.8, 0.5, 0.1]])
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    got = mce(pooled.log(), (1 - pooled).log(), labels).item()
    assert got == pytest.approx(-(math.log(0.8) + math.log(0.5) + math.log(0.9)) / 3)


def test_mce_of_pooled_scores_and_its_gradient_equal_the_plain_formula_in_float64():
    torch.manual_seed(0)
    logits = (torch.randn(3, 30, 6) * 3).requires_grad_()
    labels = (torch.rand(3, 6) < 0.5).float()
    got = mce(*top_k_pool(logits, 4), labels)
    (gradient,) = torch.autograd.grad(got, logits)
    exact = logits.detach().double().requires_grad_()
    pooled = exact.softmax(-1).sort(dim=1, descending=True).values[:, :4].mean(1)
    want = -(labels * pooled.log() + (1 - labels) * (1 - pooled).log()).mean()
    assert got.item() == pytest.approx(want.item(), rel=1e-6)
    torch.testing.assert_close(
        gradient.double(), torch.autograd.grad(want, exact)[0], rtol=1e-4, atol=1e-8
    )


@pytest.mark.parametrize("behind", [20.0, 200.0])
def test_a_tag_far_behind_and_a_wrong_class_far_ahead_still_learn(behind):
    """Their pooled scores are 0 and 1 in float32 (200) or lie past any clamp (20)."""
    logits = torch.zeros(1, 8, 3)
    logits[..., 2] = behind  # class 2 is not in the photo, class 1 is
    logits.requires_grad_()
    loss = mce(*top_k_pool(logits, 2), torch.tensor([[0.0, 1.0, 0.0]]))
    loss.backward()
    gradient = logits.grad.sum((0, 1)) * 3  # the mean is over three classes
    assert loss.item() * 3 == pytest.approx(2 * behind, rel=0.06)
    assert gradient[1].item() == pytest.approx(-1.5, abs=0.01) and gradient[
        2
    ].item() == pytest.approx(2, abs=0.01)


def double_loop(features, scores, labels, threshold):
    """CPC eq. 6 as it stands, eqs. 4 and 5 for each pair."""
    total = 0.0
    for f, z, y in zip(features, scores, labels, strict=True):
        for c in range(z.shape[1]):
            high = [f[i] for i in range(len(f)) if z[i, c] > threshold] if y[c] else []
            low = [f[i] for i in range(len(f)) if z[i, c] < 1 - threshold] if y[c] else []

            def similarity(a, b):
                return (1 + float(a @ b / (a.norm() * b.norm()))) / 2

            positive = [
                1 - similarity(a, b)
                for i, a in enumerate(high)
                for j, b in enumerate(high)
                if i != j
            ]
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
    one_pair = features[:, ::2], scores[:, ::2]  # high and low
    assert pce(*one_pair, torch.ones(1, 1)).item() == 0  # cosine -1
    assert pce(one_pair[0].abs(), one_pair[1], torch.ones(1, 1)).item() == pytest.approx(
        1
    )  # cosine 1


def test_pce_leaves_out_scores_on_its_thresholds():
    features, scores = (
        torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]),
        torch.tensor([[[0.75], [0.75], [0.25]]]),
    )
    assert pce(features, scores, torch.ones(1, 1), 0.75).item() == 0
    assert (
        pce(features, torch.tensor([[[0.875], [0.75], [0.25]]]), torch.ones(1, 1), 0.75).item() == 0
    )


def test_pce_gradient():
    torch.manual_seed(1)
    features = torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    scores = torch.tensor([[[0.9], [0.95], [0.1], [0.05], [0.5], [0.99]]], dtype=torch.float64)
    (alone,) = torch.autograd.grad(pce(features, scores, torch.ones(1, 1)), features)
    pce(
        features, scores.expand(1, 6, 2), torch.tensor([[1.0, 0.0]])
    ).backward()  # a class that the photo does not have adds nothing
    assert torch.equal(features.grad, alone)
    assert features.grad[0, 4].abs().sum() == 0  # neither high nor low
    assert features.grad[0, 0].abs().sum() > 0


def test_pce_beside_a_vector_of_zeros_is_bounded_and_equals_the_double_loop_over_the_others():
    features = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [0.0, 2.0], [1.0, 1.0]]], requires_grad=True)
    scores = torch.tensor([[[0.9], [0.9], [0.9], [0.1]]])
    loss = pce(features, scores, torch.ones(1, 1))
    # high pairs: cosine 0 all three; high-low pairs: cosines 0, r, r
    assert loss.item() == pytest.approx(0.5 + (1 + 2 * math.sqrt(0.5) / 3) / 2)
    loss.backward()
    assert features.grad.isfinite().all() and features.grad.abs().max() < 1e3


def test_mean_logit_bce_by_hand():
    logits = torch.tensor([[[9.0, 1.0, -3.0], [9.0, 3.0, -1.0]]])  # background's 9 takes no part
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    want = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))) / 2
    assert mean_logit_bce(logits, labels).item() == pytest.approx(want)


def test_equivariance_by_hand():
    target = torch.tensor([[[[0.25, 0.75]]]])
    scores = torch.tensor([[[[0.5, 0.5]]]])
    assert equivariance(scores, target).item() == pytest.approx(math.log(2))
    assert equivariance(
        scores.expand(3, 4, 5, 2), target.expand(3, 4, 5, 2)
    ).item() == pytest.approx(math.log(2))  # the mean over patches
    nothing, one = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    assert equivariance(nothing, one).item() == pytest.approx(-math.log(1e-6))


def test_second_view_moves_scores_with_their_pixels():
    """Paint the picture from its scores: after any transformation they must still agree."""
    torch.manual_seed(0)
    h, patch = 12, 8
    scores = torch.zeros(8, h, h, 2)
    scores[:, :4, :, 1] = 1  # upper third
    scores[:, :, :3, 1] = 1
    scores[..., 0] = 1 - scores[..., 1]
    images = (
        scores[..., 1]
        .repeat_interleave(patch, 1)
        .repeat_interleave(patch, 2)[:, None]
        .expand(-1, 3, -1, -1)
    )
    views, targets = second_view(images.contiguous(), scores)
    assert views.shape == (2, 3, h * patch, h * patch) and targets.shape == (2, h, h, 2)
    bright = torch.nn.functional.avg_pool2d(views[:, :1], patch)[:, 0]
    for picture, target in zip(bright, targets[..., 1], strict=True):
        for corner in range(4):  # contrast differs from photo to photo
            half = (
                slice(6 * (corner // 2), 6 * (corner // 2) + 6),
                slice(6 * (corner % 2), 6 * (corner % 2) + 6),
            )
            a, b = picture[half].flatten(), target[half].flatten()
            if b.std() > 0.1:
                assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.95


NAN = math.nan


def former_mce(log_p, log_not_p, labels):
    return -(labels * log_p + (1 - labels) * log_not_p).mean()


def former_mean_logit_bce(logits, labels):
    mean_logits = logits[..., 1:].float().mean(1)
    return torch.nn.functional.binary_cross_entropy_with_logits(mean_logits, labels[:, 1:])


def former_target(scores, labels):
    target = scores * labels[:, None, None]
    return target / target.sum(-1, keepdim=True).clamp(min=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_known_labels_give_the_bits_of_the_plain_formulas(seed):
    """Data without unknown tags must train to the same weights as before there were any."""
    random = torch.Generator().manual_seed(seed)
    B, N, C = (int(torch.randint(1, most, (), generator=random)) for most in (18, 40, 22))
    labels = (torch.rand(B, C + 1, generator=random) < 0.4).float()
    labels[:, 0] = 1
    start = torch.randn(B, N, C + 1, generator=random) * 5

    def both(new, former):
        """Values and gradients of the two."""
        for loss in (new, former):
            logits = start.clone().requires_grad_()
            value = loss(logits)
            yield value.detach(), torch.autograd.grad(value, logits)[0]

    pairs = [
        (lambda x: mce(*top_k_pool(x, 3), labels), lambda x: former_mce(*top_k_pool(x, 3), labels)),
        (lambda x: mean_logit_bce(x, labels), lambda x: former_mean_logit_bce(x, labels)),
        (
            lambda x: possible_scores(x.softmax(-1)[:, None], labels).square().sum(),
            lambda x: former_target(x.softmax(-1)[:, None], labels).square().sum(),
        ),
    ]
    for new, former in pairs:
        (value, gradient), (want, want_gradient) = both(new, former)
        assert torch.equal(value, want) and torch.equal(gradient, want_gradient)


def test_mce_is_the_mean_over_known_labels():
    pooled = torch.tensor([[0.8, 0.5, 0.1], [0.6, 0.3, 0.2]])
    labels = torch.tensor([[1.0, NAN, 0.0], [1.0, NAN, NAN]])
    got = mce(pooled.log(), (1 - pooled).log(), labels).item()
    assert got == pytest.approx(-(math.log(0.8) + math.log(0.9) + math.log(0.6)) / 3)


def test_mean_logit_bce_is_the_mean_over_known_labels():
    logits = torch.tensor([[[9.0, 1.0, -3.0]], [[9.0, 4.0, 7.0]]], requires_grad=True)
    labels = torch.tensor([[1.0, 1.0, 0.0], [1.0, NAN, 0.0]])
    loss = mean_logit_bce(logits, labels)
    want = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3)) + math.log(1 + math.exp(7))) / 3
    assert loss.item() == pytest.approx(want)
    loss.backward()
    assert logits.grad[1, 0, 1] == 0 and (logits.grad[:, 0, 2] != 0).all()


def test_a_batch_in_which_every_tag_is_unknown_has_no_evidence():
    logits = torch.randn(2, 5, 3, requires_grad=True)
    loss = mean_logit_bce(logits, torch.tensor([[1.0, NAN, NAN]] * 2))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().sum() == 0


def test_pce_does_not_sum_an_unknown_class():
    torch.manual_seed(0)
    features, scores = torch.randn(2, 20, 5), (torch.randn(2, 20, 3) * 6).softmax(-1)
    unknown, absent, present = (
        pce(features, scores, torch.tensor([[1.0, label, 1.0]] * 2)).item()
        for label in (NAN, 0.0, 1.0)
    )
    assert unknown == absent != present


def test_an_unknown_class_keeps_its_score_in_the_target_of_equivariance():
    scores = torch.tensor([[[[0.4, 0.3, 0.2, 0.1]]]])  # background, present, absent, unknown
    target = possible_scores(scores, torch.tensor([[1.0, 1.0, 0.0, NAN]]))
    assert target[0, 0, 0].tolist() == pytest.approx([0.5, 0.375, 0, 0.125])
    sure = torch.tensor([[[[0.0, 0.0, 0.0, 1.0]]]])  # a patch that only the unknown class explains
    assert torch.equal(possible_scores(sure, torch.tensor([[1.0, 0.0, 0.0, NAN]])), sure)


def test_one_known_label_alone_is_the_whole_mean():
    logits = torch.tensor([[[9.0, 0.7, -1.0]], [[9.0, 0.2, 0.4]]])
    labels = torch.tensor([[1.0, NAN, NAN], [1.0, NAN, 1.0]])
    assert mean_logit_bce(logits, labels).item() == pytest.approx(math.log1p(math.exp(-0.4)))


def test_k_is_that_of_576_patches_scaled_to_the_photo():
    ks = {(6, 576): 6, (6, 784): 8, (6, 36): 1, (48, 36): 3, (1, 5760): 1, (2, 5760): 20}
    assert {pair: pooled_patches(*pair) for pair in ks} == ks


class Mixer(torch.nn.Module):
    """Photos (B, 3, S, S) to features of 2 x 2 patches, in which clusters count, and logits."""

    def __init__(self):
        super().__init__()
        self.classifier = torch.nn.Linear(3, 5)
        self.classifier.weight.data *= 4  # some patches are certain
        self.embedding = torch.eye(3)

    def forward(self, images, u):
        patches = torch.nn.functional.adaptive_avg_pool2d(images, 2).permute(0, 2, 3, 1)
        assert u.shape == (len(images), 3)
        features = 3 * patches + (u @ self.embedding)[:, None, None]
        return self.classifier(features), features


@pytest.mark.parametrize("photos", [3, 9])  # one tile with a photo repeated; two, one photo in none
@pytest.mark.parametrize("tag_loss", ["top_k", "mean", "both"])
def test_the_loss_and_its_gradient_are_those_of_its_parts(photos, tag_loss):
    torch.manual_seed(2)
    net = wrapped = Mixer()
    if tag_loss == "both":
        wrapped = torch.nn.Module()
        wrapped.module, wrapped.forward = net, net.forward  # as DDP does
    images, u = torch.rand(photos, 3, 32, 32), (torch.rand(photos, 3) < 0.5).float()
    tags = (torch.rand(photos, 4) < 0.5).float()
    settings = ClassifierSettings(
        tag_loss=tag_loss,
        top_k=432,  # 3 of 4 patches
        pce_weight=0.5,
        pce_threshold=0.51,
        equivariance_weight=0.25,
        classifier_l2=0.1,
    )
    torch.manual_seed(1)
    parts = classifier_loss(wrapped, (images, tags, u), settings)
    parts["loss"].backward()
    gradient = net.classifier.weight.grad.clone()

    labels = torch.cat([torch.ones(photos, 1), tags], 1)
    logits, features = net(images, u)
    logits, features = logits.flatten(1, 2), features.flatten(1, 2)
    scores = logits.softmax(-1)
    torch.manual_seed(1)
    possible = possible_scores(scores.view(photos, 2, 2, 5), labels)
    views, targets = second_view(images, possible)
    tiles = [[i % photos for i in range(first, first + 4)] for first in range(0, 4 * len(views), 4)]
    clusters = torch.stack([u[four].amax(0) for four in tiles])
    want = {
        "mce": mce(*top_k_pool(logits, 3), labels),
        "mean_logit": mean_logit_bce(logits, labels),
        "pce": pce(features, scores, labels, 0.51),
        "equivariance": equivariance(net(views, clusters)[0].softmax(-1), targets.detach()),
        "l2": net.classifier.weight.square().sum(),
    }
    if tag_loss != "both":
        del want["mce" if tag_loss == "mean" else "mean_logit"]
    weights = {"pce": 0.5, "equivariance": 0.25, "l2": 0.1}
    want["loss"] = sum(weights.get(name, 1) * part for name, part in want.items())
    assert parts.keys() == want.keys()
    for name, part in want.items():
        assert part > 0 and parts[name].item() == pytest.approx(part.item(), rel=1e-5), name
    net.zero_grad()
    want["loss"].backward()
    assert torch.allclose(net.classifier.weight.grad, gradient, rtol=1e-4)
