"""The page that `papers.py` writes: tables, a chart, and pictures of masks and score maps."""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from PIL import Image, ImageDraw, ImageOps
from tables import figure, provenance, rule

from tag2mask.clusters.vote import stability
from tag2mask.files import write_text
from tag2mask.photos.colors import overlay
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import Photo, evenly_spaced
from tag2mask.report.draw import heatmap
from tag2mask.runs.run import Run
from tag2mask.runs.stages import shown_scores

TITLES = {"ppc3": "PPC, Table III", "cpc4": "CPC, Table 4", "cpc5": "CPC, Table 5"}
PARTS = {"pseudo": "pseudo masks", "segmenter": "segmenter"}
BARS = {"pseudo": "#781c6d", "segmenter": "#fb9b06"}
CELL, TEXT = 200, 27  # pixels of the pictures, and of two lines of text
Result = dict[str, Any]
Results = dict[Any, dict[int, Result]]  # row -> seed -> figures
Jobs = dict[Any, dict[int, Any]]  # row -> seed -> job


def write_page(options: argparse.Namespace, answers: Any, rows: Jobs, done: Results) -> None:
    """Write papers.md, papers.svg and the pictures of the rows that are done."""
    all_done = [result for by_seed in done.values() for result in by_seed.values()]
    if not all_done:
        return
    out, lines = options.out, ["# The papers' tables", ""]
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    lines += [f"    python benchmarks/papers.py {' '.join(words)}", ""]
    lines += [describe(all_done[0]), ""]
    for table in dict.fromkeys(row.table for row in rows):
        own = {row: by_seed for row, by_seed in done.items() if row.table == table}
        lines += [f"## {TITLES[table]}", ""]
        lines += stable(answers, rows, own) if table == "cpc5" else ablation(own)
        lines += ["", *same_runs({row: rows[row] for row in own})]
    lines += [line for source in answers.sources(rows) for line in (f"Clusters: {source}", "")]
    write_text(out / "papers.svg", chart(done))
    lines += ["![The tables as bars](papers.svg)", ""]
    for name, what in draw_pictures(options, rows, done).items():
        lines += [f"![{what}]({name})", "", f"{what}.", ""]
    write_text(out / "papers.md", "\n".join([*lines, *provenance(all_done)[1:]]) + "\n")
    print(f"{out / 'papers.md'}: {len(all_done)} results")


def describe(result: Result) -> str:
    """What the figures are of."""
    pseudo, segmenter = result["pseudo"], result["segmenter"]
    crf = {True: "after the CRF", False: "before the CRF"}
    sentences = [
        f"mIoU in percent, mean and standard deviation over seeds, {crf[segmenter['crf']]}",
        f"Pseudo masks: {pseudo['images']} photos of {pseudo['split']}, given tags; weights of "
        f"the classifier: {pseudo['weights']}",
        f"Segmenter: {segmenter['images']} photos of {segmenter['split']}, without tags; weights: "
        f"{segmenter['weights']}",
        "The papers' figures are of their segmenters on VOC 2012 val",
    ]
    if over := segmenter["mean_over"]:
        sentences.insert(1, f"The mean is over {', '.join(over)}")
    return ". ".join(sentences) + "."


def part(by_seed: dict[int, Result], name: str) -> dict[int, float]:
    """mIoU by seed."""
    return {seed: result[name]["miou"] for seed, result in by_seed.items()}


def seeds(by_seed: dict[int, Result]) -> str:
    """The seeds, as a cell."""
    return ", ".join(map(str, sorted(by_seed))) or "-"


def over(values: dict[int, float], first: dict[int, float]) -> str:
    """How far values are above others of the same seeds, as a cell."""
    gains = [100 * (values[seed] - first[seed]) for seed in values if seed in first]
    if not gains:
        return "-"
    return f"{mean(gains):+.1f}" + (f" ± {stdev(gains):.1f}" if len(gains) > 1 else "")


