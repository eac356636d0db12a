import numpy as np
from PIL import Image, ImageColor

from tag2mask.report.draw import INFERNO, heatmap


def lightness(rgb):
    """CIE L* of (N, 3) sRGB in 0-255."""
    unit = np.asarray(rgb, float) / 255
    linear = np.where(unit > 0.04045, ((unit + 0.055) / 1.055) ** 2.4, unit / 12.92)
    light = linear @ (0.2126, 0.7152, 0.0722)
    return np.where(light > 0.008856, 116 * np.cbrt(light) - 16, 903.3 * light)


def test_color_map_grows_evenly_lighter():
    steps = np.diff(lightness([ImageColor.getrgb(color) for color in INFERNO]))
    assert steps[1:].min() > 9 and steps[1:].max() < 1.5 * steps[1:].min() and steps[0] > 0


def test_heatmap_is_bright_where_the_score_is_high_on_one_scale_for_all():
    photo = Image.new("RGB", (80, 60), (128, 128, 128))
    score = np.zeros((6, 8), np.float32)
    score[:, 6:] = 1
    heat = lightness(np.array(heatmap(photo, score)).reshape(-1, 3)).reshape(60, 80)
    assert heat[:, 75].min() > heat[:, 5].max() + 30
    assert (np.diff(heat[30, 55:70]) >= 0).all()  # bilinear: no step
    low = np.array(
        heatmap(photo, score / 50)
    )  # a score of 0.02 is as good as none, though it is the photo's highest
    assert np.abs(low - np.array(heatmap(photo, 0 * score)).astype(int)).max() < 20
