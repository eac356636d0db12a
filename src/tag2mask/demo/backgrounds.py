"""Backgrounds for the demo's scenes: landscapes, streets, rooms, tables and cloths, with clutter that no tag names.

Fields are painted as float arrays at the final size `n` in [0, 255]; clutter is pasted at twice that size (the scene is halved at the end).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor

from tag2mask.demo.drawings import drawing, pose, shadow, tint

Rng = np.random.Generator


@dataclass(frozen=True)
class Look:
    """The palette of a landscape, far to near, and what stands in it."""

    skies: tuple[str, ...]  # each "#top #middle #horizon"
    hills: tuple[str, ...]  # far to near, each a colour
    air: str  # what hangs in the sky
    far: str  # what stands on the ridges
    near: str  # what lies in the foreground
    grain: float  # strength of the ground's texture


LOOKS = (
    Look(
        ("#4aa8e8 #8fd0f5 #e2f5fb", "#5b8fd9 #a9c8ee #fde8d0", "#7cc4ee #b9e3f5 #fff6dd"),
        ("#8fc7a0", "#7fbf5f", "#5fa845"),
        "☀☁🌤⛅🎈🪁🌈",
        "🌲🌳🌳🏠🏡⛪🌲",
        "🌷🌼🌻🌸🌱🍀🍄🌺",
        10,
    ),
    Look(
        ("#6fb4e0 #b5d9ee #fbeedd", "#e8945a #f6c48a #fdeecb"),
        ("#c98b5a", "#d99a3d", "#b8863a"),
        "☁🌥🪁🎈",
        "🌳🌲🏠🏰🌾",
        "🍁🍂🍄🌾🪵🍁",
        12,
    ),
    Look(
        ("#7fb6dc #bcdcf0 #f4fafd", "#8c9fd0 #c9cdea #f9e4e6"),
        ("#a9bed6", "#dfeaf4", "#f3f8fc"),
        "☁🌥☀",
        "🌲🌲🏔🏔🏠⛪🌲",
        "☃❄🪨🎄🌲",
        5,
    ),
    Look(
        ("#3f9fe0 #8fd0f0 #fdf0cf", "#e07a5f #f2b184 #fbe3b0"),
        ("#dd9f62", "#e8b878", "#efc98b"),
        "☀🌤🪁☁",
        "🌵🌵⛰🌋🌵",
        "🌵🪨🏺⛺🌵",
        14,
    ),
    Look(
        ("#3a9be0 #84cbf3 #dff4fb", "#ef8f6b #f8c08a #fdeac2"),
        ("#2f86b8", "#4fb3cf", "#efd9a3"),
        "☀☁🪁🎈🌤",
        "",
        "🌴🏖🪨🌴🐌🌴",
        12,
    ),
    Look(
        ("#2d2b6b #7b4f9e #f2a38b", "#23396b #4f6fa8 #d9b8c8", "#40306f #b0608c #fbc98f"),
        ("#5c4f86", "#4c5f7c", "#3f6b5a"),
        "🌙⭐⭐☁",
        "🌲🌳🏠🏰🌲",
        "⛺🔥🪵🌷🍄",
        9,
    ),
)


def rgb(colour: str) -> np.ndarray:
    """A colour's name to (3,) float in [0, 255]."""
    return np.array(ImageColor.getrgb(colour), np.float32)


