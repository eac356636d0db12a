"""Draw the plots of what-holds-masks-back.md from the tables of benchmarks/results.md and of
earlier-figures.md: `python docs/research/draw.py`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
PAGES = (HERE.parents[1] / "benchmarks" / "results.md", HERE / "earlier-figures.md")
LABELS, SCALE, ROW, TOP = 370, 5.2, 30, 44  # pixels; SCALE: of one point of mIoU
COLORS = {"cam": "#b3622d", "paper": "#7b5ea7", "ours": "#2b8a6b"}
STYLE = """
text { font: 15px system-ui, sans-serif; fill: #222 }
.head { font-weight: 600 }
.line { stroke: #222; stroke-width: 1.5 }
.page { fill: #fff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e6e6 } .line { stroke: #e6e6e6 } .page { fill: #131416 }
}
"""


@dataclass(frozen=True)
class Bar:
    """One row of a plot: what it is, and which cell of which table holds its mIoU."""

    label: str
    color: str
    table: str
    row: tuple[str, ...]  # its first cells; * is anything
    column: str


def bench(label: str, color: str, *row: str) -> Bar:
    return Bar(label, color, "bench", row, "after CRF")


def control(label: str, color: str, method: str) -> Bar:
    return Bar(label, color, "control-earlier", (method,), "after CRF")


def seed(number: int) -> tuple[Bar, ...]:
    rows = (
        ("CAM", "cam", "CAM, spread*"),
        ("recipe photos", "ours", "recipe `photos`"),
    )
    return tuple(
        Bar(f"{name}, seed {number}", color, "seeds", (row, str(number)), "first masks")
        for name, color, row in rows
    )


def vit(label: str, color: str, *row: str) -> Bar:
    return Bar(label, color, "vit-earlier", row, "after CRF")


PLOTS: dict[str, tuple[str, Sequence[Bar]]] = {
    "softmax": (
        "320 photos, masks of one trained network of CPC, and of CAM",
        (
            bench("CAM, best threshold", "cam", "cam", "320 px, best*"),
            bench("CPC, softmax, 320 px", "paper", "cpc", "320 px"),
            bench("CPC, softmax, 448 px, spread", "paper", "cpc", "448 px, affinity"),
            bench("CPC, logits, 320 px", "ours", "cpc", "320 px, logits, Otsu"),
            bench("CPC, logits, 448 px, spread", "ours", "cpc", "448 px, logits, affinity, Otsu"),
        ),
    ),
    "spreading": (
        "320 photos, masks of one trained CAM",
        (
            bench("320 px, best threshold", "cam", "cam", "320 px, best*"),
            bench("448 px, best threshold", "cam", "cam", "448 px, best*"),
            bench("448 px, spread, Otsu's threshold", "ours", "cam", "448 px, affinity, Otsu"),
        ),
    ),
    "losses": ("1,300 photos, scores spread, Otsu's threshold", (*seed(0), *seed(1), *seed(2))),
    "token": (
        "320 photos, frozen backbone, 224 px",
        (
            control("CPC's head, no token", "paper", "cpc: none"),
            control("CPC's head, clusters of VOC", "paper", "cpc: voc"),
            control("CPC's head, clusters of random tags", "paper", "cpc: random"),
            control("CPC's head, no contrastive loss", "paper", "cpc: voc, no PCE"),
            control("residual head, no token", "ours", "mean: none"),
            control("residual head, clusters of VOC", "ours", "mean: voc"),
            control("residual head, clusters of random tags", "ours", "mean: random"),
        ),
    ),
    "vit": (
        "320 photos, ViT-S/14, one seed",
        (
            vit("CAM, spread, Otsu's threshold", "cam", "cam", "448 px, affinity, Otsu"),
            vit("CPC, softmax, spread", "paper", "cpc", "448 px, affinity"),
            vit("CPC, logits, spread", "paper", "cpc", "448 px, logits, affinity, Otsu"),
            vit(
                "recipe photos, spread, Otsu's threshold", "ours", "ours", "448 px, affinity, Otsu"
            ),
        ),
    ),
}


def cell(bar: Bar, page: str) -> str:
    """The cell of results.md that a bar shows: "39.6 ± 2.3". Raises LookupError."""
    body = re.search(rf"<!-- table {bar.table}: .*?-->\n(.*?)<!-- end -->", page, re.DOTALL)
    lines = [line for line in body[1].splitlines() if line.startswith("|")] if body else []
    head, _, *rows = ([part.strip() for part in line.strip("|").split(" | ")] for line in lines)
    for row in rows:
        if all(map(fnmatchcase, row, bar.row)):
            return row[head.index(bar.column)]
    raise LookupError(f"results.md: table {bar.table} has no row {' | '.join(bar.row)}")


def plot(name: str) -> str:
    """One plot as SVG."""
    title, bars = PLOTS[name]
    page = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    cells = [cell(bar, page) for bar in bars]
    width, height = LABELS + round(90 * SCALE) + 20, TOP + ROW * len(bars) + 12
    parts = [
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="head" x="12" y="26">{escape(title)}; mIoU in percent</text>',
    ]
    for i, (bar, text) in enumerate(zip(bars, cells, strict=True)):
        value, _, spread = text.partition(" ± ")
        y, end = TOP + ROW * i, LABELS + float(value) * SCALE
        reach = float(spread or 0) * SCALE
        parts += [
            f'<text x="{LABELS - 10}" y="{y + 19}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{LABELS}" y="{y + 4}" width="{end - LABELS:.1f}" height="20" rx="3" '
            f'fill="{COLORS[bar.color]}"/>',
            f'<path class="line" d="M{end - reach:.1f} {y + 14} H{end + reach:.1f}"/>',
            f'<text x="{end + reach + 8:.1f}" y="{y + 19}">{escape(text)}</text>',
        ]
    label = "; ".join(f"{bar.label}: {text}" for bar, text in zip(bars, cells, strict=True))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    for name in PLOTS:
        (HERE / f"{name}.svg").write_text(plot(name), encoding="utf-8")
