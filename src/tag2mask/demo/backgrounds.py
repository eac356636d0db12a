"""Backgrounds of the demo's scenes: landscapes, streets, rooms and tables.

They do not depend on a scene's tags, and none of their drawings shows an object that has a tag.
"""

import numpy as np
from PIL import Image, ImageColor

from tag2mask.demo.drawings import drawing, pose, put, tinted

Rng = np.random.Generator
Range = tuple[float, float]
# Drawings to choose from, their largest number, height of their feet, length [picture sides].
Clutter = list[tuple[str, int, Range, Range]]

# Sky from top to horizon, land from far to near; things in the sky, on the hills, in front.
LANDSCAPES = (
    ("#4ae #8df #eff", "#8ca #7b6 #5a4", "☁🌤🎈🪁🌈", "🌲🌳🌳🏠🏡⛪", "🌷🌼🌻🌸🌱🍄🌺"),
    ("#e95 #fc8 #feb", "#c85 #d94 #b83", "☁🌥🪁🎈", "🌳🌲🏠🏰🌾", "🍁🍂🍄🌾🪵"),
    ("#89c #ccf #fee", "#abd #def #eff", "☁🌥☀", "🌲🌲🏔🏠⛪", "☃❄🪨🎄🌲"),
    ("#39e #8cf #dff", "#28b #4bd #ec9", "☀☁🪁🎈", "⛵", "🌴🏖🪨🐌⛱"),
    ("#226 #749 #fa8", "#548 #457 #365", "🌙⭐☁", "🌲🌳🏠🏰🌲", "⛺🔥🪵🌷🍄"),
)
WALLS = ("#ec9", "#d87", "#ccb", "#edb", "#ba9", "#9bc", "#fed", "#daa", "#bca", "#cde")
WOOD = ("#b85", "#863", "#db8", "#cba", "#a74", "#89a")
CLOTHS = ("#d55", "#4ac", "#5a6", "#ea3", "#86b", "#e8a", "#3aa")


