"""Writes the tables of results.md, and README's figures, from benchmarks/results/*.json: `python benchmarks/tables.py [FOLDER]`.

FOLDER: results of `quality.py`, taken into benchmarks/results first. A table stands in results.md between `<!-- table NAME: command -->`
and `<!-- end -->`; one for which no result is there stays as it is. Figures are mIoU in per cent, means over seeds with their standard
deviation.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from methods import ARMS, METHODS, SCORED, SPREAD

from tag2mask.runs import read_json

HERE = Path(__file__).parent
PAGE, README, RESULTS = HERE / "results.md", HERE.parent / "README.md", HERE / "results"
RUNNER = "python benchmarks/quality.py voc-animals OUT"

# Of the headline: name in the tables, method, masks of the pseudo masks, masks that the segmenter learned from.
HEADLINE = (
    ("recipe `photos`", "photos", SPREAD, "own"),
    ("recipe `best`, last round", "best", "last round", ""),
    ("CAM, spread and thresholds as in `photos`", "cam", SPREAD, SPREAD),
    ("CAM at its best threshold, chosen on the truth", "cam", "320 px", "320 px"),
    ("true masks", "truth", "", "true"),
)


class Results:
    """All rows of all results: seeds to figures."""

    def __init__(self, folder: Path = RESULTS):
        heads = [read_json(file) for file in sorted(folder.glob("*.json"))]
        self.rows: list[dict[str, Any]] = [{**head, **row} for head in heads for row in head["rows"]]

    def find(self, **wanted: Any) -> dict[int, dict[str, Any]]:
        """Seed to the row that is as wanted."""
        rows = (row for row in self.rows if all(row.get(key) == value for key, value in wanted.items()))
        return {row["seed"]: row for row in sorted(rows, key=lambda row: row["seed"])}

    def pseudo(self, method: str, masks: str) -> dict[int, dict[str, Any]]:
        """Rows of a method's pseudo masks on all photos."""
        return self.find(set="all", method=method, masks=masks, split="train_seg", crf=True)

    def segmenter(self, method: str, source: str) -> dict[int, dict[str, Any]]:
        """Rows of the segmenters that learned from these."""
        return self.find(set="all", method=method, learned_from=source, split="val")


def figure(values: Iterable[float]) -> str:
    """Numbers in 0-1 to "mean ± standard deviation" in per cent."""
    numbers = [100 * value for value in values]
    return f"{mean(numbers):.1f}" + (f" ± {stdev(numbers):.1f}" if len(numbers) > 1 else "") if numbers else "-"


def miou(rows: dict[int, dict[str, Any]]) -> str:
    """Rows by seed to their figure."""
    return figure(row["miou"] for row in rows.values())


def seeds(rows: dict[int, dict[str, Any]]) -> str:
    """Which seeds."""
    return ", ".join(map(str, rows)) or "-"


def ratio(rows: dict[int, dict[str, Any]], others: dict[int, dict[str, Any]]) -> str:
    """The mean of one to the mean of another, over the seeds that both have."""
    both = [seed for seed in rows if seed in others]
    return f"{mean(rows[s]['miou'] for s in both) / mean(others[s]['miou'] for s in both):.2f}" if both else "-"


def per_class(rows: dict[int, dict[str, Any]]) -> str:
    """Mean IoU of each class, as cells."""
    return " | ".join(f"{100 * mean(row['iou'].get(name, float('nan')) for row in rows.values()):.0f}" for name in SCORED)


