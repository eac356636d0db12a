"""Metrics as a table for the terminal."""

from typing import Any

import numpy as np
from rich.table import Table as Grid
from rich.text import Text

from tag2mask.evaluate.confusion import Result
from tag2mask.evaluate.objects import by_size
from tag2mask.photos.areas import area_text

MOST_ROWS = 50  # tags in a table of finds


def result_table(result: Result, title: str) -> Grid:
    """Metrics of each class and their mean, in percent, as a table for `rich`.

    The caption adds absent classes, predicted 255, and the largest confusions.
    """
    columns = {"IoU": result.iou, "precision": result.precision, "recall": result.recall}
    if result.boundary_iou is not None:
        columns["boundary IoU"] = result.boundary_iou
    caption = Text(_caption(result))
    grid = Grid(title=title, show_footer=True, caption=caption, caption_justify="left")
    grid.add_column("class", footer=f"mean of {int(result.in_mean.sum())}")
    for name, values in columns.items():
        grid.add_column(name, footer=_percent(result.mean(values)), justify="right")
    grid.add_column("of all pixels", justify="right")
    true, predicted = result.matrix.sum(1), result.matrix.sum(0)
    share = true / max(int(true.sum()), 1)
    for i, name in enumerate(result.classes):
        if true[i] or predicted[i]:
            cells = [_percent(values[i]) for values in (*columns.values(), share)]
            grid.add_row(Text(name), *cells, style=None if result.in_mean[i] else "dim")
    return grid


def finds_table(finds: dict[str, Any], title: str) -> Grid:
    """The entry "finds" of metrics.json as a table for `rich`, the least found tags first."""
    grid = Grid(title=title)
    grid.add_column("tag", min_width=8)
    marks = ["also in\nothers"] * any(n["marked"] for n in finds["tags"].values())
    area = "area,\nmedian (range)"  # two lines: terminals of 60 to 80 characters show the tags too
    for name in ("found\nin", *marks, area, "covers\n> 90 %"):
        grid.add_column(name, justify="right", no_wrap=name != area)
    rows = sorted(finds["tags"].items(), key=lambda item: item[1]["found"] / item[1]["photos"])
    for tag, n in rows[:MOST_ROWS]:
        marked = [f"{n['marked']} of {n['others']}"] if marks else []
        covered = n["covered"] + n["covered_others"]
        found = f"{n['found']} of {n['photos']}"
        areas = area_text(n["area"]) if n["area"] else "-"
        grid.add_row(Text(tag), found, *marked, areas, str(covered or ""))
    if (more := len(rows) - MOST_ROWS) > 0:
        grid.caption = f"and {more} more"
    return grid


def _caption(result: Result) -> str:
    absent = [result.classes[i] for i in np.flatnonzero(result.matrix.sum(1) == 0)]
    lines = [f"{result.images} images"]
    if absent:
        lines.append(f"in no true mask, so in no mean: {', '.join(absent)}")
    if result.predicted_ignore:
        share = _percent(result.predicted_ignore)
        lines.append(f"predicted 255 (ignore), counted as wrong: {share} % of the pixels")
    lines += [
        f"{_percent(share)} % of {true} is taken for {predicted}"
        for true, predicted, share in result.confusions(3)
    ]
    for size, row in by_size(result.objects).items() if result.objects is not None else ():
        recall, iou = _percent(row["recall"]), _percent(row["iou"])
        lines.append(f"{row['objects']} objects of {size} of a photo: recall {recall}, IoU {iou}")
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"
