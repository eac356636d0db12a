"""The one list of stages, and what decides whether a stage runs, goes on, or is skipped.

A stage reads what the stages before it wrote, writes into its own folder of the run and ends with done.json, which names what
went in. A stage whose done.json still matches is skipped; when something that went in has changed, the run says what, and the stage
starts anew; when a stage was cut short, it goes on from what lies in its folder. What a finished stage wrote is kept aside until the
new is done: it comes back if that cannot even start, or when what goes in is as it was.
"""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tag2mask.config import Config, Settings
from tag2mask.errors import RunError
from tag2mask.files import read_json, remove_temporaries, versions, write_json, writing
from tag2mask.processes import barrier, rank
from tag2mask.progress import log
from tag2mask.runs import stages
from tag2mask.runs.folder import Job

Inputs = dict[str, Any]
CONFIG = Config()
# Of the segmenter; they touch its training only where it learns from masks of its own, and object_first not even then.
TEST_SETTINGS = {"test_scales", "flip", "object_first", "crf"}


@dataclass(frozen=True)
class Stage:
    """A stage: its folder, what goes in, and what it does."""

    folder: str
    inputs: Callable[[Job], Inputs]
    run: Callable[[Job], dict[str, Any]]  # returns counts for done.json
    whole: Callable[[Job], bool] = lambda job: (
        True
    )  # whether what a finished stage wrote is still there
    carries: str = ""  # a file that a new start takes over from the one before: it was paid for
    feeds: bool = True  # whether later stages read what it wrote


# ---- what goes in ----------------------------------------------------------------------------------------------------------------


def _clusters_inputs(job: Job) -> Inputs:
    return {
        "tags": list(job.table.tags),
        "clusters": _settings(job, job.config.clusters, exclude={"timeout"}),
        "seed": job.config.seed,
    }


def _train_inputs(job: Job) -> Inputs:
    return {
        "photos": job.table.fingerprint,
        "clusters.json": job.fingerprint(_need(job, "clusters/clusters.json", "clusters")),
        "classifier": _settings(job, job.config.classifier),
        "seed": job.config.seed,
    }


def _masks_inputs(job: Job) -> Inputs:
    return {
        "photos": job.table.fingerprint,
        "clusters.json": job.fingerprint(_need(job, "clusters/clusters.json", "clusters")),
        "classifier/model.safetensors": job.fingerprint(
            _need(job, "classifier/model.safetensors", "train")
        ),
        "masks": job.config.masks.model_dump(mode="json", exclude={"batch_size"}),
    }


def _segment_inputs(job: Job) -> Inputs:
    _need(job, "masks/done.json", "masks")
    settings = job.config.segmenter
    return {
        "photos": job.table.fingerprint,
        "masks": job.fingerprint(job.folder / "masks", "*.png"),
        "segmenter": _settings(
            job, settings, exclude=TEST_SETTINGS if settings.rounds == 1 else {"object_first"}
        ),
        "seed": job.config.seed,
    }


def _evaluate_inputs(job: Job) -> Inputs:
    _need(job, "masks/done.json", "masks")
    truths = {
        name: truth
        and [[photo.name, job.fingerprint(truth.path(photo))] for photo in truth.photos_with_truth]
        for name, truth in job.truths.items()
    }
    return {
        "masks": job.fingerprint(job.config.pseudo_masks(job.folder), "*.png"),
        "segmenter/model.safetensors": job.fingerprint(
            _need(job, "segmenter/model.safetensors", "segment")
        ),
        "segmenter": job.config.segmenter.model_dump(mode="json", include=TEST_SETTINGS),
        "val": job.val and job.val.fingerprint,
        "truth": truths,
        "numbering": job.config.photos.numbering,
        "pseudo": [p.name for p in job.pseudo_photos],
        "evaluate": job.config.evaluate.model_dump(mode="json"),
    }


def _report_inputs(job: Job) -> Inputs:
    done = {
        name: _read(job.folder / stage.folder / "done.json")
        for name, stage in STAGES.items()
        if stage.feeds
    }
    return {name: _digest(file) for name, file in done.items()} | {
        "report": job.config.report.model_dump(mode="json")
    }


