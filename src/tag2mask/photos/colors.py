"""The one palette, and how a mask is drawn on its photo: in mask files, overlays, the report and every other picture of classes."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tag2mask.photos.table import BACKGROUND, IGNORE

SMALLEST_LABELED = (
    0.004  # share of the picture below which a class gets no label: it would hide what it names
)

# Looked up by name where the system keeps its fonts; the first that knows all of a label's characters draws it.
FONTS = (
    "DejaVuSans-Bold.ttf", "NotoSans-Bold.ttf", "LiberationSans-Bold.ttf", "arialbd.ttf", "Arial.ttf", "NotoSansCJK-Bold.ttc",
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "msyh.ttc",
    "YuGothM.ttc", "meiryo.ttc", "malgun.ttf", "PingFang.ttc", "AppleSDGothicNeo.ttc", "NotoSansDevanagari-Bold.ttf",
    "NotoSansArabic-Bold.ttf", "NotoSansHebrew-Bold.ttf", "NotoSansThai-Bold.ttf", "NotoSansBengali-Bold.ttf", "NotoSansTamil-Bold.ttf",
    "Nirmala.ttf", "NotoEmoji-Regular.ttf", "seguiemj.ttf", "seguisym.ttf", "FreeSans.ttf", "unifont.otf", "unifont.ttf",
)  # fmt: skip


def _class_colors(count: int) -> np.ndarray:
    """As many colors, (count, 3) uint8: each the one farthest, as the eye sees it (OKLab), from all before it and from gray.

    Not VOC's: its first are dark (maroon, dark green, olive) and lost on photos.
    """
    lightness, hue = np.meshgrid(np.array([0.85, 0.75, 0.65]), np.deg2rad(np.arange(0, 360, 3)))
    lightness, hue = lightness.ravel(), hue.ravel()
    muddy = (
        (lightness < 0.8) & (hue > np.deg2rad(65)) & (hue < np.deg2rad(130))
    )  # olive and brown: lost on fur and soil
    lightness, hue = lightness[~muddy], hue[~muddy]
    lab = np.stack([lightness, 0 * hue, 0 * hue], 1)
    for chroma in np.arange(0.1, 0.24, 0.005):  # as vivid as the screen allows
        vivid = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], 1)
        rgb = _oklab_to_linear(vivid)
        shown = ((rgb >= 0) & (rgb <= 1)).all(1)
        lab[shown] = vivid[shown]
    distance = 1.2 * np.hypot(lab[:, 1], lab[:, 2])
    picked = [
        int(np.argmin(np.abs(lightness - 0.75) + np.abs(hue - np.deg2rad(354))))
    ]  # rose: rare in photos
    while len(picked) < count:
        distance = np.minimum(
            distance, np.linalg.norm((lab - lab[picked[-1]]) * (0.5, 1, 1), axis=1)
        )
        picked.append(int(distance.argmax()))
    linear = _oklab_to_linear(lab[picked])
    srgb = np.where(linear > 0.0031308, 1.055 * np.abs(linear) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return (srgb * 255).round().clip(0, 255).astype(np.uint8)


def _oklab_to_linear(lab: np.ndarray) -> np.ndarray:
    """OKLab to linear sRGB (N, 3); outside 0..1 where no screen shows it (Ottosson 2020)."""
    lms = (
        lab
        @ np.array(
            [
                [1, 1, 1],
                [0.3963377774, -0.1055613458, -0.0894841775],
                [0.2158037573, -0.0638541728, -1.2914855480],
            ]
        )
    ) ** 3
    return lms @ np.array(
        [
            [4.0767416621, -1.2684380046, -0.0041960863],
            [-3.3077115913, 2.6097574011, -0.7034186147],
            [0.2309699292, -0.3413193965, 1.7076147010],
        ]
    )


# The color of each class number, (256, 3) uint8: background black, ignore white, no two alike.
PALETTE = np.vstack(
    [np.zeros((1, 3), np.uint8), _class_colors(254), np.full((1, 3), 255, np.uint8)]
)


def color(number: int) -> str:
    """A class number to its color as CSS, SVG and Pillow read it: "#fe7bb5"."""
    return "#" + PALETTE[number].tobytes().hex()


def mask_layer(mask: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A mask (H, W) uint8 to a layer to lay over its photo: RGBA of `size` (width, height), classes tinted and outlined, ignore pale."""
    mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    opacity = np.full(256, 120, np.uint8)
    opacity[BACKGROUND], opacity[IGNORE] = 0, 90
    layer = np.dstack([PALETTE[mask], opacity[mask]])
    border = _border(mask)
    inner = border & (mask != BACKGROUND) & (mask != IGNORE)
    layer[inner, 3] = 255
    halo = _grown(inner) & (mask == BACKGROUND)
    layer[halo] = (255, 255, 255, 150)
    return Image.fromarray(layer)


