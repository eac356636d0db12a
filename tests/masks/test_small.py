"""Small things: found where they are, sized by their own evidence, kept by the CRF."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from tag2mask.backbone import without_cudnn
from tag2mask.classifier import PatchClassifier
from tag2mask.config import ClassifierSettings, CRFSettings, MaskSettings
from tag2mask.crf.params import narrow
from tag2mask.masks import MaskMaker, make_masks, read_score_maps
from tag2mask.masks.small import covered, small_tags, with_close
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.photos.tensors import to_tensor

SIDE, DOT = 224, 8  # pixels: half a patch


def tile(at, seed):
    """A gray, noisy picture with a dark dot in the middle of `at` (x, y), or without."""
    noise = np.random.default_rng(seed).normal(150, 12, (SIDE, SIDE, 1)).clip(0, 255)
    picture = Image.fromarray(np.repeat(noise, 3, 2).astype(np.uint8))
    if at:
        box = [at[0] - DOT // 2, at[1] - DOT // 2, at[0] + DOT // 2 - 1, at[1] + DOT // 2 - 1]
        ImageDraw.Draw(picture).ellipse(box, fill=(40, 40, 40))
    return picture


@pytest.fixture(scope="module")
def net():
    """A classifier with real weights whose tag 1 is what dots add to the features."""
    torch.manual_seed(0)
    net = PatchClassifier(ClassifierSettings(token="none", mixer="none"), 2, 0).eval()
    corners = [(60, 60), (150, 70), (70, 160), (160, 160)]
    with torch.inference_mode():
        dots, plain = (
            torch.stack([to_tensor(tile(at, i)) for i, at in enumerate(places)])
            for places in (corners, [None] * 4)
        )
        added = (net.backbone(dots)[0] - net.backbone(plain)[0]).mean((0, 1, 2))
        net.classifier.weight[1] = added / added.norm()
    return net


@pytest.mark.parametrize("at", [(40, 100), (118, 52), (131, 178), (188, 117)])
def test_the_close_scores_point_at_a_thing_of_half_a_patch(net, at):
    image = to_tensor(tile(at, 9))[None]
    close = net.close_scores(image, torch.zeros(1, 0), torch.tensor([1]))
    assert close.shape == (1, SIDE // 8, SIDE // 8) and close.max() == 1 and close.min() >= 0
    y, x = divmod(int(close[0].argmax()), SIDE // 8)
    assert abs(8 * x + 4 - at[0]) <= 8 and abs(8 * y + 4 - at[1]) <= 8
    assert float(covered(close)) < 0.037
    assert all(parameter.grad is None for parameter in net.parameters())


def test_close_scores_are_what_their_formula_says():
    """LayerCAM of the sum of fourth powers, the geometric mean over maps, 3 x 3 cells smoothed."""
    torch.manual_seed(0)
    settings = ClassifierSettings(backbone="test_efficientnet", weights="none", image_size=96)
    net = PatchClassifier(settings, 4, 2).eval()
    images, u = torch.rand(3, 3, 96, 96), torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    tags = (
        net(images, u)[0][..., 1:].amax((1, 2)).argmax(1) + 1
    )  # their logits are not all negative
    close = net.close_scores(images, u, tags)
    assert close.ndim == 3 and (close.amax((1, 2)) - 1).abs().max() < 1e-6
    for image, clusters, tag, got in zip(images, u, tags, close, strict=True):
        raw = net.backbone.raw_maps(image[None].requires_grad_())
        tokens = net.backbone.align(raw, (96, 96))[-1]
        logits = net._classify(tokens, tokens.mean((1, 2)), clusters[None])[0][0, ..., tag]
        score = sum(logit**4 for logit in logits.flatten() if logit > 0)
        gradients = torch.autograd.grad(score, raw[:-1])
        cams = [
            (features.clamp(min=0) * gradient.clamp(min=0)).sum(1, keepdim=True)
            for features, gradient in zip(raw, gradients, strict=False)
        ]
        aligned = [cam.permute(0, 3, 1, 2) for cam in net.backbone.align(cams, (96, 96))]
        fine = [F.interpolate(cam, aligned[0].shape[-2:], mode="bilinear") for cam in aligned]
        product = torch.stack([cam / cam.max() for cam in fine]).prod(0)
        ones = torch.ones(1, 1, 3, 3)
        inside = F.conv2d(torch.ones_like(product), ones, padding=1)
        smooth = (F.conv2d(product, ones, padding=1) / inside) ** (1 / (len(raw) - 1))
        torch.testing.assert_close(got, (smooth / smooth.max())[0, 0], atol=1e-4, rtol=1e-3)


def test_each_photo_of_a_batch_has_its_own_close_scores(net):
    images = torch.stack([to_tensor(tile((60, 60), 1)), to_tensor(tile((150, 150), 2))])
    u, tags = torch.zeros(2, 0), torch.tensor([1, 1])
    both = net.close_scores(images, u, tags)
    alone = [net.close_scores(images[i : i + 1], u[i : i + 1], tags[i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-3, rtol=1e-3)


def test_the_gradients_need_no_training_mode_on_a_gpu(monkeypatch):
    """cuDNN refuses the gradient of an LSTM in eval mode, and dropout would change the scores."""
    net = PatchClassifier(ClassifierSettings(token="none"), 2, 0).eval()
    seen = []

    def mixed(tokens):
        seen.append((torch.backends.cudnn.enabled, net.training))
        return tokens

    monkeypatch.setattr(net.mixer, "forward", mixed)
    gpu = torch.device("cuda")
    monkeypatch.setattr("tag2mask.classifier.net.without_cudnn", lambda _: without_cudnn(gpu))
    net.close_scores(torch.rand(1, 3, 64, 64), torch.zeros(1, 0), torch.tensor([1]))
    assert seen == [(False, False)] and torch.backends.cudnn.enabled


def test_threads_leave_cudnn_as_it_was():
    """Its switch is one for all threads: two that turn it off at once must not leave it off."""
    first_is_in, second_is_in, first_is_out = Event(), Event(), Event()
    gpu = torch.device("cuda")

    def first() -> None:
        with without_cudnn(gpu):
            first_is_in.set()
            second_is_in.wait(0.3)  # it must not come in
        first_is_out.set()

    def second() -> None:
        first_is_in.wait()
        with without_cudnn(gpu):
            second_is_in.set()
            first_is_out.wait(0.3)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(first), pool.submit(second)]:
            future.result()
    assert torch.backends.cudnn.enabled


def test_a_vit_has_no_finer_map_and_no_small_tag():
    vit = PatchClassifier(ClassifierSettings(backbone="test_vit", weights="none"), 3, 2).eval()
    close = vit.close_scores(torch.rand(2, 3, 64, 64), torch.ones(2, 2), torch.tensor([1, 2]))
    assert not close.any() and covered(close).tolist() == [1, 1]


def test_the_share_that_evidence_covers_by_hand():
    close = torch.zeros(3, 4, 5)
    close[0, :2] = 1  # ten of twenty cells
    close[1, 0, :2] = torch.tensor([1.0, 0.5])  # squares 1 and 1/4: 1.25^2 / (1 + 1/16) cells
    assert covered(close).tolist() == pytest.approx([0.5, 25 / 17 / 20, 1])
    assert small_tags([(1, 0.01), (1, 0.1), (2, 0.01), (2, 0.2), (3, 0.5)]) == {1}
    assert small_tags([]) == frozenset()


def test_close_scores_replace_a_map_and_keep_its_height():
    maps = torch.tensor([[[0.0, 0.0]], [[2.0, 6.0]], [[1.0, 3.0]]])
    close = torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    fine = with_close(maps, {1: close})
    assert fine.shape == (3, 1, 4) and fine[1].tolist() == [[6, 3, 0, 0]]
    assert fine[2, 0, 0] == 1 and fine[2, 0, 3] == 3, "the other tag is interpolated"
    assert with_close(maps, {}) is maps


@pytest.fixture
def scenes(tmp_path):
    """Photos with a dot, a large square, and both; their dots' boxes."""
    photos, boxes = [], {}
    for i, tags in enumerate([("dot",), ("square",), ("dot", "square")] * 2):
        at = (64 + 40 * (i % 3), 176)
        picture = tile(at if "dot" in tags else None, i)
        if "square" in tags:
            ImageDraw.Draw(picture).rectangle([20, 20, 130, 110], fill=(200, 60, 60))
        picture.save(tmp_path / f"{i}.png")
        photos.append(Photo(str(i), tmp_path / f"{i}.png", tags))
        boxes[str(i)] = at
    return Table(("dot", "square"), tuple(photos)), boxes


