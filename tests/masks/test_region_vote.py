"""Regions vote: each pixel has the probabilities of its most certain region."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.config import MaskSettings
from tag2mask.masks import MaskMaker, make_masks
from tag2mask.masks.mend import mend
from tag2mask.masks.regions import vote
from tag2mask.photos.correction_log import Stroke
from tag2mask.photos.masks import read_mask
from tag2mask.photos.regions import Regions
from tag2mask.photos.table import Photo, Table


def test_a_region_has_the_mean_of_its_pixels_and_pixels_in_none_stay():
    cat = np.array([[0.9, 0.7, 0.2], [0.1, 0.4, 0.6]], np.float32)
    probs = np.stack([1 - cat, cat])
    voted = vote(probs, [np.array([0, 1, 2]), np.array([3])])
    assert voted[1] == pytest.approx(np.array([[0.6, 0.6, 0.6], [0.1, 0.4, 0.6]]))
    assert voted.sum(0) == pytest.approx(np.ones((2, 3)))
    assert cat[0, 2] == np.float32(0.2), "the input does not change"


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 2, 0]])
def test_legs_go_with_the_animal_and_grass_does_not(order):
    cow = np.array([[0.95, 0.9, 0.4, 0.3, 0.1, 0.1, 0.1, 0.1]], np.float32)
    animal, leg_and_grass, grass = np.arange(3), np.array([2, 3]), np.arange(3, 7)
    regions = [animal, leg_and_grass, grass, np.arange(5)]
    voted = vote(np.stack([1 - cow, cow]), [regions[i] for i in order])
    assert (voted.argmax(0) == [[1, 1, 1, 0, 0, 0, 0, 0]]).all()
    assert voted[1, 0, 2] == pytest.approx(0.75)


def test_a_region_of_the_whole_photo_takes_no_small_thing_away():
    """Nor do two things that touch become one: the smaller is itself."""
    cat, dog = np.full((2, 100, 100), 0.03, np.float32)
    cat[40:62, 40:62], dog[40:70, 62:90] = 0.8, 0.9
    probs = np.stack([1 - cat - dog, cat, dog]).clip(0)
    probs /= probs.sum(0)
    places = [np.flatnonzero(of > 0.5) for of in (cat, dog)]
    places += [np.concatenate(places), np.arange(100 * 100)]
    assert np.array_equal(vote(probs, places).argmax(0), probs.argmax(0))


def test_a_dog_on_a_sofa_stays_a_dog():
    """The sofa, whose region has the dog in it, is more certain."""
    sofa, dog = np.full((2, 60, 60), 0.02, np.float32)
    sofa[10:50, 10:50], sofa[20:30, 20:30], dog[20:30, 20:30] = 0.95, 0.3, 0.6
    probs = np.stack([1 - sofa - dog, sofa, dog])
    places = [np.flatnonzero(sofa > 0.2), np.flatnonzero(dog > 0.5)]
    assert np.array_equal(vote(probs, places).argmax(0), probs.argmax(0))


@pytest.fixture
def cow(tmp_path):
    """A photo of a round thing, its regions, and what makes masks of it."""
    y, x = np.mgrid[:80, :120]
    thing = (x - 60) ** 2 + (y - 40) ** 2 < 30**2
    colors = np.full((80, 120, 3), (90, 120, 60), np.uint8)
    colors[thing & (y < 50)] = 150, 120, 60  # its legs have the color of the grass
    Image.fromarray(colors).save(tmp_path / "a.png")
    photo = Photo("a", tmp_path / "a.png", ("cow",))
    (tmp_path / "regions").mkdir()
    Image.fromarray(thing.astype(np.uint8) + 1).save(tmp_path / "regions" / "a.png")
    settings = MaskSettings(
        threshold=0.4, flip=False, affinity=False, image_size=64, regions=tmp_path / "regions"
    )

    def score(images, labels):
        maps = torch.zeros(len(images), 2, 8, 12)
        maps[:, 1, 1:7, 3:9] = 1
        maps[:, 1, 2:6, 4:8] = 3
        return maps, []

    table = Table(("cow",), (photo,))

    def make(settings, folder):
        regions = Regions(settings.regions, table) if settings.regions else None
        maker = MaskMaker(score, int, table.tags, settings, regions=regions)
        make_masks(table, maker, folder, 1)
        about = {"classes": ["background", "cow"], "threshold": None}
        about["settings"] = settings.model_dump(mode="json")
        (folder / "masks.json").write_text(json.dumps(about))
        return read_mask(folder / "a.png")

    return photo, thing, settings, make


def regions(folder):
    photo = Photo("a", folder / "a.png", ("cow",))
    return Regions(folder / "regions", Table(("cow",), (photo,)))


def test_masks_end_where_regions_end(cow, tmp_path):
    photo, thing, settings, make = cow
    without = make(settings.model_copy(update={"regions": None}), tmp_path / "without")
    assert not np.array_equal(without, thing)
    assert np.array_equal(make(settings, tmp_path / "with"), thing)
    assert np.array_equal(
        mend(tmp_path / "with", photo, ("cow",), regions=regions(tmp_path)), thing
    ), "looked at again"


def test_a_stroke_in_a_region_takes_the_region(cow, tmp_path):
    photo, _, settings, make = cow
    make(settings, tmp_path / "masks")
    stroke = Stroke(tag="background", points=((45, 40), (75, 40)), radius=4)
    mask = mend(tmp_path / "masks", photo, ("cow",), [stroke], None, regions(tmp_path))
    assert not mask.any()


def test_a_photo_without_regions_has_the_mask_it_would_have(cow, tmp_path):
    photo, _, settings, make = cow
    (tmp_path / "regions" / "a.png").unlink()
    got = make(settings, tmp_path / "with")
    again = mend(tmp_path / "with", photo, ("cow",), regions=regions(tmp_path))
    assert np.array_equal(got, again)
    without = make(settings.model_copy(update={"regions": None}), tmp_path / "without")
    assert np.array_equal(got, without)
