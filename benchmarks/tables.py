"""Writes the tables of results.md, and README's figures, from benchmarks/results/*.json: `python benchmarks/tables.py`.

Given folders, it takes what is in them into benchmarks/results first: OUT of `quality.py`, or the run folder of `tag2mask demo`. A table
stands in results.md between `<!-- table NAME: command -->` and `<!-- end -->`; one for which no result is there stays as it is. Figures are
mIoU in per cent, means over seeds with their standard deviation. The other benchmarks write their own tables with `write`.
"""

import argparse
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from methods import METHODS, SCORED, SPREAD, kept

from tag2mask.files import read_json, versions, write_json
from tag2mask.processes import cores

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
        self.rows: list[dict[str, Any]] = [
            {**head, **row} for head in heads for row in head["rows"]
        ]

    def find(self, **wanted: Any) -> dict[int, dict[str, Any]]:
        """Seed to the row that is as wanted."""
        rows = (
            row for row in self.rows if all(row.get(key) == value for key, value in wanted.items())
        )
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
    return (
        f"{mean(numbers):.1f}" + (f" ± {stdev(numbers):.1f}" if len(numbers) > 1 else "")
        if numbers
        else "-"
    )


def miou(rows: dict[int, dict[str, Any]]) -> str:
    """Rows by seed to their figure."""
    return figure(row["miou"] for row in rows.values())


def seeds(rows: dict[int, dict[str, Any]]) -> str:
    """Which seeds."""
    return ", ".join(map(str, rows)) or "-"


def ratio(rows: dict[int, dict[str, Any]], others: dict[int, dict[str, Any]]) -> str:
    """The mean of one to the mean of another, over the seeds that both have from the same machine."""
    both = [
        seed for seed in rows if seed in others and rows[seed]["device"] == others[seed]["device"]
    ]
    return (
        f"{mean(rows[s]['miou'] for s in both) / mean(others[s]['miou'] for s in both):.2f}"
        if both
        else "-"
    )


def per_class(rows: dict[int, dict[str, Any]]) -> str:
    """Mean IoU of each class, as cells."""
    values = [
        [100 * row["iou"][name] for row in rows.values() if name in row["iou"]] for name in SCORED
    ]
    return " | ".join(f"{mean(some):.0f}" if some else "-" for some in values)