def patch_scorer(images, labels):
    """Patch scores as a wide field of view makes them: the dot's are a blur around it."""
    dark = F.max_pool2d((images.mean(1, keepdim=True) < 0.3).float(), 16)
    red = F.avg_pool2d(((images[:, :1] - images[:, 2:]) > 0.2).float(), 16)
    blur = F.avg_pool2d(F.pad(dark, [3] * 4), 7, 1)
    return torch.cat([0 * red, 9 * blur, red], 1), []


def closer(images, labels, tags):
    """Where the dot or the square is, on cells of 8 pixels."""
    dark = F.avg_pool2d((images.mean(1) < 0.3).float(), 8)
    red = F.avg_pool2d(((images[:, 0] - images[:, 2]) > 0.2).float(), 8)
    chosen = torch.where((tags == 1)[:, None, None], dark, red)
    return chosen / chosen.amax((1, 2), keepdim=True).clamp(min=1e-6)


SETTINGS = MaskSettings(image_size=SIDE, flip=False, affinity=False)


def made(table, folder, settings=SETTINGS, closer=closer):
    maker = MaskMaker(patch_scorer, int, table.tags, settings, closer)
    maker.overall = maker.measure(table.photos)
    make_masks(table, maker, folder, 1)
    return maker, {p.name: read_mask(folder / f"{p.name}.png") for p in table.photos}


