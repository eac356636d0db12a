import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from painted import COLOURS, paint, shapes
from PIL import Image

from tag2mask import loop
from tag2mask.config import CRFSettings, SegmenterSettings
from tag2mask.errors import DataError, TrainingError
from tag2mask.photos.masks import write_mask
from tag2mask.photos.table import IGNORE, Photo, Table
from tag2mask.segmenter import train
from tag2mask.segmenter.deeplab import DeepLabV2
from tag2mask.segmenter.examples import PseudoMasked, Survey, survey_masks
from tag2mask.segmenter.losses import segmentation_loss, small_things_loss
from tag2mask.segmenter.predict import predict
from tag2mask.segmenter.train import (
    BackgroundGuard,
    least_certain,
    optimizer,
    set_aside,
    train_segmenter,
)

MEAN = torch.tensor([0.5, 0.25, 0.75])


@pytest.fixture
def plain(monkeypatch):
    """Mirrors, but no change of colour: pictures stay as painted."""
    from torchvision.transforms import v2

    monkeypatch.setattr("tag2mask.segmenter.examples.LIGHT", v2.RandomHorizontalFlip())


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(
    ("scale", "image_size"), [((1.0, 1.0), 400), ((0.4, 1.9), 400), ((0.5, 1.5), 90)]
)
def test_picture_and_mask_are_cut_alike(settings, plain, tmp_path, scale, image_size, suffix):
    photo = paint(
        tmp_path,
        "p",
        np.kron(np.random.default_rng(0).integers(0, 3, (9, 13)), np.ones((20, 20))).astype(
            np.uint8
        ),
    )
    if suffix == "jpg":  # read reduced
        Image.open(photo.path).save(tmp_path / "p.jpg", quality=100, subsampling=0)
        photo = Photo("p", tmp_path / "p.jpg", ())
    settings = settings.model_copy(update={"scale_range": scale, "image_size": image_size})
    examples = PseudoMasked(
        Table(("disc", "box"), (photo,)), tmp_path / "masks", settings, 49, MEAN
    )
    seen = mirrored = 0
    for key in range(40):
        image, mask = examples[0, key]
        assert image.shape == (3, 49, 49) and mask.shape == (49, 49) and mask.dtype == torch.uint8
        outside = mask == IGNORE
        assert torch.equal(image[:, outside], MEAN[:, None].expand(3, int(outside.sum())))
        distance = (
            (image[:, None] - torch.from_numpy(COLOURS.T.copy())[:, :, None, None] / 255)
            .abs()
            .amax(0)
        )
        nearest = distance.min(0)
        pure = (nearest.values < 0.06) & ~outside  # not on an edge that the reduction blurred
        wrong = (nearest.indices != mask)[pure].float().mean()
        assert wrong < (1e-9 if scale == (1.0, 1.0) and suffix == "png" else 0.01)
        seen += int(pure.sum())
        mirrored += not torch.equal(mask, examples[0, key + 1000][1])
    assert (
        seen > 40 * 49 * 49 * (0.3 if image_size == 90 else 0.6) * (1 if image_size > 90 else 0.5)
        and mirrored > 30
    )


def test_class_numbers_are_never_blended(settings, tmp_path):
    photo = paint(
        tmp_path, "p", np.kron(2 * np.eye(6, dtype=np.uint8), np.ones((15, 15), np.uint8))
    )
    settings = settings.model_copy(update={"scale_range": (0.4, 1.9), "image_size": 400})
    examples = PseudoMasked(
        Table(("disc", "box"), (photo,)), tmp_path / "masks", settings, 49, MEAN
    )
    assert {number for key in range(20) for number in examples[0, key][1].unique().tolist()} == {
        0,
        2,
        IGNORE,
    }  # 1 is halfway


def test_what_is_drawn_depends_on_the_key_alone(settings, data):
    examples = PseudoMasked(*data, settings, 49, MEAN)
    first = examples[2, 7]
    torch.manual_seed(5)
    examples[1, 3]
    again = examples[2, 7]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], examples[2, 8][0])


