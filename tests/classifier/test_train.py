"""One step of each recipe's training, and what its loss is made of."""

import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask import loop
from tag2mask.classifier.losses import classifier_loss
from tag2mask.classifier.net import PatchClassifier
from tag2mask.classifier.train import TaggedPhotos, train_classifier
from tag2mask.config import ClassifierSettings
from tag2mask.config_files import load_recipe
from tag2mask.errors import ConfigError
from tag2mask.photos.table import Photo, Table
from tag2mask.photos.tensors import AUGMENTATIONS

PARTS = {
    "cpc": {"mce", "pce"},
    "ppc": {"mce"},
    "vit_pcm": {"mce", "equivariance", "l2"},
    "photos": {"mce", "mean_logit"},
    "demo": {"mce", "mean_logit"},
}


@pytest.mark.parametrize("recipe", PARTS)
def test_every_recipe_learns_with_its_own_loss(recipe):
    torch.manual_seed(0)
    small = {"backbone": "test_vit", "weights": "none", "image_size": 96, "dropout": 0.0}
    settings = load_recipe(recipe).classifier.model_copy(update=small)
    net = PatchClassifier(settings, 4, 0 if recipe == "vit_pcm" else 2).train()
    images, tags = torch.rand(5, 3, 96, 96), torch.eye(3)[[0, 1, 2, 0, 1]]
    u = torch.ones(5, 0 if recipe == "vit_pcm" else 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    values = []
    for _ in range(12):
        torch.manual_seed(1)  # the same second view each time
        parts = classifier_loss(net, (images, tags, u), settings)
        assert parts.keys() == {"loss"} | PARTS[recipe]
        optimizer.zero_grad()
        parts["loss"].backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
        optimizer.step()
        values.append(parts["loss"].item())
    assert values[-1] < values[0]


def test_the_loss_is_the_weighted_sum_of_its_parts():
    torch.manual_seed(0)
    settings = load_recipe("cpc").classifier.model_copy(
        update={
            "backbone": "test_vit",
            "weights": "none",
            "pce_weight": 0.5,
            "pce_threshold": 0.51,
            "classifier_l2": 0.1,
        }
    )
    net = PatchClassifier(settings, 2, 1).eval()
    parts = classifier_loss(
        net, (torch.rand(2, 3, 64, 64), torch.ones(2, 1), torch.ones(2, 1)), settings
    )
    assert parts["pce"] > 0
    assert parts["loss"].item() == pytest.approx(
        (parts["mce"] + 0.5 * parts["pce"] + 0.1 * parts["l2"]).item()
    )


def test_few_photos_are_gone_through_more_often():
    settings = load_recipe("photos").classifier
    assert [settings.num_epochs(photos) for photos in (1, 42, 320, 1300)] == [
        100,
        34,
        6,
        6,
    ]  # batches of 16
    assert load_recipe("cpc").classifier.num_epochs(42) == 50


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_photos_can_be_read_by_other_processes(augment):
    pickle.dumps(AUGMENTATIONS[augment])  # as macOS, Windows and Python 3.14 start them


def test_a_grid_that_the_equivariance_loss_cannot_halve_is_refused(tmp_path):
    settings = load_recipe("vit_pcm").classifier.model_copy(
        update={"backbone": "test_vit", "weights": "none", "image_size": 80}
    )
    table = Table(("cat",), (Photo("a", tmp_path / "a.jpg", ("cat",)),))
    with pytest.raises(ConfigError, match=r"image_size = 80 gives 5 x 5 patches.*use 64 or 96"):
        train_classifier(table, torch.zeros(1, 0), settings, tmp_path, 0, 0)


@pytest.fixture
def halves(tmp_path):
    """Six pictures of noise with a red half, a blue half, or both; the tags say which."""
    photos = []
    for i, tags in enumerate([("red",), ("blue",), ("blue", "red")] * 2):
        pixels = np.random.default_rng(i).integers(0, 120, (64, 64, 3), np.uint8)
        if "red" in tags:
            pixels[:, :32, 0] = 255
        if "blue" in tags:
            pixels[:, 32:, 2] = 255
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        photos.append(Photo(str(i), tmp_path / f"{i}.png", tags))
    return Table(("blue", "red"), tuple(photos))


def small(**changes):
    usual = {
        "backbone": "test_efficientnet",
        "weights": "none",
        "image_size": 64,
        "token": "none",
        "batch_size": 3,
    }
    return ClassifierSettings(**{**usual, **changes})


def test_an_example_is_a_photo_with_its_own_tags_and_clusters(halves):
    vectors = torch.eye(6)
    examples = TaggedPhotos(halves, vectors, 64, "light")
    assert len(examples) == 6
    for i, photo in enumerate(halves.photos):
        image, labels, u = examples[i, 7]
        assert {tag for tag, has in zip(halves.tags, labels, strict=True) if has} == set(photo.tags)
        red, green, blue = image.amax((1, 2)).tolist()  # under any light
        assert (red > green + 0.2, blue > green + 0.2) == (
            "red" in photo.tags,
            "blue" in photo.tags,
        )
        assert torch.equal(u, vectors[i])
    assert torch.equal(examples[2, 7][0], examples[2, 7][0]) and not torch.equal(
        examples[2, 7][0], examples[2, 8][0]
    )


@pytest.mark.parametrize("decay", ["cosine", "none"])
@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit"])
def test_the_backbone_is_frozen_at_first_then_its_last_blocks_learn_slowly(
    halves, tmp_path, monkeypatch, backbone, decay
):
    settings = small(
        backbone=backbone,
        epochs=6,
        frozen_epochs=2,
        frozen_lr=0.5,
        lr=0.01,
        head_lr_factor=3,
        lr_decay=decay,
        trained_blocks=1,
    )
    captured = {}

    def fit(model, loss, examples, phases, folder, **options):
        captured.update(options, phases=phases)
        return model

    monkeypatch.setattr(loop, "fit", fit)
    model = train_classifier(halves, torch.zeros(6, 0), settings, tmp_path, 5, 0)
    learns = lambda: {name for name, p in model.named_parameters() if p.requires_grad}  # noqa: E731
    rates = lambda: {  # noqa: E731
        id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]
    }
    new = {name for name, _ in model.named_parameters() if not name.startswith("backbone.")}
    frozen, rest = captured["phases"]
    assert (frozen.end, rest.end) == (2 * 2, 6 * 2) and (
        captured["seed"],
        captured["batch_size"],
    ) == (
        5,
        3,
    )  # 6 photos, 3 a step

    optimizer = frozen.optimizer()
    assert learns() == new and set(rates().values()) == {0.5} and len(rates()) == len(new)
    assert [frozen.lr_scale(step) for step in (0, 3)] == [1, 1]

    optimizer = rest.optimizer()
    last = {id(p) for p in model.backbone.last_parameters(1)}
    assert {id(p) for name, p in model.named_parameters() if name in learns() - new} == last
    assert rates() == {
        id(p): 0.03 if name in new else 0.01
        for name, p in model.named_parameters()
        if name in new or id(p) in last
    }
    scales = [rest.lr_scale(step) for step in (4, 6, 8, 10, 12)]
    cosine = [(1 + math.cos(math.pi * share)) / 2 for share in (0, 0.25, 0.5, 0.75, 1)]
    assert scales == (pytest.approx(cosine) if decay == "cosine" else [1] * 5)


