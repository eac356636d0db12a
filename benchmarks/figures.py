"""Results of `quality.py` and what tables make of them: cells, and the line on machines."""

import platform
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from domains import SCORED

from tag2mask.files import read_json
from tag2mask.processes import cores

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
Rows = dict[int, Row]  # by seed


class Results:
    """All rows of all results."""

    def __init__(self, folder: Path = RESULTS):
        self.rows: list[Row] = []
        for file in sorted(folder.rglob("*.json")):
            head = read_json(file)
            if file.parent != folder:  # of another machine
                head["method"] += f" {file.parent.name}"
            self.rows += [{**head, **row} for row in head["rows"]]

    def find(self, **values: Any) -> Rows:
        """The rows with these values, by seed."""
        rows = [row for row in self.rows if all(row.get(k) == v for k, v in values.items())]
        return {row["seed"]: row for row in sorted(rows, key=lambda row: row["seed"])}

    def pseudo(self, method: str, masks: str) -> Rows:
        """Rows of a method's pseudo masks on all photos."""
        return self.find(set="all", method=method, masks=masks, split="train_seg", crf=True)

    def segmenter(self, method: str, source: str) -> Rows:
        """Rows of the segmenters that were trained on these masks."""
        return self.find(set="all", method=method, learned_from=source, split="val")


def figure(values: Iterable[float]) -> str:
    """Numbers in 0-1 to "mean ± standard deviation" in percent; "-" for none."""
    numbers = [100 * value for value in values]
    if not numbers:
        return "-"
    return f"{mean(numbers):.1f}" + (f" ± {stdev(numbers):.1f}" if len(numbers) > 1 else "")


def miou(rows: Rows) -> str:
    """The mIoU of rows, as a figure."""
    return figure(row["miou"] for row in rows.values())


def seeds(rows: Rows) -> str:
    """The seeds of rows, as a cell."""
    return ", ".join(map(str, rows)) or "-"


def ratio(rows: Rows, others: Rows) -> str:
    """Mean mIoU divided by that of `others`, over the seeds that both have from one machine."""
    both = [s for s in rows if s in others and rows[s]["device"] == others[s]["device"]]
    if not both:
        return "-"
    return f"{mean(rows[s]['miou'] for s in both) / mean(others[s]['miou'] for s in both):.2f}"


def per_class(rows: Rows) -> str:
    """Mean IoU of each class, as cells."""
    columns = [
        [100 * row["iou"][name] for row in rows.values() if name in row["iou"]] for name in SCORED
    ]
    return " | ".join(f"{mean(values):.0f}" if values else "-" for values in columns)


def cpu_name() -> str:
    """The cores of this machine, as results and tables name them."""
    return f"{cores()} CPU core{'s' * (cores() > 1)} ({platform.machine()})"


def provenance(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The line below a table: machines, versions and dates."""
    rows = list(rows)
    machines = set()
    for row in rows:
        versions = ", ".join(f"{name} {row['versions'][name]}" for name in ("torch", "tag2mask"))
        machines.add(f"{row['device']} ({versions})")
    dates = sorted({row["date"] for row in rows})
    period = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return ["", f"Measured on {' and '.join(sorted(machines))}, {period}."]


def rule(*columns: str) -> list[str]:
    """The first two lines of a table."""
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
