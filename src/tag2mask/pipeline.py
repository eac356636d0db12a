"""The one list of stages, and what decides whether a stage runs, goes on, or is skipped.

A stage reads what the stages before it wrote, writes into its own folder of the run and ends with done.json, which names what
went in. A stage whose done.json still matches is skipped; when something that went in has changed, the run says what, and the stage
starts anew; when a stage was cut short, it goes on from what lies in its folder.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tag2mask import stages
from tag2mask.errors import RunError
from tag2mask.runs import barrier, fingerprint, log, rank, read_json, remove_temporaries, start_log, versions, write_json
from tag2mask.stages import Job

Inputs = dict[str, Any]
# Of the segmenter; they touch its training only where it learns from masks of its own, and object_first not even then.
TEST_SETTINGS = {"test_scales", "flip", "object_first", "crf"}


@dataclass(frozen=True)
class Stage:
    """A stage: its folder, what goes in, and what it does."""

    folder: str
    inputs: Callable[[Job], Inputs]
    run: Callable[[Job], dict[str, Any]]  # returns counts for done.json


# ---- what goes in ----------------------------------------------------------------------------------------------------------------


def _clusters_inputs(job: Job) -> Inputs:
    settings = job.config.clusters
    file = {"file": fingerprint(Path(settings.source))} if settings.source.endswith(".json") and Path(settings.source).exists() else {}
    return {"tags": list(job.table.tags), "clusters": settings.model_dump(mode="json"), "seed": job.config.seed, **file}


def _train_inputs(job: Job) -> Inputs:
    return {
        "photos": job.table.fingerprint,
        "clusters.json": fingerprint(_need(job, "clusters/clusters.json", "clusters")),
        "classifier": job.config.classifier.model_dump(mode="json"),
        "seed": job.config.seed,
    }


def _masks_inputs(job: Job) -> Inputs:
    return {
        "photos": job.table.fingerprint,
        "clusters.json": fingerprint(_need(job, "clusters/clusters.json", "clusters")),
        "classifier/model.safetensors": fingerprint(_need(job, "classifier/model.safetensors", "train")),
        "masks": job.config.masks.model_dump(mode="json", exclude={"batch_size"}),
    }


def _segment_inputs(job: Job) -> Inputs:
    _need(job, "masks/done.json", "masks")
    settings = job.config.segmenter
    return {
        "photos": job.table.fingerprint,
        "masks": fingerprint(job.folder / "masks", "*.png"),
        "segmenter": settings.model_dump(mode="json", exclude=TEST_SETTINGS if settings.rounds == 1 else {"object_first"}),
        "seed": job.config.seed,
    }


def _evaluate_inputs(job: Job) -> Inputs:
    _need(job, "masks/done.json", "masks")
    truths = {
        name: truth and [[p.name, truth.path(p).stat().st_size] for p in truth.photos_with_truth] for name, truth in job.truths.items()
    }
    return {
        "masks": fingerprint(job.config.pseudo_masks(job.folder), "*.png"),
        "segmenter/model.safetensors": fingerprint(_need(job, "segmenter/model.safetensors", "segment")),
        "segmenter": job.config.segmenter.model_dump(mode="json", include=TEST_SETTINGS),
        "val": job.val and job.val.fingerprint,
        "truth": truths,
        "pseudo": [p.name for p in job.pseudo_photos],
        "evaluate": job.config.evaluate.model_dump(mode="json"),
    }


def _report_inputs(job: Job) -> Inputs:
    done = {stage: (job.folder / STAGES[stage].folder / "done.json") for stage in STAGES if stage != "report"}
    return {stage: fingerprint(path) if path.exists() else None for stage, path in done.items()} | {
        "report": job.config.report.model_dump(mode="json")
    }


def _need(job: Job, path: str, stage: str) -> Path:
    if not (job.folder / path).exists():
        raise RunError(f"{job.folder / path} is missing; run `tag2mask {stage} --out {job.folder}` first")
    return job.folder / path


STAGES: dict[str, Stage] = {
    "clusters": Stage("clusters", _clusters_inputs, stages.clusters),
    "train": Stage("classifier", _train_inputs, stages.train),
    "masks": Stage("masks", _masks_inputs, stages.masks),
    "segment": Stage("segmenter", _segment_inputs, stages.segment),
    "evaluate": Stage("evaluate", _evaluate_inputs, stages.evaluate),
    "report": Stage("report", _report_inputs, stages.report),
}


# ---- whether it is done ----------------------------------------------------------------------------------------------------------


def run_stages(job: Job, names: list[str]) -> None:
    """Run these stages of a job in order, skipping what is done."""
    start_log(job.folder, quiet=rank() > 0)
    for name in names:
        run_stage(job, name)


def is_done(job: Job, name: str) -> bool:
    """Whether what a stage would read is what its done.json says it has read."""
    done = _read(job.folder / STAGES[name].folder / "done.json")
    try:
        return done is not None and done["inputs"] == _plain(STAGES[name].inputs(job))
    except RunError:
        return False  # a stage before it has not run


def run_stage(job: Job, name: str) -> bool:
    """Run one stage unless its done.json matches what would go in; says whether it ran."""
    stage = STAGES[name]
    folder = job.folder / stage.folder
    inputs = _plain(stage.inputs(job))
    done, started = _read(folder / "done.json"), _read(folder / "started.json")
    barrier()
    if done and done["inputs"] == inputs:
        log.info(f"{name}: done already ({done['seconds']:.0f} s)")
        return False
    before = (done or started or {}).get("inputs")
    if before is not None and before != inputs:
        log.info(f"{name}: starts anew, because {'; '.join(_differences(before, inputs))}")
    elif started:
        log.info(f"{name}: goes on where it stopped")
    else:
        log.info(f"{name}: starts")
    if rank() == 0:
        if before != inputs:
            shutil.rmtree(folder, ignore_errors=True)
        remove_temporaries(folder)
        write_json(folder / "started.json", {"inputs": inputs})
    barrier()
    clock = time.monotonic()
    counts = stage.run(job)
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
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # until here a kill would cost the training
    barrier()
    log.info(f"{name}: done in {seconds:.0f} s")
    return True


def _plain(inputs: Inputs) -> Inputs:
    return json.loads(json.dumps(inputs))


def _read(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    """What changed, in words a person can act on."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [d for k in keys if old.get(k) != new.get(k) for d in _differences(old.get(k), new.get(k), f"{at}.{k}" if at else str(k))]
    short = [json.dumps(v, ensure_ascii=False) for v in (old, new)]
    return [
        f"{at} has changed"
        if max(map(len, short)) > 40 or at.endswith((".safetensors", ".json"))
        else f"{at} was {short[0]}, is {short[1]}"
    ]