def made_on(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The line below a table: machines, versions and dates."""
    machines = sorted({f"{row['device']}, torch {row['versions']['torch']}, tag2mask {row['versions']['tag2mask']}" for row in rows})
    dates = sorted({row["date"] for row in rows})
    return ["", f"{'; '.join(machines)}; {dates[0]}" + f" to {dates[-1]}" * (len(dates) > 1) + "."]


def rule(*columns: str) -> list[str]:
    """A table's first two lines."""
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def headline(found: Results) -> list[str]:
    """Every method on all photos."""
    spread, bare, true = found.pseudo("cam", SPREAD), found.pseudo("cam", "320 px"), found.segmenter("truth", "true")
    columns = ("masks of", "pseudo masks", "seeds", "times CAM spread alike", "times bare CAM", "segmenter", "seeds", "times true masks'")
    lines, used = rule(*columns), []
    for name, method, masks, source in HEADLINE:
        pseudo, segmenter = found.pseudo(method, masks), found.segmenter(method, source)
        if pseudo or segmenter:
            used += [*pseudo.values(), *segmenter.values()]
            times = f"{ratio(pseudo, spread)} | {ratio(pseudo, bare)}"
            learned = f"{miou(segmenter)} | {seeds(segmenter)} | {ratio(segmenter, true)}"
            lines.append(f"| {name} | {miou(pseudo)} | {seeds(pseudo)} | {times} | {learned} |")
    return [*lines, *made_on(used)] if used else []


def by_seed(found: Results) -> list[str]:
    """Every single figure of the headline."""
    lines, used = rule("masks of", "seed", "pseudo masks", "segmenter", "made on"), []
    for name, method, masks, source in HEADLINE:
        pseudo, segmenter = found.pseudo(method, masks), found.segmenter(method, source)
        for seed in sorted({*pseudo, *segmenter}):
            cells = [figure([rows[seed]["miou"]] if seed in rows else []) for rows in (pseudo, segmenter)]
            some = [rows[seed] for rows in (pseudo, segmenter) if seed in rows]
            used += some
            note = f" (threshold {pseudo[seed]['threshold']})" if "threshold" in pseudo.get(seed, {}) else ""
            lines.append(f"| {name}{note} | {seed} | {' | '.join(cells)} | {', '.join(dict.fromkeys(r['device'] for r in some))} |")
    return [*lines, *made_on(used)] if used else []


def classes(found: Results) -> list[str]:
    """IoU of each class on all photos."""
    lines, used = rule("", "seeds", *SCORED), []
    for name, method, masks, source in HEADLINE:
        for what, rows in (("pseudo masks", found.pseudo(method, masks)), ("segmenter", found.segmenter(method, source))):
            if rows := {seed: row for seed, row in rows.items() if "iou" in row}:
                used += rows.values()
                lines.append(f"| {what}, {name} | {seeds(rows)} | {per_class(rows)} |")
    return [*lines, *made_on(used)] if used else []


def bench(name: str, methods: Iterable[str]) -> Callable[[Results], list[str]]:
    """A set's methods and views, before and after the CRF."""

    def table(found: Results) -> list[str]:
        lines, used = rule("method", "masks", "seeds", "before CRF", "after CRF", *SCORED), []
        for method in methods:
            some = [row for row in found.rows if (row["set"], row["method"], row["split"]) == (name, method, "train_seg")]
            for view in dict.fromkeys(row["masks"] for row in some):
                before, after = (found.find(set=name, method=method, masks=view, crf=crf) for crf in (False, True))
                used += after.values()
                chosen = sorted({row["threshold"] for row in after.values() if "threshold" in row})
                note = f", best threshold ({', '.join(map(str, chosen))})" if chosen else ""
                lines.append(f"| {method} | {view}{note} | {seeds(after)} | {miou(before)} | {miou(after)} | {per_class(after)} |")
        return [*lines, *made_on(used)] if used else []

    return table


def bench_segmenters(found: Results) -> list[str]:
    """Segmenters from 320 photos."""
    lines, used = rule("segmenter from", "its masks", "seeds", "val, no tags, CRF", *SCORED), []
    for method in ("truth", *METHODS):
        for source in dict.fromkeys(row["learned_from"] for row in found.rows if (row["set"], row["method"]) == ("320", method)):
            if rows := found.find(set="320", method=method, learned_from=source, split="val"):
                used += rows.values()
                masks = found.find(set="320", method=method, masks=source, split="train_seg", crf=True)
                own = miou({seed: row for seed, row in masks.items() if seed in rows})
                lines.append(f"| {method}, {source} | {own} | {seeds(rows)} | {miou(rows)} | {per_class(rows)} |")
    return [*lines, *made_on(used)] if used else []


# Name: (the command that makes its results, what writes it).
TABLES: dict[str, tuple[str, Callable[[Results], list[str]]]] = {
    "headline": (RUNNER, headline),
    "seeds": (RUNNER, by_seed),
    "classes": (RUNNER, classes),
    "bench": (f"{RUNNER} --methods {' '.join(name for name in METHODS if name not in ARMS)}", bench("320", METHODS)),
    "bench-segmenters": (f"{RUNNER} --segment truth cam vit_pcm ppc cpc ours --seeds 0", bench_segmenters),
    "vit": (f"{RUNNER} --set vit --methods cam cpc mean ours --seeds 0 --weights WEIGHTS", bench("vit", METHODS)),
    "control": (f"{RUNNER} --set control --methods cam {' '.join(f'{chr(34)}{arm}{chr(34)}' for arm in ARMS)}", bench("control", METHODS)),
}


def put(text: str, name: str, command: str, lines: list[str]) -> str:
    """A page with a table's place filled anew. Raises ValueError if it has no such place."""
    place = re.compile(rf"<!-- table {re.escape(name)}: .*? -->\n.*?<!-- end -->", re.DOTALL)
    if not place.search(text):
        raise ValueError(f"no place for the table {name}")
    return place.sub(lambda _: "\n".join([f"<!-- table {name}: {command} -->", *lines, "<!-- end -->"]), text)


def write(name: str, command: str, lines: list[str]) -> None:
    """Fill a table's place in results.md."""
    PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), name, command, lines), encoding="utf-8")


