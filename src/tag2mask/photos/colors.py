"""The one palette, and how a mask is drawn on its photo: in mask files, overlays and the report."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, reduce

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tag2mask.photos.table import BACKGROUND, IGNORE

# The colors of classes 1 to 254. Each is the one farthest from all before it and from gray, as the
# eye sees it (OKLab, lightness 0.65 to 0.85, no olive or brown). VOC's palette begins with dark
# colors, which are hard to see on photos.
_CLASSES = bytes.fromhex("""
    fe7bb591eb060f90fef79206b35afd10edd7fe382511ab5117a0b7aa9ffee5d015dc44cb0bf493f8b0fe79ddfffe8674
    fa3079ffbe8a8777ff68b4fcd985fd15a68ae660031ed13614cc95fec35018c6c6ef37a0fe71d819c0eb0b9ad9bedf0d
    cc780e63a402f170fe7ac70f26e8f8feb4dd6583fe13cf71c750e9fe315652f35cfd829514f0b8fd8b4a9f6afd2cac0c
    c294fe8fa9fd16a96ee4bbfe0ca4a0e73db61cc9acf9c718fe6aeb23bcfe0a95ecfec171d4d80e498afe20c3d9f0530a
    d76f0babe509fe7ea4139ec655e3fefe75c91af57656cd08f63289fc3068ff334176ef3fbe55f4d549d7ff88600ef2a8
    0cebe6ff8484cd8dff11cd85feb1ea7a7dfc9371fd7baffc9da4ff0fc8bafe8b2f12efc610d14fe978ffedb6fff74807
    b899fe06a5960ad0624ab8fde17ffeefcc1d0eac4010cba20aa87a04a3abffc336069ccf0bbef5ac60fdff6ce29fe803
    6cca111af48645a90325e9ef18c2e2eb5a0405f39efd78c2e16607feaef60dce7c0cab5c1093f4fc6af316c5ce85acfd
    0b97e5119fbe0eaa65a664fefec25ef43491d04bdee340bdc353efed39a8fe3a0cfe324cf83181fb3071fd305fff3534
    38f46884ed2b65f14e3fcf21b958f9cc4ee3f23599e042c4ea3baff76cf9d947d1feacfd3de5fefdc08267e1feff72d1
    b5e215996efd0ba1b1c6dd082f8efc817afecdda0803ad24dad51658a610fe7abb1df1b1fc8e05d38afd8d74fdfe7daf
    db6b0ffe8b3e10f0bf6c81fe5388fe3e8cfd5c86ff737ffd19eeccc791fdd47209fe809f1bcc8ee0d303fd886822ecdc
    bd96fed0750a0fcb9cebce0afe8c1ab39bfd0ae8fd3abafe1299defdc519f4ca1a15caa711bff00fa974069bd4a6a1fd
    0ba8805eb5feff8950fd7eaa99a6fdffaff121c7be73b1ff0b9dcbfec26b0fa785fe895aff8099ffc078f2b4fe0abdfb
    fe838aff847ffe838ffe876eff857922edd118a499feb2e601ebeb18ebe170dffee8b9fdfeb3e152b7ff24e8f3af9efd
    0ac9b106c1e76eb2fe1ac8b60cc3dfa1a3fe80aefd1bc4d617c4d21cc6c216c6ca8aabfd94a8fd04a68e
""")
# The color of each class number, (256, 3) uint8: background black, ignore white, no two alike.
PALETTE = np.frombuffer(bytes(3) + _CLASSES + b"\xff" * 3, np.uint8).reshape(256, 3)

SMALLEST_LABELED = 0.004  # share of the picture; the label of a smaller class would hide it

# Looked up where the system has its fonts; the first with all characters of a label draws it.
FONTS = (
    "DejaVuSans-Bold.ttf", "NotoSans-Bold.ttf", "LiberationSans-Bold.ttf", "arialbd.ttf",
    "Arial.ttf", "NotoSansCJK-Bold.ttc", "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "msyh.ttc", "YuGothM.ttc",
    "meiryo.ttc", "malgun.ttf", "PingFang.ttc", "AppleSDGothicNeo.ttc", "Nirmala.ttf",
    "NotoSansDevanagari-Bold.ttf", "NotoSansArabic-Bold.ttf", "NotoSansHebrew-Bold.ttf",
    "NotoSansThai-Bold.ttf", "NotoSansBengali-Bold.ttf", "NotoSansTamil-Bold.ttf",
    "NotoEmoji-Regular.ttf", "seguiemj.ttf", "seguisym.ttf", "FreeSans.ttf", "unifont.otf",
)  # fmt: skip


def color(number: int) -> str:
    """The color of a class number as CSS, SVG and Pillow read it: "#fe7bb5"."""
    return "#" + PALETTE[number].tobytes().hex()


def mask_layer(mask: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A mask (H, W) uint8 to a layer to lay over its photo: RGBA of `size` (width, height).

    Classes are tinted and outlined, ignore is pale, background is clear.
    """
    mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    opacity = np.full(256, 120, np.uint8)
    opacity[BACKGROUND], opacity[IGNORE] = 0, 90
    layer = np.dstack([PALETTE[mask], opacity[mask]])
    outline = (mask != BACKGROUND) & (mask != IGNORE)
    outline &= reduce(np.logical_or, (other != mask for other in _shifted(mask, 2)))
    layer[outline, 3] = 255
    layer[_grown(outline) & (mask == BACKGROUND)] = (255, 255, 255, 150)
    return Image.fromarray(layer)


