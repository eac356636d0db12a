"""Every question and raw answer, kept on disk as they arrive: an interrupted run goes on from them, and a finished one can be replayed.

A transcript is a JSONL file. A line that starts a run holds the settings and the tags; every other line holds one question and its
answer. It is only ever appended to, so that a kill loses at most the line being written.
"""

import json
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

# What decides an answer beside the messages themselves: answers under other settings do not serve.
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
    """The questions and answers in one file, which need not exist yet. Raises ClusterError for a damaged one."""

    def __init__(self, path: Path):
        self.path = path
        self.header: dict[str, Any] = {}
        self.asked: list[
            Reply
        ] = []  # answers that came over the network since this object was made
        self._replies: dict[str, Reply] = {}
        self._lock = threading.Lock()
        if path.is_file():
            self._read()

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = json.loads(line)
                if "settings" in record:
                    self.header = record
                else:
                    self._replies[_key(record["query"], record["messages"])] = Reply(
                        **record["reply"]
                    )
            except (ValueError, KeyError, TypeError) as error:
                raise ClusterError(
                    f"{self.path}, line {number}: damaged ({error!r}); delete that line to go on from the others"
                ) from None
        if len(whole) < len(content):  # a kill in the middle of a line
            with self.path.open("r+b") as stream:
                stream.truncate(len(whole))

    def __len__(self) -> int:
        return len(self._replies)

    def start(self, settings: dict[str, Any], tags: Sequence[str]) -> None:
        """Begin or go on with a run; a transcript of another model is put aside (NAME.1, NAME.2 ...), not overwritten."""
        old = self.header
        if old and any(old["settings"].get(name) != settings[name] for name in DECISIVE):
            n = 1
            while (aside := self.path.with_name(f"{self.path.name}.{n}")).exists():
                n += 1
            self.path.rename(aside)
            log.info(
                "clusters: the transcript was of another model or temperature; it is kept as %s",
                aside,
            )
            self._replies, old = {}, {}
        if (old.get("settings"), old.get("tags")) != (settings, list(tags)):
            self.header = {
                "settings": settings,
                "tags": list(tags),
                "tag2mask": version("tag2mask"),
                "time": _now(),
            }
            self._append(self.header)
        if self._replies:
            log.info(
                "clusters: %s has %d answers already; only what is missing is asked",
                self.path,
                len(self._replies),
            )

    def reply(
        self, query: str, messages: Messages, ask: Callable[[Messages], Reply] | None
    ) -> Reply:
        """The stored answer to these messages of this query, else what `ask` gets, stored first. Without `ask`, ClusterError."""
        key = _key(query, messages)
        with self._lock:
            if key in self._replies:
                return self._replies[key]
        if ask is None:
            raise ClusterError(
                f"{self.path} has no answer to {query!r}: the run that wrote it was not finished; run it again to go on"
            )
        reply = ask(messages)
        with self._lock:
            self._append(
                {"query": query, "messages": messages, "reply": asdict(reply), "time": _now()}
            )
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
                f"{self.path}: cannot be written ({error.strerror}); answers so far are kept"
            ) from None


def _key(query: str, messages: Messages) -> str:
    return json.dumps([query, messages])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