def pages(found: Results) -> tuple[str, str]:
    """results.md and README.md as the results have them."""
    page = PAGE.read_text(encoding="utf-8")
    for name, (command, table) in TABLES.items():
        if lines := table(found):
            page = put(page, name, command, lines)
    return page, put(README.read_text(encoding="utf-8"), "measured", "python benchmarks/tables.py", measured(found))


def measured(found: Results) -> list[str]:
    """README's figures."""
    photos, best, spread, bare = (found.pseudo(method, masks) for _, method, masks, _ in HEADLINE[:4])
    lines = rule(
        "VOC animals: 1,300 photos with tags",
        "pseudo masks, given tags (437 of the training photos)",
        "segmenter, no tags (200 test photos)",
    )
    for name, method, masks, source in HEADLINE:
        pseudo, segmenter = found.pseudo(method, masks), found.segmenter(method, source)
        cells = [f"{miou(rows)}{f' (seeds {seeds(rows)})' if rows else ''}" for rows in (pseudo, segmenter)]
        if pseudo or segmenter:
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        f"On the same photos, weights, passes and seeds, the masks of `photos` have {ratio(photos, spread)} times the mIoU of class",
        f"activation maps (CAM) that are spread and thresholded as ours are, and {ratio(photos, bare)} times that of bare CAM at the threshold",
        "that is best for it, chosen on the truth.",
        f"With `best` it is {ratio(best, spread)} and {ratio(best, bare)} times.",
    ]


def main() -> None:
    RESULTS.mkdir(exist_ok=True)
    for folder in map(Path, sys.argv[1:]):
        for file in folder.glob("*.json"):
            shutil.copyfile(file, RESULTS / file.name)
        if (folder / "quality.jpg").exists():
            shutil.copyfile(folder / "quality.jpg", HERE / "quality.jpg")
    page, readme = pages(Results())
    PAGE.write_text(page, encoding="utf-8")
    README.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
