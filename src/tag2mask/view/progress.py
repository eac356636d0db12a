"""How far a run is: its stages, its losses, and whether a command works in it now."""

import re
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tag2mask.config import STAGE_NAMES
from tag2mask.report.curves import read_chart
from tag2mask.runs.folder import CHECKPOINT, PREDICTIONS, STARTED, TRAINING_METRICS, RunFolder
from tag2mask.view.gallery import stamp

QUIET = 120  # seconds without a new file after which an unfinished stage counts as stopped
LAST_LINES = 4000  # bytes of a training's metrics that are read
TRAINED = ("classifier", "segmenter")
STEP = re.compile(r'"step": (\d+), "steps": (\d+)')


def stages(files: RunFolder, photos: int, val: int) -> list[dict[str, Any]]:
    """The stages in order: name, "state" (done, running, stopped, waiting), and, if known, "share"
    of the work that is done and "seconds" it took. photos, val: numbers of photos."""
    rows = []
    for name in STAGE_NAMES:
        row: dict[str, Any] = {"name": name, "state": "waiting"}
        part = files.part(name)
        if (part / STARTED).exists():
            row["state"] = "running" if _changed(files, name) < QUIET else "stopped"
            row["share"] = _share(part, name, {"masks": photos, "evaluate": val})
        elif done := _done(files, name):
            row |= {"state": "done", "seconds": done.get("seconds")}
        rows.append(row)
    return rows


def _done(files: RunFolder, name: str) -> dict[str, Any] | None:
    with suppress(Exception):  # the folder may be replaced just now
        return files.done(name)
    return None


def running(files: RunFolder) -> bool:
    """Whether a command seems to work in the run folder now."""
    parts = (name for name in STAGE_NAMES if (files.part(name) / STARTED).exists())
    return any(_changed(files, name) < QUIET for name in parts)


def curves(files: RunFolder) -> dict[str, Any]:
    """The losses of both trainings so far, as the report draws them: stage -> chart or None."""
    charts = {}
    for name in TRAINED:
        newest = files.part(name) / TRAINING_METRICS
        path = newest if newest.exists() else files.result(name, TRAINING_METRICS)
        chart = None
        with suppress(ValueError, OSError, KeyError):  # its last line is being written
            chart = read_chart(path)
        charts[name] = asdict(chart) if chart else None
    return charts


def _changed(files: RunFolder, name: str) -> float:
    """Seconds since a stage wrote something."""
    part = files.part(name)
    places = (
        *(part, part / STARTED, part / TRAINING_METRICS, part / CHECKPOINT, part / PREDICTIONS),
        files.path / "log.txt",
    )
    return time.time() - max(map(stamp, places)) / 1e9


def _share(part: Path, name: str, masks: dict[str, int]) -> float | None:
    """How much of its work a stage has done, in 0-1; None if that is not known."""
    if name in masks:
        count = sum(1 for path in part.rglob("*.png") if not path.name.startswith("."))
        return min(1.0, count / masks[name]) if masks[name] else None
    if name in TRAINED:
        lines = STEP.findall(_tail(part / TRAINING_METRICS))
        return int(lines[-1][0]) / int(lines[-1][1]) if lines else 0.0
    return None


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LAST_LINES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