def test_a_small_photo_lies_whole_in_its_crop(settings, plain, tmp_path):
    photo = paint(tmp_path, "p", np.ones((20, 30), np.uint8))
    examples = PseudoMasked(
        Table(("disc", "box"), (photo,)),
        tmp_path / "masks",
        settings.model_copy(update={"scale_range": (1.0, 1.0)}),
        49,
        MEAN,
    )
    corners = set()
    for key in range(30):
        inside = (examples[0, key][1] == 1).nonzero()
        assert len(inside) == 600 and (inside.amax(0) - inside.amin(0)).tolist() == [19, 29]
        corners.add(tuple(inside.amin(0).tolist()))
    assert len(corners) > 20


@pytest.mark.parametrize("scale", [(0.5, 0.5), (2.0, 2.0)])  # the crop holds the photo; a part
def test_half_of_the_crops_show_a_small_thing(settings, plain, tmp_path, scale):
    """Class 1 has 1 % of each photo, class 2 has 10 %; 12 photos have each, a 13th only class 2."""
    photos, random = [], np.random.default_rng(0)
    for i in range(13):
        mask = np.zeros((60, 80), np.uint8)
        mask[20:40, 30:54] = 2
        if i < 12:
            y, x = random.integers(52), random.integers(74)
            mask[y : y + 8, x : x + 6] = 1
        photos.append(paint(tmp_path, f"s{i}", mask))
    settings = settings.model_copy(update={"scale_range": scale, "image_size": 80})
    table = Table(("disc", "box"), tuple(photos))
    examples = PseudoMasked(table, tmp_path / "masks", settings, 49, MEAN)
    assert survey_masks(table, tmp_path / "masks", 100).small == (1,)
    assert survey_masks(table, tmp_path / "masks", 7).small == (), (
        "the median of seven photos says little"
    )

    def seen(photo):
        return np.mean([bool((examples[photo, key][1] == 1).any()) for key in range(200)])

    before = [seen(photo) for photo in range(6)]
    whole = examples[12, 5]
    examples.small = (1,)
    for photo, random_share in enumerate(before):
        assert abs(seen(photo) - (1 + random_share) / 2) < 0.1
    assert torch.equal(whole[0], examples[12, 5][0]), "photos without small things are as before"


@pytest.mark.parametrize("head", ["fpn", "deeplab_v2"])
def test_only_a_pyramid_looks_closer_at_small_things(settings, data, tmp_path, monkeypatch, head):
    """The papers' DeepLabV2 stays as the papers have it."""
    seen, losses = [], []

    def fit(model, loss, examples, *others, **options):
        seen.append(examples.small)
        image, mask = examples[0, 0]
        torch.manual_seed(0)  # with even sides, pixels are drawn
        values = loss(model.eval(), (image[None], mask[None]))["loss"]
        torch.manual_seed(0)
        mean = segmentation_loss(logits := model(image[None]), mask[None])
        losses.append((values, mean, mean + small_things_loss(logits, mask[None], (1,))))
        return model

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(BackgroundGuard, "check", lambda self, model: None)
    monkeypatch.setattr(train, "survey_masks", lambda *_: Survey(6, 6, 0.01, (1,)))
    settings = settings.model_copy(update={"head": head, "output_stride": "auto"})
    model = train_segmenter(*data, settings, tmp_path, seed=0, workers=0)
    is_close = head == "fpn"
    assert seen == [model.small] == [(1,) if is_close else ()]
    assert (model.stride == 4) == is_close
    ((loss, plain, close),) = losses
    assert loss == (close if is_close else plain) and close > plain + 0.01


def test_masks_that_do_not_fit(settings, data):
    table, masks = data
    write_mask(masks / "p1.png", np.zeros((60, 81), np.uint8))
    write_mask(masks / "p2.png", np.full((60, 80), 3, np.uint8))
    examples = PseudoMasked(table, masks, settings, 49, MEAN)
    with pytest.raises(DataError, match=r"p1.png is 81 x 60 pixels, but .*p1.png is 80 x 60"):
        examples[1, 0]
    with pytest.raises(DataError, match=r"p2.png holds class 3, but the classes are 0 to 2"):
        examples[2, 0]
    (masks / "p3.png").unlink()
    (masks / "p4.png").unlink()
    with pytest.raises(DataError, match="no mask for 2 of 6 photos: p3, p4"):
        survey_masks(table, masks, 6)