def _shifted(mask: np.ndarray, reach: int) -> Iterator[np.ndarray]:
    """A mask moved by 1 to `reach` pixels up, down, left and right; its edges repeat."""
    (height, width), padded = mask.shape, np.pad(mask, reach, mode="edge")
    for step in (*range(reach), *range(reach + 1, 2 * reach + 1)):
        yield padded[step : step + height, reach : reach + width]
        yield padded[reach : reach + height, step : step + width]


def _grown(region: np.ndarray) -> np.ndarray:
    return reduce(np.logical_or, _shifted(region, 1), region)


def label_places(mask: np.ndarray) -> list[tuple[int, float, float]]:
    """Where the names of a mask's classes belong: (class, x, y), x and y in 0..1.

    Each is deepest inside the largest part of its class.
    """
    small = np.asarray(Image.fromarray(mask).resize((72, 72), Image.Resampling.NEAREST))
    places = []
    for number in np.unique(small):
        region = small == number
        if number in (BACKGROUND, IGNORE) or region.mean() < SMALLEST_LABELED:
            continue
        core = region
        while core.any():  # remove layer after layer: the last pixels are the deepest
            region, core = core, ~_grown(~np.pad(core, 1))[1:-1, 1:-1]
        deepest = np.argwhere(region)
        y, x = deepest[len(deepest) // 2]
        places.append((int(number), (float(x) + 0.5) / 72, (float(y) + 0.5) / 72))
    return places


def overlay(photo: Image.Image, mask: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """A photo and its mask (H, W) uint8 to an RGB picture of its size.

    Classes are tinted, outlined and named by `classes`, background first.
    """
    picture = Image.alpha_composite(photo.convert("RGBA"), mask_layer(mask, photo.size))
    draw = ImageDraw.Draw(picture)
    size = max(11, min(photo.size) // 22)
    for number, x, y in label_places(mask):
        text, font = _writable(classes[number], number, size)
        left, top, right, bottom = draw.textbbox((0, 0), text, font)
        width, height = right - left + size * 0.9, bottom - top + size * 0.7
        x0 = min(max(x * photo.width - width / 2, 2), max(photo.width - width - 2, 2))
        y0 = min(max(y * photo.height - height / 2, 2), max(photo.height - height - 2, 2))
        draw.rounded_rectangle((x0, y0, x0 + width, y0 + height), size * 0.35, fill=color(number))
        draw.text((x0 + size * 0.45 - left, y0 + size * 0.35 - top), text, (16, 16, 20), font)
    return picture.convert("RGB")


def _writable(name: str, number: int, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """A class name and the first font that has its characters; else the class number."""
    fonts = _fonts(size)
    for font in fonts:
        if all(character.isspace() or _knows(font, character) for character in name):
            return name, font
    return f"#{number}", fonts[-1]


@lru_cache
def _fonts(size: int) -> list[ImageFont.FreeTypeFont]:
    fonts: list[ImageFont.FreeTypeFont] = []
    for name in FONTS:
        with suppress(OSError):
            fonts.append(ImageFont.truetype(name, size))
    return [*fonts, ImageFont.load_default(size)]  # type: ignore[list-item]


@lru_cache(maxsize=4096)
def _knows(font: ImageFont.FreeTypeFont, character: str) -> bool:
    """Whether a font has a character. Those that it does not have look like U+10FFFE."""
    mask, missing = font.getmask(character), font.getmask("\U0010fffe")
    return mask.size != missing.size or bytes(mask) != bytes(missing)
