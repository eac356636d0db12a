"""The log and the progress bars."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")


log = logging.getLogger("tag2mask")


console = Console(stderr=True)


def start_log(folder: Path | None = None, quiet: bool = False) -> None:
    """Log to the terminal and, if there is one, to log.txt of the run folder; nowhere if quiet."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    if folder and not quiet:
        file = logging.FileHandler(folder / "log.txt", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(file)
    if not quiet:
        log.addHandler(_Terminal())
    log.setLevel(logging.INFO)
    log.propagate = False


class _Terminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.print(record.getMessage(), highlight=False, markup=False, soft_wrap=True)


def track(items: Iterable[T], what: str, total: int | None = None, done: int = 0) -> Iterator[T]:
    """`items` again, with a progress bar, a count and the time left; when the terminal is no terminal, a line every half minute."""
    if total is None and isinstance(items, Sequence):
        total = len(items) + done
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(what, total=total, completed=done)
            for item in items:
                yield item
                progress.advance(task)
        return
    start = said = time.monotonic()
    count = done
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - said > 30:
            said = now
            left = (
                f", {(now - start) / (count - done) * (total - count):.0f} s left" if total else ""
            )
            print(f"{what}: {count}/{total or '?'}{left}", file=sys.stderr, flush=True)
