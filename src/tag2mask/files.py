"""Files written whole or not at all, what is known about files, and their hashes."""

import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from threading import Lock
from typing import Any

from filelock import FileLock, Timeout

from tag2mask.errors import DataError, RunError
from tag2mask.processes import rank
from tag2mask.progress import log


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it when the block ends well, removed when not. Raises RunError if the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
    except Exception as error:  # safetensors and PyTorch have errors of their own for a full disk
        said = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if said or "No space left" in str(error) or shutil.disk_usage(path.parent).free < 1 << 20:
            raise RunError(
                f"no space left to write {path}; free some and give the same command again: it goes on from here"
            ) from error
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a run folder to this process while the block runs. Raises RunError if another one has it."""
    lock = FileLock(
        folder / ".lock", timeout=0
    )  # the system drops it with the process, so a kill leaves nothing locked
    try:
        lock.acquire()
    except Timeout:
        raise RunError(
            f"another tag2mask command is at work in {folder}; wait for it, or give another --out"
        ) from None
    except (OSError, NotImplementedError) as error:
        log.info(
            f"warning: files in {folder} cannot be locked ({error}); give no two commands there at once"
        )
    try:
        yield
    finally:
        lock.release()


def remove_temporaries(folder: Path) -> None:
    """Delete what `writing` left anywhere in `folder` when its process was killed."""
    for temporary in list(folder.rglob(".*.tmp")):
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `path` whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in `path`, or RunError naming what is missing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing; run the stage that writes it first") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{path}: not valid JSON (line {error.lineno}: {error.msg})") from None


def read_text(path: Path) -> str:
    """A text file, with or without a byte order mark. Raises DataError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def read_list(path: Path) -> list[str]:
    """A list file to names: one a line, or pairs of paths ("/JPEGImages/a.jpg /SegmentationClassAug/a.png"). Raises DataError."""
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return [PurePath(line.split()[0]).stem if line.startswith("/") else line for line in lines]


class Facts:
    """What was found out about files, kept in a file of its own, so that it need not be found out again while they are unchanged.

    A file counts as unchanged while its path, size and time of change are the same, as for make, rsync and git. The path of one that
    lies beside `path` or below is kept as seen from there: the whole folder may move.
    """

    def __init__(self, path: Path | None = None):
        self.path, self._lock = path, Lock()
        self._known: dict[
            str, str
        ] = {}  # what and which file: size, time of change and the fact, as JSON
        for line in (
            path.read_text(encoding="utf-8").splitlines(keepends=True)
            if path and path.exists()
            else ()
        ):
            if line.endswith("]\n"):  # a kill can leave half a line
                key, end = json.JSONDecoder().raw_decode(line)
                self._known[key] = line[end + 1 : -1]

    def of(self, file: Path | str, what: str, find: Callable[[Path], Any]) -> Any:
        """`find(file)`, something that JSON holds, or what that was when this was last asked. What `find` raises is not kept."""
        name, stat = os.fspath(file), os.stat(file)  # noqa: PTH116  strings, here and below: Path takes longer than reading a small file
        near, root = self._roots
        name = (
            name[len(near) :] if name.startswith(near) else os.path.abspath(name).removeprefix(root)  # noqa: PTH100
        )
        key, stamp = f"{what} {name}", f"[{stat.st_size}, {stat.st_mtime_ns}, "
        if (known := self._known.get(key, "")).startswith(stamp):
            return json.loads(known[len(stamp) : -1])
        found = f"{stamp}{json.dumps(find(Path(file)))}]"
        with self._lock:
            self._known[key] = found
            if self.path and self.path.parent.is_dir() and rank() == 0:
                self._stream.write(_fact_line(key, found))
        return json.loads(found[len(stamp) : -1])

    @cached_property
    def _roots(self) -> tuple[str, str]:
        """The folder of `path` as it was given, and from the root."""
        folder = os.path.join(self.path.parent, "") if self.path else ""  # noqa: PTH118
        return folder or os.sep, os.path.abspath(folder) + os.sep if folder else os.sep  # noqa: PTH100

    @cached_property
    def _stream(self) -> Any:
        assert self.path
        write_text(
            self.path, "".join(_fact_line(key, fact) for key, fact in self._known.items())
        )  # without those that are out of date
        return self.path.open("a", buffering=1, encoding="utf-8")


def _fact_line(key: str, fact: str) -> str:
    return f"{json.dumps(key)} {fact}\n"


def fingerprint(path: Path, pattern: str = "*", facts: Facts | None = None) -> str:
    """Hash of the contents of a file, or of all the files of a folder that match, hidden ones left out; `facts` knows those unchanged."""
    digest, facts = hashlib.sha256(), facts or Facts()
    for name in (
        sorted(_files_below(str(path), pattern), key=lambda name: name.split("/"))
        if path.is_dir()
        else [""]
    ):
        digest.update(os.fsencode(name))
        digest.update(
            bytes.fromhex(facts.of(f"{path}{os.sep * bool(name)}{name}", "sha256", _sha256))
        )
    return digest.hexdigest()[:16]


def _files_below(folder: str, pattern: str) -> Iterator[str]:
    """Names below a folder of its files that match: "a/b.png"."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from (f"{entry.name}/{name}" for name in _files_below(entry.path, pattern))
            elif (
                not entry.name.startswith(".") and fnmatch(entry.name, pattern) and entry.is_file()
            ):
                yield entry.name


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    found = {"python": platform.python_version()}
    for name in ("tag2mask", "torch", "timm", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
