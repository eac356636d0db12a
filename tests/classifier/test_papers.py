"""The papers' formulas, written anew from their text with plain loops, against what the product
computes.

F_v patch tokens, F_c cluster token, F_in their concatenation, F_out behind the HV-BiLSTM, Z patch
scores: PPC II and CPC 3 name them so.
"""

import math

import numpy as np
import pytest
import torch

from tag2mask import loop
from tag2mask.backbone import Backbone
from tag2mask.classifier.hv_bilstm import HVBiLSTM
from tag2mask.classifier.losses import classifier_loss, pce
from tag2mask.classifier.net import PatchClassifier
from tag2mask.classifier.train import train_classifier
from tag2mask.config import ClassifierSettings
from tag2mask.config_files import load_recipe
from tag2mask.photos.table import Photo, Table

SMALL = {"backbone": "test_vit", "weights": "none", "token_width": 8}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, weights, suffix):
    """One direction of an LSTM (Hochreiter and Schmidhuber, with a forget gate) over x (T, D): (T,
    units). PyTorch's order of gates."""
    W, R, bias = (
        weights[f"weight_ih_l0{suffix}"],
        weights[f"weight_hh_l0{suffix}"],
        weights[f"bias_ih_l0{suffix}"] + weights[f"bias_hh_l0{suffix}"],
    )
    units = R.shape[1]
    state, cell, out = np.zeros(units), np.zeros(units), []
    for token in x:
        i, f, g, o = (W @ token + R @ state + bias).reshape(4, units)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        state = sigmoid(o) * np.tanh(cell)
        out.append(state)
    return np.array(out)


def hv_bilstm(mixer, x):
    """Rows from left and from right, columns from above and from below: (h, w, D) -> (h, w, D)."""
    read = {
        name: {k: v.detach().double().numpy() for k, v in getattr(mixer, name).named_parameters()}
        for name in ("rows", "columns")
    }
    out = np.zeros(x.shape)
    quarter = x.shape[2] // 4
    for row in range(x.shape[0]):
        out[row, :, :quarter] = lstm(x[row], read["rows"], "")
        out[row, :, quarter : 2 * quarter] = lstm(x[row, ::-1], read["rows"], "_reverse")[::-1]
    for column in range(x.shape[1]):
        out[:, column, 2 * quarter : 3 * quarter] = lstm(x[:, column], read["columns"], "")
        out[:, column, 3 * quarter :] = lstm(x[::-1, column], read["columns"], "_reverse")[::-1]
    return out


def test_hv_bilstm_is_two_lstms_over_rows_and_two_over_columns():
    torch.manual_seed(0)
    mixer, x = HVBiLSTM(16), torch.randn(2, 3, 5, 16)
    refined = mixer(x).detach().numpy()
    for image, got in zip(x.double().numpy(), refined, strict=True):
        np.testing.assert_allclose(got, hv_bilstm(mixer, image), atol=1e-6)


def test_scores_of_a_photo_from_its_tokens_on():
    """Eq. 1, the concatenation, the HV-BiLSTM and eq. 2: F_c = u^T G beside each of s patch tokens,
    Z = softmax(F_out W)."""
    torch.manual_seed(0)
    net = PatchClassifier(ClassifierSettings(**SMALL, mixer="hv_bilstm"), 4, 3).eval()
    image, u = torch.rand(1, 3, 48, 80), torch.tensor([[1.0, 0, 1]])
    with torch.inference_mode():
        scores = net.scores(image, u)[0][0].numpy()
        tokens = (
            net.backbone.net.forward_features((image - net.backbone.mean) / net.backbone.std)[0]
            .double()
            .numpy()
        )
    G, W = (
        net.cluster_embedding.detach().double().numpy(),
        net.classifier.weight.detach().double().numpy(),
    )
    F_in = np.zeros((3, 5, tokens.shape[1] + G.shape[1]))
    for row in range(3):
        for column in range(5):
            F_in[row, column] = [
                *tokens[1 + 5 * row + column],
                *(G[0] + G[2]),
            ]  # the class token comes first
    F_out = hv_bilstm(net.mixer, F_in)
    assert net.classifier.bias is None
    for row in range(3):
        for column in range(5):
            e = [math.exp(W[c] @ F_out[row, column]) for c in range(4)]
            np.testing.assert_allclose(scores[:, row, column], np.array(e) / sum(e), atol=1e-6)


