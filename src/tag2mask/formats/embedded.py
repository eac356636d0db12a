"""Keywords that photo managers wrote into picture files: XMP, IPTC, and those of Windows."""

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.ImageFile import ImageFile

from tag2mask.formats.xmp import Keyword, levels, xmp_keywords
from tag2mask.photos.images import reading

XP_KEYWORDS = 0x9C9E  # EXIF: the tags of Windows
IPTC_IN_JPEG, IPTC_IN_TIFF = 0x0404, 33723
KEYWORDS = (2, 25)  # IPTC: the field
IPTC_BYTES = 64  # of a keyword; programs cut longer ones
HAVE_XMP = ("JPEG", "MPO", "TIFF", "WEBP", "AVIF", "HEIF")  # Pillow finds it

# Notes the keywords that a function returns, or its error, under the name of their source.
Add = Callable[[str, Callable[[], Iterable[Keyword]]], None]


def keywords_inside(path: Path, add: Add) -> None:
    """Pass what a picture file may have of XMP, IPTC and XPKeywords to `add`.

    The pixels are not read. Raises DataError if the file is no picture.
    """
    with reading(path) as file:
        info: dict[Any, Any] = {**file.info}
        if file.format not in HAVE_XMP and "xmp" not in info:
            # In a PNG file it may stand behind the pixels: old versions of ExifTool put it there.
            info["xmp"] = _packet(path, most=1 << 20 if file.format == "PNG" else 1 << 40)
        add("XMP", lambda: _xmp(info))
        add("IPTC", lambda: _iptc(_iptc_data(file, info)))
        # Not `file.getexif`: that of PNG files reads the pixels.
        add("XPKeywords", lambda: _windows(Image.Image.getexif(file).get(XP_KEYWORDS)))


def _xmp(info: dict[Any, Any]) -> list[Keyword]:
    packet = info.get("xmp") or _raw_profile(info, "xmp")
    return xmp_keywords(packet) if packet else []


def _raw_profile(info: dict[Any, Any], kind: str) -> bytes:
    """What ImageMagick writes into a text of a PNG file: name, length, hexadecimal digits."""
    return bytes.fromhex("".join(str(info.get(f"Raw profile type {kind}", "")).split("\n")[3:]))


def _packet(path: Path, most: int) -> bytes:
    """The XMP packet in the last `most` bytes of a file of any kind (GIF, JPEG 2000, PSD)."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        start = data.find(b"<x:xmpmeta", max(0, len(data) - most))
        end = data.rfind(b"</x:xmpmeta>", start)
        return data[start : end + len("</x:xmpmeta>")] if 0 <= start < end else b""


def _iptc_data(file: ImageFile, info: dict[Any, Any]) -> bytes:
    if file.format == "TIFF":  # the bytes may be called numbers, of which Pillow would keep one
        data: bytes = file.tag_v2._tagdata.get(IPTC_IN_TIFF, b"")  # type: ignore[attr-defined]
        return data
    # In a PNG file it may have a head of Photoshop.
    start = re.search(rb"\x1c[\x01\x02]", profile := _raw_profile(info, "iptc"))
    return profile[start.start() :] if start else info.get("photoshop", {}).get(IPTC_IN_JPEG, b"")


def _iptc(data: bytes) -> Iterator[Keyword]:
    """The keywords in IPTC data. They are UTF-8, declared or not; what is not UTF-8 is cp1252."""
    for value in (value for field, value in _iptc_fields(data) if field == KEYWORDS):
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError as error:
            if len(value) == IPTC_BYTES and error.start > IPTC_BYTES - 4:  # cut in a character
                text = value[: error.start].decode("utf-8")
            else:
                text = value.decode("cp1252", "replace")
        if keyword := levels(text.replace("\0", "")):
            yield keyword


def _iptc_fields(data: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Fields of 0x1C, two numbers, a length and a value; zeros may follow."""
    place = 0
    while data[place : place + 1] == b"\x1c" and place + 5 <= len(data):
        record, dataset, length = struct.unpack_from(">BBH", data, place + 1)
        place += 5
        if length & 0x8000:  # a long value: this is the length of its length
            size = length & 0x7FFF
            length, place = int.from_bytes(data[place : place + size], "big"), place + size
        yield (record, dataset), data[place : place + length]
        place += length


def _windows(value: Any) -> Iterator[Keyword]:
    """XPKeywords: UTF-16, separated by ";"."""
    text = bytes(value or b"").decode("utf-16-le", "replace").split("\0")[0]
    return filter(None, map(levels, text.split(";")))
