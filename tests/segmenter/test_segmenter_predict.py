import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.backbone import without_cudnn
from tag2mask.config import CRFSettings
from tag2mask.crf import dense_crf
from tag2mask.crf.decide import before_crf, object_first, refine
from tag2mask.crf.params import narrow
from tag2mask.photos.colors import PALETTE
from tag2mask.photos.images import open_image
from tag2mask.photos.masks import read_mask
from tag2mask.photos.predictions import Prediction
from tag2mask.photos.table import Photo
from tag2mask.segmenter.deeplab import DeepLabV2
from tag2mask.segmenter.heads import create_segmenter, load_segmenter, save_segmenter
from tag2mask.segmenter.predict import make_tiles, predict, predict_photos


@pytest.fixture(params=["deeplab_v2", "fpn"])
def model(settings, request):
    torch.manual_seed(0)
    settings = settings.model_copy(update={"head": request.param})
    model = create_segmenter(settings, ("background", "disc", "box"))
    for head in model.heads if request.param == "deeplab_v2" else [model.classify]:
        torch.nn.init.normal_(head.weight, std=0.3)  # opinions that differ from pixel to pixel
    return model.eval()


def noise(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(37, 61), (65, 65), (131, 90), (1, 40), (300, 7)])
@pytest.mark.parametrize("flip", [False, True])
def test_mask_has_the_pictures_size(model, settings, size, flip):
    settings = settings.model_copy(update={"flip": flip, "test_scales": (0.75, 1.0, 1.5)})
    result = predict(model, noise(*size), settings)
    assert result.mask.shape == size and result.mask.dtype == np.uint8 and result.mask.max() < 3
    assert result.pixel_probs.shape == (3, *size) and np.allclose(
        result.pixel_probs.sum(0), 1, atol=1e-5
    )
    decision = torch.nn.functional.interpolate(
        torch.from_numpy(result.decision)[None], size, mode="bilinear"
    )[0]
    assert np.allclose(decision.sum(0), 1, atol=1e-5) and np.array_equal(
        decision.argmax(0), result.mask
    )
    assert result.overlay().size == size[::-1]


@pytest.mark.parametrize("changes", [{}, {"object_first": False}, {"crf": {"iterations": 3}}])
def test_probs_are_the_softmax_of_the_logits_whatever_decides(model, settings, changes, tmp_path):
    """[.4, .35, .25] stays that: what `object_first` and the CRF make of it is the decision."""
    corners = model.align_corners
    size = (49, 65) if corners else (64, 32)  # sides that the network takes as they are
    image, settings = noise(*size), type(settings)(**{**settings.model_dump(), **changes})
    image.save(tmp_path / "a.png")
    logits = model(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255)
    up = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=corners)
    softmax = up.softmax(1)[0].detach().numpy()
    ((_, streamed),) = predict_photos(model, [Photo("a", tmp_path / "a.png", ())], settings)
    for result in (predict(model, image, settings), streamed):
        assert np.allclose(result.probs, softmax, atol=1e-6) and np.allclose(
            result.pixel_probs, softmax, atol=1e-6
        )
        assert np.allclose(result.decision.sum(0), 1, atol=1e-5)
        assert np.array_equal(result.decision, result.probs) == (changes == {"object_first": False})


def test_object_first_gives_the_object_to_its_likeliest_class(model, settings):
    """0.4 background, 0.35 cow, 0.25 sheep: background is the likeliest class, but the pixel is
    more likely an object."""
    probs = np.array([[0.4, 0.6], [0.35, 0.1], [0.25, 0.3]], np.float32)[..., None]
    decision = object_first(probs, settings)
    assert np.allclose(decision[..., 0], [[0.4, 0.6], [0.6, 0], [0, 0.4]])
    assert probs.argmax(0).ravel().tolist() == [0, 0] and decision.argmax(0).ravel().tolist() == [
        1,
        0,
    ]
    image, likeliest = noise(49, 65), settings.model_copy(update={"object_first": False})
    objects = 1 - predict(model, image, likeliest).probs[0] > 0.5
    assert np.array_equal(predict(model, image, settings).mask > 0, objects)


def test_mirrored_pictures_get_mirrored_masks(model, settings):
    settings = settings.model_copy(update={"flip": True, "test_scales": (1.0, 1.5)})
    image = noise(49, 65)
    mirrored = predict(model, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), settings)
    assert np.allclose(
        predict(model, image, settings).decision, mirrored.decision[..., ::-1], atol=1e-5
    )
    plain = settings.model_copy(update={"flip": False})
    assert not np.allclose(
        predict(model, image, plain).probs, predict(model, image, settings).probs, atol=1e-3
    )


