"""Figures as a terminal table."""

import numpy as np
from rich.table import Table as Grid
from rich.text import Text

from tag2mask.evaluate.confusion import Result


def result_table(result: Result, title: str) -> Grid:
    """Per-class figures in per cent, the mean last, and below it what the mean does not show. Print with rich."""
    columns = {"IoU": result.iou, "precision": result.precision, "recall": result.recall}
    if result.boundary_iou is not None:
        columns["boundary IoU"] = result.boundary_iou
    grid = Grid(
        title=title, show_footer=True, caption=Text(_caption(result)), caption_justify="left"
    )
    grid.add_column("class", footer=f"mean of {int(result.in_mean.sum())}")
    for name, values in columns.items():
        grid.add_column(name, footer=_percent(result.mean(values)), justify="right")
    true = result.matrix.sum(1)
    share = true / max(int(true.sum()), 1)
    grid.add_column("of all pixels", justify="right")
    for i, name in enumerate(result.classes):
        said = int(result.matrix[:, i].sum())
        if not true[i] and not said:
            continue
        style = None if result.in_mean[i] else "dim"
        grid.add_row(
            Text(name),
            *(_percent(values[i]) for values in columns.values()),
            _percent(share[i]),
            style=style,
        )
    return grid


def _caption(result: Result) -> str:
    absent = [
        name for name, seen in zip(result.classes, result.matrix.sum(1), strict=True) if not seen
    ]
    lines = [f"{result.images} images"]
    if absent:
        lines.append(f"not in the truth, so in no mean: {', '.join(absent)}")
    if result.predicted_ignore:
        lines.append(
            f"left at 255 by the prediction, counted as wrong: {_percent(result.predicted_ignore)} % of the pixels"
        )
    lines += [
        f"{_percent(share)} % of {true} is taken for {said}"
        for true, said, share in result.confusions(3)
    ]
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"
