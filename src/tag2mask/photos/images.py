"""Picture files to upright RGB pictures, and which kinds of files these are."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile

from tag2mask.errors import DataError
from tag2mask.progress import log

# Pillow's default refuses more than 179 megapixels as an attack; phones take larger pictures. It
# warns of more than MAX_IMAGE_PIXELS, and refuses twice as many.
MOST_MEGAPIXELS = 1000
Image.MAX_IMAGE_PIXELS = MOST_MEGAPIXELS * 500_000

for opener in ("pi_heif", "pillow_heif"):  # the extra `heic`
    with suppress(ImportError):
        import_module(opener).register_heif_opener()
        break
Image.init()
# No pictures: movies, drawings (Pillow would start Ghostscript for EPS), weather data, containers.
NO_PICTURES = {"BUFR", "EPS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
FORMATS = tuple(kind for kind in Image.OPEN if kind not in NO_PICTURES)
KINDS = (*FORMATS, "MPO")  # Pillow opens MPO as JPEG
# Extensions of the pictures that are read.
PICTURES = {end for end, kind in Image.registered_extensions().items() if kind in KINDS}
RAW_NAMES = (
    "3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl "
    "sr2 srf srw x3f"
)
RAW = {f".{name}" for name in RAW_NAMES.split()}
HEIF = {".heic", ".heics", ".heif", ".heifs", ".hif"}
UNREAD_KINDS = {
    "pip install 'tag2mask[heic]' to read them": HEIF,
    "pip install --upgrade pillow to read them": {".avif", ".avifs"},
    "export camera raw as JPEG": RAW,
    "export drawings as PNG": {".svg", ".svgz", ".eps", ".wmf", ".emf"},
    "convert them to JPEG": {".jxl", ".jxr", ".wdp", ".hdp", ".bpg"},
}
# Extensions of pictures that are not read -> what to do.
UNREAD = {end: do for do, ends in UNREAD_KINDS.items() for end in ends if end not in PICTURES}
EXTENSIONS = PICTURES | UNREAD.keys()

# EXIF orientation -> what makes the picture upright. ImageOps.exif_transpose fails on broken EXIF.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TooLargeError(DataError):
    """A picture that Pillow does not open whole, because it may be an attack on the memory."""


def open_image(path: Path, at_least: int | None = None) -> Image.Image:
    """A picture file to an upright RGB picture; transparent parts become white. Raises DataError.

    With `at_least` [pixels] a JPEG may be read at 1/2, 1/4 or 1/8 of its size, several times
    faster; both sides stay at least that long.
    """
    with reading(path) as file:
        if at_least is not None:
            file.draft(None, (at_least, at_least))
        file.load()
        return upright_rgb(file)


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode to an upright RGB picture; transparent parts become white.

    Pictures of more than 8 bits are scaled so that their largest value becomes 255. What is no
    number (NaN) becomes black; that is said once.
    """
    file = str(getattr(image, "filename", ""))
    orientation = _orientation(image)
    image = image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        pixels = np.asarray(image, np.float32)
        return Image.fromarray(to_8_bit(pixels, largest(pixels, file))).convert("RGB")
    return image.convert("RGB")


_warned: set[str] = set()


def largest(pixels: np.ndarray, file: str) -> float:
    """The largest finite value, at least 0. Says once that `file` has others, too."""
    finite = np.isfinite(pixels)
    if not finite.all() and not _warned:
        _warned.add("said")
        what = "has pixels that are no numbers (NaN or infinite); NaN becomes black"
        log.warning(f"{file or 'a picture'} {what}. Other pictures may have them, too")
    return float(pixels.max(initial=0, where=finite))


def to_8_bit(pixels: np.ndarray, top: float) -> np.ndarray:
    """Values scaled so that `top` becomes 255: uint8. NaN becomes 0."""
    scaled = pixels * np.float32(255 / (top or 1))
    return np.nan_to_num(scaled, nan=0).clip(0, 255).astype(np.uint8)


def array_image(pixels: np.ndarray) -> Image.Image:
    """An array to a picture: RGB (H, W, 3), or gray (H, W), uint8. Raises DataError.

    The order of colors cannot be told from the numbers: OpenCV's BGR needs `pixels[..., ::-1]`.
    """
    if pixels.dtype != np.uint8:
        raise DataError(f"the array is {pixels.dtype}; give uint8, 0 to 255")
    if not pixels.size or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        what = f"the array has the shape {pixels.shape}"
        raise DataError(f"{what}; give RGB (H, W, 3) or gray (H, W); for several, a list of them")
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an upright picture, read from its header alone. Raises DataError."""
    with reading(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


@contextmanager
def reading(path: Path, what: str = "picture") -> Iterator[ImageFile]:
    """A picture file, open inside the block. Raises DataError for every error of Pillow there."""
    kind = path.suffix.lower()
    try:
        with Image.open(path, formats=FORMATS) as file:
            if kind in RAW and file.format == "TIFF":
                raise DataError(f"{path}: {UNREAD[kind]}")  # it would be the small preview
            yield file
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        most = f"more than {MOST_MEGAPIXELS} megapixels"
        how = "`tag2mask predict --tile 512` reads TIFF, PNG and JPEG in strips"
        raise TooLargeError(f"{path}: {most}; {how}, after pip install 'tag2mask[geo]'") from None
    except Exception as error:  # Pillow raises errors of many kinds for broken files
        raise DataError(f"{path}: not a readable {what} ({UNREAD.get(kind, error)})") from None


def is_upright(image: Image.Image) -> bool:
    """Whether the picture is stored as it is seen."""
    return _orientation(image) == 1


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a picture file, 1 to 8; 1 if it is unknown."""
    # Pillow turns TIFF by itself; a picture that is not a file may have been turned or cut.
    if image.format == "TIFF" or not isinstance(image, ImageFile):
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF, the pixels may be sound
        return 1
    return orientation if orientation in UPRIGHT else 1
