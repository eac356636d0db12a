"""The run folder: its files, which stages are done, and its lock.

config.toml     the settings of the last command
STAGE/          the result of a finished stage; its done.json has the inputs of the stage
.STAGE.part/    what an unfinished stage has written so far; renamed to STAGE/ when it is done
corrections.jsonl, corrections/   what the user corrected; no stage changes it
clusters.transcript.jsonl, log.txt, .facts.jsonl, .lock
"""

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tag2mask.errors import RunError
from tag2mask.files import read_json, remove_temporaries, write_json
from tag2mask.photos.corrections import Corrections
from tag2mask.photos.masks import CLASSES_FILE
from tag2mask.processes import rank
from tag2mask.progress import log, start_log

DONE, STARTED, FINDINGS = "done.json", "started.json", "findings.json"
CHECKPOINT, TRAINING_METRICS, MODEL = "checkpoint", "metrics.jsonl", "model.safetensors"
CORRECTIONS = "corrections"
CLUSTERS, METRICS, PAGE = "clusters.json", "metrics.json", "index.html"
MASKS, MADE = CLASSES_FILE, "made.json"
PREDICTIONS, SAMPLE, FINDS = "predictions", "sample", "finds.json"


class RunFolder:
    """A run folder. It does not have to exist yet."""

    def __init__(self, path: Path):
        self.path = path.absolute()  # a notebook may change directory
        self.config = self.path / "config.toml"
        self.facts = self.path / ".facts.jsonl"
        self.corrections = Corrections(self.path / "corrections.jsonl", self.path / CORRECTIONS)
        # Not in the stage's folder: the answers cost money, and other settings can use them too.
        self.transcript = self.path / "clusters.transcript.jsonl"

    def part(self, stage: str) -> Path:
        """Where a stage writes."""
        return self.path / f".{stage}.part"

    def result(self, stage: str, *names: str) -> Path:
        """A file in the last result of a stage, or the folder of the result."""
        folder, part = self.path / stage, self.part(stage)
        # After a kill between the two renames of `_replace`, the result still has the other name.
        between = not folder.exists() and (part / DONE).exists()
        return (part if between else folder).joinpath(*names)

    def command(self, stage: str) -> str:
        """The command that runs a stage here."""
        return f"`tag2mask {stage} --out {shlex.quote(str(self.path))}`"

    def need(self, stage: str, *names: str) -> Path:
        """`result`. Raises RunError if it is missing."""
        path = self.result(stage, *names)
        if not path.exists():
            raise RunError(f"{path} is missing; run {self.command(stage)} first")
        return path

    def done(self, stage: str) -> dict[str, Any] | None:
        """done.json of a finished stage: inputs, counts, seconds, resumed, versions."""
        return _read(self.result(stage, DONE))

    def started(self, stage: str) -> dict[str, Any] | None:
        """started.json of an unfinished stage: inputs."""
        return _read(self.part(stage) / STARTED)

    def resumable(self, stage: str) -> bool:
        """Whether an unfinished stage has files from which it can resume."""
        useless = (STARTED, TRAINING_METRICS, FINDINGS)
        files = self.part(stage).rglob("*")
        return any(path.is_file() and path.name not in useless for path in files)

    def begin(self, stage: str, inputs: dict[str, Any]) -> None:
        """Start a stage; files that it has already written are kept."""
        write_json(self.part(stage) / STARTED, {"inputs": inputs})

    def discard(self, stage: str) -> None:
        """Delete what an unfinished stage wrote. A kill never leaves a part of it in use."""
        if self.part(stage).exists():
            self.part(stage).rename(self._cleared(stage))
        self._cleared(stage)

    def finish(self, stage: str, done: dict[str, Any]) -> None:
        """Make what a stage wrote its result, which replaces the earlier result."""
        write_json(self.part(stage) / DONE, done)
        self._replace(stage)

    def reopen(self, stage: str) -> None:
        """Make a result with missing files unfinished again; the remaining files are kept."""
        self.discard(stage)
        (self.path / stage).rename(self.part(stage))
        (self.part(stage) / DONE).unlink()

    def repair(self, stage: str) -> None:
        """Complete a `finish` or `discard` during which the process was killed."""
        if (self.part(stage) / DONE).exists():
            self._replace(stage)
        self._cleared(stage)
        remove_temporaries(self.part(stage))

    def _replace(self, stage: str) -> None:
        shutil.rmtree(self.part(stage) / CHECKPOINT, ignore_errors=True)
        if (self.path / stage).exists():
            (self.path / stage).rename(self._cleared(stage))
        self.part(stage).rename(self.path / stage)
        self._cleared(stage)

    def _cleared(self, stage: str) -> Path:
        """The path to which a folder is moved before it is deleted; deletes what is there."""
        old = self.path / f".{stage}.trash"
        shutil.rmtree(old, ignore_errors=True)
        return old

    def require_own(self, stages: Sequence[str]) -> None:
        """Raises RunError if the folder of one of these stages is a link or no run made it."""
        for folder in (self.path / stage for stage in stages):
            if folder.is_symlink():
                raise RunError(
                    f"{folder} is a link, and a stage replaces its folder; "
                    f"make {self.path} a link instead"
                )
            own = (folder / STARTED).exists() or (folder / DONE).exists()
            if not own and any(not path.name.startswith(".") for path in folder.glob("*")):
                raise RunError(
                    f"{folder} holds files that no run wrote, and this run would replace them; "
                    "give another --out"
                )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Log to this folder and lock it. A new folder is removed if no stage started in it.

        Raises RunError if another command is running here.
        """
        new = not self.path.exists()
        start_log(self.path, quiet=rank() > 0)
        # The operating system releases the lock when the process ends, also when it is killed.
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            if rank() == 0:
                lock.acquire()
        except Timeout:
            raise RunError(
                f"another tag2mask command is running in {self.path}; "
                "wait for it, or give another --out"
            ) from None
        except (OSError, NotImplementedError) as error:
            log.info(
                f"warning: {self.path} cannot be locked ({error}); "
                "do not run two commands there at once"
            )
        try:
            yield
        finally:
            lock.release()
            nothing = {"log.txt", ".lock", self.config.name, self.part("check").name}
            if new and rank() == 0 and {path.name for path in self.path.iterdir()} <= nothing:
                start_log()  # closes log.txt
                shutil.rmtree(self.path, ignore_errors=True)


def _read(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None
