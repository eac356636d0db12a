"""What photos of nothing do: `python benchmarks/tiles.py magnetic-tiles OUT --seeds 0`.

`magnetic-tiles` holds train.csv, val.csv and masks/: photos of a factory, with five kinds of defect
and good tiles. Runs `tag2mask run` with the good tiles among the training photos and without them;
the good tiles among the validation photos judge both. Runs are OUT/with-0, OUT/without-0 ...; those
that are done are not made again. Writes its tables of results.md.
"""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from tables import figure, machine, rule, write

from tag2mask.api import run_config
from tag2mask.cli.arguments import parse_config
from tag2mask.files import read_json

KINDS = {
    "with": ("with the good tiles", []),
    "without": ("without them", ["--photos.untagged", "leave_out"]),
}


def run(options: argparse.Namespace, kind: str, seed: int) -> dict[str, Any]:
    """One run, made or read: its metrics."""
    folder, data = options.out / f"{kind}-{seed}", options.data
    metrics = folder / "evaluate" / "metrics.json"
    if not (metrics.exists() and (folder / "report" / "done.json").exists()):
        argv = ["--data", str(data / "train.csv"), "--val", str(data / "val.csv")]
        argv += ["--val-masks", str(data / "masks"), "--seed", str(seed), "--out", str(folder)]
        run_config(parse_config([*argv, *KINDS[kind][1], *options.settings]))
    rows: dict[str, Any] = read_json(metrics)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder with train.csv, val.csv and masks/")
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=[], help="for a quick test")
    options = parser.parse_args()
    results = {kind: {seed: run(options, kind, seed) for seed in options.seeds} for kind in KINDS}
    columns = ("pseudo masks", "segmenter", "tags found", "good tiles wrongly marked")
    lines = rule("training photos", "seeds", *columns)
    for kind, rows in results.items():
        finds = [row["finds"] for row in rows.values()]
        counts = [
            [sum(n[key] for n in f["tags"].values()) for key in ("found", "photos")] for f in finds
        ]
        cells = [
            figure(row["pseudo"]["miou"] for row in rows.values()),
            figure(row["segmenter"]["miou"] for row in rows.values()),
            figure(found / photos for found, photos in counts) + " %",
            figure(f["nothing"]["marked"] / f["nothing"]["photos"] for f in finds) + " %",
        ]
        seeds = ", ".join(map(str, rows))
        lines.append(f"| {KINDS[kind][0]} | {seeds} | {' | '.join(cells)} |")
    first = next(iter(results["with"].values()))
    names = list(first["segmenter"]["iou"])
    lines += ["", *rule("IoU", *names)]
    for key, what in (("pseudo", "pseudo masks"), ("segmenter", "segmenter")):
        for kind, rows in results.items():
            cells = [
                f"{100 * mean(row[key]['iou'][name] or 0 for row in rows.values()):.0f}"
                for name in names
            ]
            lines.append(f"| {what}, {KINDS[kind][0]} | {' | '.join(cells)} |")
    tags = first["finds"]["tags"]
    lines += ["", *rule("photos with the tag in which the segmenter finds it", *tags)]
    for kind, rows in results.items():
        cells = [
            f"{mean(row['finds']['tags'][name]['found'] for row in rows.values()):.0f} of "
            f"{tags[name]['photos']}"
            for name in tags
        ]
        lines.append(f"| {KINDS[kind][0]} | {' | '.join(cells)} |")
    seeds = " ".join(map(str, options.seeds))
    lines += ["", machine()]
    write("tiles", f"python benchmarks/tiles.py magnetic-tiles OUT --seeds {seeds}", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