def made_on(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The line below a table: machines, versions and dates."""
    machines = sorted(
        {
            f"{row['device']} (torch {row['versions']['torch']}, tag2mask {row['versions']['tag2mask']})"
            for row in rows
        }
    )
    dates = sorted({row["date"] for row in rows})
    return [
        "",
        f"Measured on {' and '.join(machines)}, {dates[0]}"
        + f" to {dates[-1]}" * (len(dates) > 1)
        + ".",
    ]


def rule(*columns: str) -> list[str]:
    """A table's first two lines."""
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def headline(found: Results) -> list[str]:
    """Every method on all photos."""
    spread, bare, true = (
        found.pseudo("cam", SPREAD),
        found.pseudo("cam", "320 px"),
        found.segmenter("truth", "true"),
    )
    columns = (
        "masks of",
        "pseudo masks",
        "seeds",
        "times CAM spread alike",
        "times bare CAM",
        "segmenter",
        "seeds",
        "times true masks'",
    )
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
            cells = [
                figure([rows[seed]["miou"]] if seed in rows else []) for rows in (pseudo, segmenter)
            ]
            some = [rows[seed] for rows in (pseudo, segmenter) if seed in rows]
            used += some
            note = (
                f" (threshold {pseudo[seed]['threshold']})"
                if "threshold" in pseudo.get(seed, {})
                else ""
            )
            lines.append(
                f"| {name}{note} | {seed} | {' | '.join(cells)} | {', '.join(dict.fromkeys(r['device'] for r in some))} |"
            )
    return [*lines, *made_on(used)] if used else []


def classes(found: Results) -> list[str]:
    """IoU of each class on all photos."""
    lines, used = rule("", "seeds", *SCORED), []
    for name, method, masks, source in HEADLINE:
        for what, rows in (
            ("pseudo masks", found.pseudo(method, masks)),
            ("segmenter", found.segmenter(method, source)),
        ):
            if rows := {seed: row for seed, row in rows.items() if "iou" in row}:
                used += rows.values()
                lines.append(f"| {what}, {name} | {seeds(rows)} | {per_class(rows)} |")
    return [*lines, *made_on(used)] if used else []


def bench(name: str, methods: Iterable[str]) -> Callable[[Results], list[str]]:
    """A set's methods and views, before and after the CRF."""

    def table(found: Results) -> list[str]:
        lines, used = rule("method", "masks", "seeds", "before CRF", "after CRF", *SCORED), []
        for method in methods:
            some = [
                row
                for row in found.rows
                if (row["set"], row["method"], row["split"]) == (name, method, "train_seg")
            ]
            for view in dict.fromkeys(row["masks"] for row in some):
                before, after = (
                    found.find(set=name, method=method, masks=view, crf=crf)
                    for crf in (False, True)
                )
                used += after.values()
                chosen = sorted({row["threshold"] for row in after.values() if "threshold" in row})
                note = f", best threshold ({', '.join(map(str, chosen))})" if chosen else ""
                lines.append(
                    f"| {method} | {view}{note} | {seeds(after)} | {miou(before)} | {miou(after)} | {per_class(after)} |"
                )
        return [*lines, *made_on(used)] if used else []

    return table


def bench_segmenters(found: Results) -> list[str]:
    """Segmenters from 320 photos."""
    lines, used = rule("segmenter from", "its masks", "seeds", "val, no tags, CRF", *SCORED), []
    for method in ("truth", *METHODS):
        for source in dict.fromkeys(
            row["learned_from"]
            for row in found.rows
            if (row["set"], row["method"]) == ("320", method)
        ):
            if rows := found.find(set="320", method=method, learned_from=source, split="val"):
                used += rows.values()
                masks = found.find(
                    set="320", method=method, masks=source, split="train_seg", crf=True
                )
                own = miou({seed: row for seed, row in masks.items() if seed in rows})
                lines.append(
                    f"| {method}, {source} | {own} | {seeds(rows)} | {miou(rows)} | {per_class(rows)} |"
                )
    return [*lines, *made_on(used)] if used else []


def demo(found: Results) -> list[str]:
    """The demo's scenes."""
    lines, used = rule("", "seeds", "split", "images", "mIoU"), []
    for what, split in (
        ("pseudo masks, given tags, CRF", "train"),
        ("segmenter, no tags, CRF", "val"),
    ):
        if rows := found.find(set="demo", split=split):
            used += rows.values()
            lines.append(
                f"| {what} | {seeds(rows)} | {split} | {next(iter(rows.values()))['images']} | {miou(rows)} |"
            )
    return [*lines, *made_on(used)] if used else []


# Name: (the command that makes its results, what writes it).
TABLES: dict[str, tuple[str, Callable[[Results], list[str]]]] = {
    "headline": (f"{RUNNER} --set all", headline),
    "seeds": (f"{RUNNER} --set all", by_seed),
    "classes": (f"{RUNNER} --set all", classes),
    "bench": (f"{RUNNER} --set 320", bench("320", METHODS)),
    "bench-segmenters": (f"{RUNNER} --set 320", bench_segmenters),
    "vit": (
        f"{RUNNER} --set vit --methods cam cpc mean ours --seeds 0 --weights WEIGHTS",
        bench("vit", METHODS),
    ),
    "control": (f"{RUNNER} --set control", bench("control", METHODS)),
    "demo": ("tag2mask demo --out runs/demo", demo),
}


def put(text: str, name: str, command: str, lines: list[str]) -> str:
    """A page with a table's place filled anew. Raises ValueError if it has no such place."""
    place = re.compile(rf"<!-- table {re.escape(name)}: .*? -->\n.*?<!-- end -->", re.DOTALL)
    if not place.search(text):
        raise ValueError(f"no place for the table {name}")
    return place.sub(
        lambda _: "\n".join([f"<!-- table {name}: {command} -->", *lines, "<!-- end -->"]), text
    )


def machine() -> str:
    """What the figures of speed are worthless without."""
    load = f"{os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else "unknown"
    where = f"{cores()} CPU cores ({platform.machine()}), load average {load}, torch {versions()['torch']}"
    return f"Measured on {where}; {date.today().isoformat()}."


def write(name: str, command: str, lines: list[str]) -> None:
    """Fill a table's place in results.md."""
    PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), name, command, lines), encoding="utf-8")


