"""The metrics of a training to the geometry of an inline SVG."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 520.0, 190.0
NOT_LOSSES = ("step", "steps", "lr", "seconds_per_step")
POINTS = 400  # per line at most


@dataclass(frozen=True)
class Line:
    """One part of the loss: SVG paths of its values and of their running mean."""

    name: str
    raw: str
    smooth: str
    last: float


@dataclass(frozen=True)
class Chart:
    """Lines over training steps, and the ticks of both axes as (position, label)."""

    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    steps: int
    seconds_per_step: float
    width: float = WIDTH
    height: float = HEIGHT


def read_chart(path: Path) -> Chart | None:
    """metrics.jsonl to a chart; None if the file is missing or has fewer than two lines.

    A part of the loss that is always 0 is turned off; it is left out.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    if len(rows) < 2:
        return None
    names = [key for key in rows[-1] if key not in NOT_LOSSES and any(r.get(key) for r in rows)]
    names.sort(key=lambda name: name != "loss")
    steps = rows[-1]["step"]
    high = max(row[name] for row in rows for name in names if name in row)
    y_ticks = _ticks(high)
    top = max(high, y_ticks[-1])

    def line(name: str) -> Line:
        points = np.array([(row["step"], row[name]) for row in rows if name in row], float)
        mean = _running_mean(points[:, 1])
        smooth = np.stack([points[:, 0], mean], 1)
        return Line(name, draw(points), draw(smooth), float(mean[-1]))

    def draw(points: np.ndarray) -> str:
        thin = points[:: max(1, len(points) // POINTS)]
        places = thin / (steps, -top) * (WIDTH, HEIGHT) + (0, HEIGHT)
        return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)

    return Chart(
        [line(name) for name in names],
        [(WIDTH * step / steps, f"{step:g}") for step in _ticks(steps)],
        [(HEIGHT * (1 - y / top), f"{y:g}") for y in y_ticks],
        steps,
        sorted(row["seconds_per_step"] for row in rows)[len(rows) // 2],
    )


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of each value and its neighbors, over 1/20 of the training; less at both ends."""
    place = np.arange(len(values))
    near = np.minimum(len(values) // 40, np.minimum(place, place[::-1]))
    sums = np.concatenate([[0], np.cumsum(values)])
    return (sums[place + near + 1] - sums[place - near]) / (2 * near + 1)


def _ticks(high: float) -> list[float]:
    """0 and three to five round numbers up to `high`."""
    if high <= 0:
        return [0.0]
    unit = 10.0 ** math.floor(math.log10(high))
    step = next(unit * factor for factor in (0.2, 0.25, 0.5, 1, 2) if high / (unit * factor) <= 5.5)
    return [round(step * i, 10) for i in range(int(high / step + 1e-9) + 1)]
