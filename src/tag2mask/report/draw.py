"""Score maps drawn on photos."""

import numpy as np
from PIL import Image, ImageColor

# Ten points of the inferno color map (CC0), with linear interpolation between them.
INFERNO = (
    *("#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60"),
    *("#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"),
)
_COLORS = np.array([ImageColor.getrgb(color) for color in INFERNO], np.float32)


def heatmap(photo: Image.Image, score: np.ndarray) -> Image.Image:
    """A photo and one class's score map (h, w) in 0-1 to an RGB picture of the photo's size.

    0 is dark, 1 is brightest (CPC Fig. 6). Where the score is low, the photo stays visible.
    """
    score_map = Image.fromarray(score.astype(np.float32))
    score_map = score_map.resize(photo.size, Image.Resampling.BILINEAR)
    heat = np.asarray(score_map).clip(0, 1)
    points = np.arange(len(_COLORS))
    color = np.stack([np.interp(heat * points[-1], points, part) for part in _COLORS.T], 2)
    heat, gray = heat[..., None], np.asarray(photo.convert("L"), np.float32)[..., None]
    mixed = color * (0.55 + 0.45 * gray / 255) + gray * (0.5 - 0.45 * heat)
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
