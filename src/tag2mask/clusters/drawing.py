"""A picture of clusters: one row each, a colored name and its tags, as SVG that a page can hold."""

from html import escape

from tag2mask.clusters.membership import Clusters
from tag2mask.photos.colors import color

WIDTH, LINE, CHAR, PAD = 960, 30, 7.4, 10  # pixels; CHAR: mean width of a letter at 13 px


def picture(clusters: Clusters) -> str:
    """Clusters as an SVG image, 960 pixels wide. A tag that is in several clusters has a dashed border."""
    often = [tag for held in clusters.members for tag in held]
    left = PAD + max((_width(name) for name in clusters.names), default=0) + PAD
    parts, y = [], PAD
    for number, (name, held) in enumerate(zip(clusters.names, clusters.members, strict=True)):
        own = color(number % 254 + 1)
        parts.append(_chip(PAD, y, name, own))
        x = left
        for tag in held:
            if x > left and x + _width(tag) > WIDTH - PAD:
                x, y = left, y + LINE
            dashed = ' stroke-dasharray="4 3"' * (often.count(tag) > 1)
            parts.append(_chip(x, y, tag, "white", f' stroke="{own}" stroke-width="2"{dashed}'))
            x += _width(tag) + 6
        y += LINE + 8
    size = f'viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    )
    return "\n".join([head, f"<title>{escape(clusters.source)}</title>", *parts, "</svg>"]) + "\n"


def _width(text: str) -> float:
    return len(text[:60]) * CHAR + 2 * PAD


def _chip(x: float, y: float, text: str, fill: str, border: str = "") -> str:
    shown = text if len(text) <= 60 else text[:59] + "…"
    box = f'<rect x="{x:.0f}" y="{y:.0f}" width="{_width(text):.0f}" height="24" rx="6" fill="{fill}"{border}/>'
    middle = x + _width(text) / 2
    return f'{box}<text x="{middle:.0f}" y="{y + 17:.0f}" fill="#101014" text-anchor="middle">{escape(_printable(shown))}</text>'


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
