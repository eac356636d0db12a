"""What `predict` leaves: a table, classes, masks, overlays; without PyTorch."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.config import SegmenterSettings
from tag2mask.crf.decide import decide
from tag2mask.errors import ConfigError, DataError, Tag2MaskError
from tag2mask.photos.areas import COLUMNS
from tag2mask.photos.colors import PALETTE
from tag2mask.photos.masks import read_mask
from tag2mask.photos.predictions import Prediction, PredictionFolder
from tag2mask.photos.resize import enlarged
from tag2mask.photos.table import Photo

CLASSES = ("background", "cat", "dog")


def prediction(file="a.jpg", dog=True):
    """20 x 10 pixels: on the left a cat of 25 %, and a dog of one cell; probabilities 0.75, 0.6."""
    probs = np.zeros((3, 10, 20), np.float32)
    probs[1, :, :5] = 0.75
    probs[2, 4, 10] = 0.6 * dog
    probs[0] = 1 - probs.sum(0)
    image = Image.new("RGB", (20, 10), "gray")
    return Prediction(probs, probs, (20, 10), image, CLASSES, file)


def nothing(file="b.jpg"):
    probs = np.zeros((3, 10, 20), np.float32)
    probs[0] = 1
    return Prediction(probs, probs, (20, 10), Image.new("RGB", (20, 10)), CLASSES, file)


def write(out, *predictions, classes=CLASSES, overlay=False):
    folder = PredictionFolder(out, classes, overlay)
    with folder.opened():
        list(folder.write((p.file[:-4], p) for p in predictions))
    return folder.rows


def table(out):
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_has_area_regions_and_the_networks_probability():
    cat, dog = prediction().rows("a.png")
    values = ("a.jpg", "a.png", "cat", 25.0, 50, 1, 0.75, 0.75)
    assert cat == dict(zip(COLUMNS, values, strict=True))
    assert list(dog.values())[2:] == ["dog", 0.5, 1, 1, 0.6, 0.6]
    assert repr(prediction()) == "Prediction(20 x 10, cat 25 %, dog 0.5 %)"
    assert repr(nothing()) == "Prediction(20 x 10, all background)"
    assert nothing().found == () and prediction().found == ("cat", "dog")


def test_probabilities_are_those_before_the_crf():
    """The decision is nearly 1 where the network says 0.75."""
    whole = prediction()
    sure = np.where(whole.probs > 0.5, 1, 0).astype(np.float32)
    changed = Prediction(whole.probs, sure, whole.size, whole.image, CLASSES)
    assert changed.rows()[0]["largest_probability"] == 0.75


def test_rows_of_a_reduced_photo_count_its_own_pixels():
    small = prediction()
    large = Prediction(small.probs, small.decision, (200, 100), small.image, CLASSES)
    cat, dog = large.rows()
    assert cat["pixels"] == (large.mask == 1).sum() and cat["area_percent"] == pytest.approx(25, 1)
    assert dog["largest_probability"] == pytest.approx(large.pixel_probs[2].max(), abs=1e-4)
    here = large.mask == 1
    assert cat["mean_probability"] == pytest.approx(large.pixel_probs[1][here].mean(), abs=1e-4)


def test_the_folder_has_the_rows_classes_masks_and_overlays(tmp_path):
    rows = write(tmp_path, prediction(), nothing(), overlay=True)
    names = {"a.png", "b.png", "a.overlay.jpg", "b.overlay.jpg"}
    assert {p.name for p in tmp_path.iterdir()} == names | {"predictions.csv", "classes.json"}
    texts = [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    assert table(tmp_path) == texts and [row["class"] for row in rows] == ["cat", "dog", None]
    assert np.array_equal(read_mask(tmp_path / "a.png"), prediction().mask)
    assert not read_mask(tmp_path / "b.png").any()
    about = json.loads((tmp_path / "classes.json").read_text())
    assert about["classes"] == list(CLASSES)
    palette = Image.open(tmp_path / "a.png").getpalette()
    for number, color in enumerate(about["colors"]):
        assert bytes.fromhex(color[1:]) == bytes(palette[3 * number : 3 * number + 3])
    assert bytes(palette) == PALETTE.tobytes()


def test_rows_of_an_earlier_command_are_kept_and_replaced(tmp_path):
    write(tmp_path, prediction(), nothing())
    write(tmp_path, nothing("c.jpg"), nothing("a.jpg"))
    assert [(r["mask"], r["class"]) for r in table(tmp_path)] == [
        ("b.png", ""),
        ("c.png", ""),
        ("a.png", ""),
    ]
    (tmp_path / "b.png").unlink()
    write(tmp_path, nothing("d.jpg"))
    assert [r["mask"] for r in table(tmp_path)] == ["c.png", "a.png", "d.png"]


def test_masks_of_other_classes_are_kept(tmp_path):
    write(tmp_path, prediction())
    before = (tmp_path / "predictions.csv").read_text()
    others = ("background", "dog", "cat")
    with pytest.raises(DataError, match="has masks of other classes; give another --out"):
        write(tmp_path, nothing("b.jpg"), classes=others)
    assert (tmp_path / "predictions.csv").read_text() == before
    assert not (tmp_path / "b.png").exists()
    (tmp_path / "a.png").unlink()
    write(tmp_path, nothing("b.jpg"), classes=others)
    assert [r["mask"] for r in table(tmp_path)] == ["b.png"]
    (tmp_path / "classes.json").unlink()
    with pytest.raises(DataError, match=r"has masks, but no classes\.json"):
        write(tmp_path, nothing("c.jpg"))


def test_only_own_masks_are_replaced(tmp_path):
    write(tmp_path, prediction())
    for name in ("b.png", "c.overlay.jpg", "d.tif"):
        (tmp_path / name).write_bytes(b"of somebody")
    photos = [Photo("a", Path("a.jpg"), ()), *(Photo(n, Path(f"{n}.TIF"), ()) for n in "bcd")]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for overlay, names in (
        (False, ("b.png", "d.tif")),
        (True, ("b.png", "d.tif", "c.overlay.jpg")),
    ):
        folder = PredictionFolder(tmp_path, CLASSES, overlay)
        with pytest.raises(DataError) as error, folder.opened(photos):
            pass
        found = [problem.partition(": ")[0] for problem in error.value.problems]
        assert found == [str(tmp_path / name) for name in names]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_masks_of_a_killed_command_are_its_own(tmp_path):
    """It wrote a mask and an overlay, and no row."""
    photos = [Photo(name, Path(f"{name}.jpg"), ()) for name in "ab"]
    killed = PredictionFolder(tmp_path, CLASSES).opened(photos)  # it never ends
    killed.__enter__()
    prediction().save(tmp_path / "a.png")
    (tmp_path / "a.overlay.jpg").touch()
    for again in (photos[1:], photos[:1]):  # at first others, then the same
        folder = PredictionFolder(tmp_path, CLASSES, overlay=True)
        with folder.opened(again):
            list(folder.write((p.name, nothing(p.file)) for p in again))
    assert [r["mask"] for r in table(tmp_path)] == ["b.png", "a.png"]
    assert json.loads((tmp_path / "classes.json").read_text()).keys() == {
        "classes",
        "colors",
        "ignore",
    }


UNFINISHED_5 = b'{"classes": [], "colors": [], "ignore": 255, "unfinished": 5}'


@pytest.mark.parametrize("text", [b"5", b"null", b'{"a": "\xff"}', UNFINISHED_5])
def test_a_broken_classes_file_is_an_error(tmp_path, text):
    (tmp_path / "classes.json").write_bytes(text)
    with pytest.raises(Tag2MaskError, match=r"classes\.json: not "):
        write(tmp_path, prediction())


def test_broken_lines_of_the_table_are_an_error(tmp_path):
    write(tmp_path, prediction(), nothing())
    path = tmp_path / "predictions.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "a.jpg,a.png", lines[2], f"{lines[3]},1"]))
    with pytest.raises(DataError) as error:
        write(tmp_path, prediction())
    what = "does not have 8 cells; correct it, or give another --out"
    assert error.value.problems == [f"{path}: line {line} {what}" for line in (2, 4)]


def test_rows_are_written_if_it_ends_early(tmp_path):
    def stopped():
        yield "a", prediction()
        yield "b", nothing()
        raise KeyboardInterrupt

    folder = PredictionFolder(tmp_path, CLASSES)
    with pytest.raises(KeyboardInterrupt), folder.opened():
        for _ in folder.write(stopped()):
            pass
    assert {row["mask"] for row in table(tmp_path)} <= {"a.png", "b.png"}
    assert len(table(tmp_path)) == len(folder.rows)


@pytest.mark.parametrize("name", ["predictions.csv", "classes.json"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text('{"my": "data"}')
    with pytest.raises(DataError, match=rf"{name}: not written by `tag2mask predict`"):
        write(tmp_path, prediction())
    assert (tmp_path / name).read_text() == '{"my": "data"}' and len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("size", [(385, 300), (386, 289), (500, 375), (1201, 900), (385, 289)])
def test_enlarging_is_pytorchs(size):
    scores = np.random.default_rng(0).random((3, 289, 385), np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(scores)[None], size[::-1], mode="bilinear", align_corners=False
    )[0].numpy()
    assert np.abs(enlarged(scores, size) - theirs).max() < 1e-4


@pytest.mark.parametrize("object_first", [False, True])
def test_a_pixel_is_an_object_if_the_probability_of_all_objects_reaches_the_threshold(object_first):
    probs = np.random.default_rng(0).dirichlet((1, 0.4, 0.4), (30, 40)).astype(np.float32)
    probs = np.moveaxis(probs, -1, 0)
    settings = SegmenterSettings(crf={"iterations": 0}, object_first=object_first)
    image = Image.new("RGB", (40, 30))
    for threshold in (0.1, 0.5, 0.9):
        mask = decide(image, probs, settings, threshold).argmax(0)
        reached = 1 - probs[0] >= threshold
        if object_first:
            assert np.array_equal(mask > 0, reached)
            assert np.array_equal(mask[reached], 1 + probs[1:].argmax(0)[reached])
        else:
            assert not (mask > 0)[~reached].any() and (mask > 0).any()
    for wrong in (0, 1, -1, 30, float("nan")):
        with pytest.raises(ConfigError, match=r"it should be between 0 and 1"):
            decide(image, probs, settings, wrong)


def test_with_the_crf_a_lower_threshold_finds_more():
    rng = np.random.default_rng(0)
    probs = np.full((2, 60, 60), 0.7, np.float32)
    probs[0, 20:40, 20:40] = 0.6
    probs[1] = 1 - probs[0]
    pixels = np.full((60, 60, 3), 90, np.uint8)
    pixels[20:40, 20:40] = (220, 40, 40)
    image = Image.fromarray(pixels + rng.integers(0, 3, pixels.shape, np.uint8))
    found = [
        (decide(image, probs, SegmenterSettings(), threshold).argmax(0) > 0).sum()
        for threshold in (0.2, 0.35, 0.5)
    ]
    assert found == [3600, 400, 0]


def test_what_predict_leaves_needs_no_pytorch():
    """Only where the compiled CRF is missing, PyTorch replaces it."""
    modules = "tag2mask.photos.predictions, tag2mask.photos.tiles, tag2mask.crf.decide"
    code = f"import sys, {modules}; print([m for m in ('torch', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