def ablation(done: Results) -> list[str]:
    """PPC's Table III or CPC's Table 4. Gains are over the first row, seed by seed."""
    columns = ("", "seeds", "pseudo masks", "gain", "segmenter", "gain", "the paper", "its gain")
    lines, (first, *_) = rule(*columns), done
    for row, by_seed in done.items():
        cells = [row.name, seeds(by_seed)]
        for name in PARTS:
            values = part(by_seed, name)
            gain = over(values, part(done[first], name)) if row != first else ""
            cells += [figure(values.values()), gain]
        gain = f"{float(row.paper) - float(first.paper):+.1f}" if row != first else ""
        lines.append(f"| {' | '.join([*cells, row.paper, gain])} |")
    return lines


def same_runs(rows: Jobs) -> list[str]:
    """Rows of a table that share runs with an earlier row: their clusters of these tags are equal,
    so their figures are, too."""
    lines, earlier = [], dict[str, str]()  # name of a job -> its first row
    for row, jobs in rows.items():
        for seed, job in jobs.items():
            if first := earlier.get(job.name):
                lines.append(f"- {row.name}, seed {seed}: the same clusters and run as {first}.")
            earlier.setdefault(job.name, row.name)
    return [*lines, ""] if lines else []


def stable(answers: Any, rows: Jobs, done: Results) -> list[str]:
    """CPC's Table 5: how far R answers agree, and what this means for the masks."""
    agree = {row.queries: row for row in stability(answers.pool)}
    columns = ("R", "winner's share", "distinct answers", "adjusted Rand", "same winner as all")
    more = ("clusters of the runs", "seeds", *PARTS.values(), "the paper")
    lines = rule(*columns, *more)
    for row, by_seed in done.items():
        cells = [str(row.queries)]
        if s := agree.get(row.queries):
            cells += [f"{s.share:.2f}", f"{s.distinct:.1f}", f"{s.adjusted_rand:.2f}"]
            cells += [f"{s.same_winner:.2f}"]
        else:
            cells += ["-"] * 4
        jobs = rows[row]
        different = len({job.config.clusters.source for job in jobs.values()})
        cells += [f"{different} of {len(jobs)} differ" if different > 1 else "the same"]
        cells += [seeds(by_seed)]
        cells += [figure(part(by_seed, name).values()) for name in PARTS]
        lines.append(f"| {' | '.join([*cells, row.paper])} |")
    how = "The vote alone, not refined." if answers.stored else "Refined after the vote."
    text = f"{how} Agreement: means over the ways to draw R of {len(answers.pool)} answers, of all "
    return [*lines, "", f"{text}tags that the model was asked for."]


def chart(done: Results) -> str:
    """A bar for the masks of each row, with the standard deviation, and the paper's figure."""
    left, width, y, parts = 190, 420, 46, list[str]()
    for k, name in enumerate(PARTS):
        parts.append(
            f'<rect x="{left + 130 * k}" y="12" width="12" height="12" fill="{BARS[name]}"/>'
        )
        parts.append(f'<text x="{left + 18 + 130 * k}" y="22">{PARTS[name]}</text>')
    for table in dict.fromkeys(row.table for row in done):
        parts.append(f'<text x="10" y="{y + 4}" class="title">{TITLES[table]}</text>')
        y += 14
        for row in (row for row in done if row.table == table and done[row]):
            label = escape(row.name)
            parts.append(f'<text x="{left - 10}" y="{y + 15}" text-anchor="end">{label}</text>')
            for name, color in BARS.items():
                values = [100 * value for value in part(done[row], name).values()]
                parts += bar(left, y, width / 100, values, color)
                y += 13
            note = f"the paper, on VOC 2012 val: {row.paper}"
            parts.append(f'<text x="{left + width + 60}" y="{y - 10}">{note}</text>')
            y += 8
        y += 16
    parts.insert(
        0, "<style>text { font: 11px sans-serif; fill: #888 } .title { font-weight: bold }</style>"
    )
    size = f'width="{left + width + 270}" height="{y}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>\n'


