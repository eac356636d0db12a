import json

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from tag2mask.errors import ConfigError, RunError
from tag2mask.segmenter.deeplab import DeepLabV2
from tag2mask.segmenter.heads import load_segmenter, save_segmenter
from tag2mask.segmenter.losses import segmentation_loss


@pytest.mark.parametrize(("stride", "rates"), [(8, [6, 12, 18, 24]), (16, [3, 6, 9, 12])])
def test_logits_are_the_sum_of_four_dilated_heads(settings, stride, rates):
    model = DeepLabV2(
        settings.model_copy(update={"output_stride": stride}), ["background", "a", "b"]
    ).eval()
    image = torch.rand(2, 3, 65, 49)
    features = model.backbone.net((image - model.backbone.mean) / model.backbone.std)[-1]
    features = 5 * features / features.pow(2).sum(1, keepdim=True).sqrt()
    assert features.shape[2:] == (64 // stride + 1, 48 // stride + 1)
    heads = (
        F.conv2d(features, h.weight, h.bias, padding=r, dilation=r)
        for h, r in zip(model.heads, rates, strict=True)
    )
    torch.testing.assert_close(model(image), sum(heads))


def test_side_is_whole_cells_and_one(settings):
    model = DeepLabV2(settings, ["background", "a"])
    assert [model.backbone.side(pixels) for pixels in (1, 9, 12, 14, 321, 500)] == [
        9,
        9,
        9,
        17,
        321,
        497,
    ]


def test_batch_norms_never_move(settings):
    model = DeepLabV2(settings, ["background", "a"]).train()
    norms = {k: v.clone() for k, v in model.state_dict().items() if ".bn" in k}
    assert norms
    model(torch.rand(2, 3, 33, 33)).sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.grad is not None], 1.0).step()
    assert all(torch.equal(model.state_dict()[k], v) for k, v in norms.items())


def test_a_vit_is_refused(settings):
    with pytest.raises(ConfigError, match="test_vit"):
        DeepLabV2(settings.model_copy(update={"backbone": "test_vit"}), ["background", "a"])


def test_saved_and_loaded_it_is_the_same(settings, tmp_path):
    model = DeepLabV2(settings, ["background", "chat noir", "日"]).eval()
    save_segmenter(model, tmp_path / "m.safetensors")
    again = load_segmenter(tmp_path / "m.safetensors")
    image = torch.rand(1, 3, 33, 33)
    assert torch.equal(model(image), again(image))
    assert again.classes == model.classes and again.settings == settings and not again.training
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert json.loads(file.metadata()["tag2mask"])["classes"] == [
            "background",
            "chat noir",
            "日",
        ]
    with pytest.raises(RunError, match="tag2mask segmenter"):
        load_segmenter(tmp_path / "none.safetensors")


def test_loss_by_hand():
    p = torch.tensor(
        [[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6], [0.25, 0.25, 0.5]]
    )  # 4 pixels, 3 classes
    logits = p.log().T.reshape(1, 3, 2, 2)
    mask = torch.full((1, 3, 3), 255, dtype=torch.uint8)  # its even pixels are the logits' cells
    mask[0, ::2, ::2] = torch.tensor([[0, 1], [2, 0]])
    expected = -(p[0, 0].log() + p[1, 1].log() + p[2, 2].log() + p[3, 0].log()) / 4
    assert segmentation_loss(logits, mask) == pytest.approx(expected.item())
    balanced = (-(p[0, 0].log() + p[3, 0].log()) / 2 - (p[1, 1].log() + p[2, 2].log()) / 2) / 2
    assert segmentation_loss(logits, mask, balanced=True) == pytest.approx(balanced.item())


@pytest.mark.parametrize("balanced", [False, True])
def test_ignored_pixels_do_not_count(balanced):
    logits = torch.randn(2, 3, 5, 5, requires_grad=True)
    mask = torch.randint(0, 3, (2, 33, 33), dtype=torch.uint8)
    half = mask.clone()
    half[1] = 255
    torch.testing.assert_close(
        segmentation_loss(logits, half, balanced), segmentation_loss(logits[:1], mask[:1], balanced)
    )
    nothing = segmentation_loss(logits, torch.full_like(mask, 255), balanced)
    nothing.backward()
    assert nothing == 0 and not logits.grad.any()


def test_loss_looks_at_the_pixel_under_each_logit():
    logits = torch.zeros(1, 2, 5, 5)
    logits[0, 1, 1, 3] = 8.0  # the cell centred on pixel (8, 24)
    losses = {}
    for y, x in ((8, 24), (8, 22), (8, 26), (6, 24), (10, 24)):
        mask = torch.full((1, 33, 33), 255, dtype=torch.uint8)
        mask[0, y, x] = 1
        losses[y, x] = segmentation_loss(logits, mask).item()
    assert min(losses, key=losses.get) == (8, 24)
    assert (
        losses[8, 22]
        == pytest.approx(losses[8, 26], rel=1e-5)
        == pytest.approx(losses[6, 24], rel=1e-5)
    )
