import numpy as np
import pytest
from PIL import Image, ImageFont

from tag2mask.report import class_colours, draw, heatmap, legend, overlay
from tag2mask.report.draw import INFERNO, label_places, mask_layer


def lightness(rgb):
    """CIE L* of (N, 3) sRGB in 0-255."""
    unit = np.asarray(rgb, float) / 255
    linear = np.where(unit > 0.04045, ((unit + 0.055) / 1.055) ** 2.4, unit / 12.92)
    light = linear @ (0.2126, 0.7152, 0.0722)
    return np.where(light > 0.008856, 116 * np.cbrt(light) - 16, 903.3 * light)


def test_colour_map_grows_evenly_lighter():
    steps = np.diff(lightness(INFERNO))
    assert steps[1:].min() > 9 and steps[1:].max() < 1.5 * steps[1:].min() and steps[0] > 0


def test_class_colours_differ_and_carry_dark_text():
    colours = class_colours(21)[1:].astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(2) + 999 * np.eye(20, dtype=int)
    assert apart.min() > 45
    assert lightness(colours).min() > 45
    assert len(np.unique(class_colours(100)[1:], axis=0)) == 99
    assert class_colours(255).shape == (255, 3)


def test_a_class_keeps_its_colour_when_more_follow():
    assert (class_colours(5) == class_colours(81)[:5]).all()


def square(number=1, size=(60, 80)):
    mask = np.zeros(size, np.uint8)
    mask[10:50, 20:60] = number
    return mask


def test_layer_tints_classes_and_leaves_background_clear():
    layer = np.array(mask_layer(square(), (80, 60), 3))
    colour = class_colours(3)[1]
    assert (layer[30, 40, :3] == colour).all() and 60 < layer[30, 40, 3] < 200
    assert (layer[30, 20, :3] == colour).all() and layer[30, 20, 3] == 255
    assert layer[5, 5, 3] == 0
    assert np.array(mask_layer(square(255), (80, 60), 3))[30, 40].tolist() == [255, 255, 255, 90]
    assert mask_layer(square(), (40, 30), 3).size == (40, 30)


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


def test_a_mask_of_one_class_alone_is_labelled_in_the_middle():
    [(number, x, y)] = label_places(np.full((50, 70), 4, np.uint8))
    assert (number, x, y) == (4, pytest.approx(0.5, abs=0.03), pytest.approx(0.5, abs=0.03))


@pytest.mark.parametrize("name", ["cat", "猫", "кот", "قطة", "🐱", "<b>", "a very long name that does not fit in the picture at all", "é̀"])
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
    monkeypatch.setattr(draw, "_fonts", lambda size: [latin])
    assert draw._writable("猫", 7, 20)[0] == "#7"
    assert draw._writable("猫 cat", 7, 20)[0] == "cat"
    assert draw._writable("big cat", 7, 20)[0] == "big cat"


def test_heatmap_is_bright_where_the_score_is_high():
    photo = Image.new("RGB", (80, 60), (128, 128, 128))
    score = np.zeros((6, 8), np.float32)
    score[:, 6:] = 0.02  # scaled to the highest of the photo
    heat = lightness(np.array(heatmap(photo, score)).reshape(-1, 3)).reshape(60, 80)
    assert heat[:, 75].min() > heat[:, 5].max() + 30
    assert (np.diff(heat[30, 55:70]) >= 0).all()  # bilinear: no step
    assert heatmap(photo, np.zeros((6, 8), np.float32)).size == (80, 60)


def test_legend_wraps_and_shows_each_colour():
    classes = ("background", *(f"class {i}" for i in range(30)))
    narrow, wide = legend(classes, range(1, 31), 300), legend(classes, range(1, 31), 1200)
    assert narrow.width == 300 and narrow.height > 2 * wide.height
    pixels = {tuple(p) for p in np.array(wide).reshape(-1, 3).tolist()}
    assert {tuple(c) for c in class_colours(31)[1:].tolist()} <= pixels
    only = {tuple(p) for p in np.array(legend(classes, [4], 300)).reshape(-1, 3).tolist()}
    assert tuple(class_colours(31)[4].tolist()) in only and tuple(class_colours(31)[5].tolist()) not in only
