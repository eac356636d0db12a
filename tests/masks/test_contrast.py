"""What photos of nothing do not have: by hand, and in masks of things with blurred evidence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from tag2mask.backbone import Backbone
from tag2mask.config import CRFSettings, MaskSettings
from tag2mask.config_files import load_recipe
from tag2mask.masks import CONTRAST, Contrast, MaskMaker, make_masks, read_score_maps
from tag2mask.masks.contrast import Usual, fit
from tag2mask.masks.mend import mend
from tag2mask.masks.scores import tag_scores
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.runs.mask_maker import mask_maker
from tag2mask.runs.run import Run

SIDE = 128


def test_the_mean_and_the_covariance_are_those_of_all_patches():
    maps = [torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    usual = Usual.of(maps)
    patches = torch.cat([x.flatten(1) for x in maps], 1).double()
    torch.testing.assert_close(usual.mean, patches.mean(1))
    torch.testing.assert_close(usual.covariance, torch.cov(patches, correction=0))


def test_the_direction_is_the_linear_discriminant():
    """A feature that varies in photos of nothing says little, and two that vary together say what
    their difference says."""
    mean = torch.tensor([1.0, 2.0], dtype=torch.float64)
    covariance = torch.tensor([[4.0, 1.9], [1.9, 1.0]], dtype=torch.float64)
    way = Usual(mean, covariance).direction(mean + torch.tensor([1.0, 1.0]))
    ridged = covariance.numpy() + 0.01 * 2.5 * np.eye(2)
    expected = np.linalg.inv(ridged) @ [1, 1]
    expected /= np.sqrt(expected @ covariance.numpy() @ expected)
    assert way.numpy() == pytest.approx(expected)
    torch.manual_seed(0)
    patches = mean[:, None] + torch.linalg.cholesky(covariance) @ torch.randn(2, 50_000).double()
    (along,) = Usual(mean, covariance).along(way, [patches.float()])
    assert float(along.mean()) == pytest.approx(0, abs=0.02)
    assert float(along.std()) == pytest.approx(1, abs=0.02)


def test_photos_of_nothing_may_be_of_one_color():
    usual = Usual.of([torch.ones(3, 4, 4)] * 20)
    things = torch.ones(3, 4, 4)
    things[:, 1, 2] = 3
    weight, bias, _ = fit(usual, [(things, things[0])], True)
    values = Contrast(weight[None], torch.tensor([bias])).of(things, 0)
    assert values.isfinite().all() and values.argmax() == 6 and values.count_nonzero() == 1


def looks(size, count=6, cells=40):
    """Features (12, 40, 40) of photos in which only a square of this many cells has a value in the
    last; evidence (10, 10) is a blur around it. And the squares."""
    generator, pairs, squares = torch.Generator().manual_seed(0), [], []
    for i in range(count):
        x = torch.randn(12, cells, cells, generator=generator)
        x[1] = x[0] + 0.3 * x[1]
        square = torch.zeros(cells, cells, dtype=torch.bool)
        at = 4 + 3 * i if size < 10 else 8
        square[at : at + size, at : at + size] = True
        x[1][square] += 4  # the first feature alone, or the second, shows little
        blur = F.avg_pool2d(square[None, None].float(), 13, 4, 6)[0, 0]
        pairs.append((x.half(), blur))
        squares.append(square)
    return pairs, squares


@pytest.mark.parametrize(("size", "small"), [(3, True), (18, False)])
def test_contrast_is_on_the_thing_that_evidence_surrounds(size, small):
    generator = torch.Generator().manual_seed(1)
    nothing = [torch.randn(12, 40, 40, generator=generator) for _ in range(20)]
    for x in nothing:
        x[1] = x[0] + 0.3 * x[1]
    usual = Usual.of(nothing)
    pairs, squares = looks(size)
    weight, bias, is_small = fit(usual, pairs, True)
    assert is_small is small and fit(usual, pairs, False)[2] is False
    contrast = Contrast(torch.stack([weight, weight]), torch.tensor([bias, bias]))
    for (features, _), square in zip(pairs, squares, strict=True):
        values = contrast.of(features, 1)
        assert values.shape == (40, 40) and values.min() == 0, "never negative"
        best = torch.zeros(1600, dtype=torch.bool)
        best[values.flatten().topk(size * size).indices] = True
        assert (best.view(40, 40) & square).sum() > 0.8 * size * size
    of_nothing = torch.stack([x.flatten(1).T @ weight + bias for x in nothing])
    assert float(of_nothing.mean()) == pytest.approx(0, abs=1e-3)
    assert float(of_nothing.std()) == pytest.approx(1, abs=1e-3)


def test_a_small_thing_is_looked_for_where_the_contrast_is_strongest(monkeypatch):
    """Not where the evidence is: that is the first look, at ten times as many patches."""
    shares = []
    from tag2mask.masks import contrast

    def spy(patches, values, share, real=contrast._tops):
        shares.append(share)
        return real(patches, values, share)

    monkeypatch.setattr(contrast, "_tops", spy)
    usual = Usual.of([torch.randn(12, 40, 40) for _ in range(20)])
    fit(usual, looks(3)[0], True)
    fit(usual, looks(18)[0], True)
    assert shares == [0.1, *[0.01] * 16, 0.1]


def test_a_small_thing_is_where_it_is_far_from_usual_and_a_large_one_where_its_scores_are_too():
    """A tag with small things may have a large one in some photo: there, it counts as large."""
    contrast = Contrast(torch.tensor([[0.0], [1.0]]), torch.tensor([1.0, -1.0]))
    scores = torch.stack([torch.zeros(20, 20), torch.rand(20, 20)])
    features = torch.zeros(1, 20, 20)
    features[0, 5, 5:8] = torch.tensor([2.5, 8.0, 9.0])
    values = (features - 1).relu()[0]
    small = contrast.sharpen(scores, features, [0, 1], {1})[1]
    torch.testing.assert_close(small, (values - 2).relu())
    assert small.count_nonzero() == 2, "1.5 standard deviations are noise"
    large = contrast.sharpen(scores, features, [0, 1], {})[1]
    expected = (scores[1] * values).sqrt()
    torch.testing.assert_close(large, expected.clamp(min=1e-3 * float(expected.max())))
    assert large.all(), "all patches count for the threshold"

    features[0, 2:8, 2:12] = 8  # 15 % of the photo
    large = contrast.sharpen(scores, features, [0, 1], {1})[1]
    expected = (scores[1] * (features[0] - 1).relu()).sqrt()
    torch.testing.assert_close(large, expected.clamp(min=1e-3 * float(expected.max())))
    nowhere = contrast.sharpen(0 * scores, features, [0, 1], {1})[1]
    assert not nowhere.any(), "no evidence stays none"


def test_otsu_leaves_out_patches_without_a_score_if_things_are_small():
    values = [0.0] * 400 + [0.3] * 8 + [0.9, 1.0]
    maps = torch.tensor([[[0.0] * len(values)], [values]])
    small = tag_scores(maps, MaskSettings(), 0.4, [1])
    torch.testing.assert_close(small.sum(0), torch.ones(1, len(values)))
    assert (small[1] > small[0])[0].tolist() == [value > 0.5 for value in values]
    large = tag_scores(maps, MaskSettings(), None, [])
    assert (large[1] > large[0])[0].tolist() == [value > 0 for value in values]
    for nothing in (0 * maps, maps.where(maps == 1, 0)):
        scores = tag_scores(nothing, MaskSettings(), 0.4, [1])
        assert scores.isfinite().all()
        assert int((scores[1] > scores[0]).sum()) == int(nothing.any()), "one patch is above"


def test_fine_features_are_all_maps_before_the_last_on_one_grid():
    torch.manual_seed(0)
    net = Backbone("test_efficientnet", "none", finest=4).eval()
    image = torch.rand(2, 3, 96, 96)
    maps, _ = net.feature_maps(image)
    features = net.fine_features(image)
    assert features.shape == (2, sum(net.dims[:-1]), 24, 24)
    torch.testing.assert_close(features[:, : net.dims[0]], maps[0].permute(0, 3, 1, 2))
    second = F.interpolate(maps[1].permute(0, 3, 1, 2), (24, 24), mode="bilinear")
    torch.testing.assert_close(
        features[:, net.dims[0] : net.dims[0] + net.dims[1]], second, atol=1e-4, rtol=1e-4
    )


# ---- masks


@pytest.fixture
def tiles(tmp_path):
    """Striped tiles: 20 of nothing, 6 with a small dark dot, 6 with a large green area, 2 with
    both; their dots."""
    photos, dots = [], {}
    random = np.random.default_rng(0)
    for i in range(34):
        tags = ("area",) * (20 <= i < 26 or i >= 32) + ("dot",) * (i >= 26)
        stripes = np.tile(150 + 60 * (np.arange(SIDE) // 16 % 2), (SIDE, 1))[..., None]
        pixels = stripes + random.normal(0, 8, (SIDE, SIDE, 3))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        if "area" in tags:
            ImageDraw.Draw(picture).rectangle([64, 8, 119, 119], fill=(90, 170, 90))
        if "dot" in tags:
            x, y = dots[str(i)] = 16 + 8 * (i % 4), 24 + 11 * (i % 8)
            ImageDraw.Draw(picture).rectangle([x, y, x + 7, y + 7], fill=(20, 20, 150))
        picture.save(tmp_path / f"{i}.png")
        photos.append(Photo(str(i), tmp_path / f"{i}.png", tags))
    return Table(("area", "dot"), tuple(photos)), dots


def scorer(images, labels):
    """Patch scores of a wide view: the dot's are a blur, the area's are higher on its left half."""
    dark = F.max_pool2d((images.mean(1, keepdim=True) < 0.3).float(), 16)
    green = F.avg_pool2d(((images[:, 1:2] - images[:, :1]) > 0.2).float(), 16)
    left = torch.tensor([0, 0, 0, 0, 1, 0.5, 0.25, 0.15])
    blur = F.avg_pool2d(F.pad(dark, [2] * 4), 5, 1)
    return torch.cat([0 * dark, 3 * green * left, 9 * blur], 1), []


def colors(images):
    """Features of cells of 4 pixels: three colors."""
    return F.avg_pool2d(images, 4)


SETTINGS = MaskSettings(image_size=SIDE, flip=False, affinity=False, crf=CRFSettings(iterations=0))


def made(table, folder, settings=SETTINGS, features=colors):
    maker = MaskMaker(scorer, int, table.tags, settings, features=features)
    maker.overall = maker.measure(table.photos)
    make_masks(table, maker, folder, 1)
    return maker, {p.name: read_mask(folder / f"{p.name}.png") for p in table.photos}


def test_masks_of_small_and_large_things_are_where_photos_of_nothing_have_nothing(tiles, tmp_path):
    table, dots = tiles
    maker, masks = made(table, tmp_path / "with")
    assert maker.small == {2}, "the dots, not the areas"
    _, before = made(table, tmp_path / "without", features=None)
    ious = {"new": {1: [], 2: []}, "old": {1: [], 2: []}}
    for photo in table.not_nothing:
        truth = np.zeros((SIDE, SIDE), np.uint8)
        if "area" in photo.tags:
            truth[8:120, 64:120] = 1
        if "dot" in photo.tags:
            x, y = dots[photo.name]
            truth[y : y + 8, x : x + 8] = 2
        for which, all_masks in (("new", masks), ("old", before)):
            for number in np.unique(truth)[1:]:
                mask, thing = all_masks[photo.name] == number, truth == number
                ious[which][number].append((mask & thing).sum() / (mask | thing).sum())
        classes, maps = read_score_maps(tmp_path / "with", photo)
        assert maps.shape == (len(classes), 32, 32)
    assert min(*ious["new"][1], *ious["new"][2]) > 0.5, ious
    for number in (1, 2):
        assert np.mean(ious["old"][number]) < np.mean(ious["new"][number]) - 0.2, ious
    assert not any(masks[photo.name].any() for photo in table.photos if photo.of_nothing)


def test_the_score_map_of_a_large_thing_is_the_geometric_mean(tiles, tmp_path):
    table, _ = tiles
    maker, _ = made(table, tmp_path / "out")
    both = table.photos[33]
    (maps,) = maker.score_maps([both])
    images = maker.read([both])
    evidence = F.interpolate(scorer(images[0], None)[0], (32, 32), mode="bilinear")[0]
    contrast = [maker.contrast.of(colors(images[0])[0], number) for number in (1, 2)]
    mean = (evidence[1] * contrast[0]).sqrt()
    torch.testing.assert_close(maps[1], mean.clamp(min=1e-3 * float(mean.max())))
    torch.testing.assert_close(maps[2], (contrast[1] - 2).relu())
    assert not maps[0].any()


def test_it_takes_20_photos_of_nothing_logits_and_the_setting(tiles, tmp_path):
    table, _ = tiles
    fewer = Table(table.tags, table.photos[1:])
    assert made(fewer, tmp_path / "19")[0].contrast is None
    for change in ({"contrast": False}, {"scores": "max_norm"}):
        settings = SETTINGS.model_copy(update=change)
        assert made(table, tmp_path / str(change), settings)[0].contrast is None
    all_large = SETTINGS.model_copy(update={"small_things": False})
    maker, _ = made(table, tmp_path / "large", all_large)
    assert maker.contrast and maker.small == frozenset()
    maker.measure(fewer.photos)
    assert maker.contrast is None, "that of other photos is gone"


def test_more_photos_of_nothing_are_compared_than_photos_of_a_tag(tiles, tmp_path, monkeypatch):
    counts = []
    real = Usual.of
    monkeypatch.setattr("tag2mask.masks.make.MEASURED", 3)
    monkeypatch.setattr("tag2mask.masks.make.USUAL", 17)
    monkeypatch.setattr(
        Usual, "of", lambda photos: counts.append(len(photos := list(photos))) or real(photos)
    )
    made(tiles[0], tmp_path / "out")
    assert counts == [17], "of 20"


def test_a_tag_without_photos_keeps_its_evidence(tiles, tmp_path):
    table, _ = tiles
    table = Table(("area", "dot", "new"), table.photos)
    maker, _ = made(table, tmp_path / "out")
    assert [maker.contrast.knows(number) for number in range(4)] == [False, True, True, False]
    maps, features = torch.rand(2, 8, 8), torch.rand(3, 32, 32)
    fine = maker.contrast.sharpen(maps, features, [0, 3], {3})
    torch.testing.assert_close(fine, F.interpolate(maps[None], (32, 32), mode="bilinear")[0])


def test_a_tag_that_hardly_differs_from_nothing_keeps_its_evidence(tiles, tmp_path):
    """Photos as usual, some of them with a tag. Its things may be small all the same."""
    table, _ = tiles
    gray = [replace(photo, tags=("gray",)) for photo in table.photos[:14]]
    nothing = table.photos[14:20]
    more = [replace(photo, name=f"{photo.name}-{i}") for i in range(3) for photo in nothing]
    table = Table(("area", "dot", "gray"), (*gray, *more, *table.photos[14:]))

    def middle(images, labels):
        z, maps = scorer(images, labels)
        spot = torch.zeros_like(z[:, :1])
        spot[:, :, 3:5, 3:5] = 1
        return torch.cat([z, spot], 1), maps

    def closer(images, labels, tags):
        spot = torch.zeros(len(images), 64, 64)
        spot[:, 31:33, 31:33] = 1
        return spot

    maker = MaskMaker(middle, int, table.tags, SETTINGS, closer, features=colors)
    maker.overall = maker.measure(table.photos)
    assert [maker.contrast.knows(number) for number in range(4)] == [False, True, True, False]
    assert maker.small == {2, 3}
    (maps,) = maker.score_maps(gray[:1])
    assert maps.shape[1:] == (32, 32) and 1 <= int((maps[1] > 0).sum()) <= 4


def test_a_mask_is_mended_with_the_threshold_that_made_it(tiles, tmp_path):
    table, _ = tiles
    maker, masks = made(table, tmp_path / "masks")
    about = {
        "classes": ["background", *table.tags],
        "threshold": maker.overall,
        "small": ["dot"],
        "settings": SETTINGS.model_dump(mode="json"),
    }
    (tmp_path / "masks" / "masks.json").write_text(json.dumps(about))
    for photo in table.not_nothing:
        assert np.array_equal(mend(tmp_path / "masks", photo, table.tags), masks[photo.name])


def test_a_contrast_is_stored_as_it_is(tmp_path):
    contrast = Contrast(torch.rand(3, 5), torch.rand(3))
    contrast.save(tmp_path / CONTRAST)
    for before, after in zip(contrast, Contrast.load(tmp_path / CONTRAST), strict=True):
        assert torch.equal(before, after)


# ---- a run


@pytest.fixture
def run(tiles, tmp_path):
    """A run with real weights up to its masks."""
    table, _ = tiles
    rows = [f"{photo.path},{';'.join(photo.tags)}" for photo in table.photos]
    (tmp_path / "tags.csv").write_text("\n".join(["file_name,tags", *rows]))
    settings = {
        "clusters": {"source": "auto"},
        "classifier": {"image_size": SIDE, "epochs": 1, "token_width": 16},
        "masks": {"image_size": SIDE, "crf": {"iterations": 1}},
    }
    config = {"data": tmp_path / "tags.csv", "out": tmp_path / "run", **settings}
    return go(config)


def go(config, **more):
    from tag2mask.api import run_config
    from tag2mask.config_files import changed_config

    base = changed_config(load_recipe("photos"), {**config, **more.pop("change", {})})
    return run_config(base, ("clusters", "classifier", "masks"), **more), config


def test_a_run_stores_its_contrast_and_continues_with_it(run, tmp_path):
    (result, config) = run
    path = result.folder / "masks" / CONTRAST
    contrast = Contrast.load(path)
    assert contrast.weight.shape[0] == 3 and contrast.weight[1:].any()
    maker = mask_maker(Run(result.folder))
    assert torch.equal(maker.contrast.weight, contrast.weight)
    about = json.loads((result.folder / "masks" / "masks.json").read_text())
    assert sorted(maker.small) == [result.table.classes.index(tag) for tag in about["small"]]

    rows = (tmp_path / "tags.csv").read_text().splitlines()
    (tmp_path / "tags.csv").write_text("\n".join(rows[:-1]))
    after, _ = go(config, continued=True)
    assert json.loads((after.folder / "masks/done.json").read_text())["continued"]
    assert torch.equal(Contrast.load(path).weight, contrast.weight), "of the first run"


def test_random_weights_and_vits_are_not_compared(run):
    result, _ = run
    assert mask_maker(result).features
    for change in ({"weights": "none"}, {"backbone": "test_vit"}):
        classifier = result.config.classifier.model_copy(update=change)
        config = result.config.model_copy(update={"classifier": classifier})
        assert mask_maker(Run(result.folder, config)).features is None
