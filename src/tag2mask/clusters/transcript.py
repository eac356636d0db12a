"""Every question and raw answer, kept on disk as they arrive, to resume and to replay offline.

A transcript is a JSONL file that only grows: a kill loses at most the line being written. A header
line holds settings and tags, every other line a question and its answer.
"""

import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tag2mask.errors import ClusterError
from tag2mask.progress import log

Messages = list[dict[str, str]]

# What decides an answer besides the messages.
DECISIVE = ("model", "url", "temperature", "structured")


@dataclass(frozen=True)
class Reply:
    """One raw answer of a language model."""

    text: str
    finish: str = ""  # why the server stopped: stop, length, content_filter
    model: str = ""  # as the server calls it
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float = 0.0


def transcript_beside(path: Path) -> Path:
    """The transcript of a cluster file: clusters.json has clusters.transcript.jsonl."""
    return path.with_suffix(".transcript.jsonl")


class Transcript:
    """The questions and answers in a file, which need not exist. Raises ClusterError if damaged."""

    def __init__(self, path: Path):
        self.path = path
        self.header: dict[str, Any] = {}
        self.asked: list[Reply] = []  # answers that came over the network
        self._replies: dict[str, Reply] = {}
        self._lock = threading.Lock()
        if path.is_file():
            self._read()

    def _read(self) -> None:
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:end].splitlines(), 1):
            try:
                record = json.loads(line)
                if "settings" in record:
                    self.header = record
                else:
                    key = self._key(record["query"], record["messages"])
                    self._replies[key] = Reply(**record["reply"])
            except (ValueError, KeyError, TypeError) as error:
                raise ClusterError(
                    f"{self.path}, line {number}: damaged ({error!r}); delete this line and run "
                    "it again to resume from the others"
                ) from None
        if end < len(content):  # a kill in the middle of a line
            os.truncate(self.path, end)

    def __len__(self) -> int:
        return len(self._replies)

    def start(self, settings: dict[str, Any], tags: Sequence[str]) -> None:
        """Begin or resume a run. Answers that another model gave stay in the file, unused."""
        if (self.header.get("settings"), self.header.get("tags")) != (settings, list(tags)):
            made_by = {"tag2mask": version("tag2mask"), "time": _now()}
            self.header = {"settings": settings, "tags": list(tags), **made_by}
            self._append(self.header)
        if self._replies:
            log.info("clusters: %s has %d answers: they are used again", self.path, len(self))

    def reply(
        self, query: str, messages: Messages, ask: Callable[[Messages], Reply] | None
    ) -> Reply:
        """The stored answer of this query to these messages, else that of `ask`, stored first.

        Raises ClusterError if there is none and `ask` is None.
        """
        key = self._key(query, messages)
        if key in self._replies:
            return self._replies[key]
        if ask is None:
            raise ClusterError(
                f"{self.path} has no answer to {query!r}: the run that wrote it did not finish, or "
                "another version of tag2mask wrote it"
            )
        reply = ask(messages)
        record = {"query": query, "messages": messages, "reply": asdict(reply), "time": _now()}
        with self._lock:
            self._append(record)
            self._replies[key] = reply
            self.asked.append(reply)
        return reply

    def _append(self, record: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:
            raise ClusterError(
                f"{self.path}: cannot write ({error.strerror}); the answers so far are kept"
            ) from None

    def _key(self, query: str, messages: Messages) -> str:
        settings = self.header["settings"]
        return json.dumps([[settings.get(name) for name in DECISIVE], query, messages])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