def bicubic(table, size):
    """A square table (n, n, D) at size (h, w): cubic convolution (Keys 1981), widened where it
    reduces."""

    def kernel(x, a=-0.5):
        x = abs(x)
        return (
            (a + 2) * x**3 - (a + 3) * x**2 + 1
            if x < 1
            else a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            if x < 2
            else 0.0
        )

    def matrix(n, m):
        M, stretch = np.zeros((m, n)), max(1, n / m)
        for i in range(m):
            for j in range(n):
                M[i, j] = kernel(((j + 0.5) - (i + 0.5) * n / m) / stretch)
            M[i] /= M[i].sum()
        return M

    return np.einsum(
        "ij,kl,jld->ikd", matrix(table.shape[0], size[0]), matrix(table.shape[1], size[1]), table
    )


@pytest.mark.parametrize("grid", [(25, 25), (6, 14)])
def test_a_vit_at_another_size_has_its_position_table_resized(grid):
    """The papers train at 24 x 24 patches and infer at 60 x 60."""
    torch.manual_seed(0)
    backbone = Backbone("test_vit", "none").eval()
    net = backbone.net
    torch.nn.init.normal_(net.pos_embed, std=1)
    image = torch.rand(1, 3, 16 * grid[0], 16 * grid[1])
    side = math.isqrt(net.pos_embed.shape[1] - 1)
    table = net.pos_embed[0, 1:].detach().double().numpy().reshape(side, side, -1)
    places = torch.from_numpy(bicubic(table, grid)).float().flatten(0, 1)
    with torch.inference_mode():
        kernel = net.patch_embed.proj
        patches = (
            ((image - backbone.mean) / backbone.std)[0].unfold(1, 16, 16).unfold(2, 16, 16)
        )  # (3, h, w, 16, 16)
        tokens = (
            torch.einsum("chwij,dcij->hwd", patches, kernel.weight).flatten(0, 1)
            + kernel.bias
            + places
        )
        x = torch.cat([net.cls_token[0] + net.pos_embed[0, :1], tokens])[None]
        want = net.norm(net.blocks(net.norm_pre(x)))[0, 1:].view(*grid, -1)
        got, class_token = backbone(image)
        torch.testing.assert_close(got[0], want, atol=2e-4, rtol=0)
        assert (got[0].mean((0, 1)) - class_token[0]).abs().max() > 1e-3


def similarity(a, b):
    return (1 + (a @ b) / (a.norm() * b.norm())) / 2


def test_gradient_of_pce_is_that_of_the_double_sum():
    """Eqs. 4 to 6 in float64, pair by pair, over the classes of each photo, with Z fixed."""
    torch.manual_seed(3)
    features = torch.randn(2, 14, 6).requires_grad_()
    scores = (torch.randn(2, 14, 3) * 6).softmax(-1).requires_grad_()
    labels = torch.tensor([[1.0, 1, 0], [1, 0, 1]])
    exact = features.detach().double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    pairs = 0
    for f, Z, y in zip(exact, scores.detach(), labels, strict=True):
        for c in range(3):
            if not y[c]:
                continue
            high = [i for i in range(14) if Z[i, c] > 0.85]
            low = [i for i in range(14) if Z[i, c] < 1 - 0.85]
            positive = [1 - similarity(f[i], f[j]) for i in high for j in high if i != j]
            negative = [similarity(f[i], f[j]) for i in high for j in low]
            for terms in (positive, negative):
                if terms:
                    total = total + sum(terms) / len(terms) / 2  # the mean over two photos
                    pairs += len(terms)
    assert pairs > 50
    loss = pce(features, scores, labels, 0.85)
    loss.backward()
    (want,) = torch.autograd.grad(total, exact)
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    torch.testing.assert_close(features.grad.double(), want, atol=1e-6, rtol=1e-4)
    assert scores.grad is None