def test_enlarging_class_by_class_is_argmax_of_the_scores():
    logits = np.random.default_rng(0).normal(0, 2, (30, 12, 9))
    probs = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    result = Prediction(probs, probs, (81, 107), noise(12, 9), tuple(map(str, range(30))))
    assert np.array_equal(result.mask, result.pixel_probs.argmax(0))
    assert result.found == tuple(str(n) for n in np.unique(result.mask) if n)


def test_a_cell_of_the_prediction_is_a_square_of_pixels():
    decision = np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32)
    result = Prediction(decision, decision, (4, 2), noise(1, 2), ("background", "disc"))
    assert (
        result.pixel_probs[1].tolist() == [[0, 0.25, 0.75, 1]] * 2
        and result.mask.tolist() == [[0, 0, 1, 1]] * 2
    )


def test_overlay_colors_objects_only(tmp_path):
    probs = np.zeros((3, 40, 60), np.float32)
    probs[0] = 1
    probs[:, 10:30, 20:40] = np.array((0, 0, 1))[:, None, None]
    result = Prediction(
        probs,
        probs,
        (60, 40),
        Image.new("RGB", (60, 40), (100, 100, 100)),
        ("background", "disc", "box"),
    )
    pixels = np.asarray(result.overlay())
    assert (
        (pixels[10, 20] == PALETTE[2]).all()
        and (pixels[:9] == 100).all()
        and (pixels[32:] == 100).all()
    )
    assert result.found == ("box",)
    result.save(tmp_path / "deep" / "m.png")
    assert np.array_equal(read_mask(tmp_path / "deep" / "m.png"), result.mask)


def test_stream_is_predict_in_order(model, settings, tmp_path):
    sizes = [(40, 52), (61, 33), (64, 64), (200, 120), (50, 50)]
    photos = []
    for i, size in enumerate(sizes):
        image = noise(*size, seed=i)
        path = tmp_path / f"{i}.png"
        (image.convert("L") if i == 1 else image.convert("P") if i == 2 else image).save(path)
        photos.append(Photo(str(i), path, ()))
    results = list(predict_photos(model, iter(photos), settings, threads=2))
    assert [photo.name for photo, _ in results] == list("01234")
    for photo, result in results:
        assert np.array_equal(result.mask, predict(model, open_image(photo.path), settings).mask)
        assert result.mask.shape == sizes[int(photo.name)]


def test_a_gpu_predicts_without_cudnn(model, settings, monkeypatch):
    """cuDNN takes seconds for the first photo of each size."""
    seen = []
    model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    predict(model, Image.new("RGB", (40, 30)), settings)
    gpu = torch.device("cuda")
    monkeypatch.setattr("tag2mask.segmenter.network.without_cudnn", lambda _: without_cudnn(gpu))
    predict(model, Image.new("RGB", (40, 30)), settings)
    assert seen == [True, False] and torch.backends.cudnn.enabled


def test_a_large_jpeg_is_read_reduced_and_keeps_its_size(model, settings, tmp_path):
    noise(480, 640).save(tmp_path / "x.jpg", quality=95)
    ((_, result),) = predict_photos(model, [Photo("x", tmp_path / "x.jpg", ())], settings)
    assert result.image.size == (65, 49) and result.size == (640, 480)
    whole = predict(model, open_image(tmp_path / "x.jpg"), settings)
    assert result.mask.shape == whole.mask.shape and (result.mask == whole.mask).mean() > 0.9


def test_stream_works_on_few_photos_at_a_time(model, settings, tmp_path):
    noise(30, 30).save(tmp_path / "x.png")
    taken = 0

    def photos():
        nonlocal taken
        for i in range(50):
            taken += 1
            yield Photo(str(i), tmp_path / "x.png", ())

    stream = predict_photos(model, photos(), settings, threads=2)
    for used in range(1, 20):
        next(stream)
        assert taken <= used + 2 * (2 + 1)
    stream.close()


def test_crf_follows_the_edges(settings):
    """A square on a plain ground, probabilities that reach over its edge: the CRF brings them back
    to it."""
    pixels = np.full((48, 48, 3), 30, np.uint8)
    pixels[12:36, 12:36] = (220, 40, 40)
    probs = np.full((4, 48, 48), 1e-3, np.float32)
    probs[1] = 0.2
    probs[1, 9:39, 9:39] = 0.7
    probs[0] = 1 - probs[1] - 2e-3
    crf = settings.model_copy(update={"crf": settings.crf.model_copy(update={"iterations": 10})})
    refined = refine(Image.fromarray(pixels), probs, crf)
    truth = np.zeros((48, 48), bool)
    truth[12:36, 12:36] = True
    assert (probs.argmax(0) == 1).sum() == 900
    assert ((refined.argmax(0) == 1) != truth).mean() < 0.01
    assert np.array_equal(
        refined.argmax(0), dense_crf(pixels, probs).argmax(0)
    )  # classes left out change nothing
    assert not refined[2:].any()
    assert refine(Image.fromarray(pixels), probs, settings) is probs


