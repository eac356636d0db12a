"""A picture of clusters, as SVG: a row for each, with its name in color and its tags."""

from html import escape

from tag2mask.clusters.membership import Clusters
from tag2mask.photos.colors import color

WIDTH, LINE, CHAR, PAD = 960, 30, 7.4, 10  # pixels; CHAR: mean width of a letter at 13 px


def picture(clusters: Clusters) -> str:
    """Clusters to SVG, 960 pixels wide. A tag in several clusters has a dashed border."""
    tags = [tag for members in clusters.members for tag in members]
    left = PAD + max(map(_width, clusters.names), default=0) + PAD
    parts, y = [], PAD
    for number, (name, members) in enumerate(zip(clusters.names, clusters.members, strict=True)):
        rgb = color(number % 254 + 1)
        parts.append(_box(PAD, y, name, f'fill="{rgb}"'))
        x = left
        for tag in members:
            if x > left and x + _width(tag) > WIDTH - PAD:
                x, y = left, y + LINE
            dashed = ' stroke-dasharray="4 3"' * (tags.count(tag) > 1)
            parts.append(_box(x, y, tag, f'fill="white" stroke="{rgb}" stroke-width="2"{dashed}'))
            x += _width(tag) + 6
        y += LINE + 8
    size = f'viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
    font = 'font-family="sans-serif" font-size="13"'
    parts.insert(0, f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _width(text: str) -> float:
    return len(text[:60]) * CHAR + 2 * PAD


def _box(x: float, y: float, text: str, style: str) -> str:
    short = text if len(text) <= 60 else text[:59] + "…"
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in short)
    width, middle = _width(text), x + _width(text) / 2
    return (
        f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="24" rx="6" {style}/>'
        f'<text x="{middle:.0f}" y="{y + 17}" fill="#101014" text-anchor="middle">'
        f"{escape(printable)}</text>"
    )
