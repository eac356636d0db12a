"""Strokes mend a mask: exact where painted, and as far as the object goes."""

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.config import CRFSettings, MaskSettings
from tag2mask.errors import RunError
from tag2mask.masks import MaskMaker, make_masks
from tag2mask.masks.mend import mend, paint
from tag2mask.photos.correction_log import Stroke
from tag2mask.photos.masks import read_mask, write_mask
from tag2mask.photos.table import Photo, Table

TAGS = ("cat", "dog")
LEFT, RIGHT = (slice(30, 90), slice(20, 70)), (slice(30, 90), slice(110, 170))


@pytest.fixture
def made(tmp_path):
    """A photo of two things on a gray wall, and masks of it by a network that found the left one
    alone: a cat, it says. The folder of the masks, the photo."""
    random = np.random.default_rng(0)
    pixels = np.full((120, 200, 3), 120, np.int16)
    pixels[LEFT], pixels[RIGHT] = (200, 60, 40), (50, 70, 200)
    noisy = (pixels + random.integers(-4, 5, pixels.shape)).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "a.png")
    photo = Photo("a", tmp_path / "a.png", ("cat",))
    settings = MaskSettings(threshold=0.4, flip=False, affinity=False, image_size=64)

    def score(images, labels):
        maps = torch.zeros(len(images), 3, 12, 20)
        maps[:, 1, 3:9, 2:7] = 3
        maps[:, 1, 4:8, 3:6] = 4
        return maps, []

    maker = MaskMaker(score, lambda side: int(side), TAGS, settings)
    folder = tmp_path / "masks"
    make_masks(Table(TAGS, (photo,)), maker, folder, 1)
    about = {"classes": ["background", *TAGS], "threshold": None}
    about["settings"] = settings.model_dump(mode="json")
    (folder / "masks.json").write_text(json.dumps(about))
    return folder, photo


def stroke(tag, *points, radius=3):
    return Stroke(tag=tag, points=points, radius=radius)


def shares(mask, number):
    """Which share of the left thing, of the right thing, and of the wall a class covers."""
    wall = np.ones(mask.shape, bool)
    wall[LEFT], wall[RIGHT] = False, False
    of_class = mask == number
    return [round(float(of_class[part].mean()), 2) for part in (LEFT, RIGHT, wall)]


def test_without_strokes_it_is_the_pseudo_mask(made):
    folder, photo = made
    mask = mend(folder, photo, TAGS)
    assert np.array_equal(mask, read_mask(folder / "a.png")) and mask.shape == (120, 200)
    assert shares(mask, 1)[0] > 0.95 and shares(mask, 1)[1:] == [0, 0]


def test_a_stroke_grows_to_the_object_that_was_missed_and_no_further(made):
    """Of a tag that the photo has not been given, and that has no score map."""
    mask = mend(*made, TAGS, [stroke("dog", (130, 60), (150, 60))])
    left, right, wall = shares(mask, 2)
    assert left < 0.02 and right > 0.97 and wall < 0.02
    assert shares(mask, 1)[0] > 0.95


def test_not_cat_takes_the_cat_away(made):
    mask = mend(*made, TAGS, [stroke("background", (35, 60), (55, 60))])
    assert (mask == 0).mean() > 0.98


def test_another_class_takes_the_whole_object(made):
    mask = mend(*made, TAGS, [stroke("dog", (35, 60), (55, 60))])
    assert shares(mask, 2)[0] > 0.95 and shares(mask, 1)[0] < 0.05 and shares(mask, 2)[2] < 0.02


def test_what_is_painted_is_exact_and_the_last_stroke_is_above(made):
    about = json.loads((made[0] / "masks.json").read_text())
    about["settings"]["mask_size"] = 50  # the CRF sees a smaller photo
    (made[0] / "masks.json").write_text(json.dumps(about))
    strokes = [stroke("cat", (100, 60), radius=10), stroke("dog", (100, 60), radius=4)]
    mask = mend(*made, TAGS, strokes)
    painted = paint(strokes, ("background", *TAGS), (200, 120), (200, 120))
    assert set(np.unique(painted).tolist()) == {1, 2, 255}
    assert np.array_equal(mask[painted != 255], painted[painted != 255])
    assert painted[60, 100] == 2 and painted[60, 108] == 1 and painted[60, 112] == 255


def test_strokes_are_measured_on_the_photo_and_may_leave_it(made):
    line = [stroke("cat", (-50, 60), (50, 60), radius=2), stroke("cow", (5, 5), radius=50)]
    small = paint(line, ("background", *TAGS), (200, 120), (100, 60))
    assert (
        (small[30, :25] == 1).all() and (small[:28] == 255).all() and (small[:, 30:] == 255).all()
    )
    assert mend(*made, TAGS, line).shape == (120, 200)


def test_a_tag_that_is_absent_now_is_not_shown_and_numbers_may_change(made):
    folder, photo = made
    absent = Photo("a", photo.path, ("dog",))
    assert not mend(folder, absent, TAGS).any()
    assert shares(mend(folder, photo, ("bird", "cat")), 2)[0] > 0.95
    assert shares(mend(folder, photo, ("bird", "dog")), 1) == [0, 0, 0]


def test_the_threshold_of_background_can_be_tried(made):
    folder, photo = made
    about = json.loads((folder / "masks.json").read_text())
    about["settings"]["crf"] = CRFSettings(iterations=0).model_dump()
    (folder / "masks.json").write_text(json.dumps(about))
    areas = [(mend(folder, photo, TAGS, threshold=value) > 0).sum() for value in (0.4, 0.9)]
    assert areas[0] > 1.5 * areas[1] > 0


def test_maps_that_are_missing_are_said(made):
    folder, photo = made
    (folder / "a.npz").unlink()
    with pytest.raises(RunError, match="no score maps of a; run `tag2mask masks`"):
        mend(folder, photo, TAGS)


def test_it_takes_less_than_a_second(made, tmp_path):
    """500 pixels, one core, as PNG; the median of five."""
    folder, photo = made
    big = tmp_path / "big.png"
    Image.open(photo.path).resize((500, 375)).save(big)
    (folder / "a.npz").rename(folder / "big.npz")
    large, seconds = Photo("big", big, ("cat",)), []
    for number in range(5):
        start = time.thread_time()
        strokes = [stroke("dog", (330 + number, 190), (370, 190), radius=6)]
        write_mask(tmp_path / "out.png", mend(folder, large, TAGS, strokes))
        seconds.append(time.thread_time() - start)
    assert sorted(seconds)[2] < 1


def test_on_a_photo_without_a_crf_too(made):
    folder, photo = made
    about = json.loads((folder / "masks.json").read_text())
    about["settings"]["crf"] = CRFSettings(iterations=0).model_dump()
    (folder / "masks.json").write_text(json.dumps(about))
    mask = mend(folder, photo, TAGS, [stroke("dog", (130, 60), (150, 60))])
    assert shares(mask, 2)[1] > 0.75 and shares(mask, 2)[0] == 0
