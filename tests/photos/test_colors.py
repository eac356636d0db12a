"""The one palette and the overlay."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from tag2mask.photos import colors
from tag2mask.photos.colors import PALETTE, color, label_places, mask_layer, overlay


def distance(rgb):
    """Distances of (N, 3) sRGB colors in OKLab, as the eye sees them: (N, N); black-white is 1."""
    unit = np.asarray(rgb, float) / 255
    linear = np.where(unit > 0.04045, ((unit + 0.055) / 1.055) ** 2.4, unit / 12.92)
    lms = linear @ np.array(
        [[0.4122, 0.2119, 0.0883], [0.5363, 0.6807, 0.2817], [0.0514, 0.1074, 0.6300]]
    )
    lab = np.cbrt(lms) @ np.array(
        [[0.2105, 1.9780, 0.0259], [0.7936, -2.4286, 0.7828], [-0.0041, 0.4506, -0.8087]]
    )
    return np.linalg.norm(lab[:, None] - lab[None], axis=2)


def test_colors_of_classes_stay_apart_and_carry_dark_text():
    assert len(np.unique(PALETTE, axis=0)) == 256, "a mask that was saved as RGB can be read back"
    assert PALETTE[0].tolist() == [0, 0, 0] and PALETTE[255].tolist() == [255, 255, 255]
    for classes, least in ((6, 0.13), (21, 0.07), (81, 0.02)):
        assert (distance(PALETTE[1:classes]) + np.eye(classes - 1)).min() > least
    assert distance([[16, 16, 20], *PALETTE[1:255]])[0, 1:].min() > 0.4
    assert color(1) == "#" + "".join(f"{part:02x}" for part in PALETTE[1])


def square(number=1, size=(60, 80)):
    mask = np.zeros(size, np.uint8)
    mask[10:50, 20:60] = number
    return mask


def test_layer_tints_classes_and_leaves_background_clear():
    layer = np.array(mask_layer(square(), (80, 60)))
    assert (layer[30, 40, :3] == PALETTE[1]).all() and 60 < layer[30, 40, 3] < 200
    assert (layer[30, 20, :3] == PALETTE[1]).all() and layer[30, 20, 3] == 255
    assert layer[5, 5, 3] == 0
    assert np.array(mask_layer(square(255), (80, 60)))[30, 40].tolist() == [255, 255, 255, 90]
    assert mask_layer(square(), (40, 30)).size == (40, 30)


def test_labels_stand_deep_inside_the_largest_part():
    mask = np.zeros((100, 100), np.uint8)
    mask[60:64, 2:99] = 1  # long and thin
    mask[10:40, 10:40] = 1
    mask[70:95, 70:95] = 2
    mask[0, 0] = 3  # too small to name
    mask[:2, 50:] = 255
    places = {number: (x, y) for number, x, y in label_places(mask)}
    assert places.keys() == {1, 2}
    assert places[1] == pytest.approx((0.25, 0.25), abs=0.03)
    assert places[2] == pytest.approx((0.825, 0.825), abs=0.03)


def test_a_mask_of_one_class_alone_is_labeled_in_the_middle():
    [(number, x, y)] = label_places(np.full((50, 70), 4, np.uint8))
    assert (number, x, y) == (4, pytest.approx(0.5, abs=0.03), pytest.approx(0.5, abs=0.03))


@pytest.mark.parametrize(
    "name",
    ["cat", "猫", "кот", "قطة", "🐱", "<b>", "a name too long for the picture " * 3, "é̀"],
)
def test_overlay_names_classes_of_any_script(name):
    photo = Image.new("RGB", (320, 240), (240, 240, 240))
    picture = overlay(photo, square().repeat(4, 0).repeat(4, 1), ("background", name))
    assert picture.size == photo.size and picture.mode == "RGB"
    pixels = np.array(picture, int)
    assert (pixels[2, 2] == 240).all()
    dark = pixels.sum(2) < 330
    assert dark.sum() > 15, "nothing was written"


def test_what_no_font_can_write_becomes_the_class_number(monkeypatch):
    latin = ImageFont.load_default(20)  # comes with Pillow
    monkeypatch.setattr(colors, "_fonts", lambda size: [latin])
    assert colors._writable("猫", 7, 20)[0] == "#7"
    assert colors._writable("big cat", 7, 20)[0] == "big cat"
