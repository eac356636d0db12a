"""Pseudo masks: scores of the tags by hand, sizes, resuming, what is written."""

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.classifier import PatchClassifier, save_classifier
from tag2mask.clusters import Clusters
from tag2mask.config import ClassifierSettings, CRFSettings, MaskSettings
from tag2mask.config_files import make_config
from tag2mask.demo.scenes import make_scene
from tag2mask.masks import MaskMaker, both_score_maps, make_masks, read_score_maps
from tag2mask.masks.affinity import affinity, spread
from tag2mask.masks.scores import CELL, mean_scores, otsu, tag_scores, to_pixels
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.photos.tensors import to_square
from tag2mask.runs.run import Run
from tag2mask.runs.stages import mask_maker

PLAIN = MaskSettings(
    image_size=32, scales=(1.0,), flip=False, affinity=False, crf=CRFSettings(iterations=0)
)
SOFTMAX = PLAIN.model_copy(update={"scores": "max_norm"})


def test_tag_scores_by_hand():
    z = torch.tensor([[[0.6, 0.2]], [[0.3, 0.2]], [[0.1, 0.6]]])  # background, a, b at two patches
    plain = tag_scores(z, MaskSettings(scores="softmax"))
    assert torch.allclose(plain, z)
    masked = tag_scores(z[:2], MaskSettings(scores="softmax_of_tags"))
    assert torch.allclose(masked, torch.tensor([[[2 / 3, 0.5]], [[1 / 3, 0.5]]]))
    normed = tag_scores(z[:2], MaskSettings(scores="max_norm"))
    first, second = (
        torch.tensor([1.0, 1.0]),
        torch.tensor([1 / 3, 2 / 3]),
    )  # each class over its largest: 0.6 and 0.3
    assert torch.allclose(normed, torch.stack([first / 2, second / second.sum()], -1)[:, None])


def test_a_tag_without_any_score_is_nowhere():
    for labels in ("softmax", "softmax_of_tags", "max_norm"):
        assert torch.equal(
            tag_scores(torch.zeros(2, 1, 3), MaskSettings(scores=labels)), torch.zeros(2, 1, 3)
        )
    z = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]], [[0.0, 0.0]]])
    assert torch.allclose(
        tag_scores(z, MaskSettings(threshold=0.5)),
        torch.tensor([[[1 / 3, 1.0]], [[2 / 3, 0.0]], [[0.0, 0.0]]]),
    )
    weak = tag_scores(torch.tensor([[[0.9, 0.9]], [[1e-4, 2e-4]]]), MaskSettings(scores="max_norm"))
    assert weak[1, 0].tolist() == pytest.approx([1 / 3, 1 / 2])  # of its best patch, however low


def test_logits_leave_background_where_no_tag_reaches_its_share():
    z = torch.tensor([[[0.0, 0.0, 0.0]], [[4.0, 1.0, 0.0]], [[0.0, 1.0, 5.0]]])
    scores = tag_scores(z, MaskSettings(threshold=0.4))
    assert torch.allclose(scores.sum(0), torch.ones(1, 3))
    assert scores.argmax(0).tolist() == [[1, 0, 2]]
    assert scores[1, 0, 0] / scores[0, 0, 0] == pytest.approx(1 / 0.4)


def test_background_starts_between_the_photos_threshold_and_that_of_many():
    z = torch.tensor(
        [[[0.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 0.6, 0.5]]]
    )  # a tag that fills its photo: Otsu parts it at 0.8
    assert otsu(z[1]) == pytest.approx(0.8)
    alone, both = (tag_scores(z, MaskSettings(), overall) for overall in (None, 0.3))
    assert alone.argmax(0).tolist() == [[1, 1, 0, 0]]
    assert both.argmax(0).tolist() == [[1, 1, 1, 0]]  # (0.8 + 0.3) / 2 = 0.55
    assert both[1, 0, 2] / both[0, 0, 2] == pytest.approx(0.6 / 0.55)
    fixed = tag_scores(z, MaskSettings(threshold=0.7), 0.3)
    assert torch.equal(fixed, tag_scores(z, MaskSettings(threshold=0.7)))


