"""Large pictures as strips of rows, and masks written row by row. GeoTIFF with the extra `geo`.

A picture of 20,000 x 20,000 pixels and its mask need little memory: neither is ever whole in it.
"""

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tag2mask.errors import DataError
from tag2mask.files import writing
from tag2mask.photos.colors import PALETTE
from tag2mask.photos.images import (
    UPRIGHT,
    TooLargeError,
    is_upright,
    largest,
    open_image,
    reading,
    to_8_bit,
)
from tag2mask.progress import log

TIFF = {".tif", ".tiff"}
ORIENTATION = 274  # the TIFF tag that says how to turn it
GEO_KEYS = 34735  # the TIFF tag that a georeference has
SMALL = 50_000_000  # pixels; of a smaller PNG or JPEG, Pillow reads the whole at once
ROWS_AT_ONCE = 64
MORE = "pip install 'tag2mask[geo]'"


class Strips(NamedTuple):
    """A picture that is read in strips."""

    size: tuple[int, int]  # width, height [pixels]
    read: Callable[[int, int], np.ndarray]  # (top, bottom) to rows (h, W, 3) uint8, RGB
    profile: Mapping[str, Any] = {}  # the georeference as rasterio writes it


@contextmanager
def open_strips(path: Path) -> Iterator[Strips]:
    """A picture file as `Strips`, open inside the block. Raises DataError.

    rasterio (the extra `geo`) reads TIFF, and large PNG and JPEG files, in strips. Without it, and
    for other kinds, the whole picture is in memory: 4 bytes a pixel.
    """
    rasterio = _rasterio()
    if rasterio is None or not _in_strips(path):
        image = open_image(path)
        _warn_of_georeference(path)
        yield Strips(image.size, lambda a, b: np.array(image.crop((0, a, image.width, b))))
        return
    with rasterio.Env(GDAL_CACHEMAX=64), _opened(rasterio, path) as data:
        yield _strips(data, path)


def _in_strips(path: Path) -> bool:
    """Whether rasterio reads this file as Pillow does, but in strips. It does not turn pictures."""
    tiff = path.suffix.lower() in TIFF
    try:
        with reading(path) as image:
            if image.format == "TIFF" and tiff:
                return image.getexif().get(ORIENTATION) not in UPRIGHT
            plain = image.format in ("PNG", "JPEG") and image.mode in ("L", "RGB")
            return plain and image.width * image.height > SMALL and is_upright(image)
    except TooLargeError:
        return tiff or path.suffix.lower() in (".png", ".jpg", ".jpeg")
    except DataError:  # Pillow does not read TIFF of many bands
        return tiff


def _rasterio() -> Any:
    try:
        return import_module("rasterio")
    except ImportError:
        return None


@contextmanager
def _opened(rasterio: Any, path: Path) -> Iterator[Any]:
    if not path.is_file():  # rasterio would take a name such as http://... for an address
        raise DataError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            data = rasterio.open(path)
        with data:
            yield data
    except rasterio.errors.RasterioError as error:
        raise DataError(f"{path}: not a readable picture ({error})") from None


def _strips(data: Any, path: Path) -> Strips:
    """An open data set of rasterio as `Strips`. Raises DataError if it is no picture."""
    names, table = [color.name for color in data.colorinterp], None
    bands = _bands(data)
    if names[:1] == ["palette"]:
        colors = data.colormap(1)
        table = np.array([colors.get(value, (0, 0, 0))[:3] for value in range(256)], np.uint8)
    if data.dtypes[0] != "uint8" and len(bands) > 1:
        raise DataError(
            f"{path}: its bands are {data.dtypes[0]}, not 8-bit; reduce them as you did for the "
            "training photos, with the same range for all pictures (gdal_translate -ot Byte "
            "-scale LOW HIGH 0 255)"
        )
    alpha = names.index("alpha") + 1 if "alpha" in names and data.dtypes[0] == "uint8" else None
    if data.count - bool(alpha) > 3:
        what = f"{path} has {data.count - bool(alpha)} bands; used as red, green and blue: "
        log.info(what + ", ".join(map(str, bands)))

    numbers = [*bands, alpha] if alpha else bands

    def values(top: int, bottom: int) -> np.ndarray:
        """(bands, h, W), read in few rows at once: PNG and JPEG are read from top to bottom."""
        tops = range(top, bottom, ROWS_AT_ONCE)
        windows = [((a, min(a + ROWS_AT_ONCE, bottom)), (0, data.width)) for a in tops]
        return np.concatenate([data.read(numbers, window=window) for window in windows], 1)

    top_value = None
    if data.dtypes[0] != "uint8":  # as in `upright_rgb`: the largest value becomes 255
        tops = range(0, data.height, ROWS_AT_ONCE)
        strips = (values(t, min(t + ROWS_AT_ONCE, data.height)) for t in tops)
        top_value = max(largest(strip, str(path)) for strip in strips)

    def read(top: int, bottom: int) -> np.ndarray:
        pixels = values(top, bottom)
        if top_value is not None:
            pixels = to_8_bit(pixels, top_value)
        if table is not None:
            return table[pixels[0]]
        if alpha:  # transparent parts become white
            opacity = pixels[-1].astype(np.uint16)
            pixels = (pixels[:-1] * opacity + 255 * (255 - opacity) + 127) // 255
        rgb = np.moveaxis(pixels[:3], 0, -1) if len(bands) == 3 else pixels[0][..., None]
        return np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3)), np.uint8)

    return Strips((data.width, data.height), read, _profile(data))


