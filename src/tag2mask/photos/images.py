"""Picture files to upright RGB pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile

from tag2mask.errors import DataError

# Pillow takes pictures of more than 89 megapixels for an attack, and refuses those of twice as many; phones take larger ones.
Image.MAX_IMAGE_PIXELS = 500_000_000


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
