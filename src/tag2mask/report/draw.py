"""Score maps drawn on photos."""

import numpy as np
from PIL import Image

# Ten points of the inferno color map (CC0), lightness rising evenly; linear between them.
INFERNO = np.array(
    [
        [0, 0, 4],
        [27, 12, 65],
        [74, 12, 107],
        [120, 28, 109],
        [165, 44, 96],
        [207, 68, 70],
        [237, 105, 37],
        [251, 155, 6],
        [247, 209, 61],
        [252, 255, 164],
    ],
    np.float32,
)


def heatmap(photo: Image.Image, score: np.ndarray) -> Image.Image:
    """A photo and one class's scores (h, w) in 0-1 to an RGB picture of the photo's size: 0 is dark, 1 brightest (CPC Fig. 6)."""
    heat = np.asarray(
        Image.fromarray(score.astype(np.float32)).resize(photo.size, Image.Resampling.BILINEAR)
    )[..., None].clip(0, 1)
    place = heat[..., 0] * (len(INFERNO) - 1)
    color = np.stack(
        [np.interp(place, np.arange(len(INFERNO)), INFERNO[:, c]) for c in range(3)], 2
    )
    gray = np.asarray(photo.convert("L"), np.float32)[..., None]
    mixed = color * (0.55 + 0.45 * gray / 255) + gray * (
        0.5 - 0.45 * heat
    )  # the photo stays visible where the score is low
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