def _border(mask: np.ndarray) -> np.ndarray:
    """Pixels within two of another class: (H, W) bool."""
    border = np.zeros(mask.shape, bool)
    for step in (1, 2):
        across, down = mask[:, step:] != mask[:, :-step], mask[step:] != mask[:-step]
        border[:, step:] |= across
        border[:, :-step] |= across
        border[step:] |= down
        border[:-step] |= down
    return border


def _grown(region: np.ndarray) -> np.ndarray:
    """A region and the pixels that touch it."""
    padded = np.pad(region, 1)
    return (
        padded[1:-1, 1:-1]
        | padded[2:, 1:-1]
        | padded[:-2, 1:-1]
        | padded[1:-1, 2:]
        | padded[1:-1, :-2]
    )


def label_places(mask: np.ndarray) -> list[tuple[int, float, float]]:
    """A mask (H, W) to where its classes' names belong: (class, x, y), x and y in 0..1, deepest inside each one's largest part."""
    small = np.asarray(Image.fromarray(mask).resize((72, 72), Image.Resampling.NEAREST))
    places = []
    for number in np.unique(small):
        region = small == number
        if number in (BACKGROUND, IGNORE) or region.mean() < SMALLEST_LABELED:
            continue
        core = region
        while core.any():  # peel off layer after layer: what goes last lies deepest
            region, core = core, ~_grown(~np.pad(core, 1))[1:-1, 1:-1]
        y, x = np.argwhere(region)[len(np.argwhere(region)) // 2]
        places.append((int(number), (float(x) + 0.5) / 72, (float(y) + 0.5) / 72))
    return places


def overlay(photo: Image.Image, mask: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """A photo and its mask (H, W) uint8 to an RGB picture of its size: classes tinted, outlined, named. `classes`: background first."""
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


def legend(classes: Sequence[str], numbers: Iterable[int], width: int) -> Image.Image:
    """The classes of these numbers to a white RGB picture `width` pixels wide: a swatch and a name each. `classes`: background first."""
    size, gap = 15, 10
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    placed, x, y = [], gap, gap
    for number in numbers:
        text, font = _writable(classes[number], number, size)
        needed = int(ruler.textlength(text, font)) + size + 3 * gap
        if x + needed > width and x > gap:
            x, y = gap, y + size + gap
        placed.append((x, y, number, text, font))
        x += needed
    picture = Image.new("RGB", (width, y + size + gap), "white")
    draw = ImageDraw.Draw(picture)
    for x, y, number, text, font in placed:
        draw.rounded_rectangle((x, y, x + size, y + size), 4, fill=color(number))
        draw.text((x + size + gap // 2, y + size / 2), text, (30, 30, 34), font, anchor="lm")
    return picture


def _writable(name: str, number: int, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """A class name to what the fonts of this machine can write of it, and the font; its number where they can write nothing."""
    best, best_font = "", _fonts(size)[0]
    for font in _fonts(size):
        known = "".join(c for c in name if c.isspace() or _knows(font, c)).strip()
        if known == name:
            return name, font
        if len(known) > len(best):
            best, best_font = known, font
    return best or f"#{number}", best_font


@lru_cache
def _fonts(size: int) -> list[ImageFont.FreeTypeFont]:
    found = []
    for name in FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return [*found, ImageFont.load_default(size)]  # type: ignore[list-item]


@lru_cache(maxsize=4096)
def _knows(font: ImageFont.FreeTypeFont, character: str) -> bool:
    """Whether a font has a character: Pillow shows no table of them, but what it lacks all looks like a code point that nothing has."""
    mask, missing = font.getmask(character), font.getmask("\U0010fffe")
    return mask.size != missing.size or bytes(mask) != bytes(missing)
