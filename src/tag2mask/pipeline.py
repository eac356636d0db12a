"""The one list of stages, and what decides whether a stage runs, goes on, or is skipped.

A stage reads what the stages before it wrote, writes into its own folder of the run and ends with done.json, which names what
went in. A stage whose done.json still matches is skipped; when something that went in has changed, the run says what, and the stage
starts anew; when a stage was cut short, it goes on from what lies in its folder. What a finished stage wrote is kept aside until the
new is done, and comes back if that cannot even start.
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
    whole: Callable[[Job], bool] = lambda job: True  # whether what a finished stage wrote is still there


# ---- what goes in ----------------------------------------------------------------------------------------------------------------


def _clusters_inputs(job: Job) -> Inputs:
    settings = job.config.clusters
    files = _contents(file=settings.source, prompts=settings.prompts)
    return {"tags": list(job.table.tags), "clusters": settings.model_dump(mode="json"), "seed": job.config.seed, **files}


def _train_inputs(job: Job) -> Inputs:
    return {
        "photos": job.table.fingerprint,
        "clusters.json": fingerprint(_need(job, "clusters/clusters.json", "clusters")),
        "classifier": job.config.classifier.model_dump(mode="json"),
        "seed": job.config.seed,
        **_contents(weights=job.config.classifier.weights),
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
        **_contents(weights=settings.weights),
    }


def _evaluate_inputs(job: Job) -> Inputs:
    _need(job, "masks/done.json", "masks")
    truths = {name: truth and [[p.name, fingerprint(truth.path(p))] for p in truth.photos_with_truth] for name, truth in job.truths.items()}
    return {
        "masks": fingerprint(job.config.pseudo_masks(job.folder), "*.png"),
        "segmenter/model.safetensors": fingerprint(_need(job, "segmenter/model.safetensors", "segment")),
        "segmenter": job.config.segmenter.model_dump(mode="json", include=TEST_SETTINGS),
        "val": job.val and job.val.fingerprint,
        "truth": truths,
        "numbering": job.config.photos.numbering,
        "pseudo": [p.name for p in job.pseudo_photos],
        "evaluate": job.config.evaluate.model_dump(mode="json"),
    }


def _report_inputs(job: Job) -> Inputs:
    done = {stage: (job.folder / STAGES[stage].folder / "done.json") for stage in STAGES if stage != "report"}
    return {stage: fingerprint(path) if path.exists() else None for stage, path in done.items()} | {
        "report": job.config.report.model_dump(mode="json")
    }


def _has(path: str) -> Callable[[Job], bool]:
    return lambda job: (job.folder / path).exists()


def _has_every_mask(job: Job) -> bool:
    return all((job.folder / "masks" / f"{photo.name}.png").exists() for photo in job.table.photos)


def _contents(**files: Path | str | None) -> Inputs:
    """What lies in those settings that name files."""
    return {name: fingerprint(Path(file)) for name, file in files.items() if file and Path(file).is_file()}


def _need(job: Job, path: str, stage: str) -> Path:
    if not (job.folder / path).exists():
        raise RunError(f"{job.folder / path} is missing; run `tag2mask {stage} --out {job.folder}` first")
    return job.folder / path


STAGES: dict[str, Stage] = {
    "clusters": Stage("clusters", _clusters_inputs, stages.clusters, _has("clusters/clusters.json")),
    "train": Stage("classifier", _train_inputs, stages.train, _has("classifier/model.safetensors")),
    "masks": Stage("masks", _masks_inputs, stages.masks, _has_every_mask),
    "segment": Stage("segmenter", _segment_inputs, stages.segment, _has("segmenter/model.safetensors")),
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
    """Run one stage unless its done.json matches what would go in; says whether it ran.

    Raises:
        RunError: a stage before it would now read something else than it has read, or the folder holds what no run wrote.
    """
    stage = STAGES[name]
    folder = job.folder / stage.folder
    for earlier in list(STAGES)[: list(STAGES).index(name)]:
        if changed := _changed(job, earlier):
            raise RunError(
                f"{earlier} is not what it was done with ({changed}); run `tag2mask {earlier} --out {job.folder}` first, or `run`"
            )
    inputs = _plain(stage.inputs(job))
    done, started = _read(folder / "done.json"), _read(folder / "started.json")
    barrier()
    if done and done["inputs"] == inputs and stage.whole(job):
        log.info(f"{name}: done already ({done['seconds']:.0f} s)")
        return False
    before = (done or started or {}).get("inputs")
    if before is None and any(not path.name.startswith(".") for path in folder.glob("*")):
        raise RunError(f"{folder} holds files that no run wrote, and `{name}` would write there; give another --out")
    if before is not None and before != inputs:
        log.info(f"{name}: starts anew, because {'; '.join(_differences(before, inputs))}")
    elif started:
        log.info(f"{name}: goes on where it stopped")
    else:
        log.info(f"{name}: starts")
    aside = job.folder / f".{stage.folder}.old"
    if rank() == 0:
        if before != inputs:
            if done:
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
            else:
                _remove(folder)
        remove_temporaries(folder)
        write_json(folder / "started.json", {"inputs": inputs})
    barrier()
    clock = time.monotonic()
    try:
        counts = stage.run(job)
    except BaseException:
        if rank() == 0 and aside.exists() and [path.name for path in folder.iterdir()] == ["started.json"]:
            _remove(folder)
            aside.rename(folder)
            log.info(f"{name}: could not start; what {folder} held before is back")
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
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # until here a kill would cost the training
        shutil.rmtree(aside, ignore_errors=True)
    barrier()
    log.info(f"{name}: done in {seconds:.0f} s")
    return True


def _changed(job: Job, name: str) -> str:
    """What a finished stage would now read otherwise, in words; nothing if it is as it was, or has not been finished."""
    done = _read(job.folder / STAGES[name].folder / "done.json")
    return "; ".join(_differences(done["inputs"], _plain(STAGES[name].inputs(job)))) if done else ""


def _remove(folder: Path) -> None:
    """Delete a folder; a kill on the way leaves none that looks like a stage's."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    if folder.exists():
        folder.rename(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


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