def bar(x: int, y: int, scale: float, values: Sequence[float], color: str) -> Iterator[str]:
    """One bar; `scale`: pixels per point of mIoU."""
    middle, spread = mean(values), stdev(values) if len(values) > 1 else 0
    yield f'<rect x="{x}" y="{y}" width="{middle * scale:.1f}" height="11" fill="{color}"/>'
    if spread:
        ends = f'x1="{x + (middle - spread) * scale:.1f}" x2="{x + (middle + spread) * scale:.1f}"'
        yield f'<line {ends} y1="{y + 5.5}" y2="{y + 5.5}" stroke="#888" stroke-width="2"/>'
    text = figure(value / 100 for value in values)
    yield f'<text x="{x + (middle + spread) * scale + 6:.1f}" y="{y + 10}">{text}</text>'


def draw_pictures(options: argparse.Namespace, rows: Jobs, done: Results) -> dict[str, str]:
    """Draw masks.jpg and scores.jpg of the runs with the first seed; returns file: description.

    Photos are at equal distances in the data, not chosen by their masks.
    """
    runs: dict[str, Run] = {}
    for row, jobs in rows.items():
        seed = min(jobs)
        folder = jobs[seed].config.out
        if seed in done[row] and all(run.folder != folder for run in runs.values()):
            runs[f"{row.name} ({row.table})"] = Run(folder)
    if not runs:
        return {}
    first = next(iter(runs.values()))
    files = {}
    if truth := first.truths["val"]:
        photos = evenly_spaced(truth.photos_with_truth, options.photos)
        grid = [list(mask_cells(photo, truth.read(photo), runs)) for photo in photos]
        save_grid(grid, options.out / "masks.jpg")
        files["masks.jpg"] = (
            "Validation photos, true masks, and the segmenters' masks (CPC, Fig. 4, 5)"
        )
    photos = [photo for photo in first.table.photos if photo.tags]
    shown = {name: shown_scores(run) for name, run in runs.items()}
    grid = []
    for photo in evenly_spaced(photos, options.photos):
        picture, tag = photo.open(at_least=CELL), photo.tags[0]
        row_cells = [(photo.name, picture)]
        for name, scores in shown.items():
            maps = scores(photo)
            assert maps is not None, photo.name
            number = first.table.classes.index(tag)
            row_cells.append((f"{tag}: {name}", heatmap(picture, maps[number])))
        grid.append(row_cells)
    save_grid(grid, options.out / "scores.jpg")
    files["scores.jpg"] = "Score maps of the first tag of training photos (CPC, Fig. 6)"
    return files


def mask_cells(photo: Photo, true: Any, runs: dict[str, Run]) -> Iterator[tuple[str, Image.Image]]:
    """A photo, its true mask and its masks by all runs, with captions."""
    picture = photo.open()
    classes = next(iter(runs.values())).table.classes
    yield photo.name, picture
    yield "true mask", overlay(picture, true, classes)
    for name, run in runs.items():
        mask = read_mask(run.files.result("evaluate", "predictions", f"{photo.name}.png"))
        yield name, overlay(picture, mask, classes)


def save_grid(rows: Sequence[Sequence[tuple[str, Image.Image]]], path: Path) -> None:
    """Rows of pictures with captions, as one picture."""
    side = CELL - 4
    small = [
        [(text, ImageOps.contain(picture, (side, side))) for text, picture in row] for row in rows
    ]
    heights = [TEXT + max(picture.height for _, picture in row) + 4 for row in small]
    page = Image.new("RGB", (CELL * len(rows[0]), sum(heights)), "white")
    y = 0
    for row, height in zip(small, heights, strict=True):
        for x, (caption, picture) in enumerate(row):
            lines = textwrap.wrap(caption, 34)[:2]
            ImageDraw.Draw(page).text((x * CELL + 2, y + 1), "\n".join(lines), "black", spacing=1)
            page.paste(picture, (x * CELL, y + TEXT))
        y += height
    page.save(path, quality=85)