def pages(found: Results) -> tuple[str, str]:
    """results.md and README.md as the results have them."""
    page, readme = PAGE.read_text(encoding="utf-8"), README.read_text(encoding="utf-8")
    for name, (command, table) in TABLES.items():
        if lines := table(found):
            page = put(page, name, command, lines)
    if lines := measured(found):
        readme = put(readme, "measured", "python benchmarks/tables.py", lines)
    return page, readme


def measured(found: Results) -> list[str]:
    """README's figures: the headline's, the fair ratio first."""
    lines, used = (
        rule(
            "masks of",
            "pseudo masks, given tags (437 of the training photos)",
            "segmenter, no tags (200 test photos)",
        ),
        [],
    )
    for name, method, masks, source in HEADLINE:
        both = found.pseudo(method, masks), found.segmenter(method, source)
        if any(both):
            used += [row for rows in both for row in rows.values()]
            lines.append(
                f"| {name} | {' | '.join(miou(rows) + f' (seeds {seeds(rows)})' * bool(rows) for rows in both)} |"
            )
    photos, best, spread, bare = (
        found.pseudo(method, masks) for _, method, masks, _ in HEADLINE[:4]
    )
    if photos and spread and bare:
        lines += [
            "",
            "On the same photos, weights, epochs and seeds, the masks of `photos` have",
            f"{ratio(photos, spread)} times the mIoU of class activation maps (CAM) that are spread and thresholded as ours are, and",
            f"{ratio(photos, bare)} times that of bare CAM at the threshold that is best for it, chosen on the truth.",
        ]
        if ratio(best, spread) != "-":
            lines.append(
                f"Those of `best` have {ratio(best, spread)} and {ratio(best, bare)} times."
            )
    return [*lines, *made_on(used)] if used else []


def take(folder: Path) -> None:
    """The results in a folder into benchmarks/results."""
    for file in folder.glob("*.json"):
        shutil.copyfile(file, RESULTS / file.name)
    if (folder / "quality.jpg").exists():
        shutil.copyfile(folder / "quality.jpg", HERE / "quality.jpg")
    if (metrics := folder / "evaluate" / "metrics.json").exists():
        rows, done = read_json(metrics), read_json(folder / "evaluate" / "done.json")
        head = {
            "set": "demo",
            "method": "demo",
            "seed": rows["pseudo"]["seed"],
            "weights": rows["pseudo"]["weights"],
        }
        head |= {
            "versions": done["versions"],
            "device": f"{cores()} CPU cores ({platform.machine()})",
            "date": date.today().isoformat(),
        }
        write_json(
            RESULTS / f"demo-{head['seed']}.json",
            {**head, "rows": [kept(row) for row in rows.values()]},
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders",
        type=Path,
        nargs="*",
        help="OUT of quality.py, or the run folder of `tag2mask demo`",
    )
    RESULTS.mkdir(exist_ok=True)
    for folder in parser.parse_args().folders:
        take(folder)
    page, readme = pages(Results())
    PAGE.write_text(page, encoding="utf-8")
    README.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