def test_mce_is_of_the_k_best_patches_in_576_and_background_is_in_every_photo():
    torch.manual_seed(0)
    net = PatchClassifier(small(image_size=96, tag_loss="top_k"), 4, 0).eval()
    images, tags = torch.rand(2, 3, 96, 96), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    scores = net(images, torch.zeros(2, 0))[0].flatten(1, 2).softmax(-1)
    for top_k, k in ((1, 1), (6, 1), (48, 3), (576, 36)):  # of 36 patches
        pooled = scores.sort(1, descending=True).values[:, :k].mean(1)
        right = [
            pooled[:, 0],
            *(
                torch.where(tags[:, c] > 0, pooled[:, c + 1], 1 - pooled[:, c + 1])
                for c in range(3)
            ),
        ]
        want = -torch.stack(right).log().mean()
        parts = classifier_loss(
            net,
            (images, tags, torch.zeros(2, 0)),
            small(image_size=96, tag_loss="top_k", top_k=top_k, pce_weight=0),
        )
        assert parts["mce"].item() == pytest.approx(want.item(), rel=1e-5)


def test_some_photos_learn_without_their_clusters():
    seen = []

    def net(images, u):
        seen.append(u)
        return torch.zeros(len(images), 1, 1, 3), torch.zeros(len(images), 1, 1, 4)

    batch = torch.zeros(400, 3, 1, 1), torch.ones(400, 2), torch.ones(400, 5)
    torch.manual_seed(0)
    for share in (0.0, 0.25, 1.0):
        classifier_loss(net, batch, small(cluster_dropout=share, pce_weight=0))
        dropped = (seen[-1] == 0).all(1)
        assert torch.equal(seen[-1], (~dropped).float()[:, None].expand(400, 5)), (
            "a vector is dropped whole or not at all"
        )
        assert dropped.float().mean() == pytest.approx(share, abs=0.08)