def test_heads_learn_ten_times_as_fast_and_biases_do_not_decay(settings):
    model = DeepLabV2(settings, ["background", "a"])
    groups = {id(p): g for g in optimizer(model, settings).param_groups for p in g["params"]}
    assert (
        groups[id(model.backbone.net.conv_stem.weight)]["lr"] == settings.lr
        and groups[id(model.backbone.net.conv_stem.weight)]["weight_decay"] == 5e-4
    )
    assert (
        groups[id(model.heads[3].weight)]["lr"] == 10 * settings.lr
        and groups[id(model.heads[3].weight)]["weight_decay"] == 5e-4
    )
    assert (
        groups[id(model.heads[0].bias)]["lr"] == 20 * settings.lr
        and groups[id(model.heads[0].bias)]["weight_decay"] == 0
    )
    assert len(groups) == sum(p.requires_grad for p in model.parameters())
    assert id(model.backbone.net.bn1.weight) not in groups


def test_the_learning_rate_follows_the_poly_schedule(settings, data, tmp_path, monkeypatch):
    phases = []

    def fit(model, loss, examples, all_phases, folder, **options):
        phases.extend(all_phases)
        return model

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(BackgroundGuard, "check", lambda self, model: None)
    train_segmenter(
        *data,
        settings.model_copy(update={"steps": 10, "poly_power": 0.5}),
        tmp_path,
        seed=0,
        workers=0,
    )
    (phase,) = phases
    assert phase.end == 10 and [phase.lr_scale(step) for step in (0, 5, 9)] == pytest.approx(
        [1, 0.5**0.5, 0.1**0.5]
    )


@pytest.mark.parametrize(("head", "side"), [("deeplab_v2", 49), ("fpn", 64)])
def test_it_learns_a_few_pictures(settings, data, tmp_path, head, side):
    table, masks = data
    update = {"head": head, "crop_size": side, "lr": 0.02 if head == "deeplab_v2" else 1e-3}
    update |= {"steps": 150, "scale_range": (0.8, 1.2), "flip": True, "image_size": 96}
    settings = settings.model_copy(update=update)
    model = train_segmenter(table, masks, settings, tmp_path / "run", seed=0, workers=0)
    assert not model.training
    unseen = shapes(100)
    picture = paint(tmp_path / "new", "q", unseen, noise=12).open()
    assert (predict(model, picture).mask == unseen).mean() > 0.9
    right = np.mean(
        [
            (predict(model, photo.open()).mask == shapes(i)).mean()
            for i, photo in enumerate(table.photos)
        ]
    )
    assert right > 0.93
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] / 3 and lines[-1]["objects"] > 0.05
    assert lines[-1]["lr"] < lines[0]["lr"] / 5