def background(rng: Rng, n: int) -> Image.Image:
    """A random background: RGB, (n, n) pixels. The same state of `rng` gives the same pixels."""
    kind = (landscape, landscape, street, room, table)[rng.integers(5)]
    field, clutter = kind(rng, n)
    canvas = Image.fromarray(field.clip(0, 255).astype(np.uint8))
    for characters, most, feet, sizes in clutter:
        for foot in sorted(rng.uniform(*feet, rng.integers(most + 1))):  # the far ones first
            picture = drawing(rng.choice(list(characters)), n // 3)
            piece = pose(picture, n * rng.uniform(*sizes), rng.uniform(-6, 6), rng.random() < 0.5)
            piece = tinted(piece, (rng.uniform(-0.03, 0.03), rng.uniform(0.65, 1), 1))
            at = (round(n * rng.uniform() - piece.width / 2), round(n * foot) - piece.height)
            put(canvas, piece, at, 0.25)
    return canvas


def landscape(rng: Rng, n: int) -> tuple[np.ndarray, Clutter]:
    """A sky, three ridges, and what stands on them. Colors: (n, n, 3) float in 0-255."""
    sky, land, air, far, near = LANDSCAPES[rng.integers(len(LANDSCAPES))]
    y, x = np.mgrid[:n, :n] / n
    field = _sky(n, sky)
    clouds = (_noise(rng, n, 4, 7) * 0.8 - 0.25).clip(0, 0.5)
    field += clouds[..., None] * (255 - field)
    horizon = rng.uniform(0.3, 0.5)
    for color, depth in zip(land.split(), (0, 0.2, 0.45), strict=True):
        waves = sum(0.03 / k * np.sin(6 * k * (x + rng.uniform())) for k in (1, 2, 3))
        below = y - horizon - (1 - horizon) * depth - waves
        light = 10 * _noise(rng, n, 12, 24) + 8 * _noise(rng, n, n // 4) - 40 * below
        field = np.where(below[..., None] > 0, _rgb(color) + light[..., None], field)
    return field, [
        (air, 3, (0.1, horizon), (0.08, 0.2)),
        (far, 4, (horizon + 0.05, horizon + 0.2), (0.1, 0.22)),
        (near, 5, (0.8, 1.05), (0.08, 0.17)),
    ]


def street(rng: Rng, n: int) -> tuple[np.ndarray, Clutter]:
    """A row of houses, a sidewalk and a road."""
    y, x = np.mgrid[:n, :n] / n
    field = _sky(n, rng.choice(["#5be #cef", "#e97 #fec", "#89d #fde"]))
    curb, left = rng.uniform(0.65, 0.8), -0.05
    while left < 1:
        width, top = rng.uniform(0.12, 0.26), rng.uniform(0.1, 0.45)
        house = (x > left) & (x < left + width) & (y > top)
        across, down = (x - left) / width * 3 % 1, (y - top) / 0.085 % 1
        field[house] = _rgb(rng.choice(WALLS))
        field[house & (abs(across - 0.5) < 0.25) & (abs(down - 0.5) < 0.25)] = _rgb("#58a")
        left += width + rng.choice([0, 0, 0.08])
    grain = _noise(rng, n, n // 3)[..., None]
    field[round((curb - 0.1) * n) :] = _rgb("#cbb")
    field[round(curb * n) :] = _rgb("#778")
    field[(abs(y - (curb + 1) / 2) < 0.012) & ((5 * x + rng.uniform()) % 1 < 0.55)] = _rgb("#fee")
    return field + 6 * grain, [
        ("☁🌤☀🎈", 2, (0.1, 0.3), (0.08, 0.2)),
        ("🌳🌲🚦🚏⛲🪴🌳", 4, (curb - 0.06, curb), (0.15, 0.28)),
    ]


def room(rng: Rng, n: int) -> tuple[np.ndarray, Clutter]:
    """A striped or dotted wall, a wooden floor, furniture."""
    y, x = np.mgrid[:n, :n] / n
    count, floor = rng.integers(8, 16), rng.uniform(0.6, 0.75)
    across, down = abs(x * count % 1 - 0.5), abs(y * count % 1 - 0.5)
    pattern = across < 0.25 if rng.integers(2) else np.hypot(across, down) < 0.2
    field = _rgb(rng.choice(WALLS)) + (14 * pattern + 5 * _noise(rng, n, 4))[..., None]
    field[round((floor - 0.03) * n) :] = _rgb("#fee")
    field[round(floor * n) :] = _planks(rng, n)[round(floor * n) :]
    return field, [
        ("🪟🖼🕰", 3, (0.25, 0.45), (0.16, 0.26)),
        ("🛋🪑🪴📺🧺📚🎁⚽", 4, (floor + 0.02, floor + 0.2), (0.16, 0.32)),
    ]


def table(rng: Rng, n: int) -> tuple[np.ndarray, Clutter]:
    """A table seen from above, of bare wood or under a checkered cloth."""
    field = _planks(rng, n)
    if rng.integers(2):
        y, x = np.mgrid[:n, :n] / n
        turn, count = rng.uniform(-0.8, 0.8), rng.uniform(3, 8)
        u, v = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        share = 0.4 * (u * count % 1 < 0.5) + 0.4 * (v * count % 1 < 0.5)
        field = 250 + share[..., None] * (_rgb(rng.choice(CLOTHS)) - 250)
        field += 9 * _noise(rng, n, n // 3)[..., None]
    return field, [("🍽🍴🥄☕🧂🥛🔪🫖🌼🕯🍵🍂", 5, (0.1, 1.1), (0.12, 0.24))]


def _planks(rng: Rng, n: int) -> np.ndarray:
    """Wooden boards: (n, n, 3)."""
    y, x = np.mgrid[:n, :n] / n
    rows = int(rng.integers(4, 9))
    board = (y * rows).astype(int)
    seam = (abs(y * rows % 1 - 0.5) > 0.48) | ((x + rng.uniform(size=rows)[board]) % 0.7 < 0.006)
    grain = 9 * _noise(rng, n, 5, n // 4) + 8 * _noise(rng, n, 3, 4 * rows)
    light = rng.uniform(-14, 14, rows)[board] + grain - 45 * seam
    return _rgb(rng.choice(WOOD)) + light[..., None]


def _rgb(color: str) -> np.ndarray:
    return np.array(ImageColor.getrgb(color), np.float32)


def _sky(n: int, colors: str) -> np.ndarray:
    """Colors "#abc #def" from top to bottom: (n, n, 3)."""
    stops = np.array([[_rgb(color)] for color in colors.split()], np.uint8)
    return np.array(Image.fromarray(stops).resize((n, n), Image.Resampling.BILINEAR), np.float32)


def _noise(rng: Rng, n: int, across: int, down: int | None = None) -> np.ndarray:
    """Smooth noise in about [-1, 1], `across` by `down` cells: (n, n) float."""
    cells = rng.uniform(-1, 1, (down or across, across)).astype(np.float32)
    return np.asarray(Image.fromarray(cells).resize((n, n), Image.Resampling.BICUBIC))
