"""Files that are written completely or not at all, stored facts about files, content hashes."""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path, PurePath
from threading import Lock
from typing import Any, TextIO

from tag2mask.errors import ConfigError, DataError, RunError
from tag2mask.processes import rank

MOST_BYTES = 1 << 30  # of a file that is read at once
# s3://bucket, or s3:/bucket as `Path` writes it; two letters or more: C:/ is a disk of Windows
SCHEME = re.compile(r"(^|::)([a-z][a-z0-9+.-]+):/{1,2}")


def is_address(path: Path) -> bool:
    """Whether a path is an address of a storage: see `photos.addresses`."""
    return bool(SCHEME.match(path.as_posix()))


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` if the block succeeds, else removed.

    Raises RunError if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
    except Exception as error:  # safetensors and PyTorch have errors of their own for a full disk
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in str(error) or shutil.disk_usage(path.parent).free < 1 << 20:
            raise RunError(
                f"no space left to write {path}; free some space and run it again to resume"
            ) from error
        raise
    finally:
        _remove(temporary)


def keep_inputs(out: Path, *inputs: Path) -> None:
    """Raises ConfigError if `out` is one of the files that are read, or a folder."""
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; give the name of a file as --out")
    if out.resolve() in {path.resolve() for path in inputs}:
        raise ConfigError(f"{out} is read here, and would be replaced; give another --out")


@contextmanager
def writing_text(path: Path) -> Iterator[TextIO]:
    """A text file that is written part by part, and is there only if the block succeeds."""
    with writing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def remove_temporaries(folder: Path) -> None:
    """Delete what `writing` left anywhere in `folder` when its process was killed."""
    for temporary in list(folder.rglob(".*.tmp")):
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `path` completely or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, completely or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in `path`. Raises RunError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing; run the stage that writes it first") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{path}: not valid JSON (line {error.lineno}: {error.msg})") from None
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: not UTF-8 text (byte {error.start})") from None


def read_bytes(path: Path, most: float = MOST_BYTES) -> bytes:
    """A file of at most `most` bytes. Raises DataError, also for a pipe or a device."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DataError(f"{path}: cannot be read (it is no file)")
        if path.stat().st_size > most:
            limit = f"{most / 2**30:.0f} GB" if most >= MOST_BYTES else f"{most / 2**20:.0f} MB"
            raise DataError(f"{path}: has more than {limit}")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", error)
        raise DataError(f"{path}: cannot be read ({reason})") from None


def read_text(path: Path, most: float = MOST_BYTES) -> str:
    """A text file, with or without a byte order mark; errors as in `read_bytes`."""
    if "\0" in start_of(path, 4096):
        raise DataError(f"{path}: not UTF-8 text (it has zero bytes); save it as UTF-8")
    try:
        text = read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def start_of(path: Path, size: int) -> str:
    """The first `size` bytes of a file as text, whatever they are; "" if it is no file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(size).decode("utf-8", "ignore")


def read_list(path: Path) -> list[str]:
    """A list file to names. Raises DataError.

    A line holds a name, or two paths: "/JPEGImages/a.jpg /SegmentationClassAug/a.png".
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return [PurePath(line.split()[0]).stem if line.startswith("/") else line for line in lines]


class Facts:
    """Facts about files, stored in the file `path` so that they are not computed again.

    A fact is valid while its file has the same path, size and modification time, the rule of make,
    rsync and git. Paths below the folder of `path` are stored relative to it, so that the folder
    can be moved.
    """

    def __init__(self, path: Path | None = None):
        self.path, self._lock = path, Lock()
        self._folder = f"{os.path.abspath(path.parent)}{os.sep}" if path else ""  # noqa: PTH100
        # what -> "what file" -> the rest of its line, "size, mtime, fact]". Only what is asked for
        # is read, and it stays text: a start with 100,000 photos asks for few of their facts.
        self._known: dict[str, dict[str, str]] = {}

    def of(self, file: Path | str, what: str, find: Callable[[Path], Any]) -> Any:
        """`find(file)` as a JSON value, called only if no fact is stored. Errors are not stored."""
        # pathlib takes longer than reading a small file
        return self._of(os.path.abspath(file), os.stat(file), what, find)  # noqa: PTH100, PTH116

    def of_all(
        self, folder: Path, pattern: str, what: str, find: Callable[[Path], Any]
    ) -> Iterator[tuple[str, Any]]:
        """Each file of `files_below` with its fact, as `of` gives it."""
        place = os.path.abspath(folder)  # noqa: PTH100
        for name, entry in files_below(folder, pattern):
            yield name, self._of(f"{place}{os.sep}{name}", entry.stat(), what, find)

    def _of(self, file: str, about: os.stat_result, what: str, find: Callable[[Path], Any]) -> Any:
        if (facts := self._known.get(what)) is None:
            facts = self._read(what)
        key = f"{what} {file.removeprefix(self._folder)}"
        known, now = facts.get(key, ""), f"{about.st_size}, {about.st_mtime_ns}, "
        if known.startswith(now) and known.endswith("]"):
            with suppress(ValueError):  # a killed process can leave half of a line
                return json.loads(known[len(now) : -1])
        text = f"{now}{json.dumps(find(Path(file)))}]"
        with self._lock:
            facts[key] = text
            if self.path and self.path.parent.is_dir() and rank() == 0:
                self._stream.write(f"[{json.dumps(key)}, {text}\n")
        return json.loads(text[len(now) : -1])

    def forget(self) -> None:
        """Free the memory of the facts that are in the file."""
        with self._lock:
            if self.path and rank() == 0:
                self._known.clear()

    def _read(self, what: str) -> dict[str, str]:
        """The stored facts of one kind."""
        with self._lock:
            if what not in self._known:
                pairs = self._lines(f"[{json.dumps(what)[:-1]} ")
                self._known[what] = {key: line[end + 2 : -1] for key, end, line in pairs}
            return self._known[what]

    def _lines(self, start: str = "[") -> Iterator[tuple[str, int, str]]:
        """The lines of the file that begin so: key, where it ends, line."""
        if not (self.path and self.path.exists()):
            return
        parse = json.JSONDecoder().raw_decode
        with self.path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                if line.startswith(start):
                    with suppress(ValueError):
                        yield *parse(line, 1), line

    @cached_property
    def _stream(self) -> TextIO:
        assert self.path
        lines = {key: line for key, _, line in self._lines() if line.endswith("]\n")}
        with writing_text(self.path) as file:
            file.writelines(lines.values())  # without outdated ones
        return self.path.open("a", buffering=1, encoding="utf-8")


def files_below(folder: Path, pattern: str = "*") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """The files in a folder and below it whose names match, without hidden ones: their paths from
    the folder, with "/" on all systems, in the order of `sorted`.

    Links to folders are not followed.
    """
    with os.scandir(folder) as scanned:
        entries = sorted(scanned, key=attrgetter("name"))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            for name, below in files_below(Path(entry.path), pattern):
                yield f"{entry.name}/{name}", below
        elif fnmatchcase(entry.name, pattern) and entry.name[0] != "." and entry.is_file():
            yield entry.name, entry


def fingerprint(path: Path, pattern: str = "*", facts: Facts | None = None) -> str:
    """Hash of the contents of a file, or of the files in a folder that match, without hidden files.

    `facts` stores the hashes of single files.
    """
    facts = facts or Facts()
    if path.is_dir():
        return hash_of(facts.of_all(path, pattern, "sha256", sha256))
    return hash_of([(".", facts.of(path, "sha256", sha256))] if path.is_file() else [])


def hash_of(files: Iterable[tuple[str, str]]) -> str:
    """The `fingerprint` of a folder, from the names in it and the SHA-256 of each file."""
    digest = hashlib.sha256()
    for name, value in files:
        digest.update(os.fsencode(name))
        digest.update(bytes.fromhex(value))
    return digest.hexdigest()[:16]


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of the packages that affect results."""
    names = ("tag2mask", "torch", "timm", "numpy", "pillow")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