def _bands(data: Any) -> list[int]:
    """The numbers of the bands that are red, green and blue, else of the first three; [1] if there
    are fewer than three."""
    names = [color.name for color in data.colorinterp]
    if {"red", "green", "blue"} <= set(names):
        return [names.index(name) + 1 for name in ("red", "green", "blue")]
    return [1, 2, 3] if data.count >= 3 else [1]


def _profile(data: Any) -> dict[str, Any]:
    """The georeference of a data set, or {}: "crs", "transform", "gcps" of `rasterio.open`."""
    points, crs = data.gcps
    if points:
        return {"crs": crs, "gcps": points}
    if data.crs is None and data.transform.is_identity:
        return {}
    return {"crs": data.crs, "transform": data.transform}


def georeference(path: Path) -> dict[str, Any]:
    """The georeference of a picture file as arguments of `rasterio.open`; {} if it has none."""
    rasterio = _rasterio() if path.suffix.lower() in TIFF else None
    if rasterio is None:
        _warn_of_georeference(path)
        return {}
    try:
        with _opened(rasterio, path) as data:
            return _profile(data)
    except DataError:  # Pillow has read it: a picture of another kind, with a wrong name
        return {}


_warned: set[str] = set()


def _warn_of_georeference(path: Path) -> None:
    """Say once that georeferences are lost without rasterio."""
    if path.suffix.lower() in TIFF and not _warned:
        with reading(path) as image:
            if GEO_KEYS in getattr(image, "tag_v2", {}):
                _warned.add("said")
                log.warning(f"{path} is a GeoTIFF; its mask keeps the georeference after: {MORE}")


@contextmanager
def mask_writer(
    path: Path, size: tuple[int, int], profile: Mapping[str, Any]
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that writes the next rows of a mask (h, W) uint8, from the top: to an 8-bit
    palette PNG, or, with a `profile` of `georeference`, to a GeoTIFF with the palette."""
    with writing(path) as temporary:
        if profile:
            with _tiff_writer(temporary, size, profile) as write:
                yield write
        else:
            with temporary.open("wb") as file:
                png = _Png(file, size)
                yield png.write
                png.end()


@contextmanager
def _tiff_writer(
    path: Path, size: tuple[int, int], profile: Mapping[str, Any]
) -> Iterator[Callable[[np.ndarray], None]]:
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "bigtiff": "if_safer"}
    about = {"count": 1, "dtype": "uint8", "compress": "deflate", "photometric": "palette"}
    rasterio = _rasterio()
    width, height = size
    top = 0
    with (
        rasterio.Env(GDAL_CACHEMAX=64),
        rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, **layout, **about, **profile
        ) as data,
    ):
        data.write_colormap(1, {n: (*color.tolist(), 255) for n, color in enumerate(PALETTE)})

        def write(rows: np.ndarray) -> None:
            nonlocal top
            data.write(rows, 1, window=((top, top + len(rows)), (0, width)))
            top += len(rows)

        yield write


class _Png:
    """A palette PNG that is written row by row, which Pillow cannot do."""

    def __init__(self, file: Any, size: tuple[int, int]):
        self._file, self._zip = file, zlib.compressobj(6)
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 3, 0, 0, 0))
        self._chunk(b"PLTE", PALETTE.tobytes())

    def _chunk(self, kind: bytes, data: bytes) -> None:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        self._file.write(struct.pack(">I", len(data)) + kind + data + checksum)

    def write(self, rows: np.ndarray) -> None:
        filtered = np.pad(rows, ((0, 0), (1, 0)))  # the byte before each row: no filter
        if data := self._zip.compress(filtered.tobytes()):
            self._chunk(b"IDAT", data)

    def end(self) -> None:
        self._chunk(b"IDAT", self._zip.flush())
        self._chunk(b"IEND", b"")
