"""The log and the progress bars."""

import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 30

# Terminals obey the control characters and turn text around; half of a letter cannot be written.
UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

log = logging.getLogger("tag2mask")
console = Console(stderr=True)


def printable(text: str) -> str:
    """A text of a data set with escapes (\\x1b) for what a terminal would obey or cannot show."""
    return UNPRINTABLE.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def start_log(folder: Path | None = None, quiet: bool = False) -> None:
    """Log to the terminal, and to log.txt in `folder` if given; `quiet`: log nothing."""
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
        console.print(printable(record.getMessage()), highlight=False, markup=False, soft_wrap=True)


def track(items: Iterable[T], what: str, total: int | None = None, done: int = 0) -> Iterator[T]:
    """`items`, with a progress bar, a count and the time left.

    Without a terminal, a line every 30 seconds. `total` includes the `done` items.
    """
    if total is None and isinstance(items, Sequence):
        total = len(items) + done
    if console.is_terminal:
        columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(what, total=total, completed=done)
            for item in items:
                yield item
                progress.advance(task)
        return
    start = last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES:
            last = now
            left = total and (now - start) / count * (total - done - count)
            text = f"{what}: {done + count}/{total or '?'}" + (
                f", {left:.0f} s left" if left else ""
            )
            print(text, file=sys.stderr, flush=True)
