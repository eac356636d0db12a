"""Keywords that photo managers wrote into picture files: XMP, IPTC, and those of Windows."""

import io
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
KEYWORDS, CHARSET, UTF8 = (2, 25), (1, 90), b"\x1b%G"  # IPTC: two fields; a value of CHARSET
IPTC_BYTES = 64  # of a keyword; programs cut longer ones
HAVE_XMP = ("JPEG", "MPO", "TIFF", "WEBP", "AVIF", "HEIF")  # Pillow finds it
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
MOST_BYTES = 1 << 26  # of such a text

# Notes the keywords that a function returns, or its error, under the name of their source.
Add = Callable[[str, Callable[[], Iterable[Keyword]]], None]


def keywords_inside(path: Path, add: Add) -> None:
    """Pass what a picture file may have of XMP, IPTC and XPKeywords to `add`.

    The pixels are not read. Raises DataError if the file is no picture.
    """
    with reading(path) as file:
        info: dict[Any, Any] = {**file.info}
        if file.format == "PNG":
            info |= _late_info(path)
        elif file.format not in HAVE_XMP:
            info["xmp"] = _packet(path)
        add("XMP", lambda: _xmp(info))
        add("IPTC", lambda: _iptc(_iptc_data(file, info)))
        add("XPKeywords", lambda: _windows(file.getexif().get(XP_KEYWORDS)))


def _xmp(info: dict[Any, Any]) -> list[Keyword]:
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp") or _raw_profile(info, "xmp")
    return xmp_keywords(packet) if packet else []


def _raw_profile(info: dict[Any, Any], kind: str) -> bytes:
    """What ImageMagick writes into a text of a PNG file: name, length, hexadecimal digits."""
    return bytes.fromhex("".join(str(info.get(f"Raw profile type {kind}", "")).split("\n")[3:]))


def _late_info(path: Path) -> dict[Any, Any]:
    """The texts of a PNG file that stand behind the pixels, where ExifTool puts them.

    Pillow reads them from a copy of the file without pixels.
    """
    with path.open("rb") as file:
        copy = file.read(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in (b"IHDR", *PNG_TEXTS) and length < MOST_BYTES:
                copy += head + file.read(length + 4)
            else:
                file.seek(length + 4, 1)
    with Image.open(io.BytesIO(copy + b"\0\0\0\0IDAT"), formats=["PNG"]) as image:
        return {**image.info}


def _packet(path: Path) -> bytes:
    """The XMP packet in a file of any kind (GIF, JPEG 2000, PSD), which may be anywhere."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        start, end = data.find(b"<x:xmpmeta"), data.rfind(b"</x:xmpmeta>")
        return data[start : end + len("</x:xmpmeta>")] if 0 <= start < end else b""


def _iptc_data(file: ImageFile, info: dict[Any, Any]) -> bytes:
    if file.format == "TIFF":  # the bytes may be called numbers, of which Pillow would keep one
        data: bytes = file.tag_v2._tagdata.get(IPTC_IN_TIFF, b"")  # type: ignore[attr-defined]
        return data
    # In a PNG file it may have a head of Photoshop.
    start = re.search(rb"\x1c[\x01\x02]", profile := _raw_profile(info, "iptc"))
    return profile[start.start() :] if start else info.get("photoshop", {}).get(IPTC_IN_JPEG, b"")


def _iptc(data: bytes) -> Iterator[Keyword]:
    """The keywords in IPTC data.

    Text without a declared character set is read as UTF-8; what is not UTF-8 as cp1252.
    """
    fields = list(_iptc_fields(data))
    for value in (value for field, value in fields if field == KEYWORDS):
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError as error:
            cut = len(value) == IPTC_BYTES and error.start > IPTC_BYTES - 4  # in a character
            value = value[: error.start] if cut else value
            utf8 = cut or (CHARSET, UTF8) in fields
            text = value.decode("utf-8" if utf8 else "cp1252", "replace")
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
