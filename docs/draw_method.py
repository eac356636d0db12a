"""Draw docs/method.svg, the method in one figure: `python docs/draw_method.py`."""

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1000, 300
STEP, BOX_WIDTH, TOP = 200, 164, 66
BOXES = (
    (
        "clusters",
        "#7b5ea7",
        ("groups of tags:", "pets: cat, dog", "(a language model,", "a preset, or none)"),
    ),
    (
        "classifier",
        "#2f6db0",
        ("patch tokens", "+ cluster token", "HV-BiLSTM,", "a score per patch"),
    ),
    (
        "masks",
        "#2b8a6b",
        ("scores to pixels,", "only the photo's", "tags, spread over", "similar patches, CRF"),
    ),
    ("segmenter", "#b3622d", ("learns from the", "pseudo masks,", "needs no tags", "")),
)
ARROWS = ("photos + tags", "cluster vector", "score maps", "pseudo masks", "masks of any photo")
STYLE = """
text { font: 15px system-ui, sans-serif; fill: #222 }
.name { font-weight: 600; fill: #fff; font-size: 17px }
.flow { font-size: 13px; fill: #555 }
.line { stroke: #777; stroke-width: 2; fill: none; marker-end: url(#head) }
.page { fill: #fff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e6e6 } .flow { fill: #aaa } .page { fill: #131416 }
}
"""


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def box(left: float, name: str, color: str, lines: tuple[str, ...]) -> list[str]:
    middle = left + BOX_WIDTH / 2
    return [
        f'<rect x="{left}" y="{TOP}" width="{BOX_WIDTH}" height="150" rx="10" fill="none" '
        f'stroke="{color}" stroke-width="2"/>',
        f'<path d="M{left} {TOP + 36} v-26 q0 -10 10 -10 h{BOX_WIDTH - 20} q10 0 10 10 v26 z" '
        f'fill="{color}"/>',
        text(middle, TOP + 24, name, "name"),
        *[text(middle, TOP + 62 + 24 * i, line) for i, line in enumerate(lines)],
    ]


def figure() -> str:
    parts = [f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>']
    left = (WIDTH - 3 * STEP - BOX_WIDTH) / 2
    for index, (name, color, lines) in enumerate(BOXES):
        x = left + index * STEP
        parts += box(x, name, color, lines)
        if index:
            parts.append(
                f'<path class="line" d="M{x - STEP + BOX_WIDTH + 4} {TOP + 75} H{x - 8}"/>'
            )
    for index, words in enumerate(ARROWS):
        x = left + index * STEP - (STEP - BOX_WIDTH) / 2
        parts.append(text(min(max(x, 60), WIDTH - 75), 250, words, "flow"))
        parts.append(f'<path d="M{x} 236 V{TOP + 150 + 4}" stroke="#bbb" stroke-dasharray="2 3"/>')
    parts += [
        f'<path class="line" d="M{left - 60} {TOP + 75} H{left - 8}"/>',
        f'<path class="line" d="M{WIDTH - left + 4} {TOP + 75} H{WIDTH - left + 56}"/>',
        text(WIDTH / 2, 36, "tag2mask learns from the tags alone; nobody draws a mask"),
    ]
    head = (
        '<marker id="head" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#777"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Tags to clusters to classifier to masks to segmenter">\n'
        f"<style>{STYLE}</style><defs>{head}</defs>\n" + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("method.svg").write_text(figure(), encoding="utf-8")
