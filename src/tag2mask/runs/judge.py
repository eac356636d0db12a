"""What the tags say about masks and the segmenter: figures, warnings, and refusal."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.errors import TrainingError
from tag2mask.evaluate.advice import mask_doubts, refusal, segmenter_doubts
from tag2mask.evaluate.finds import count_finds, finds_text
from tag2mask.evaluate.objects import count_peaks, peaks_text
from tag2mask.evaluate.show import finds_table
from tag2mask.files import read_json, write_json
from tag2mask.photos.table import Photo, Table
from tag2mask.processes import rank
from tag2mask.progress import console, log
from tag2mask.runs.folder import FINDS, SAMPLE
from tag2mask.runs.run import Run

MOST_DOUBTS = 20  # warnings of one stage in the log

Finds = dict[str, Any]  # the entry "finds" of metrics.json


def judge_masks(
    run: Run, folder: Path, small: Sequence[str], before: Finds | None = None
) -> Finds | None:
    """Pseudo masks of all training photos in `folder` to their finds, logged with warnings; None if
    no photo has a tag. `small`: the tags whose things are small. before: the finds of the masks of
    the round before, whose warnings are not logged again."""
    from tag2mask.masks import read_score_maps

    # Masks of photos of nothing are empty by their making.
    tagged = replace(run.table, photos=run.table.not_nothing)
    finds = count_finds(tagged, folder, partial(read_score_maps, folder))
    if finds:
        finds["doubts"] = mask_doubts(finds, run.config, small, new=bool(before))
        empty = "{empty} of {photos} are all background".format(**finds["tagged"])
        log.info(f"masks: {empty}")
        known = before["doubts"] if before else ()
        title = f"{'new ' * bool(before)}pseudo masks, by the tags of their photos"
        _tell(title, finds, [doubt for doubt in finds["doubts"] if doubt not in known])
    return finds


def judge_segmenter(run: Run, sample: Table, folder: Path) -> None:
    """Masks of some training photos in `folder`/sample to `folder`/finds.json, logged with
    warnings. Raises TrainingError if the segmenter is of no use."""
    masks = folder / SAMPLE
    if not (finds := count_finds(sample, masks)):
        return  # all tags are unknown
    finds |= {"split": "train", "doubts": segmenter_doubts(finds)}
    if rank() == 0:
        write_json(folder / FINDS, finds)
        _tell(f"segmenter, by the tags of {len(sample)} training photos", finds)
    if reason := refusal(finds, run.config):
        raise TrainingError(f"{reason}. Its masks of these photos are in {masks}")


def judge_predictions(run: Run, predictions: Path) -> Finds | None:
    """The segmenter's masks of the validation photos to their finds, logged with warnings; without
    tags of validation photos, its finds on the training photos."""
    finds = count_finds(run.val, predictions) if run.val else None
    if finds:
        finds |= {"split": "val", "doubts": segmenter_doubts(finds)}
        _tell("segmenter, by the tags of the validation photos", finds)
        return finds
    tried = run.files.result("segmenter", FINDS)
    return read_json(tried) if tried.exists() else None


def judge_peaks(
    run: Run, photos: Sequence[Photo], truth: Callable[[Photo], np.ndarray]
) -> dict[str, dict[str, int]]:
    """Training photos with true masks to how often the evidence is highest on the object; logged.

    It tells a classifier that knows the place from masks that show the extent: for a small thing,
    the place is what counts.
    """
    from tag2mask.masks import read_score_maps

    maps = partial(read_score_maps, run.files.need("masks"))
    if peaks := count_peaks(photos, run.table.classes, maps, truth):
        log.info(f"pseudo masks: {peaks_text(peaks)}")
    return peaks


def _tell(title: str, finds: Finds, doubts: Sequence[str] | None = None) -> None:
    """Print finds and log them, with their warnings or only `doubts`."""
    console.print(finds_table(finds, title))
    log.info(f"{title}: {finds_text(finds)}")
    told: Sequence[str] = finds["doubts"] if doubts is None else doubts
    for doubt in told[:MOST_DOUBTS]:
        log.info(f"warning: {doubt}")
    if len(told) > MOST_DOUBTS:
        log.info(f"and {len(told) - MOST_DOUBTS} more warnings: they are in the report")
