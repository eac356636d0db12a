"""The lines of corrections.jsonl: what each says, and a log to which they are added.

A line is on the disk when it is added, and never changed. Threads and processes may add lines at
the same time; what a killed process left of a line is noted and skipped.
"""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from tag2mask.errors import RunError

TagValue = Literal["present", "absent", "unknown"]
MaskValue = Literal["computed", "right", "wrong", "mended"]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True)  # fields of a later version are ignored


class Stroke(_Line):
    """What a user painted: a line of round dots on the photo."""

    tag: str  # or "background"
    points: tuple[tuple[FiniteFloat, FiniteFloat], ...] = Field(
        min_length=1
    )  # x, y [pixels of the photo]
    radius: FiniteFloat = Field(gt=0)  # pixels of the photo


class _Correction(_Line):
    id: str
    when: str  # UTC, ISO 8601


class TagCorrection(_Correction):
    """Whether a tag is in a photo."""

    what: Literal["tag"] = "tag"
    photo: str
    tag: str
    value: TagValue


class MaskCorrection(_Correction):
    """What is to be done with the mask of a photo, and the mask if it is kept."""

    what: Literal["mask"] = "mask"
    photo: str
    value: MaskValue
    strokes: tuple[Stroke, ...] = ()  # all of the photo, also the earlier ones
    by_hand: bool = False  # the file was changed with another program
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")  # of the mask's file, if it is kept
    classes: tuple[str, ...] = ()  # what the numbers in it mean, background first


class Undo(_Correction):
    """Takes back another line, which may be an `Undo`."""

    what: Literal["undo"] = "undo"
    of: str


Correction = TagCorrection | MaskCorrection | Undo
_LINE: TypeAdapter[Correction] = TypeAdapter(Annotated[Correction, Field(discriminator="what")])


class CorrectionLog:
    """The file of corrections. It does not have to exist yet.

    `lines` are all that were read, oldest first; `read` brings them up to date.
    """

    def __init__(self, file: Path):
        self.file, self.lock = file, RLock()
        self.lines: list[Correction] = []
        self._faults: list[str] = []
        self._has_rest = False  # a line that was cut off, or that another process is writing
        self._end = self._number = 0  # the bytes and the lines that have been read

    def read(self) -> list[Correction]:
        """All lines. Those that were added since the last time are read from the file."""
        with self.lock:
            size = self.file.stat().st_size if self.file.is_file() else 0
            if size < self._end:  # another file
                self.lines, self._faults, self._end, self._number = [], [], 0, 0
            if size > self._end:
                with self.file.open("rb") as stream:
                    stream.seek(self._end)
                    *whole, _ = stream.read().split(b"\n")
                for text in whole:
                    self._parse(text)
                self._end += sum(len(text) + 1 for text in whole)
            self._has_rest = size > self._end
            return list(self.lines)

    def faults(self) -> list[str]:
        """Lines that cannot be read, as text for the user. They are left as they are."""
        self.read()
        return self._faults + [self._fault(self._number + 1)] * self._has_rest

    def _parse(self, text: bytes) -> None:
        self._number += 1
        try:
            if text.strip():
                self.lines.append(_LINE.validate_json(text))
        except ValidationError:
            self._faults.append(self._fault(self._number))

    def _fault(self, number: int) -> str:
        return f"{self.file}: line {number} is cut off or not a correction, and is left out"

    def append(self, line: Correction) -> None:
        """Add a line. Raises RunError if it cannot be written."""
        text = line.model_dump_json(exclude_defaults=True, exclude={"what"})
        data = f'{{"what":"{line.what}",{text[1:]}\n'.encode()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.file.open("ab+", buffering=0) as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
                if stream.read(1) not in (b"", b"\n"):
                    data = b"\n" + data  # a killed process left half of a line
                # One call: lines of several processes do not mix.
                if stream.write(data) != len(data):
                    raise OSError("the line was cut off")
                os.fsync(stream.fileno())
        except OSError as error:
            what = f"{self.file}: the correction could not be written ({error})"
            raise RunError(f"{what}; free some space and correct it again") from error


def new_line() -> dict[str, str]:
    """The id and the time of a new line."""
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"id": secrets.token_hex(6), "when": when}


def write_through(path: Path, data: bytes) -> None:
    """Write a file completely or not at all; it is on the disk when this returns."""
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path} could not be written ({error}); free some space") from error
    finally:
        temporary.unlink(missing_ok=True)