@pytest.mark.parametrize(("head", "balanced"), [("deeplab_v2", True), ("fpn", False)])
def test_killed_and_resumed_is_the_same(settings, data, tmp_path, monkeypatch, head, balanced):
    table, masks = data
    settings = settings.model_copy(update={"balanced": balanced, "head": head})
    monkeypatch.setattr(
        BackgroundGuard, "check", lambda self, model: None
    )  # twelve steps are too few to please it
    whole = train_segmenter(
        table, masks, settings, tmp_path / "whole", seed=3, workers=0
    ).state_dict()

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    calls = 0

    def dies(*arguments):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return loss(*arguments)

    loss = train.segmentation_loss
    monkeypatch.setattr(train, "segmentation_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        train_segmenter(table, masks, settings, tmp_path / "parts", seed=3, workers=0)
    assert [p.name for p in (tmp_path / "parts/checkpoint").iterdir()] == ["00000007"]
    parts = train_segmenter(
        table, masks, settings, tmp_path / "parts", seed=3, workers=0
    ).state_dict()
    assert calls == 8 + 5
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    other = train_segmenter(
        table, masks, settings, tmp_path / "other", seed=4, workers=0
    ).state_dict()
    last = "heads.0.weight" if head == "deeplab_v2" else "classify.weight"
    assert not torch.equal(whole[last], other[last])


def test_empty_masks_stop_it_before_it_starts(settings, data, tmp_path):
    table, masks = data
    for photo in table.photos:
        write_mask(masks / f"{photo.name}.png", np.zeros((60, 80), np.uint8))
    with pytest.raises(
        TrainingError, match=r"none of the 6 masks read in .*masks has an object pixel"
    ):
        train_segmenter(table, masks, settings, tmp_path / "run", seed=0, workers=0)
    assert not (tmp_path / "run").exists()


def test_a_network_that_ends_at_background_is_an_error(settings, data, tmp_path):
    table, masks = data
    for number, photo in enumerate(table.photos):
        write_mask(
            masks / f"{photo.name}.png",
            np.pad(np.full((3, 3), number % 2 + 1, np.uint8), ((28, 29), (38, 39))),
        )
    settings = settings.model_copy(update={"steps": 60, "lr": 0.02, "scale_range": (1.0, 1.0)})
    with pytest.raises(
        TrainingError,
        match=r"every pixel of 6 training crops.* 0.2% of .* \(6 of 6 masks have some\)"
        r".*--segmenter.balanced",
    ):
        train_segmenter(table, masks, settings, tmp_path / "run", seed=1, workers=0)


def test_the_guard_tells_few_objects_from_bad_training(settings, data):
    table, masks = data
    model = DeepLabV2(settings, table.classes).eval()
    examples = PseudoMasked(table, masks, settings, 49, MEAN)
    guard = BackgroundGuard(examples, survey_masks(table, masks, 6))
    with torch.no_grad():
        model.heads[0].bias[0] = 1e4
    with pytest.raises(
        TrainingError,
        match=r"background for every pixel.*17.3% of the masks' pixels.*learning rate \(0.01\)",
    ):
        guard.check(model)
    with torch.no_grad():
        model.heads[0].bias[2] = 1e5
    guard.check(model)
    with torch.no_grad():
        model.heads[0].bias[1] = torch.nan
    with pytest.raises(TrainingError, match="NaN or infinite; lower its learning rate"):
        guard.check(model)


def test_background_for_long_stops_it(settings, data):
    table, masks = data
    sparse = np.zeros((60, 80), np.uint8)
    sparse[:2, :2] = 1
    for photo in table.photos:
        write_mask(masks / f"{photo.name}.png", sparse)
    examples = PseudoMasked(table, masks, settings.model_copy(update={"steps": 4000}), 49, MEAN)
    guard = BackgroundGuard(examples, survey_masks(table, masks, 6))
    for _ in range(999):
        guard.step(torch.tensor(0.0))
    guard.step(torch.tensor(0.001))  # one cell in the first thousand steps is enough
    for _ in range(999):
        guard.step(torch.tensor(0.0))
    with pytest.raises(
        TrainingError,
        match=r"1000 training steps in a row. 0.1% of the masks' pixels are objects \(6 of 6 "
        r".*balanced",
    ):
        guard.step(torch.tensor(0.0))


def test_nan_is_an_error(settings, data, tmp_path):
    with pytest.raises(TrainingError, match="the loss is not a number"):
        train_segmenter(
            *data, settings.model_copy(update={"lr": 1e9}), tmp_path / "run", seed=0, workers=0
        )


def above(model, nothing):
    """By how much the classes' least certainty is above what these photos have, at least."""
    plain = model.settings.model_copy(update={"crf": CRFSettings(iterations=0)})
    most = [predict(model, photo.open(), plain).probs.max((1, 2))[1:] for photo in nothing]
    return (model.least[1:] - np.max(most, 0)).min()


def test_photos_of_nothing_are_background_and_do_not_drown_the_others(
    settings, data, tmp_path, monkeypatch
):
    table, masks = data
    empty = np.zeros((60, 80), np.uint8)
    nothing = [replace(paint(tmp_path, f"n{i}", empty, noise=12), tags=()) for i in range(38)]
    table = Table(table.tags, (*nothing, *table.photos))
    taken = []
    take = PseudoMasked.__getitem__
    monkeypatch.setattr(
        PseudoMasked, "__getitem__", lambda self, draw: taken.append(draw[0]) or take(self, draw)
    )
    settings = settings.model_copy(
        update={"steps": 300, "lr": 0.01, "scale_range": (0.8, 1.2), "image_size": 81}
    )
    model = train_segmenter(table, masks, settings, tmp_path / "run", seed=0, workers=0)
    drawn = taken[: 300 * 4]
    assert sum(i >= 38 for i in drawn) == 900, "three of four crops show something"
    assert set(drawn) == set(range(44))
    assert all(i >= 38 for i in taken[300 * 4 :]), "the guard looks at photos with objects"
    right = [
        (predict(model, p.open()).mask == shapes(i)).mean() for i, p in enumerate(data[0].photos)
    ]
    assert np.mean(right) > 0.9
    assert not predict(model, nothing[0].open()).mask.any()
    assert above(model, nothing) > 0
    untagged = tuple(replace(photo, tags=()) for photo in data[0].photos[1:])
    some_hidden = least_certain(model, [*nothing, *untagged], 0.02)
    assert max(some_hidden) == 0.9, "untagged things hide others"
    assert not least_certain(model, nothing[19:], 0.02), "19 photos of nothing say too little"
    assert not least_certain(model, nothing, 1.0)
    survey = survey_masks(table, masks, 4)
    assert (survey.with_objects, survey.masks) == (3, 3) and survey.share > 0.1


def test_photos_of_nothing_that_were_not_learned_from_say_how_certain_an_object_must_be(
    settings, data, tmp_path, monkeypatch
):
    table, masks = data
    empty = np.zeros((60, 80), np.uint8)
    nothing = [replace(paint(tmp_path, f"n{i}", empty, noise=12), tags=()) for i in range(40)]
    table, read = Table(table.tags, (*table.photos, *nothing)), set()
    take = PseudoMasked.__getitem__
    monkeypatch.setattr(
        PseudoMasked,
        "__getitem__",
        lambda self, draw: read.add(self.table.photos[draw[0]].name) or take(self, draw),
    )
    model = train_segmenter(
        table, masks, settings.model_copy(update={"steps": 160}), tmp_path / "run", 0, 0
    )
    aside = {f"n{i}" for i in range(0, 40, 2)}
    assert read == set(table.names) - aside
    assert above(model, nothing[::2]) > 0
    one_less = Table(table.tags, table.photos[:-2])
    assert set_aside(one_less) == (one_less, nothing[:38]), "19 would say too little"
    many = [replace(nothing[0], name=str(i)) for i in range(1000)]
    learned, some = set_aside(Table(table.tags, (*table.photos[:6], *many)))
    assert len(some) == 200 and len(learned) == 806


@pytest.mark.parametrize(("photos", "marked"), [(20, 1), (75, 1), (98, 1), (99, 2), (200, 4)])
def test_of_new_photos_of_nothing_no_more_than_the_share_is_marked(photos, marked, monkeypatch):
    """Also if one of two classes is often seen in them, and the other never."""
    model = SimpleNamespace(settings=SegmenterSettings())
    draw, shares = np.random.default_rng(0), []

    def certainties(number):
        return 0.8 * draw.beta(1, 2, number), 0.1 * draw.beta(1, 2, number)

    def predicted(*_):
        for a, b in zip(*certainties(photos), strict=True):
            yield None, SimpleNamespace(probs=np.array([[[1 - a - b]], [[a]], [[b]]]))

    monkeypatch.setattr(train, "predict_photos", predicted)
    for _ in range(300):
        _, first, second = least_certain(model, [None] * photos, 0.02)
        often, never = certainties(1000)
        shares.append(((often > first) | (never > second)).mean())
    # A new photo has the same chance of each rank; measured by one more photo, it has fewer.
    assert 0.5 < np.mean(shares) * (photos + 1) / marked < 1.1
    assert second < first / 3


def test_a_class_that_is_nearly_never_seen_does_not_hide_the_others(monkeypatch):
    often = np.linspace(0.1, 0.4, 40)
    probs = [np.array([[[1 - a]], [[a]], [[1e-5 * (i == 7)]]]) for i, a in enumerate(often)]
    photos = [(None, SimpleNamespace(probs=each)) for each in probs]
    monkeypatch.setattr(train, "predict_photos", lambda *_: photos)
    model = SimpleNamespace(settings=SegmenterSettings())
    _, first, second = least_certain(model, [None] * 40, 0.02)
    assert first < 0.9 and second < 0.1


def test_without_the_rule_all_photos_of_nothing_are_learned_from(settings, data, tmp_path):
    first = data[0].photos[0]
    nothing = [replace(first, name=f"n{i}", tags=()) for i in range(80)]
    table = Table(data[0].tags, (*data[0].photos, *nothing))
    off = settings.model_copy(update={"most_marked": 1.0})
    with pytest.raises(DataError, match="no mask for 86 of 86 photos"):
        train_segmenter(table, tmp_path / "none", off, tmp_path / "run", 0, 0)
