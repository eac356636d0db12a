"""The one internal form of a data set: photos and their tags.

Every reader of `tag2mask.data` ends here, and every room starts from here. No mask is part of it: nothing that trains from
tags can open one.

Class numbers: background is 0, tag i is class i + 1; `num_classes` counts background, `num_tags` does not.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile

from tag2mask.errors import DataError

# Pillow takes pictures of more than 89 megapixels for an attack, and refuses those of twice as many; phones take larger ones.
Image.MAX_IMAGE_PIXELS = 500_000_000

BACKGROUND = 0
IGNORE = 255

# EXIF orientation -> what makes the picture upright. Not ImageOps.exif_transpose, which writes EXIF anew and fails where it is broken.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photo:
    """One picture and what its owner says is in it."""

    name: str  # unique in its table, no extension, may hold "/": the mask of this photo is NAME.png
    path: Path
    tags: tuple[str, ...]  # in the table's order; empty where nobody tagged it

    def open(self, at_least: int | None = None) -> Image.Image:
        """The picture as it is seen: RGB, upright; `at_least` as in `open_image`. Raises DataError if it cannot be read."""
        return open_image(self.path, at_least)


@dataclass(frozen=True)
class Table:
    """Photos and the ordered list of all tags."""

    tags: tuple[str, ...]
    photos: tuple[Photo, ...]
    source: str = ""

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def num_tags(self) -> int:
        """How many tags; background not counted."""
        return len(self.tags)

    @property
    def num_classes(self) -> int:
        """How many classes; background counted."""
        return len(self.tags) + 1

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number: background first."""
        return ("background", *self.tags)

    @cached_property
    def labels(self) -> np.ndarray:
        """Which tags each photo has: (N, num_tags) float32 in {0, 1}."""
        index = {tag: i for i, tag in enumerate(self.tags)}
        labels = np.zeros((len(self.photos), len(self.tags)), np.float32)
        for row, photo in zip(labels, self.photos, strict=True):
            row[[index[tag] for tag in photo.tags]] = 1
        return labels

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names, tags and file sizes: what a stage that read this table depends on."""
        digest = hashlib.sha256(repr(self.tags).encode())
        for photo in self.photos:
            digest.update(repr((photo.name, photo.tags, photo.path.stat().st_size)).encode())
        return digest.hexdigest()[:16]


def open_image(path: Path, at_least: int | None = None) -> Image.Image:
    """A picture file of any mode to an upright RGB picture; transparent parts become white. Raises DataError.

    With `at_least` [pixels] a JPEG may come out smaller by a power of 2, both sides still at least that: several times faster.
    """
    with reading(path) as file:
        if at_least is not None:
            file.draft(None, (at_least, at_least))
        file.load()
        return upright_rgb(file)


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode to an upright RGB picture; transparent parts become white, 16 bits are brought to 8 by the largest value."""
    orientation = _orientation(image)
    image = image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        pixels = np.asarray(image, np.float32)
        top = max(float(pixels.max()), 1.0)
        return Image.fromarray((pixels * (255 / top)).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as `open_image` gives it (upright), read from its header alone. Raises DataError."""
    with reading(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


@contextmanager
def reading(path: Path, what: str = "picture") -> Iterator[ImageFile]:
    """A picture file, open inside the block. Raises DataError for whatever Pillow raises there."""
    try:
        with Image.open(path) as file:
            yield file
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # of a broken file Pillow raises almost any kind
        raise DataError(f"{path}: not a readable {what} ({error})") from None


def _orientation(image: Image.Image) -> int:
    """How a picture lies in its file, 1 to 8 as in EXIF; 1 where nobody can tell."""
    if image.format == "TIFF" or not isinstance(image, ImageFile):
        return 1  # Pillow turns the former by itself; the latter is no file any more, and may have been turned or cut
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF, the pixels may be sound
        return 1
    return found if found in UPRIGHT else 1
