"""Training metrics to the geometry of an inline SVG."""

import json
import math
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

WIDTH, HEIGHT = 520.0, 190.0
NOT_LOSSES = ("step", "lr", "seconds_per_step")
POINTS = 400  # drawn of one line at most


@dataclass(frozen=True)
class Line:
    """One part of the loss: its values as a faint path, their running mean as a firm one."""

    name: str
    raw: str
    smooth: str
    last: float


@dataclass(frozen=True)
class Chart:
    """Lines over training steps, and where the ticks of both axes are."""

    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    steps: int
    seconds_per_step: float
    width: float = WIDTH
    height: float = HEIGHT


def read_chart(path: Path) -> Chart | None:
    """metrics.jsonl to a chart; None if it is missing or has fewer than two lines."""
    rows = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.exists()
        else []
    )
    if len(rows) < 2:
        return None
    names = [
        key for key in rows[-1] if key not in NOT_LOSSES and any(row.get(key) for row in rows)
    ]  # a part that is always 0 is off
    names.sort(key=lambda name: name != "loss")
    top_step = rows[-1]["step"]
    high = max(row[name] for row in rows for name in names if name in row)
    y_ticks = _ticks(high)
    top = max(high, y_ticks[-1])

    def path_of(values: list[tuple[int, float]]) -> str:
        thin = values[:: max(1, len(values) // POINTS)]
        return "M" + "L".join(
            f"{WIDTH * step / top_step:.1f},{HEIGHT * (1 - value / top):.1f}"
            for step, value in thin
        )

    lines = []
    for name in names:
        values = [(row["step"], float(row[name])) for row in rows if name in row]
        smooth = _running_mean(values)
        lines.append(Line(name, path_of(values), path_of(smooth), smooth[-1][1]))
    speeds = sorted(row["seconds_per_step"] for row in rows)
    x_ticks = [(WIDTH * step / top_step, f"{step:g}") for step in _ticks(top_step)]
    return Chart(
        lines,
        x_ticks,
        [(HEIGHT * (1 - y / top), f"{y:g}") for y in y_ticks],
        top_step,
        speeds[len(speeds) // 2],
    )


def _running_mean(values: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Each value's mean with its neighbours, a twentieth of the training around it; fewer at both ends, so that nothing lags."""
    reach = len(values) // 40
    sums = [0.0, *accumulate(value for _, value in values)]
    out = []
    for i, (step, _) in enumerate(values):
        near = min(reach, i, len(values) - 1 - i)
        out.append((step, (sums[i + near + 1] - sums[i - near]) / (2 * near + 1)))
    return out


def _ticks(high: float) -> list[float]:
    """0 and some three to five round numbers up to `high`."""
    if high <= 0:
        return [0.0]
    unit = 10.0 ** math.floor(math.log10(high))
    step = next(unit * factor for factor in (0.2, 0.25, 0.5, 1, 2) if high / (unit * factor) <= 5.5)
    return [round(step * i, 10) for i in range(int(high / step + 1e-9) + 1)]