@pytest.mark.parametrize(("side", "k"), [(384, 6), (192, 2)])
def test_the_overall_loss_of_cpc(side, k):
    """Eqs. 3, 7 and 8 by sorting and summing: k = 6 of 24 x 24 patches, background's label 1,
    lambda 0.01."""
    torch.manual_seed(0)
    settings = load_recipe("cpc").classifier.model_copy(update=SMALL)
    net = PatchClassifier(settings, 4, 3).eval()
    torch.nn.init.normal_(net.classifier.weight, std=3)
    images, tags, u = (
        torch.rand(2, 3, side, side),
        torch.tensor([[1.0, 0, 1], [0, 1, 0]]),
        torch.tensor([[1.0, 0, 1], [0, 1, 0]]),
    )
    with torch.inference_mode():
        parts = classifier_loss(net, (images, tags, u), settings)
        logits, F_out = net(images, u)
    Z = logits.double().flatten(1, 2).softmax(-1)
    mce = 0.0
    for z, y in zip(Z, tags.tolist(), strict=True):
        for c, label in enumerate([1, *y]):
            p = sum(sorted(z[:, c].tolist())[-k:]) / k
            mce -= math.log(p if label else 1 - p) / 8
    assert parts["mce"].item() == pytest.approx(mce, rel=1e-4)
    contrast = pce(
        F_out.flatten(1, 2), Z, torch.tensor([[1.0, 1, 0, 1], [1, 0, 1, 0]]), 0.85
    ).item()
    assert contrast > 0
    assert parts["loss"].item() == pytest.approx(mce + 0.01 * contrast, rel=1e-4)


def test_learning_rates_of_cpc(monkeypatch, tmp_path):
    """1e-3 for two epochs, the backbone frozen; then 1e-4, with the last 5 blocks and the norm;
    Adam; batches of 16; 50 epochs."""
    seen = {}

    def fit(model, loss, examples, phases, folder, *, batch_size, **rest):
        start = 0
        for phase in phases:
            optimizer = phase.optimizer()
            for step in range(start, phase.end):
                rates = {group["lr"] * phase.lr_scale(step) for group in optimizer.param_groups}
                seen[step] = (
                    type(optimizer),
                    rates,
                    optimizer.defaults["weight_decay"],
                    {int(name.split(".")[-1]) for name in learning_blocks(model)},
                )
            start = phase.end
        seen["batch"] = batch_size
        return model

    def learning_blocks(model):
        blocks = model.backbone.net.blocks
        return [
            f"blocks.{i}"
            for i, block in enumerate(blocks)
            if any(p.requires_grad for p in block.parameters())
        ]

    monkeypatch.setattr(loop, "fit", fit)
    monkeypatch.setattr(PatchClassifier, "measure_feature_means", lambda self, images: None)
    settings = load_recipe("cpc").classifier.model_copy(update={**SMALL, "image_size": 32})
    table = Table(
        ("cat",), tuple(Photo(str(i), tmp_path / f"{i}.jpg", ("cat",)) for i in range(40))
    )
    train_classifier(table, torch.ones(40, 1), settings, tmp_path, 0, 0)
    depth = len(Backbone("test_vit", "none").net.blocks)
    assert seen.pop("batch") == 16 and sorted(seen) == list(
        range(50 * 3)
    )  # 40 photos are three batches
    for step, (kind, rates, decay, blocks) in seen.items():
        assert (kind, decay) == (torch.optim.Adam, 0)
        assert rates == ({1e-3} if step < 6 else {1e-4}), f"step {step}"
        assert blocks == (set() if step < 6 else set(range(max(0, depth - 5), depth)))
