"""Pictures painted from masks."""

import numpy as np
from PIL import Image

from tag2mask.photos.masks import write_mask
from tag2mask.photos.table import Photo

COLOURS = np.array([[40, 120, 40], [230, 60, 60], [60, 60, 230]], np.uint8)  # background, disc, box


def paint(folder, name, mask, noise=0):
    """A picture painted from `mask`, and the mask, as files."""
    picture = COLOURS[mask].astype(np.int16)
    picture += np.random.default_rng(len(name)).integers(-noise, noise + 1, picture.shape, np.int16)
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "photos" / f"{name}.png")
    write_mask(folder / "masks" / f"{name}.png", mask)
    return Photo(name, folder / "photos" / f"{name}.png", ("disc", "box"))


def shapes(seed, size=(60, 80)):
    """A mask with a disc and a box somewhere: (H, W) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, np.uint8)
    cy, cx = rng.integers(16, size[0] - 16), rng.integers(14, size[1] // 2 - 6)
    mask[(y - cy) ** 2 + (x - cx) ** 2 < rng.integers(9, 14) ** 2] = 1
    top, left = rng.integers(4, size[0] - 28), rng.integers(size[1] // 2 + 8, size[1] - 26)
    mask[top : top + 22, left : left + 22] = 2
    return mask
