"""Write the tables of results.md and README.md from benchmarks/results/*.json.

`python benchmarks/tables.py FOLDER ...` first copies results from folders into benchmarks/results:
from OUT of `quality.py`, or from the run folder of `tag2mask demo`. In results.md, a table is
between `<!-- table NAME: command -->` and `<!-- end -->`; without results it stays unchanged.
Figures are mIoU in percent, means over seeds with their standard deviation. The other benchmarks
write their own tables with `write`.
"""

import argparse
import os
import re
import shutil
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from statistics import mean

from domain_tables import DOMAIN_TABLES
from domains import SCORED, result_row
from figures import (
    RESULTS,
    Results,
    Rows,
    cpu_name,
    figure,
    miou,
    per_class,
    provenance,
    ratio,
    rule,
    seeds,
)
from methods import METHODS, NEW, SPREAD

from tag2mask.files import read_json, versions, write_json

HERE = Path(__file__).parent
PAGE, README = HERE / "results.md", HERE.parent / "README.md"
PARTS = ("first masks", "new masks", "segmenter")
RUNNER = "python benchmarks/quality.py voc-animals OUT"

# Name in the tables, method, view of the first masks, masks that the segmenter is trained on.
HEADLINE = (
    ("recipe `photos`", "photos", SPREAD, "own"),
    ("CAM, spread and thresholds as in `photos`", "cam", SPREAD, SPREAD),
    ("CAM at its best threshold, chosen with true masks", "cam", "320 px", "320 px"),
    ("true masks", "truth", "", "true"),
    ("recipe `photos`, in float32 on two CPU cores", "photos cpu", SPREAD, "own"),
    ("recipe `best`, in float32 on two CPU cores", "best cpu", "", ""),
    ("true masks, in float32 on two CPU cores", "truth cpu", "", "true"),
    ("masks of `photos` on CPU; segmenter on EfficientNet-Lite0", "photos lite0", SPREAD, "own"),
    ("the same masks; segmenter: DeepLabV2 on EfficientNet-Lite0", "photos deeplab", SPREAD, "own"),
    ("recipe `best` of then; segmenter: DeepLabV2 on EfficientNet-Lite0", "best deeplab", "", ""),
)


def headline(results: Results) -> list[str]:
    """Every method on all photos."""
    spread, bare = results.pseudo("cam", SPREAD), results.pseudo("cam", "320 px")
    true = results.segmenter("truth", "true")
    columns = (
        "masks of",
        "first masks",
        "seeds",
        "new masks",
        "seeds",
        "times CAM spread alike",
        "times bare CAM",
        "segmenter",
        "seeds",
        "times true masks'",
    )
    lines, used = rule(*columns), []
    for name, method, masks, source in HEADLINE:
        parts = first, *_, segmenter = parts_of(results, method, masks, source)
        if any(parts):
            used += [row for part in parts for row in part.values()]
            cells = [f"{miou(part)} | {seeds(part)}" for part in parts]
            cells.insert(2, f"{ratio(first, spread)} | {ratio(first, bare)}")
            lines.append(f"| {name} | {' | '.join(cells)} | {ratio(segmenter, true)} |")
    return [*lines, *provenance(used)] if used else []


def parts_of(results: Results, method: str, masks: str, source: str) -> list[Rows]:
    """First masks, new masks and segmenters of a method, by seed."""
    first = results.pseudo(method, masks)
    return [first, results.pseudo(method, NEW), results.segmenter(method, source)]


def by_seed(results: Results) -> list[str]:
    """The figures of the headline for every seed."""
    lines, used = rule("masks of", "seed", "first masks", "new masks", "segmenter", "made on"), []
    for name, *what in HEADLINE:
        parts = first, *_ = parts_of(results, *what)
        for seed in sorted({seed for part in parts for seed in part}):
            rows = [part[seed] for part in parts if seed in part]
            cells = [figure([part[seed]["miou"]] if seed in part else []) for part in parts]
            used += rows
            note = ""
            if "threshold" in first.get(seed, {}):
                note = f" (threshold {first[seed]['threshold']})"
            devices = ", ".join(dict.fromkeys(row["device"] for row in rows))
            lines.append(f"| {name}{note} | {seed} | {' | '.join(cells)} | {devices} |")
    return [*lines, *provenance(used)] if used else []


def classes(results: Results) -> list[str]:
    """IoU of each class on all photos."""
    lines, used = rule("", "seeds", *SCORED), []
    for name, *what in HEADLINE:
        parts = zip(PARTS, parts_of(results, *what), strict=True)
        for part, all_rows in parts:
            if rows := {seed: row for seed, row in all_rows.items() if "iou" in row}:
                used += rows.values()
                lines.append(f"| {part}, {name} | {seeds(rows)} | {per_class(rows)} |")
    return [*lines, *provenance(used)] if used else []