def test_a_dot_among_large_things_gets_a_mask_of_its_size(scenes, tmp_path):
    table, boxes = scenes
    maker, masks = made(table, tmp_path / "small")
    assert maker.small == {1}, "the dots, not the squares"
    _, before = made(
        table, tmp_path / "before", SETTINGS.model_copy(update={"small_things": False})
    )
    for photo in table.photos:
        truth = np.zeros((SIDE, SIDE), bool)
        if "dot" in photo.tags:
            x, y = boxes[photo.name]
            truth[y - DOT // 2 : y + DOT // 2, x - DOT // 2 : x + DOT // 2] = True
            ious = [
                (m == 1)[truth].sum() / ((m == 1) | truth).sum()
                for m in (masks[photo.name], before[photo.name])
            ]
            assert ious[0] > 0.5 > 0.2 > ious[1], photo.name
            classes, maps = read_score_maps(tmp_path / "small", photo)
            assert classes[1] == 1 and maps.shape[1:] == (SIDE // 8, SIDE // 8)
        else:
            assert np.array_equal(masks[photo.name], before[photo.name]), "large things as before"


def test_only_a_photo_with_a_small_thing_has_the_narrow_crf(scenes, tmp_path, monkeypatch):
    table, _ = scenes
    seen = []
    monkeypatch.setattr(
        "tag2mask.masks.make.dense_crf",
        lambda image, probs, params: seen.append(params) or probs,
    )
    made(Table(table.tags, table.photos[:3]), tmp_path / "out")
    wide = CRFSettings()
    assert seen == [narrow(wide), wide, narrow(wide)]
    assert narrow(wide).bilateral_sxy < wide.bilateral_sxy
    assert narrow(CRFSettings(iterations=3)).iterations == 3


def test_nothing_is_looked_at_closer_unless_the_settings_say_so(scenes, tmp_path):
    table, _ = scenes
    for change in ({"small_things": False}, {"scores": "max_norm"}):
        maker, _ = made(table, tmp_path / str(change), SETTINGS.model_copy(update=change), None)
        assert MaskMaker(None, int, table.tags, maker.settings, closer).closer is None
        assert maker.small == frozenset()
