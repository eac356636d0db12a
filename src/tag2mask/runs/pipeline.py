"""Whether a stage runs, resumes or is skipped.

A stage is skipped if its inputs are the same as those in its done.json. Otherwise it makes a new
result; the earlier result stays in use until the new one is done. A stage that was stopped resumes
if its inputs are still the same.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tag2mask.config import STAGE_NAMES, Config, SegmenterSettings, Settings
from tag2mask.errors import RunError
from tag2mask.files import files_below, versions
from tag2mask.formats.check import checked_state
from tag2mask.processes import barrier, from_first, rank
from tag2mask.progress import log
from tag2mask.runs import stages
from tag2mask.runs.continued import CONTINUES, changed_photos, start_of
from tag2mask.runs.corrected import changed_masks
from tag2mask.runs.folder import CLUSTERS, FINDINGS, MASKS, METRICS, MODEL, PAGE
from tag2mask.runs.run import PREDICTION_SETTINGS, Run

Inputs = dict[str, Any]  # a stage's inputs as JSON, hashes and settings; the keys are for messages
LONGEST = 60  # characters of a value in a message
# The settings that a stage had if it was made before these settings existed.
DEFAULTS = Config(segmenter=SegmenterSettings(head="deeplab_v2"))
NEW = ("corrected masks", "regions", "regions of rounds")  # inputs that older runs do not have
FEEDING = STAGE_NAMES[1:-1]  # stages whose results others read


@dataclass(frozen=True)
class Stage:
    """How a stage makes its result, a file that the result must hold, and what it reads."""

    make: Callable[[Run, Path], stages.Counts]
    file: str
    reads: tuple[str, ...]  # of READS, or sections of settings


def _data(run: Run) -> str:
    config = run.config
    return _hash(checked_state(run.data, config.val, config.val_masks, run.read))


def _true_masks(name: str, run: Run) -> str | None:
    truth = run.truths[name]
    photos = truth.photos_with_truth if truth else ()
    return _hash([[p.name, run.fingerprint(truth.path(p))] for p in photos]) if truth else None


def _model(stage: str, run: Run) -> str:
    return run.fingerprint(run.files.need(stage, MODEL))


def _result(stage: str, run: Run) -> str | None:
    """Hash of a done.json without times: running a stage again may give the same result."""
    done = run.files.done(stage) or {}
    return (
        _hash({k: v for k, v in done.items() if k not in ("seconds", "resumed")}) if done else None
    )


def _regions(run: Run) -> str | None:
    regions, done = run.regions, run.files.done("masks")
    if not regions:
        return None
    if done and not regions.folder.is_dir():  # as of any file that does not exist any more
        return done["inputs"].get("regions")
    return _hash([[name, run.fingerprint(path)] for name, path in sorted(regions.paths.items())])


def _makes_masks(run: Run) -> bool:
    return run.config.segmenter.rounds > 1 or run.config.segmenter.new_masks


READS: dict[str, Callable[[Run], Any]] = {
    "data": _data,  # names, tags, file sizes and modification times: no photo is opened
    "tags": lambda run: list(run.table.tags),
    "photos": lambda run: run.table.fingerprint,
    "validation photos": lambda run: run.val and run.val.fingerprint,
    "true masks of training photos": partial(_true_masks, "train"),
    "true masks of validation photos": partial(_true_masks, "val"),
    "evaluate.classes": lambda run: run.config.evaluate.classes,
    "photos.pseudo_list": lambda run: _hash([photo.name for photo in run.pseudo_photos]),
    "seed": lambda run: run.config.seed,
    "cluster file": lambda run: run.fingerprint(run.files.need("clusters", CLUSTERS)),
    "classifier model": partial(_model, "classifier"),
    "regions": _regions,
    "regions of rounds": lambda run: _regions(run) if _makes_masks(run) else None,
    "corrected masks": lambda run: (changes := changed_masks(run)) and _hash(changes),
    "pseudo masks": lambda run: run.fingerprint(run.files.need("masks"), "*.png"),
    "segmenter model": partial(_model, "segmenter"),
    "pseudo masks of the last round": lambda run: run.fingerprint(run.newest_masks, "*.png"),
    **{f"{name} result": partial(_result, name) for name in FEEDING},
}

STAGES: dict[str, Stage] = {
    "check": Stage(stages.check, FINDINGS, ("data", "evaluate.classes")),
    "clusters": Stage(stages.clusters, CLUSTERS, ("tags", "clusters", "seed")),
    "classifier": Stage(stages.classifier, MODEL, ("photos", "cluster file", "classifier", "seed")),
    "masks": Stage(
        stages.masks, MASKS, ("photos", "cluster file", "classifier model", "regions", "masks")
    ),
    "segmenter": Stage(
        stages.segmenter,
        MODEL,
        ("photos", "pseudo masks", "corrected masks", "regions of rounds", "segmenter", "seed"),
    ),
    "evaluate": Stage(
        stages.evaluate,
        METRICS,
        (
            "pseudo masks of the last round",
            "segmenter model",
            "segmenter",
            "validation photos",
            "true masks of training photos",
            "true masks of validation photos",
            "photos.pseudo_list",
            "evaluate",
        ),
    ),
    "report": Stage(stages.report, PAGE, (*(f"{name} result" for name in FEEDING), "report")),
}


def run_stages(run: Run, names: Sequence[str]) -> None:
    """Run these stages in order; skip those that are done.

    Raises RunError if an earlier stage that is not among them is out of date.
    """
    for name in names:
        for earlier in STAGE_NAMES[: STAGE_NAMES.index(name)]:
            if earlier not in FEEDING or earlier in names:
                continue
            if changes := from_first(_out_of_date(run, earlier) if rank() == 0 else ""):
                raise RunError(
                    f"{earlier} is out of date ({changes}); "
                    f"run {run.files.command(earlier)} first, or {run.files.command('run')}"
                )
        run_stage(run, name)


def run_stage(run: Run, name: str) -> None:
    """Run one stage, unless its result is up to date."""
    stage, files = STAGES[name], run.files
    barrier()
    if rank() == 0:
        files.repair(name)
    barrier()
    plan = _plan(run, name) if rank() == 0 else None
    if from_first(plan is None):
        return
    resumes = plan is not None and _prepare(run, name, *plan)
    run.forget()
    barrier()
    clock = time.monotonic()
    try:
        counts = stage.make(run, files.part(name))
    except BaseException:
        if rank() == 0:
            run.begun |= files.resumable(name)
            if not (files.resumable(name) or (files.part(name) / FINDINGS).exists()):
                files.discard(name)
        raise
    finally:
        run.forget()
    seconds = time.monotonic() - clock
    barrier()
    if started := files.started(name) if rank() == 0 else None:
        about = {"counts": counts, "seconds": round(seconds, 1), "resumed": resumes}
        about["continued"] = started["inputs"].pop(CONTINUES, None) is not None
        files.finish(name, started | about | {"versions": versions()})
        run.begun = True
    barrier()
    log.info(f"{name}: done in {seconds:.0f} s")


def _plan(run: Run, name: str) -> tuple[Inputs, bool] | None:
    """A stage's inputs, and whether its result has the same but lacks files; None if it is done
    already. Rank 0 alone decides: a shared folder may look different to another machine."""
    inputs, done = _inputs(run, name), run.files.done(name)
    if run.continued and done and not _same(done, inputs):
        then = _settled(done["inputs"], inputs)
        if (start := start_of(run, name, then, _settled(inputs, then))) is not None:
            inputs[CONTINUES] = start
    current = done is not None and _same(done, inputs)
    if not (done and current and _complete(run, name)):
        return inputs, current
    findings = done["counts"].get("findings")
    see = f": {findings}, see {run.files.result(name, FINDINGS)}" if findings else ""
    log.info(f"{name}: done already ({done['seconds']:.0f} s){see}")
    return None


def _complete(run: Run, name: str) -> bool:
    """Whether the files of a finished stage are still there."""
    names = {STAGES[name].file}
    if name == "masks":
        names |= {f"{photo}{kind}" for photo in run.table.names for kind in (".png", ".npz")}
        return names <= {file for file, _ in files_below(run.files.result(name))}
    return all(run.files.result(name, file).exists() for file in names)


def _prepare(run: Run, name: str, inputs: Inputs, current: bool) -> bool:
    """Start a stage with its unfinished files or with none, and log it; whether it resumes."""
    files = run.files
    if current:
        files.reopen(name)
    started = files.started(name)
    resumes = False
    if started and _same(started, inputs):
        inputs, resumes = started["inputs"], files.resumable(name)
        log.info(f"{name}: {'resumes' if resumes else 'starts'}")
    else:
        before = files.done(name) or started
        plain = {key: value for key, value in inputs.items() if key != CONTINUES}
        changes = _changes(run, before["inputs"], plain) if before else ""
        verb = "continues" if CONTINUES in inputs else "starts again" if changes else "starts"
        log.info(f"{name}: {verb}{f', because {changes}' if changes else ''}")
        files.discard(name)
    files.begin(name, inputs)
    return resumes


def _inputs(run: Run, name: str) -> Inputs:
    """The current inputs of a stage."""
    values = {
        key: READS[key](run) if key in READS else _settings(run, name, key)
        for key in STAGES[name].reads
    }
    inputs: Inputs = json.loads(json.dumps(values))
    return {key: value for key, value in inputs.items() if value or key not in NEW}


def _settings(run: Run, stage: str, section: str) -> Inputs:
    """Settings that a stage reads; a path is replaced by the file's name and content hash."""
    unread = {"clusters": {"timeout"}, "masks": {"batch_size", "regions"}}.get(section, set())
    settings: Settings = getattr(run.config, section)
    if section == "segmenter":
        unread = PREDICTION_SETTINGS
        if run.config.segmenter.rounds > 1:
            unread = unread & {"object_first", "crf"}
        if stage == "evaluate":
            unread = type(settings).model_fields.keys() - PREDICTION_SETTINGS
    values = settings.model_dump(mode="json", exclude=unread)
    for key, value in values.items():
        if isinstance(value, str) and Path(value).is_absolute() and Path(value).is_file():
            values[key] = f"{Path(value).name} {run.fingerprint(Path(value))}"
    return values


