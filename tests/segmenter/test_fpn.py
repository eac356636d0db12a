"""The feature pyramid, where its logits lie, and how it is trained and stored."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tag2mask.config import SegmenterSettings
from tag2mask.config_files import load_recipe
from tag2mask.errors import ConfigError
from tag2mask.segmenter import losses
from tag2mask.segmenter.deeplab import DeepLabV2
from tag2mask.segmenter.fpn import FPN
from tag2mask.segmenter.heads import create_segmenter, load_segmenter, save_segmenter
from tag2mask.segmenter.losses import segmentation_loss
from tag2mask.segmenter.train import optimizer
from tag2mask.weights import create_backbone

CLASSES = ("background", "a", "b")
RESNET = {"backbone": "resnet18", "weights": "none"}


@pytest.fixture
def fpn():
    return SegmenterSettings(
        backbone="test_efficientnet",
        weights="none",
        head="fpn",
        output_stride=8,
    )


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_logits_at_its_stride_and_probabilities_at_any_size(fpn, stride):
    model = FPN(fpn.model_copy(update={"output_stride": stride}), CLASSES).eval()
    image = torch.rand(2, 3, 96, 64)
    assert model(image).shape == (2, 3, 96 // stride, 64 // stride)
    assert [model.backbone.side(pixels) for pixels in (1, 47, 49, 257)] == [32, 32, 64, 256]
    for size in ((96, 64), (33, 71)):
        probs = model.probabilities(image, size)
        assert probs.shape == (2, 3, *size)
        assert torch.allclose(probs.sum(1), torch.ones(2, *size), atol=1e-5)
    assert torch.equal(model.probabilities(image), model.probabilities(image, (96, 64)))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_every_map_lies_where_it_says(fpn, name):
    """What changes in the middle of a photo changes all maps around their middle."""
    weights = "auto" if "lite" in name else "none"
    settings = fpn.model_copy(update={"backbone": name, "weights": weights, "output_stride": 4})
    backbone = FPN(settings, CLASSES).backbone.eval()
    for parameter in backbone.net.parameters() if "resnet" in name else ():
        parameter.data.abs_()
    torch.manual_seed(0)
    photos = torch.nn.functional.interpolate(torch.rand(8, 3, 20, 20), (320, 320), mode="bilinear")
    changed = photos.clone()
    changed[..., 128:192, 128:192] = photos.roll(1, 0)[..., 128:192, 128:192]
    with torch.inference_mode():
        pairs = [
            backbone.feature_maps(torch.cat(both))[0]
            for both in ((photos, changed), (photos.flip(-1, -2), changed.flip(-1, -2)))
        ]
    assert [m.shape[1] for m in pairs[0]] == [80, 40, 20, 10, 10][: 5 if "lite" in name else 4]
    for level, maps in enumerate(zip(*pairs, strict=True)):
        centers = []
        for m in maps:
            change = (m[:8] - m[8:]).double().square().sum(3)
            cells = (torch.arange(m.shape[1]) - (m.shape[1] - 1) / 2).double()
            centers += [(change.sum(3 - axis) @ cells) / change.sum((1, 2)) for axis in (1, 2)]
        off = float(torch.stack(centers).mean())  # cells; weights make up for most of a shift
        assert abs(off) < 0.3, f"map {level} lies {off:.2f} of its cells beside the photo"


def test_with_even_sides_the_loss_looks_around_each_logit(monkeypatch):
    """Each of the four draws sees another pixel; together they see the logit in their middle."""
    logits = torch.zeros(1, 2, 4, 4)
    logits[0, 1, 1, 2] = 8.0  # its square are the pixels 8 to 15 down, 16 to 23 to the right
    seen = {}
    for row in (0, 1):
        for column in (0, 1):
            drawn = torch.tensor([row, column])
            monkeypatch.setattr(losses.torch, "randint", lambda *_, drawn=drawn: drawn)
            for y in range(32):
                for x in range(32):
                    mask = torch.full((1, 32, 32), 255, dtype=torch.uint8)
                    mask[0, y, x] = 1
                    loss = segmentation_loss(logits, mask).item()
                    if loss:
                        assert (y, x) not in seen and (y % 2, x % 2) == (row, column)
                        seen[y, x] = 0.6931 - loss
    weights = torch.zeros(32, 32)
    for (y, x), gain in seen.items():
        weights[y, x] = gain
    assert len(seen) == 32 * 32
    pixels = torch.arange(32.0)
    centers = [(weights.sum(axis) @ pixels / weights.sum()).item() for axis in (1, 0)]
    assert centers == pytest.approx([11.5, 19.5], abs=0.1)


def test_the_backbone_learns_at_a_tenth_of_the_rate_and_norms_do_not_decay(fpn):
    model = FPN(fpn, CLASSES)
    adam = optimizer(model, fpn)
    assert type(adam) is torch.optim.AdamW
    groups = {id(p): g for g in adam.param_groups for p in g["params"]}
    assert len(groups) == sum(p.requires_grad for p in model.parameters())
    for parameter, lr, decays in (
        (model.backbone.net.conv_stem.weight, 1, True),
        (model.lateral[0].weight, 10, True),
        (model.classify.bias, 10, False),
        (model.smooth[0][1].weight, 10, False),
    ):
        group = groups[id(parameter)]
        assert group["lr"] == pytest.approx(lr * fpn.lr)
        assert (group["weight_decay"] > 0) == decays
    assert id(model.backbone.net.bn1.weight) not in groups


@pytest.mark.parametrize("head", ["fpn", "deeplab_v2"])
def test_the_file_names_the_head(fpn, tmp_path, head):
    settings = fpn.model_copy(update={"head": head})
    model = create_segmenter(settings, CLASSES).eval()
    save_segmenter(model, tmp_path / "m.safetensors")
    again = load_segmenter(tmp_path / "m.safetensors")
    assert type(again) is type(model) and again.settings == settings
    image = torch.rand(1, 3, model.backbone.side(64), model.backbone.side(96))
    assert torch.equal(again.probabilities(image), model.probabilities(image))


def test_a_file_without_a_head_is_a_deeplab(fpn, tmp_path):
    model = create_segmenter(fpn.model_copy(update={"head": "deeplab_v2"}), CLASSES).eval()
    save_segmenter(model, tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        about = json.loads(file.metadata()["tag2mask"])
    del about["settings"]["head"]
    tensors = load_file(tmp_path / "new.safetensors")
    save_file(tensors, tmp_path / "old.safetensors", {"tag2mask": json.dumps(about)})
    old = load_segmenter(tmp_path / "old.safetensors")
    assert type(old) is DeepLabV2
    image = torch.rand(1, 3, 65, 65)
    assert torch.equal(old(image), model(image))


def test_the_top_is_what_the_classes_of_imagenet_are_read_from():
    """An EfficientNet's last convolution, with its trained weights; other CNNs have no more maps
    than timm gives."""
    settings = load_recipe("photos").segmenter
    backbone = FPN(settings, CLASSES, [0.0] * 4).backbone.eval()  # no photo is padded
    whole, _ = create_backbone(settings.backbone, "auto", num_classes=0)
    image = torch.rand(1, 3, 96, 64)
    with torch.inference_mode():
        expected = whole.eval().forward_features((image - backbone.mean) / backbone.std)
        top = backbone.raw_maps(image)[-1]
    assert top.shape == expected.shape == (1, 1280, 3, 2)
    assert torch.allclose(top, expected, atol=1e-4)
    assert not FPN(settings.model_copy(update=RESNET), CLASSES).backbone.top


def test_a_file_of_before_the_top_loads_without_it(fpn, tmp_path):
    """Its `shifts` are those of fewer maps."""
    model = FPN(fpn, CLASSES, FPN(fpn, CLASSES).backbone.shifts[:-1]).eval()
    save_segmenter(model, tmp_path / "old.safetensors")
    old = load_segmenter(tmp_path / "old.safetensors")
    assert not any("top" in name for name in old.state_dict())
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(old(image), model(image))


def test_a_vit_gives_maps_too(fpn):
    """Of three of its depths, all at the stride of its patches."""
    model = FPN(fpn.model_copy(update={"backbone": "test_vit"}), CLASSES).eval()
    image = torch.rand(1, 3, 64, 96)
    stride = model.backbone.stride
    assert len(model.lateral) == len(model.backbone.depths) > 1
    assert model(image).shape == (1, 3, 64 // stride, 96 // stride)
    assert model.probabilities(image).shape == (1, 3, 64, 96)


def test_a_backbone_without_maps_is_refused(fpn):
    with pytest.raises(ConfigError, match="mixer_s16_224"):
        FPN(fpn.model_copy(update={"backbone": "mixer_s16_224"}), CLASSES)


@pytest.mark.parametrize("recipe", ["cpc", "ppc", "vit_pcm", "voc12-cpc", "coco14-cpc"])
def test_the_papers_recipes_train_their_deeplab(recipe):
    """With the values of deeplab-pytorch, whatever the defaults of the recipe `photos` become."""
    settings = load_recipe(recipe).segmenter
    values = settings.model_dump(include=set(PAPERS)) | {"crf": settings.crf.model_dump()}
    other = {"coco14-cpc": {"image_size": 640, "steps": 100_000}}.get(recipe, {})
    assert values == PAPERS | other


PAPERS = {
    "head": "deeplab_v2",
    "backbone": "resnet101",
    "output_stride": 8,
    "feature_length": 0.0,
    "crop_size": 321,
    "scale_range": (0.5, 1.5),
    "batch_size": 10,
    "steps": 20_000,
    "rounds": 1,
    "lr": 2.5e-4,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "poly_power": 0.9,
    "balanced": False,
    "test_scales": (0.75, 1.0, 1.25),
    "image_size": 513,
    "flip": True,
    "object_first": False,
    "crf": {
        "iterations": 10,
        "gaussian_sxy": 1.0,
        "gaussian_weight": 3.0,
        "bilateral_sxy": 67.0,
        "bilateral_srgb": 3.0,
        "bilateral_weight": 4.0,
    },
}