def test_the_crf_reaches_less_far_where_a_small_thing_is(model, settings, tmp_path):
    """By every way to predict, with the network as it was stored. Where no small thing is found,
    nothing changes."""
    settings = model.settings = settings.model_copy(
        update={"head": model.settings.head, "crf": CRFSettings(iterations=3)}
    )
    image, size = noise(49, 65), (65, 49)
    image.save(tmp_path / "a.png")
    if model.settings.head == "fpn":  # untrained, it has one class everywhere
        with torch.no_grad():
            model.classify.bias -= model(torch.rand(1, 3, 64, 64)).mean((0, 2, 3))
    before = before_crf(predict(model, image).probs, settings)
    shown = np.unique(before.argmax(0)).tolist()
    assert 1 in shown and len(shown) > 1
    for small, crf in (((1,), narrow(settings.crf)), ((7,), settings.crf), ((), settings.crf)):
        model.small = small
        save_segmenter(model, tmp_path / "m.safetensors")
        stored = load_segmenter(tmp_path / "m.safetensors")
        assert stored.small == small
        ((_, streamed),) = predict_photos(stored, [Photo("a", tmp_path / "a.png", ())])
        tiles = make_tiles(stored, 128, 0)
        right = refine(image, before, settings.model_copy(update={"crf": crf}))
        for decision in (
            predict(stored, image).decision,
            streamed.decision,
            tiles.decide(image, tiles.probabilities(image)),
        ):
            assert decision.shape[1:] == size[::-1] and np.allclose(decision, right, atol=1e-5)
    wide = refine(image, before, settings)
    assert not np.allclose(wide, refine(image, before, settings, (1,)), atol=1e-2)


def test_a_class_of_which_nothing_is_certain_is_not_shown(model, settings, tmp_path):
    """By every way to predict, with the network as it was stored."""
    settings = model.settings = settings.model_copy(
        update={"head": model.settings.head, "crf": CRFSettings(iterations=0)}
    )
    image = noise(49, 65)
    image.save(tmp_path / "a.png")
    if model.settings.head == "fpn":  # untrained, it has one class everywhere
        with torch.no_grad():
            model.classify.bias -= model(torch.rand(1, 3, 64, 64)).mean((0, 2, 3))
    probs = predict(model, image).probs
    _, a, b = (float(value) for value in probs.max((1, 2)))
    assert {1, 2} <= {*np.unique(before_crf(probs, settings).argmax(0))}
    for least, threshold, shown in (
        ((0, a - 1e-3, b - 1e-3), 0.5, [0, 1, 2]),
        ((0, a, b - 1e-3), 0.5, [0, 2]),
        ((0, a - 1e-3, 1), 0.5, [0, 1]),
        ((0, a, b), 0.5, [0]),
        ((0, a, b), 0.4, [0, 1, 2]),  # a lower threshold asks for more
        ((0, a - 1e-3, b - 1e-3), 0.6, [0, 1, 2]),  # a higher one does not ask for all or nothing
        (max(a, b), 0.5, [0]),  # a file that has one value
    ):
        model.least, right = least, before_crf(probs, settings, threshold)
        kept = np.isin(np.arange(3), shown)[:, None, None]
        right = right * kept + np.eye(3)[0][:, None, None] * (right * ~kept).sum(0)
        save_segmenter(model, tmp_path / "m.safetensors")
        stored = load_segmenter(tmp_path / "m.safetensors")
        ((_, streamed),) = predict_photos(
            stored, [Photo("a", tmp_path / "a.png", ())], threshold=threshold
        )
        tiles = make_tiles(stored, 128, 0, threshold=threshold)
        for decision in (
            predict(stored, image, threshold=threshold).decision,
            streamed.decision,
            tiles.decide(image, tiles.probabilities(image)),
        ):
            assert np.allclose(decision, right, atol=1e-5)


def test_crf_of_a_network_unsure_between_many_classes(settings):
    """Of 81 classes none may be likely: COCO after too few steps."""
    settings = settings.model_copy(
        update={"crf": settings.crf.model_copy(update={"iterations": 2}), "object_first": False}
    )
    model = DeepLabV2(settings, tuple(f"c{i}" for i in range(81))).eval()
    for head in model.heads:
        torch.nn.init.zeros_(head.weight)
    assert predict(model, noise(49, 65), settings).mask.shape == (49, 65)