def _digest(done: Inputs | None) -> str | None:
    """Hash of what a done.json says of a result; how long that took is no part of it: a result made again may be the same."""
    if done is None:
        return None
    kept = {key: value for key, value in done.items() if key not in ("seconds", "resumed")}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


def _has(path: str) -> Callable[[Job], bool]:
    return lambda job: (job.folder / path).exists()


def _has_every_mask(job: Job) -> bool:
    return all(
        (job.folder / "masks" / f"{photo.name}{kind}").exists()
        for photo in job.table.photos
        for kind in (".png", ".npz")
    )


def _settings(job: Job, settings: Settings, exclude: set[str] | None = None) -> Inputs:
    """Settings, and the contents of those that name files, wherever these lie now."""
    values = settings.model_dump(mode="json", exclude=exclude)
    files = {
        key: Path(value)
        for key, value in values.items()
        if isinstance(value, str) and Path(value).is_absolute()
    }
    return values | {
        key: f"{file.name} {job.fingerprint(file)}" for key, file in files.items() if file.is_file()
    }


def _need(job: Job, path: str, stage: str) -> Path:
    if not (job.folder / path).exists():
        raise RunError(
            f"{job.folder / path} is missing; run `tag2mask {stage} --out {job.folder}` first"
        )
    return job.folder / path


STAGES: dict[str, Stage] = {
    "check": Stage(
        "check", stages.check_state, stages.check, _has("check/findings.json"), feeds=False
    ),
    "clusters": Stage(
        "clusters",
        _clusters_inputs,
        stages.clusters,
        _has("clusters/clusters.json"),
        "clusters.transcript.jsonl",
    ),
    "train": Stage("classifier", _train_inputs, stages.train, _has("classifier/model.safetensors")),
    "masks": Stage("masks", _masks_inputs, stages.masks, _has_every_mask),
    "segment": Stage(
        "segmenter", _segment_inputs, stages.segment, _has("segmenter/model.safetensors")
    ),
    "evaluate": Stage("evaluate", _evaluate_inputs, stages.evaluate, _has("evaluate/metrics.json")),
    "report": Stage(
        "report", _report_inputs, stages.report, _has("report/index.html"), feeds=False
    ),
}


# ---- whether it is done ----------------------------------------------------------------------------------------------------------


def require_own_folders(job: Job, names: Sequence[str]) -> None:
    """Raises RunError if the folder of one of these stages is a link, or holds what no run wrote."""
    for folder in (job.folder / STAGES[name].folder for name in names):
        if folder.is_symlink():
            raise RunError(
                f"{folder} is a link, and a stage renames its folder; link the whole of {job.folder} instead"
            )
        own = (folder / "started.json").exists() or (folder / "done.json").exists()
        if not own and any(not path.name.startswith(".") for path in folder.glob("*")):
            raise RunError(
                f"{folder} holds files that no run wrote, and this run would write there; give another --out"
            )


def run_stages(job: Job, names: Sequence[str], undo: Callable[[], object] | None = None) -> None:
    """Run these stages of a job in order, skipping what is done. `undo` is called if none of them could even start.

    Raises:
        RunError: a stage that is not among them has been done with something else than it would now read.
    """
    barrier()
    for name in names:
        for earlier in list(STAGES)[: list(STAGES).index(name)]:
            if (
                STAGES[earlier].feeds
                and earlier not in names
                and (changed := _changed(job, earlier))
            ):
                raise RunError(
                    f"{earlier} was done otherwise ({changed}); run `tag2mask {earlier} --out {job.folder}` first, or `run`"
                )
        if run_stage(job, name, undo):
            undo = None