def _same(then: dict[str, Any], now: Inputs) -> bool:
    """Whether the inputs of a stage are the same as in its done.json or started.json."""
    return bool(_settled(now, then["inputs"]) == then["inputs"])


def _settled(now: Any, then: Any, defaults: Any = DEFAULTS) -> Any:
    """`now`, without settings that did not exist when `then` was written and have their defaults.

    A file that does not exist any more counts as unchanged.
    """
    if isinstance(now, dict) and isinstance(then, dict):
        old = defaults.model_dump(mode="json") if isinstance(defaults, Settings) else {}
        return {
            key: _settled(value, then.get(key), getattr(defaults, key, None))
            for key, value in now.items()
            if key in then or key not in old or value != old[key]
        }
    gone = isinstance(now, str) and Path(now).is_absolute() and isinstance(then, str)
    return then if gone and then.rpartition(" ")[0] == Path(now).name else now


def _out_of_date(run: Run, name: str) -> str:
    """The changed inputs of a finished stage, as text; "" if it is up to date or not done."""
    done = run.files.done(name)
    try:
        now = _inputs(run, name) if done else {}
    except RunError:
        return ""  # an input does not exist any more
    return _changes(run, done["inputs"], now) if done and not _same(done, now) else ""


def _changes(run: Run, then: Inputs, now: Inputs) -> str:
    """The changed inputs, as text for the user."""
    if then.keys() - now.keys() and now.keys() - then.keys():
        return "another version of tag2mask made it"
    before, after = leaves(then), leaves(_settled(now, then))
    texts = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        words = in_words(old), in_words(new)
        if old == new:
            continue
        if key == "photos":
            texts.append(_changed_photos(run, old))
        elif old is None:
            texts.append(f"{key} is now {words[1]}" if words[1] else f"{key} added")
        elif new is None:
            texts.append(f"{key} was {words[0]}, is not set" if words[0] else f"{key} removed")
        elif all(words) and words[0] != words[1]:
            texts.append(f"{key} was {words[0]}, is {words[1]}")
        else:
            texts.append(f"{key} changed")
    return "; ".join(texts)


def _changed_photos(run: Run, fingerprint: str | None) -> str:
    """How many photos are new, gone and corrected, if the last masks are of the earlier photos."""
    done = run.files.done("masks")
    if not done or done["inputs"].get("photos") != fingerprint:
        return "photos changed"
    text = changed_photos(run)
    return f"photos changed ({text})" if text else "photos or their tags changed"


def leaves(value: Any, at: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}."""
    if not isinstance(value, dict):
        return {at: value}
    return {
        key: leaf
        for name, part in value.items()
        for key, leaf in leaves(part, f"{at}.{name}" if at else name).items()
    }


def in_words(value: Any) -> str:
    """A setting as text for the user; "" for hashes, long lists, and None."""
    if isinstance(value, list | tuple):
        text = ", ".join(map(in_words, value)) or "none"
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = "" if value is None else re.sub(r"(^| )[0-9a-f]{16}$", "", str(value))
    return text if len(text) <= LONGEST else ""


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
