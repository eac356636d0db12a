"""How far a run is: its stages, its losses, and whether a command works in it now."""

import os
import re
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tag2mask.config import STAGE_NAMES, SegmenterSettings
from tag2mask.photos.masks import NEW_MASKS
from tag2mask.report.curves import read_chart
from tag2mask.runs.folder import STARTED, TRAINING_METRICS, RunFolder
from tag2mask.view.gallery import stamp

QUIET = 120  # seconds without a new file after which an unfinished stage counts as stopped
LAST_LINES = 4000  # bytes of a training's metrics that are read
TRAINED = ("classifier", "segmenter")
# A later round of the segmenter, and new masks of all photos: about this share of the time of the
# first round.
LATER_ROUND, MAKING_MASKS = 0.25, 0.25
STEP = re.compile(r'"step": (\d+), "steps": (\d+)')


def stages(
    files: RunFolder, settings: SegmenterSettings, photos: int, val: int
) -> list[dict[str, Any]]:
    """The stages in order: name, "state" (done, running, stopped, waiting), and, if known, "share"
    of the work that is done and "seconds" it took. photos, val: numbers of photos."""
    rows = []
    for name in STAGE_NAMES:
        row: dict[str, Any] = {"name": name, "state": "waiting"}
        part = files.part(name)
        if (part / STARTED).exists():
            row["state"] = "running" if _changed(files, name) < QUIET else "stopped"
            if name == "segmenter":
                row["share"] = _segmenter_share(part, settings, photos)
            elif name == "classifier":
                row["share"] = _trained(part) or 0.0
            elif total := {"masks": photos, "evaluate": val}.get(name):
                row["share"] = _made(part, total) or 0.0
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
    """The losses of the stages that train, as the report draws them: stage -> chart or None. Of
    several rounds, those of the newest."""
    charts = {}
    for name in TRAINED:
        chart, last = None, files.result(name, TRAINING_METRICS)
        with suppress(ValueError, OSError, KeyError):  # its last line is being written
            chart = read_chart(max(files.part(name).rglob(last.name), key=stamp, default=last))
        charts[name] = asdict(chart) if chart else None
    return charts


def _changed(files: RunFolder, name: str) -> float:
    """Seconds since a stage wrote something."""
    folders = (Path(folder) for folder, *_ in os.walk(files.part(name)))
    places = (path for f in folders for path in (f, f / STARTED, f / TRAINING_METRICS))
    return time.time() - max(map(stamp, (*places, files.path / "log.txt"))) / 1e9


def _made(folder: Path, photos: int) -> float | None:
    """The share of the photos that have a mask in a folder; None before the first."""
    count = sum(1 for path in folder.rglob("*.png") if not path.name.startswith("."))
    return min(1.0, count / photos) if count else None


def _trained(folder: Path) -> float | None:
    """The share of the steps that a training has done; None before the first that it notes."""
    lines = STEP.findall(_tail(folder / TRAINING_METRICS))
    return int(lines[-1][0]) / int(lines[-1][1]) if lines else None


def _segmenter_share(part: Path, settings: SegmenterSettings, photos: int) -> float:
    """The share of all rounds and new masks that is done."""
    done = total = 0.0
    for number in range(1, settings.rounds + 1):
        place = part / f"round-{number}" if number < settings.rounds else part
        parts = [(1 if number == 1 else LATER_ROUND, _trained(place))]
        if number < settings.rounds or settings.new_masks:
            parts.append((MAKING_MASKS, _made(place / NEW_MASKS, photos)))
        for length, share in parts:
            if share is not None:  # all before it is done
                done = total + length * share
            total += length
    return done / total


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LAST_LINES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