def _pick(rng: Rng, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _noise(rng: Rng, n: int, across: int, down: int | None = None) -> np.ndarray:
    """Smooth noise, (n, n) float, about [-1, 1], with so many cells across and down."""
    cells = rng.uniform(-1, 1, (down or across, across)).astype(np.float32)
    return np.asarray(Image.fromarray(cells).resize((n, n), Image.Resampling.BICUBIC))


def _grid(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates y (n, 1) and x (1, n) of the pixels' middles in (0, 1)."""
    t = (np.arange(n, dtype=np.float32) + 0.5) / n
    return t[:, None], t[None, :]


def _flat(n: int, colour: str) -> np.ndarray:
    return np.broadcast_to(rgb(colour), (n, n, 3)).copy()


def _blend(field: np.ndarray, colour: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`field` (n, n, 3) moved towards `colour` by `share` (n, n) in [0, 1]."""
    return field + share[..., None] * (colour - field)


def _gradient(n: int, colours: str) -> np.ndarray:
    """Colours "#a #b #c" from top to bottom: (n, n, 3)."""
    stops = np.array([rgb(c) for c in colours.split()])
    y = _grid(n)[0][:, 0]
    rows = np.stack(
        [np.interp(y, np.linspace(0, 1, len(stops)), stops[:, k]) for k in range(3)], axis=1
    )
    return np.broadcast_to(rows[:, None].astype(np.float32), (n, n, 3)).copy()


def _canvas(field: np.ndarray) -> Image.Image:
    """(n, n, 3) to an RGB picture of twice the size, which halving gives back exactly."""
    n = len(field)
    return Image.fromarray(field.clip(0, 255).astype(np.uint8)).resize(
        (2 * n, 2 * n), Image.Resampling.NEAREST
    )


def _put(
    canvas: Image.Image,
    rng: Rng,
    character: str,
    x: float,
    y: float,
    size: float,
    turn: float = 6.0,
    shade: float = 0.0,
) -> None:
    """Paste a drawing with the middle of its foot at (x, y), `size` long, all in fractions of the canvas."""
    side = canvas.width
    colour = tint(rng.uniform(-12, 12), rng.uniform(0.65, 1.0), rng.uniform(0.9, 1.08))
    piece = pose(
        drawing(character, side // 3),
        size * side,
        rng.uniform(-turn, turn),
        bool(rng.integers(2)),
        colour,
    )
    at = (round(x * side - piece.width / 2), round(y * side - piece.height))
    if shade:
        shadow(canvas, piece, at, shade)
    canvas.paste(piece, at, piece)


def _scatter(
    canvas: Image.Image, rng: Rng, characters: str, count: int, low: float, high: float
) -> None:
    """Things lying about on a table or a floor, seen from above."""
    for _ in range(count):
        _put(
            canvas,
            rng,
            _pick(rng, characters),
            rng.uniform(0, 1),
            rng.uniform(0.1, 1.1),
            rng.uniform(low, high),
            40,
            0.35,
        )


def _hang(canvas: Image.Image, rng: Rng, characters: str, horizon: float) -> None:
    """Up to three things in the sky, one sun at most."""
    for k in range(rng.integers(0, 4)):
        thing = _pick(rng, [c for c in characters if not k or c not in "☀🌤⛅🌥🌙"])
        _put(
            canvas, rng, thing, rng.uniform(0, 1), rng.uniform(0.1, horizon), rng.uniform(0.08, 0.2)
        )


def landscape(rng: Rng, n: int) -> Image.Image:
    """Sky, two or three ridges, things that stand on them."""
    look = LOOKS[rng.integers(len(LOOKS))]
    y, x = _grid(n)
    field = _gradient(n, _pick(rng, look.skies))
    field = _blend(field, rgb("#ffffff"), (_noise(rng, n, 4, 7) * 0.8 - 0.25).clip(0, 0.5))
    horizon = rng.uniform(0.3, 0.5)
    bases = horizon + (1 - horizon) * np.array([0, 0.18, 0.45]) * rng.uniform(0.8, 1.1)
    stands: list[tuple[np.ndarray, float]] = []
    for depth, (base, colour) in enumerate(zip(bases, look.hills, strict=True)):
        sea = not look.far and depth < 2  # the beach: water is level and has waves instead of hills
        bend = 0.004 if sea else 0.035
        ridge = base + sum(
            bend / k * np.sin(2 * np.pi * (k * rng.uniform(0.4, 1.1) * x + rng.uniform()))
            for k in (1, 2, 3)
        )
        below = y - ridge
        field = _blend(field, rgb(colour) * rng.uniform(0.94, 1.05), (below * n + 0.5).clip(0, 1))
        waves = (
            _noise(rng, n, 6, 60) if sea else _noise(rng, n, 12, 24) + 0.7 * _noise(rng, n, n // 2)
        )
        light = look.grain * (0.5 + 0.4 * depth) * waves - 40 * below.clip(0, 0.5)
        field += np.where(below > 0, light, 0)[..., None]
        stands.append((ridge[0], base))
    canvas = _canvas(field)
    _hang(canvas, rng, look.air, horizon)
    for depth, (ridge, _) in enumerate(stands[:2]):
        for at in rng.uniform(0, 1, rng.integers(0, 4)) if look.far else ():
            _put(
                canvas,
                rng,
                _pick(rng, look.far),
                at,
                ridge[int(at * (n - 1))] + 0.02,
                (0.1 + 0.07 * depth) * rng.uniform(0.8, 1.4),
                2,
            )
    for foot in np.sort(rng.uniform(stands[2][1] + 0.1, 1.05, rng.integers(1, 6))):
        _put(
            canvas,
            rng,
            _pick(rng, look.near),
            rng.uniform(0, 1),
            foot,
            rng.uniform(0.08, 0.17),
            4,
            0.25,
        )
    return canvas


def street(rng: Rng, n: int) -> Image.Image:
    """Houses in a row before a sky, a pavement and a road."""
    y, x = _grid(n)
    field = _gradient(
        n, _pick(rng, ("#5fb0e6 #cfeaf7", "#f0a27a #fde6c4", "#8f9fd8 #f3dfe6", "#8ecae6 #fdf3d8"))
    )
    ground = rng.uniform(0.55, 0.7)
    left = -0.05
    while left < 1:
        width, top = rng.uniform(0.12, 0.26), ground - rng.uniform(0.18, 0.5)
        wall = rgb(
            _pick(
                rng,
                (
                    "#e8c9a0",
                    "#d98f78",
                    "#c5d5d0",
                    "#e6d5b8",
                    "#b8a9c9",
                    "#9fb8cf",
                    "#efe3d0",
                    "#d7a7a0",
                ),
            )
        )
        cols, rows = (
            slice(max(0, round(left * n)), round((left + width) * n)),
            slice(round(top * n), round(ground * n)),
        )
        columns = max(2, round(width / 0.06))
        u, v = (x[:, cols] - left) / width * columns % 1, (y[rows] - top) / 0.085 % 1
        window = (u > 0.25) & (u < 0.75) & (v > 0.3) & (v < 0.8) & (y[rows] < ground - 0.05)
        field[rows, cols] = np.where(
            window[..., None], rgb(_pick(rng, ("#5d7f9a", "#7fa5bf", "#f7dd94"))), wall
        )
        left += width + rng.choice([0, 0.01, 0.08])
    kerb = ground + rng.uniform(0.06, 0.12)
    field += 4 * _noise(rng, n, 12)[..., None]
    field = np.where(
        (y > ground)[..., None], rgb("#c9c3b8") + 5 * _noise(rng, n, n // 3)[..., None], field
    )
    field = np.where(
        (y > kerb)[..., None], rgb("#767b84") + 7 * _noise(rng, n, n // 2)[..., None], field
    )
    middle, dash = (kerb + 1) / 2, rng.uniform(4, 7)
    line = (np.abs(y - middle) < 0.012) & ((x * dash + rng.uniform()) % 1 < 0.55)
    field = np.where(line[..., None], rgb("#f2efe4"), field)
    canvas = _canvas(field)
    _hang(canvas, rng, "☁🌤☀🎈", 0.3)
    for _ in range(rng.integers(1, 5)):
        _put(
            canvas,
            rng,
            _pick(rng, "🌳🌲🚦🚏⛲🪴🌳"),
            rng.uniform(0, 1),
            kerb - rng.uniform(0, 0.05),
            rng.uniform(0.15, 0.28),
            1,
            0.2,
        )
    return canvas


def planks(
    rng: Rng,
    n: int,
    colours: Sequence[str] = ("#b98552", "#8f6038", "#d9b382", "#cfc3b2", "#a5714a", "#7d8f98"),
) -> np.ndarray:
    """Boards with grain: (n, n, 3)."""
    y, x = _grid(n)
    rows = int(rng.integers(4, 9))
    board = np.minimum((y * rows).astype(int), rows - 1)
    tone = rng.uniform(-14, 14, rows)[board]
    joint = (x + rng.uniform(0, 1, rows)[board]) % rng.uniform(0.5, 0.9)
    gap = (np.abs(y * rows - np.round(y * rows)) < 0.02 * rows / 6) | (joint < 0.006)
    grain = 9 * _noise(rng, n, 5, n // 2) + 8 * _noise(rng, n, 3, 4 * rows)
    return _flat(n, _pick(rng, colours)) + (tone + grain - 45 * gap)[..., None]


def table(rng: Rng, n: int) -> Image.Image:
    """A laid wooden table from above."""
    canvas = _canvas(planks(rng, n))
    _scatter(canvas, rng, "🍽🍴🥄☕🧂🥛🔪🫖🌼🕯🍵🍂", int(rng.integers(1, 5)), 0.12, 0.24)
    return canvas


def tiles(rng: Rng, n: int) -> Image.Image:
    """A tiled wall or floor, plain or chequered."""
    y, x = _grid(n)
    count = rng.integers(4, 9)
    u, v = x * count + rng.uniform(), y * count + rng.uniform()
    if rng.integers(2):
        u = u + 0.5 * (np.floor(v) % 2)
    pair = _pick(
        rng,
        (
            "#e9eef0 #bcd7de",
            "#f3e6d0 #e0b99a",
            "#f2f2ee #a8c3a0",
            "#fbf1dc #93b5c9",
            "#efe6ee #cdb0cb",
            "#f6f3ea #f0d08a",
        ),
    )
    first, second = (rgb(c) for c in pair.split())
    odd = ((np.floor(u) + np.floor(v)) % 2)[..., None] * rng.integers(2)
    edge = np.minimum(np.minimum(u % 1, 1 - u % 1), np.minimum(v % 1, 1 - v % 1))
    field = (
        second
        + odd * (first - second)
        + 5 * _noise(rng, n, 20)[..., None]
        + (16 * (0.5 - v % 1))[..., None]
    )
    field = _blend(field, rgb("#fdfcf8"), 1 - (edge / 0.035).clip(0, 1))
    canvas = _canvas(field)
    _scatter(canvas, rng, "🧺🪴🧴🫖☕🍵🥛🧂🌸🎁", int(rng.integers(0, 4)), 0.13, 0.24)
    return canvas


def cloth(rng: Rng, n: int) -> Image.Image:
    """A gingham or striped picnic blanket."""
    y, x = _grid(n)
    turn, count = rng.uniform(-0.8, 0.8), rng.uniform(4, 10)
    u = (x * np.cos(turn) - y * np.sin(turn)) * count
    v = (x * np.sin(turn) + y * np.cos(turn)) * count
    across, along = (((t + 0.015 * count * _noise(rng, n, 6)) % 1 * 2 - 1) for t in (u, v))
    stripes = [((0.5 - np.abs(t)) * n / count / 2 + 0.5).clip(0, 1) for t in (across, along)]
    colour = rgb(
        _pick(rng, ("#d9534f", "#4a90c2", "#5aa469", "#e0a030", "#8a6fb0", "#e58fa5", "#3f9f9f"))
    )
    share = (stripes[0] + stripes[1]) / 2 if rng.integers(3) else stripes[0]
    field = (
        _blend(_flat(n, "#fbf7ee"), colour, 0.85 * share)
        + (7 * _noise(rng, n, 5) + 5 * _noise(rng, n, n))[..., None]
    )
    canvas = _canvas(field)
    _scatter(canvas, rng, "🧺🍽🍴🥄🌼🌸🍀🧃🍂🌻⚽🎾", int(rng.integers(1, 5)), 0.12, 0.23)
    return canvas


def bokeh(rng: Rng, n: int) -> Image.Image:
    """Lights out of focus."""
    y, x = _grid(n)
    stops = _pick(
        rng,
        (
            "#23304f #5a4a78 #c98a6b",
            "#dff0d0 #8fc48a #4f8f6a",
            "#fde3c8 #f2a9a0 #a875a8",
            "#cdeaf5 #7fb5d8 #4d7db0",
            "#3b4a45 #7a8a5a #e0c070",
        ),
    )
    field = _gradient(n, stops) + 12 * _noise(rng, n, 3)[..., None]
    glow = rgb(_pick(rng, ("#fff3d0", "#ffe0a0", "#ffffff", "#ffd5e5")))
    for _ in range(rng.integers(12, 30)):
        radius = rng.uniform(0.02, 0.11)
        distance = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1))
        disc = ((radius - distance) * n / 3).clip(0, 1) * (
            0.75 + 0.5 * (distance / radius).clip(0, 1) ** 4
        )
        field = _blend(field, glow, rng.uniform(0.12, 0.4) * disc)
    return _canvas(field)


def room(rng: Rng, n: int) -> Image.Image:
    """A papered wall, a wooden floor, furniture."""
    y, x = _grid(n)
    wall = rgb(_pick(rng, ("#e8dcc4", "#bcd3d6", "#d9c2c8", "#c9d6b8", "#f0d9a8", "#b9c0da")))
    count, kind = rng.integers(8, 16), rng.integers(3)
    u, v = x * count % 1 - 0.5, (y * count + 0.5 * (np.floor(x * count) % 2)) % 1 - 0.5
    pattern = ((np.abs(u) < 0.25) + 0 * v, np.hypot(u, v) < 0.2, 0 * u + 0 * v)[kind]
    field = wall + (14 * pattern + 5 * _noise(rng, n, 4))[..., None]
    floor = rng.uniform(0.6, 0.75)
    field = np.where((y > floor)[..., None], planks(rng, n), field)
    field = np.where(((y > floor - 0.025) & (y < floor))[..., None], rgb("#f7f3ea"), field)
    canvas = _canvas(field)
    for _ in range(rng.integers(1, 4)):
        _put(
            canvas,
            rng,
            _pick(rng, "🪟🖼🕰🪟🖼"),
            rng.uniform(0.05, 0.95),
            rng.uniform(0.25, 0.45),
            rng.uniform(0.16, 0.26),
            1,
            0.3,
        )
    for _ in range(rng.integers(1, 4)):
        _put(
            canvas,
            rng,
            _pick(rng, "🛋🪑🪴📺🧺🪴📚🎁⚽"),
            rng.uniform(0, 1),
            floor + rng.uniform(0.02, 0.15),
            rng.uniform(0.16, 0.32),
            1,
            0.3,
        )
    return canvas


def ground(rng: Rng, n: int) -> Image.Image:
    """Lawn, sand, water or gravel from above."""
    colour, things = (
        ("#7db352", "🌼🍀🌱🌸🍂🍄⚽🌷"),
        ("#e6cf9c", "🪨🏖🌴🐌"),
        ("#58b4d6", "🍂🌿🍁"),
        ("#b5aea4", "🍂🌱🪨🍁"),
    )[kind := rng.integers(4)]
    field = _flat(n, colour) + (12 * _noise(rng, n, 4))[..., None]
    if kind == 2:  # light on water: thin lines where two noises meet
        lines = np.exp(-np.abs(_noise(rng, n, 9) + 0.5 * _noise(rng, n, 15)) * 9)
        field = _blend(field, rgb("#e8fbff"), 0.6 * lines)
    else:
        field += (13 * _noise(rng, n, n // 3) + 14 * _noise(rng, n, n // 2, n // 6))[..., None]
    canvas = _canvas(field)
    _scatter(canvas, rng, things, int(rng.integers(1, 6)), 0.08, 0.17)
    return canvas


def bricks(rng: Rng, n: int) -> Image.Image:
    """A wall with something growing before it."""
    y, x = _grid(n)
    rows = int(rng.integers(7, 13))
    v = y * rows
    u = x * rows / 2.2 + 0.5 * (np.floor(v) % 2)
    tone = rng.uniform(-18, 18, (rows + 1, rows + 1))[
        np.floor(v).astype(int), np.floor(u).astype(int)
    ]
    edge = np.minimum(np.minimum(u % 1, 1 - u % 1) * 2.2, np.minimum(v % 1, 1 - v % 1))
    field = (
        rgb(_pick(rng, ("#b5654a", "#c98a6a", "#d8cdbf", "#9f8578", "#e3d6c3")))
        + (tone + 9 * _noise(rng, n, n // 3))[..., None]
    )
    field = _blend(field, rgb("#d9d2c6"), ((0.09 - edge) * 30).clip(0, 1))
    canvas = _canvas(field)
    for _ in range(rng.integers(1, 5)):
        _put(
            canvas,
            rng,
            _pick(rng, "🪴🌻🌷🌹🌺🌿🪴"),
            rng.uniform(0, 1),
            rng.uniform(0.92, 1.03),
            rng.uniform(0.16, 0.3),
            3,
            0.3,
        )
    return canvas


# Landscapes weigh most: they are six looks in one.
KINDS: tuple[Callable[[Rng, int], Image.Image], ...] = (
    *[landscape] * 6,
    street,
    street,
    table,
    tiles,
    cloth,
    bokeh,
    room,
    room,
    ground,
    ground,
    bricks,
)


def background(rng: Rng, n: int) -> Image.Image:
    """A random background, RGB, of (2n, 2n) pixels; nothing on it is one of the scenes' tags. Same state of `rng`, same pixels."""
    return KINDS[rng.integers(len(KINDS))](rng, n)