def test_otsu_parts_two_groups():
    assert 0.15 < otsu(torch.tensor([[0.0, 0.1, 0.1], [0.9, 1.0, 0.15]])) < 0.9
    assert otsu(torch.zeros(3, 3)) == 0.05  # no score anywhere: nothing to part
    assert otsu(torch.ones(1, 1)) == 1.0
    assert otsu(torch.tensor([0.0, 0.2, 0.8, 1.0])) == pytest.approx(
        0.5
    )  # halfway between the groups
    assert otsu(torch.tensor([0.0, 0.0, 1.0])) == pytest.approx(0.5)
    values = torch.rand(500, generator=torch.Generator().manual_seed(0)) ** 3

    def within(t):  # the textbook's other form: least variance within the groups
        low, high = values[values <= t], values[values > t]
        return len(low) * low.var(correction=0) + len(high) * high.var(correction=0)

    best = min(
        values.tolist()[:-1],
        key=lambda t: within(t) if values.max() > t else torch.tensor(torch.inf),
    )
    assert within(otsu(values)) <= within(best) * (1 + 1e-6)


def test_flip_and_scales_are_averaged_in_place():
    """A scorer that returns the picture's own brightness must give it back: mirrored scores are
    mirrored back, sizes brought together."""

    def score(images, labels):
        return torch.nn.functional.avg_pool2d(images, 16), []

    picture = torch.zeros(1, 3, 64, 64)
    picture[..., :32] = 1

    images = [torch.nn.functional.interpolate(picture, (side, side)) for side in (64, 128)]
    settings = MaskSettings(flip=True, affinity=False)
    scores = mean_scores(score, images, torch.ones(1, 1), settings)
    assert scores.shape == (1, 3, 4, 4)
    assert torch.allclose(scores[0, 0], torch.tensor([1.0, 1, 0, 0]).expand(4, 4), atol=0.13)
    assert scores[0, 0, 0, 0] > 0.9 and scores[0, 0, 0, 3] < 0.1
    asked = []

    def left_of_the_largest(images, labels):
        """1 in the left half for each scale by itself: mirrored or not, as an LSTM or any network
        that knows left from right."""
        asked.append((images.shape[-1], float(labels.sum())))
        return torch.cat([torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)], -1) * len(asked), []

    mean = mean_scores(left_of_the_largest, images, torch.full((1, 1), 3.0), settings)
    # straight and mirrored: 1 and 2, 3 and 4
    assert asked == [(64, 3), (64, 3), (128, 3), (128, 3)]
    assert mean[0, 0].tolist() == [[1.0, 1.0, 1.5, 1.5]] * 2
    of_size = {64: torch.zeros(1, 1, 1, 4), 128: torch.tensor([[[[0.0, 4.0]]]])}
    straight = settings.model_copy(update={"flip": False})
    both = mean_scores(lambda x, labels: (of_size[x.shape[-1]], []), images, None, straight)
    assert both[0, 0].tolist() == [[0, 0.5, 1.5, 2]]  # bilinear


def test_a_cell_is_a_square_of_pixels():
    """Scores are those of the cells' middles: two cells over four pixels, the middles between the
    first two and the last two."""
    scores = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    pixels = to_pixels(scores, 3, 4)
    assert pixels.dtype == np.float32
    assert pixels.tolist() == [[[0, 0.25, 0.75, 1]] * 3, [[1, 0.75, 0.25, 0]] * 3]
    assert to_pixels(scores.mT, 4, 1)[0].tolist() == [[0], [0.25], [0.75], [1]]