def test_it_learns_which_photo_has_which_tag(halves, tmp_path):
    settings = small(
        epochs=25, frozen_epochs=1, trained_blocks=0, lr=2e-3, mixer="none", dropout=0.0
    )
    net = train_classifier(halves, torch.zeros(6, 0), settings, tmp_path / "run", 0, 0)
    assert not net.training
    pictures = torch.stack(
        [TaggedPhotos(halves, torch.zeros(6, 0), 64, "light")[i, 0][0] for i in range(6)]
    )
    with torch.inference_mode():
        mean_logits = net(pictures, torch.zeros(6, 0))[0][..., 1:].mean((1, 2))
    assert torch.equal(mean_logits > 0, torch.from_numpy(halves.multi_hot) > 0)


def with_photos(table, count, tags=(), unknown=()):
    """A table with `count` more photos, copies of its first, of these tags."""
    path = table.photos[0].path
    more = tuple(Photo(f"more {i}", path, tags, unknown) for i in range(count))
    return Table(table.tags, (*table.photos, *more))


def test_labels_say_what_is_unknown(halves):
    table = with_photos(halves, 1, ("red",), ("blue",))
    examples = TaggedPhotos(table, torch.zeros(7, 0), 64, "light")
    assert torch.equal(examples[0, 0][1], torch.tensor([0.0, 1.0]))
    blue, red = examples[6, 0][1]
    assert blue.isnan() and red == 1
    assert table.multi_hot[6].tolist() == [0, 1], "clusters are those of the present tags"


@pytest.mark.parametrize("recipe", PARTS)
def test_no_recipe_learns_from_an_unknown_tag(recipe):
    """The head of the unknown tag gets what it gets from the softmax alone: in no part of the loss
    does its label count, whatever it is."""
    torch.manual_seed(0)
    changes = {"backbone": "test_vit", "weights": "none", "image_size": 64, "dropout": 0.0}
    settings = load_recipe(recipe).classifier.model_copy(update=changes)
    net = PatchClassifier(settings, 4, 0).train()
    images, u = torch.rand(4, 3, 64, 64), torch.zeros(4, 0)
    tags = torch.tensor([[1.0, 0, math.nan]] * 4)
    torch.manual_seed(1)
    parts = classifier_loss(net, (images, tags, u), settings)
    assert all(part.isfinite() for part in parts.values())
    parts["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    for label in (0.0, 1.0):
        torch.manual_seed(1)
        known = classifier_loss(net, (images, tags.nan_to_num(label), u), settings)
        assert known["loss"] != parts["loss"]


def test_photos_of_nothing_lengthen_an_epoch_to_twice_its_steps_at_most(
    halves, tmp_path, monkeypatch
):
    """The others are seen as often as without them."""
    steps, seen = [], []

    def fit(model, loss, examples, phases, folder, **options):
        steps.append([phase.end for phase in phases])
        seen.append(options["nothing"])
        return model

    monkeypatch.setattr(loop, "fit", fit)
    for count in (0, 3, 6, 500):
        table = with_photos(halves, count)
        vectors = torch.zeros(len(table), 0)
        train_classifier(table, vectors, small(batch_size=3), tmp_path, 0, 0)
    assert steps == [[2, 100], [3, 150], [4, 200], [4, 200]]  # 50 epochs
    assert [list(places) for places in seen] == [[], [6, 7, 8], [*range(6, 12)], [*range(6, 506)]]


def test_one_tag_is_learned_from_photos_without_it(tmp_path):
    """Red on the left, or nothing: the score is high on the red half of the red photos alone."""
    photos = []
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 120, (64, 64, 3), np.uint8)
        if i < 4:
            pixels[:, :32, 0] = 255
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        photos.append(Photo(str(i), tmp_path / f"{i}.png", ("red",) if i < 4 else ()))
    table = Table(("red",), tuple(photos))
    settings = small(
        epochs=40, frozen_epochs=1, trained_blocks=0, lr=2e-3, mixer="none", dropout=0.0
    )
    net = train_classifier(table, torch.zeros(12, 0), settings, tmp_path / "run", 0, 0)
    examples = TaggedPhotos(table, torch.zeros(12, 0), 64, "light")
    pictures = torch.stack([examples[i, 0][0] for i in range(12)])
    with torch.inference_mode():
        logits = net(pictures, torch.zeros(12, 0))[0][..., 1]
    assert [bool(mean > 0) for mean in logits.mean((1, 2))] == [True] * 4 + [False] * 8


def test_the_maps_are_centered_without_photos_of_nothing(halves, tmp_path):
    """Score maps are spread in the others alone: many photos of nothing must not change how."""
    settings = small(epochs=1, trained_blocks=0, frozen_lr=1e-30, lr=1e-30)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    more = tuple(Photo(f"n{i}", tmp_path / "white.png", ()) for i in range(5))
    tables = halves, Table(halves.tags, (*halves.photos, *more))
    means = [
        train_classifier(table, torch.zeros(len(table), 0), settings, tmp_path / str(i), 0, 0)
        for i, table in enumerate(tables)
    ]
    first, second = (torch.cat(net.feature_means) for net in means)
    assert torch.allclose(first, second, rtol=1e-4)