def run_stage(job: Job, name: str, undo: Callable[[], object] | None = None) -> bool:
    """Run one stage unless its done.json matches what would go in; says whether it ran. `undo` is called if it could not even start."""
    stage = STAGES[name]
    folder, aside = job.folder / stage.folder, job.folder / f".{stage.folder}.old"
    kept = _read(aside / "done.json")
    barrier()
    if rank() == 0 and kept and kept["inputs"] == _inputs(job, name, kept):
        _put_back(aside, folder)
        log.info(f"{name}: as it was before the last change, which was not done yet")
    barrier()
    done, started, carried = _read(folder / "done.json"), _read(folder / "started.json"), b""
    before = (done or started or {}).get("inputs")
    inputs = _inputs(job, name, done or started)
    barrier()
    if done and before == inputs and stage.whole(job):
        log.info(f"{name}: done already ({done['seconds']:.0f} s){_findings(done, folder)}")
        return False
    if before is not None and before != inputs:
        log.info(f"{name}: starts anew, because {'; '.join(_differences(before, inputs))}")
    elif started:
        log.info(f"{name}: goes on where it stopped")
    else:
        log.info(f"{name}: starts")
    if rank() == 0:
        if before != inputs:
            carried = _content(folder / stage.carries)
            if done:
                _remove(aside)
                folder.rename(aside)
            else:
                _remove(folder)
            if carried:
                with writing(folder / stage.carries) as temporary:
                    temporary.write_bytes(carried)
        remove_temporaries(folder)
        write_json(folder / "started.json", {"inputs": inputs})
    barrier()
    clock = time.monotonic()
    try:
        counts = stage.run(job)
    except BaseException:
        if (
            rank() == 0
            and {path.name for path in folder.iterdir()} <= {"started.json", stage.carries}
            and _content(folder / stage.carries) == carried
        ):
            if aside.exists():
                _put_back(aside, folder)
                log.info(f"{name}: could not start; what {folder} held before is back")
            if undo:
                undo()
        raise
    seconds = time.monotonic() - clock
    barrier()
    if rank() == 0:
        write_json(
            folder / "done.json",
            {
                "inputs": inputs,
                "counts": counts,
                "seconds": round(seconds, 1),
                "resumed": started is not None and before == inputs,
                "versions": versions(),
            },
        )
        shutil.rmtree(
            folder / "checkpoint", ignore_errors=True
        )  # until here a kill would cost the training
        _remove(aside)
    barrier()
    log.info(f"{name}: done in {seconds:.0f} s")
    return True


def _findings(done: Inputs, folder: Path) -> str:
    """What a check that is done has found, in words."""
    return (
        f": {said}, see {folder / 'findings.json'}"
        if (said := done["counts"].get("findings"))
        else ""
    )


def _inputs(job: Job, name: str, done: Inputs | None) -> Inputs:
    """What a stage would read now; files that are gone since it was done or started count as what they were."""
    now: Inputs = json.loads(json.dumps(STAGES[name].inputs(job)))
    return _settled(now, done["inputs"]) if done else now


def _settled(now: Any, then: Any, defaults: Any = CONFIG) -> Any:
    if (
        isinstance(defaults, Settings) and isinstance(now, dict) and isinstance(then, dict)
    ):  # settings that are younger than `then`
        old = defaults.model_dump(mode="json")
        now = {
            key: value
            for key, value in now.items()
            if key in then or key not in old or value != old[key]
        }
    if isinstance(now, dict) and isinstance(then, dict):
        return {
            key: _settled(value, then.get(key), getattr(defaults, key, None))
            for key, value in now.items()
        }
    gone = (
        isinstance(now, str)
        and Path(now).is_absolute()
        and isinstance(then, str)
        and then.rpartition(" ")[0] == Path(now).name
    )
    return then if gone else now


def _changed(job: Job, name: str) -> str:
    """What a finished stage would now read otherwise, in words; nothing if it is as it was, or cannot be said."""
    done = _read(job.folder / STAGES[name].folder / "done.json")
    try:
        return "; ".join(_differences(done["inputs"], _inputs(job, name, done))) if done else ""
    except RunError:
        return ""  # something that it read is gone


def _put_back(aside: Path, folder: Path) -> None:
    _remove(folder)
    aside.rename(folder)


def _remove(folder: Path) -> None:
    """Delete a folder; a kill on the way leaves none that looks like a stage's."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    if folder.exists():
        folder.rename(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _read(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    """What changed, in words a person can act on."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [
            d
            for k in keys
            if old.get(k) != new.get(k)
            for d in _differences(old.get(k), new.get(k), f"{at}.{k}" if at else str(k))
        ]
    short = [json.dumps(v, ensure_ascii=False) for v in (old, new)]
    hashes = all(isinstance(v, str) and re.fullmatch("[0-9a-f]{16}", v) for v in (old, new))
    return [
        f"{at} has changed"
        if hashes or max(map(len, short)) > 40 or at.endswith((".safetensors", ".json"))
        else f"{at} was {short[0]}, is {short[1]}"
    ]