def bench(name: str, methods: Iterable[str]) -> Callable[[Results], list[str]]:
    """A function for the table of a set's methods and views, before and after the CRF."""

    def table(results: Results) -> list[str]:
        lines, used = rule("method", "masks", "seeds", "before CRF", "after CRF", *SCORED), []
        for method in methods:
            key = (name, method, "train_seg")
            rows = [r for r in results.rows if (r["set"], r["method"], r["split"]) == key]
            for view in dict.fromkeys(row["masks"] for row in rows):
                before, after = (
                    results.find(set=name, method=method, masks=view, crf=crf)
                    for crf in (False, True)
                )
                used += after.values()
                chosen = sorted({row["threshold"] for row in after.values() if "threshold" in row})
                note = f", best threshold ({', '.join(map(str, chosen))})" if chosen else ""
                cells = [seeds(after), miou(before), miou(after), per_class(after)]
                lines.append(f"| {method} | {view}{note} | {' | '.join(cells)} |")
        return [*lines, *provenance(used)] if used else []

    return table


def demo(results: Results) -> list[str]:
    """The demo's scenes."""
    lines, used = rule("", "seeds", "split", "images", "mIoU"), []
    names = {"train": "pseudo masks, given tags, CRF", "val": "segmenter, no tags, CRF"}
    for split, name in names.items():
        if rows := results.find(set="demo", split=split):
            used += rows.values()
            images = next(iter(rows.values()))["images"]
            lines.append(f"| {name} | {seeds(rows)} | {split} | {images} | {miou(rows)} |")
    return [*lines, *provenance(used)] if used else []


# Name: (the command that makes its results, the function that writes it).
TABLES: dict[str, tuple[str, Callable[[Results], list[str]]]] = {
    "headline": (f"{RUNNER} --set all", headline),
    "seeds": (f"{RUNNER} --set all", by_seed),
    "classes": (f"{RUNNER} --set all", classes),
    "bench": (f"{RUNNER} --set 320", bench("320", METHODS)),
    "demo": ("tag2mask demo --out runs/demo", demo),
    **DOMAIN_TABLES,
}


def put(text: str, name: str, command: str, lines: list[str]) -> str:
    """A page with the lines of one table replaced. Raises ValueError if it has no such table."""
    place = re.compile(rf"<!-- table {re.escape(name)}: .*? -->\n.*?<!-- end -->", re.DOTALL)
    if not place.search(text):
        raise ValueError(f"the page has no table {name}")
    return place.sub(
        lambda _: "\n".join([f"<!-- table {name}: {command} -->", *lines, "<!-- end -->"]), text
    )


def machine() -> str:
    """The machine, its load and the date: without them, figures of speed mean nothing."""
    load = f"{os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else "unknown"
    context = f"load average {load}, torch {versions()['torch']}; {date.today().isoformat()}"
    return f"Measured on {cpu_name()}, {context}."


def write(name: str, command: str, lines: list[str]) -> None:
    """Replace the lines of a table of results.md."""
    PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), name, command, lines), encoding="utf-8")


def pages(results: Results) -> tuple[str, str]:
    """results.md and README.md with tables of these results."""
    page, readme = PAGE.read_text(encoding="utf-8"), README.read_text(encoding="utf-8")
    for name, (command, table) in TABLES.items():
        if lines := table(results):
            page = put(page, name, command, lines)
    if lines := measured(results):
        readme = put(readme, "measured", "python benchmarks/tables.py", lines)
    return page, readme


# The table of README.md: recipe, for whom, networks, what it needs, the papers' two figures.
PAPERS = "ViT-B/16, ResNet-101"
LITE = "EfficientNet-Lite0, Lite2"
RECIPES = (
    ("`photos`, the default", "your own photos", LITE, "a laptop", "-", "-"),
    ("`best`", "better masks, in more time", LITE, "a laptop", "-", "-"),
    (
        "`cpc`, `vit_pcm`, `ppc` with `--clusters auto`",
        "the papers' settings, your photos",
        PAPERS,
        "a GPU",
        "-",
        "-",
    ),
    ("`ppc` on VOC 2012", "PPC's experiment", PAPERS, "a GPU", "74.8", "72.2"),
    ("`voc12-cpc`", "CPC's experiments", PAPERS, "a GPU", "75.7", "73.4"),
    ("`coco14-cpc`", "CPC's experiments", PAPERS, "a GPU", "-", "46.7"),
)