@pytest.fixture
def photos(tmp_path):
    """Two photos, red on the left and blue on the right, of odd sizes."""
    photos = []
    for name, size in (("a/one", (41, 23)), ("two", (30, 57))):
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        pixels[:, : size[0] // 2, 0] = pixels[:, size[0] // 2 :, 2] = 255
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        photos.append(Photo(name, path, ("red",)))
    return Table(("blue", "red"), tuple(photos))


def colors(images, labels):
    """Scores that are the colors: background where neither is strong."""
    pooled = torch.nn.functional.avg_pool2d(images, 16)
    return torch.stack([0.3 + 0 * pooled[:, 0], pooled[:, 2], pooled[:, 0]], 1).softmax(1), []


def test_masks_have_the_photos_size_and_only_given_tags(photos, tmp_path):
    maker = MaskMaker(
        colors, int, photos.tags, PLAIN.model_copy(update={"scores": "softmax_of_tags"})
    )
    assert make_masks(photos, maker, tmp_path / "out", 2) == 2
    one = read_mask(tmp_path / "out" / "a" / "one.png")
    assert one.shape == (23, 41) and set(np.unique(one)) == {0, 2}
    assert (
        one[:, :10].min() == 2 and one[:, -10:].max() == 0
    )  # blue is not among the tags: background
    with np.load(tmp_path / "out" / "two.npz", allow_pickle=False) as saved:
        assert saved["scores"].shape == (2, 2, 2) and saved["classes"].tolist() == [0, 2]
    (stored,) = maker.score_maps(photos.photos[1:])
    classes, maps = read_score_maps(tmp_path / "out", photos.photos[1])
    assert classes == [0, 2] and torch.allclose(maps, stored, atol=1e-3)
    plain = MaskMaker(colors, int, photos.tags, PLAIN.model_copy(update={"scores": "softmax"}))
    scores = plain.scores(plain.score_maps(photos.photos[:1])[0], [0, 1, 2])
    assert set(np.unique(plain.mask(photos.photos[0], scores))) == {1, 2}


def test_photos_are_read_at_every_scale(photos):
    settings = PLAIN.model_copy(update={"scales": (1.0, 2.0)})
    maker = MaskMaker(colors, lambda side: int(side) + 1, photos.tags, settings)
    assert [x.shape for x in maker.read(photos.photos)] == [(2, 3, 33, 33), (2, 3, 65, 65)]


def test_the_crf_works_on_a_reduced_photo_and_the_mask_has_its_size(tmp_path, monkeypatch):
    Image.effect_noise((300, 120), 50).convert("RGB").save(tmp_path / "a.jpg", exif=lying())
    photo, seen = Photo("a", tmp_path / "a.jpg", ("x",)), []
    monkeypatch.setattr(
        "tag2mask.masks.make.dense_crf",
        lambda image, probs, params: seen.append((image.shape, probs.shape)) or probs,
    )
    maker = MaskMaker(None, None, ("x",), MaskSettings(mask_size=100))
    scores = torch.tensor([[[0.1], [0.9]], [[0.9], [0.1]]])  # the tag above, background below
    mask = maker.mask(photo, scores)
    assert seen == [((100, 40, 3), (2, 100, 40))]
    assert mask.shape == (300, 120) and (mask[:150] == 1).all() and (mask[150:] == 0).all()


def bilinear(z, size):
    """(K, h, w) at (W, H): each pixel's middle lies between the middles of four cells, beyond the
    outermost it has theirs."""
    scores = z
    for axis, pixels in ((1, size[1]), (2, size[0])):
        cells = scores.shape[axis]
        at = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
        low = np.minimum(at.astype(int), cells - 2)
        share = (at - low).reshape((-1, 1) if axis == 1 else -1)
        scores = np.take(scores, low, axis) * (1 - share) + np.take(scores, low + 1, axis) * share
    return scores


@pytest.mark.parametrize("backbone", ["test_vit", "tf_efficientnet_lite0"])
def test_a_mask_is_the_argmax_of_z_interpolated_to_the_photo(backbone, tmp_path):
    """PPC II.D, CPC 3.5 without the CRF: the photo as a square, Z, bilinear interpolation, argmax
    over all classes."""
    torch.manual_seed(0)
    net = PatchClassifier(
        ClassifierSettings(backbone=backbone, weights="none" if backbone == "test_vit" else "auto"),
        4,
        2,
    ).eval()
    torch.nn.init.normal_(net.classifier.weight, std=3)
    scene = make_scene(np.random.default_rng(3), 150, "cat").picture.resize((151, 97))
    scene.save(tmp_path / "a.png")
    u = torch.tensor([[1.0, 0]])
    maker = MaskMaker(
        lambda images, labels: net.scores(images, u),
        net.backbone.side,
        ("cat", "cow", "dog"),
        PLAIN.model_copy(update={"image_size": 130, "scores": "softmax"}),
    )
    photo = Photo("a", tmp_path / "a.png", ("cat",))
    mask = maker.mask(photo, maker.scores(maker.score_maps([photo])[0], maker.present(photo)))
    square = (
        np.asarray(scene.resize((128, 128), Image.Resampling.BILINEAR), np.float32).transpose(
            2, 0, 1
        )
        / 255
    )
    with torch.inference_mode():
        logits = net(torch.from_numpy(square.copy())[None], u)[0][0].double().numpy()  # (8, 8, 4)
    e = np.exp(logits - logits.max(-1, keepdims=True))
    Z = bilinear((e / e.sum(-1, keepdims=True)).transpose(2, 0, 1), scene.size)
    second, first = np.sort(Z, 0)[-2:]
    sure = first - second > 1e-4
    assert mask.shape == (97, 151) and sure.mean() > 0.99 and len(np.unique(mask)) > 1
    assert (mask == Z.argmax(0))[sure].all()


def lying():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def logits(images, labels):
    """The colors as logits, larger for more tags."""
    blue_red = torch.stack([0 * images[:, 0], images[:, 2], images[:, 0]], 1)
    return torch.nn.functional.avg_pool2d(blue_red, 16) * labels.sum(), []


def test_the_common_threshold_is_otsus_over_all_logits_of_the_tags(photos):
    maker = MaskMaker(logits, int, photos.tags, PLAIN)
    maps = [
        logits(to_square(photo.open(), 32)[None], torch.ones(1))[0][0, 2] for photo in photos.photos
    ]
    expected = otsu(torch.stack([z / z.max() for z in maps]))
    assert maker.measure(photos.photos) == pytest.approx(expected)
    assert MaskMaker(logits, int, photos.tags, SOFTMAX).measure(photos.photos) is None
    fixed = PLAIN.model_copy(update={"threshold": 0.3})
    assert MaskMaker(logits, int, photos.tags, fixed).measure(photos.photos) is None


def test_measured_photos_are_not_scored_again(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("tag2mask.masks.make.MEASURED", 1)
    asked = []

    def counting(images, labels):
        asked.append(len(images))
        return logits(images, labels)

    maker = MaskMaker(counting, int, photos.tags, PLAIN)
    maker.measure(photos.photos)
    make_masks(photos, maker, tmp_path / "out", 1)
    assert asked == [1, 1]
    for photo in photos.photos:
        (maps,) = maker.score_maps([photo])
        assert torch.allclose(read_score_maps(tmp_path / "out", photo)[1], maps, atol=1e-3)


def test_a_segmenter_and_the_tags_say_where_things_are(photos):
    """By hand: red's probability is 0.2 in the left cell and 0.08 in the right one, so 1 and 0.4 of
    its largest; Otsu's threshold is between them. Blue is no tag, and background does not count."""
    photo, left, right = photos.photos[0], np.s_[:, :CELL], np.s_[:, CELL:]
    probs = np.zeros((3, CELL, 2 * CELL), np.float32)
    probs[0], probs[1] = 0.6, 0.3
    probs[2][left], probs[2][right] = 0.2, 0.08
    probs[2][0, 0], probs[2][0, 1] = 0.4, 0.0  # a cell is the mean over its pixels
    maker = MaskMaker(None, int, photos.tags, SOFTMAX)
    maker.overall, maker.small = 0.3, frozenset({2})  # of the classifier's maps
    own = maker.of_segmenter()
    assert own.small == maker.small and own.overall is None
    maps = both_score_maps(probs[own.present(photo)], None)
    assert torch.allclose(maps, torch.tensor([[[0.0, 0]], [[0.2, 0.08]]]))
    share = torch.tensor([1, 0.4]) / 0.7
    expected = torch.stack([1 / (1 + share), share / (1 + share)])[:, None]
    assert torch.allclose(own.scores(maps, own.present(photo)), expected)


def test_both_networks_say_where_things_are():
    """By hand: relative scores of 0.25 and 1 by the classifier, 1 and 0.4 by the segmenter. Its
    largest probability is 0.2, so the classifier's exponent is 0.75 * (1 - 0.2)."""
    probs = np.full((2, CELL, 2 * CELL), 0.2, np.float32)
    probs[:, :, CELL:] = 0.08
    probs[0] = 0.9  # background, which does not count
    before = probs.copy()
    maps = both_score_maps(probs, torch.tensor([[[0.0, 0]], [[2.0, 8]]]))
    assert torch.allclose(maps, torch.tensor([[[0.0, 0]], [[0.25**0.6, 0.4**0.4]]]))
    assert np.array_equal(probs, before)
    certain = both_score_maps(5 * probs, torch.tensor([[[0.0, 0]], [[2.0, 8]]]))
    assert torch.allclose(certain[1], torch.tensor([1, 0.4]))
    nowhere = both_score_maps(probs, torch.zeros(2, 1, 2))
    assert torch.allclose(nowhere[1], torch.tensor([1, 0.4])), "the classifier finds nothing"
    part = both_score_maps(probs, torch.tensor([[[0.0, 0]], [[0.0, 8]]]))
    assert torch.allclose(part[1], torch.tensor([0, 0.4**0.4])), "it knows where nothing is"
    fine = both_score_maps(probs, torch.tensor([[[0.0, 0, 0, 0]] * 2, [[2.0, 2, 8, 8]] * 2]))
    assert fine.shape == maps.shape  # the segmenter's cells, however fine the classifier's are


def test_masks_that_exist_are_kept(photos, tmp_path):
    asked = []

    def counting(images, labels):
        asked.append(len(images))
        return colors(images, labels)

    maker = MaskMaker(counting, int, photos.tags, SOFTMAX)
    make_masks(photos, maker, tmp_path / "out", 1)
    before = (tmp_path / "out" / "two.png").stat().st_mtime_ns
    (tmp_path / "out" / "a" / "one.png").unlink()
    asked.clear()
    make_masks(photos, maker, tmp_path / "out", 1)
    assert sum(asked) == 1 and (tmp_path / "out" / "two.png").stat().st_mtime_ns == before


def test_an_error_in_a_thread_is_raised(photos, tmp_path):
    maker = MaskMaker(colors, int, photos.tags, SOFTMAX)
    photos.photos[1].path.write_bytes(b"no picture any more")
    with pytest.raises(Exception, match="two"):
        make_masks(photos, maker, tmp_path / "out", 1)


@pytest.mark.parametrize("affine", [False, True])
def test_the_stage_asks_the_classifier_with_each_photos_clusters(photos, tmp_path, affine):
    """Tags, clusters, affinity: what the maps of a run are made of is what its settings and files
    say."""
    settings = {
        "classifier": {
            "backbone": "test_vit",
            "weights": "none",
            "image_size": 64,
            "token": "cluster",
            "token_width": 8,
        }
    }
    settings["masks"] = {"image_size": 64, "scales": (1.0,), "flip": False, "affinity": affine}
    job = Run(tmp_path / "run", make_config({**settings, "out": tmp_path / "run"}))
    one, two = photos.photos
    job.given = Table(photos.tags, (one, Photo("two", two.path, ("blue", "red"))))
    torch.manual_seed(0)
    net = PatchClassifier(job.config.classifier, 3, 2).eval()
    torch.nn.init.normal_(net.cluster_embedding)  # opinions that differ from cluster to cluster
    net.measure_feature_means(torch.rand(2, 3, 64, 64))
    save_classifier(net, tmp_path / "run" / "classifier" / "model.safetensors", photos.tags, 2)
    Clusters.from_mapping({"cold": ["blue"], "warm": ["red"]}).save(
        tmp_path / "run" / "clusters" / "clusters.json"
    )
    pictures = torch.stack([to_square(photo.open(at_least=64), 64) for photo in photos.photos])
    with torch.inference_mode():
        scores, maps = net.scores(pictures, torch.tensor([[0.0, 1.0], [1.0, 1.0]]), logits=True)
        scores = spread(scores, affinity(maps, (4, 4))) if affine else scores
    first, second = mask_maker(job).score_maps(job.table.photos)
    torch.testing.assert_close(first, scores[0, [0, 2]])
    torch.testing.assert_close(second, scores[1])


def test_a_photo_of_nothing_is_background_and_nobody_scores_it(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("tag2mask.masks.make.dense_crf", None)
    Image.effect_noise((30, 12), 50).convert("RGB").save(tmp_path / "lying.jpg", exif=lying())
    nothing = Photo("good/nothing", tmp_path / "lying.jpg", ())
    table = Table(photos.tags, (nothing, *photos.photos, Photo("also", photos.photos[0].path, ())))
    asked = []

    def counting(images, labels):
        asked.extend(labels.sum(1).tolist())
        return logits(images, labels)

    for scores in ("logits", "softmax"):
        settings = PLAIN.model_copy(update={"scores": scores})
        maker = MaskMaker(counting, int, table.tags, settings)
        overall = maker.measure(table.photos)
        assert overall == MaskMaker(logits, int, table.tags, settings).measure(photos.photos)
        out = tmp_path / scores
        assert make_masks(table, maker, out, 2) == 4
        mask = read_mask(out / "good" / "nothing.png")
        assert mask.shape == (30, 12) and not mask.any(), "as tall as the upright photo"
        for photo in (nothing, table.photos[-1]):
            classes, maps = read_score_maps(out, photo)
            assert classes == [0] and maps.shape == (1, 1, 1)
    assert asked == [1, 1, 1, 1], "each of the two others once"


def test_unknown_tags_that_were_found_are_in_the_mask(photos, tmp_path):
    """They have no part in the cluster vector and none in the common threshold."""
    photo, asked = photos.photos[0], []

    def counting(images, labels):
        asked.append(labels.tolist())
        return logits(images, labels)

    maker = MaskMaker(counting, int, photos.tags, PLAIN)
    both = Photo(photo.name, photo.path, ("red",), ("blue",))
    assert maker.present(both) == [0, 1, 2]
    expected = MaskMaker(logits, int, photos.tags, PLAIN).measure([photo])
    assert maker.measure([both]) == expected
    make_masks(Table(photos.tags, (both,)), maker, tmp_path / "out", 1)
    mask = read_mask(tmp_path / "out" / "a" / "one.png")
    assert set(np.unique(mask)) >= {1, 2} and read_score_maps(tmp_path / "out", both)[0] == [
        0,
        1,
        2,
    ]
    assert asked == [[[0.0, 1.0]]] * 2
