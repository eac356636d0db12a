"""Patches look at the middle of their squares, whatever the backbone: moved and mirrored parts of
real photos must come out in place."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tag2mask.backbone import Backbone
from tag2mask.config import SegmenterSettings
from tag2mask.demo.scenes import SCENE_TAGS, make_scene
from tag2mask.photos.tensors import to_tensor
from tag2mask.segmenter.deeplab import DeepLabV2

SIDE, PATCH = 320, 64


@pytest.fixture(scope="module")
def pictures():
    """Five of the demo's scenes: (5, 3, 320, 320)."""
    return torch.stack(
        [
            to_tensor(make_scene(np.random.default_rng(i), SIDE, SCENE_TAGS[i]).picture)
            for i in range(5)
        ]
    )


def backbone(name):
    torch.manual_seed(0)
    net = Backbone(name, "auto" if "lite" in name else "none").eval()
    if "resnet" in name:  # so that no change cancels another
        for parameter in net.parameters():
            parameter.data.abs_()
    return net


def pooled(net, images):
    """The maps as the affinity and the scores have them: on the grid of patches."""
    with torch.inference_mode():
        maps = net.feature_maps(images)[0]
    return [F.adaptive_avg_pool2d(m.permute(0, 3, 1, 2).double(), SIDE // net.stride) for m in maps]


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "convnext_atto", "test_vit"])
def test_what_is_exchanged_in_a_picture_changes_the_map_there(name, pictures):
    net, inside = backbone(name), slice((SIDE - PATCH) // 2, (SIDE + PATCH) // 2)
    changed = pictures.clone()
    changed[..., inside, inside] = pictures.roll(1, 0)[..., inside, inside]
    # A second time upside down: on which side of its middle the patch itself is strongest then
    # falls out.
    for straight, turned in zip(
        zip(pooled(net, pictures), pooled(net, changed), strict=True),
        zip(pooled(net, pictures.flip(-1, -2)), pooled(net, changed.flip(-1, -2)), strict=True),
        strict=True,
    ):
        change = torch.cat([(a - b).square().sum(1) for a, b in (straight, turned)])
        pixels = (torch.arange(change.shape[-1]) + 0.5) * net.stride - SIDE / 2
        centre = torch.stack(
            [(change.sum(3 - axis) @ pixels.double()) / change.sum((1, 2)) for axis in (1, 2)]
        ).mean()
        # EfficientNet's weights make up for 6 to 7 of the 8 pixels that its last map is moved by.
        assert abs(centre) < (3 if "lite" in name else 2), f"{name}: {centre:.1f} pixels beside it"


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "test_vit"])
def test_the_map_of_the_mirrored_picture_mirrored_back_fits_where_it_lies(name, pictures):
    """Shifted by a cell to either side it fits worse, and as much worse to the left as to the
    right."""
    net = backbone(name)
    with torch.inference_mode():
        straight, back = net(pictures)[0], net(pictures.flip(-1))[0].flip(2)
    straight, back = (m - m.mean((0, 1, 2)) for m in (straight, back))

    def fit(shift):
        a, b = straight[:, :, 2 + shift : 18 + shift], back[:, :, 2:18]
        return float((a * b).sum() / (a.norm() * b.norm()))

    left, here, right = (fit(shift) for shift in (-1, 0, 1))
    assert here > max(left, right)
    assert (
        abs((left - right) / 2 / (left + right - 2 * here)) < 0.3
    )  # the top of the parabola through the three, in cells: twice the shift


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
@pytest.mark.parametrize("stride", [8, 16])
def test_the_segmenter_looks_where_it_says(name, stride, pictures):
    """Of DeepLab cell (i, j) lies on pixel (stride i, stride j)."""
    torch.manual_seed(0)
    weights = "auto" if "lite" in name else "none"
    model = DeepLabV2(
        SegmenterSettings(
            backbone=name,
            weights=weights,
            head="deeplab_v2",
            output_stride=stride,
            feature_length=0,
        ),
        ["background", "a"],
    ).eval()
    for parameter in model.backbone.net.parameters() if "resnet" in name else ():
        parameter.data.abs_()
    features = []
    model.heads[0].register_forward_pre_hook(lambda head, arguments: features.append(arguments[0]))
    pictures = F.pad(pictures, [0, 1, 0, 1], mode="replicate")  # 321 pixels
    changed, inside = pictures.clone(), slice(128, 193)
    changed[..., inside, inside] = pictures.roll(1, 0)[..., inside, inside]
    centres = []
    with torch.inference_mode():
        for a, b in ((pictures, changed), (pictures.flip(-1, -2), changed.flip(-1, -2))):
            model(torch.cat([a, b]))
            before, after = features.pop().double().chunk(2)
            change = (before - after).square().sum(1)
            pixels = torch.arange(change.shape[-1]).double() * stride - 160
            centres += [(change.sum(3 - axis) @ pixels) / change.sum((1, 2)) for axis in (1, 2)]
    assert abs(torch.stack(centres).mean()) < 3