def minutes(results: Results, method: str) -> str:
    """The minutes of whole runs, with new masks, for all photos, as a note."""
    first, learned = results.pseudo(method, SPREAD), results.segmenter(method, "own")
    jobs = [
        (first[seed]["seconds"], learned[seed]["seconds"]) for seed in results.pseudo(method, NEW)
    ]
    seconds = [sum(both) for both in jobs if all(both)]
    if not seconds:
        return ""
    times = dict.fromkeys(f"{value / 60:.0f}" for value in (min(seconds), max(seconds)))
    return f": 1,300 photos in {' to '.join(times)} minutes on two busy cores"


def measured(results: Results) -> list[str]:
    """README.md: the ratios to CAM, the fair one first; the recipes; the classes."""
    photos, spread, bare = (results.pseudo(method, masks) for _, method, masks, _ in HEADLINE[:3])
    if not (photos and spread and bare):
        return []
    lines = [
        "On the same photos, weights, epochs and seeds, the first masks of `photos` have "
        f"**{ratio(photos, spread)} times** the mIoU of class",
        f"activation maps (CAM) that are spread and cut in the same way: {miou(photos)} and "
        f"{miou(spread)}. Bare CAM at its best threshold,",
        f"chosen with true masks, has {miou(bare)}: `photos` has {ratio(photos, bare)} times as "
        "much.",
        "",
    ]
    columns = ("recipe", "for whom", "networks", "needs")
    figures = ("pseudo masks", "segmenter", "in the paper: masks", "segmenter")
    lines += rule(*columns, *figures)
    ours = {
        "`photos`, the default": (
            minutes(results, "photos cpu"),
            miou(results.pseudo("photos cpu", NEW)),
            miou(results.segmenter("photos cpu", "own")),
        ),
        "`best`": (
            "",
            miou(results.pseudo("best cpu", NEW)),
            miou(results.segmenter("best cpu", "")),
        ),
    }
    every, on_cpu = results.pseudo("photos cpu", SPREAD), results.pseudo("photos cpu", NEW)
    first = {seed: row for seed, row in every.items() if seed in on_cpu}
    for name, whom, networks, needs, *paper in RECIPES:
        time, *cells = ours.get(name, ("", "not run", "not run"))
        lines.append(f"| {' | '.join([name, whom, networks, needs + time, *cells, *paper])} |")
    means = {
        name: mean(100 * row["iou"][name] for row in on_cpu.values())
        for name in SCORED
        if name != "background" and on_cpu and all(name in r["iou"] for r in on_cpu.values())
    }
    best_first = sorted(means, key=lambda name: -means[name])
    lines += [
        "",
        "mIoU in percent after the CRF, mean ± standard deviation over seeds. Ours: 1,300 photos "
        "of PASCAL VOC, 437 pseudo masks with given tags,",
        "the segmenter on 200 other photos without tags. The papers': all of VOC 2012 or COCO 2014."
        " IoU of pseudo masks: "
        + ", ".join(f"{name} {means[name]:.0f}" for name in best_first)
        + ". These are the [new masks by the segmenter]"
        "(benchmarks/results.md#new-masks-by-the-segmenter). The first ones, from which it "
        f"learned, have {miou(first)}. "
        f"Seeds of the new masks: {seeds(on_cpu)}; of `best`: "
        f"{seeds(results.pseudo('best cpu', NEW))}; of the segmenter of `photos`: "
        f"{seeds(results.segmenter('photos cpu', 'own'))}. The ratios are of a GPU in "
        "bf16, the table is of two CPU cores. [Machines, seeds, commands](benchmarks/results.md).",
    ]
    return lines


def take(folder: Path) -> None:
    """Copy the results in a folder into benchmarks/results."""
    for file in folder.glob("*.json"):
        shutil.copyfile(file, RESULTS / file.name)
    if (folder / "quality.jpg").exists():
        shutil.copyfile(folder / "quality.jpg", HERE / "quality.jpg")
    if (metrics := folder / "evaluate" / "metrics.json").exists():
        rows, done = read_json(metrics), read_json(folder / "evaluate" / "done.json")
        result = {
            "set": "demo",
            "method": "demo",
            "seed": rows["pseudo"]["seed"],
            "weights": rows["pseudo"]["weights"],
            "versions": done["versions"],
            "device": cpu_name(),
            "date": date.today().isoformat(),
            "rows": [result_row(rows[masks]) for masks in ("pseudo", "segmenter")],
        }
        write_json(RESULTS / f"demo-{result['seed']}.json", result)


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
