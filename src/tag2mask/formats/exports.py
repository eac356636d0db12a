"""What the readers of tools' exports share: names to pictures, unknown tags, faults of entries."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite
from pathlib import Path
from reprlib import repr as short
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_text
from tag2mask.formats.pictures import Pictures
from tag2mask.formats.rows import Row, Rows, Shape, Tags, photos_text
from tag2mask.photos.table import clean_tag

TOO_LARGE = (RecursionError, OverflowError)


class Export:
    """The rows of an export while it is read. `finish` returns them.

    Pictures are searched in photos.images, or in `folders` and beside the file.
    """

    def __init__(self, path: Path, settings: DataSettings, *folders: Path):
        self.rows, self.val = Rows(path), Rows(path)
        self.settings = settings
        self._pictures = Pictures.of(path, settings.images, *folders)
        self._unknown: dict[int, Tags] = {}  # by the row's identity
        self._left_out: Counter[str] = Counter()

    @contextmanager
    def entry(self, where: str, kind: str) -> Iterator[None]:
        """A block that reads one entry: its errors become a fault that says what it is not."""
        try:
            yield
        except DataError as error:
            self.rows.error("entry", where, str(error))
        except (LookupError, TypeError, ValueError, AttributeError, *TOO_LARGE) as error:
            text = f"no {error}" if isinstance(error, KeyError) else str(error)
            self.rows.error("entry", where, f"not {kind}: {text}")

    def add(
        self,
        name: Any,
        where: str,
        tags: Sequence[str],
        absent: Tags | None = None,
        unknown: Tags = (),
        split: str = "train",
        shapes: Sequence[Shape] = (),
        size: tuple[int, int] | None = None,
    ) -> None:
        """One photo; `unknown` are tags of which nobody knows whether they are in it. `size`:
        width, height [pixels] for which the `shapes` were drawn.

        Raises ValueError if `name` is no name, DataError if several pictures have it.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{short(name)} is not the name of a picture")
        if name.startswith("data:"):
            raise ValueError("the picture is in the file itself; save it as a file")
        tags = tuple(dict.fromkeys(tags))
        picture = self._pictures.find(name)
        row = Row(picture, tags, f"{where} ({name})", shapes, size, absent=absent)
        if unknown:
            self._unknown[id(row)] = unknown
        (self.val if split == "val" else self.rows).rows.append(row)

    def leave_out(self, why: str, photos: int = 1) -> None:
        """Count photos that have no row: "3 photos are left out: WHY"."""
        self._left_out[why] += photos

    def finish(self, form: str, classes: Iterable[str] = ()) -> Rows:
        """The rows, tags in the order of `classes` if there are any; `form` says what was read."""
        for why, photos in self._left_out.items():
            are = "is" if photos == 1 else "are"
            self.rows.warn("export", f"{photos_text(photos)} {are} left out: {why}")
        both = [*self.rows.rows, *self.val.rows]
        used = {tag for row in both for tag in row.tags}
        tags = used.union(*(row.absent or () for row in both), *self._unknown.values())
        for rows in (self.rows, self.val):
            for i, row in enumerate(rows.rows):
                if (unknown := self._unknown.get(id(row))) is not None:
                    absent = tuple(sorted(tags - {*row.tags, *unknown}))
                    rows.rows[i] = replace(row, absent=absent)
            rows.form = form
            rows.tags = tuple(dict.fromkeys(tag for tag in classes if tag in used)) or None
        if self.val.rows:
            self.rows.val = self.val
        return self.rows


def csv_rows(file: Path, rows: Rows, start: str = "") -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV file: place for messages, cells without spaces around them.

    A fault is noted in `rows`, and ends them. `start`: what comes before "row 3" in the places.
    """
    reader = csv.reader(io.StringIO(read_text(file)), strict=True)
    try:
        for cells in reader:
            yield f"{start}row {reader.line_num}", [cell.strip() for cell in cells]
    except csv.Error as error:
        rows.error("format", f"{start}row {reader.line_num}", f"not valid CSV ({error})")


def tag_text(value: Any) -> str:
    """A tag from a text or a number. Raises ValueError."""
    if isinstance(value, str | int) and not isinstance(value, bool) and (tag := clean_tag(value)):
        return tag
    raise ValueError(f"{short(value)} is not a tag")


def tag_texts(value: Any) -> Tags:
    """Tags from a list of texts. Raises ValueError."""
    if not isinstance(value, list):
        raise ValueError(f"{short(value)} is not a list of tags")
    return tuple(dict.fromkeys(map(tag_text, value)))


def class_list(values: Any, file: Path) -> Tags:
    """The classes of a file, in the order of their numbers; () for None. Raises DataError."""
    try:
        return tag_texts(values or [])
    except ValueError as error:
        raise DataError(f"{file}: its classes are not a list of names ({error})") from None


def confidence(value: Any) -> float:
    """A confidence from 0 to 1; without one, 1. Raises ValueError."""
    if value is None or value == "":
        return 1.0
    number = float(value)
    if not isfinite(number) or not 0 <= number <= 1:
        raise ValueError(f"{short(value)} is not a confidence from 0 to 1")
    return number


def class_name(value: Any, classes: Sequence[str]) -> str:
    """A class's name from its number or name; without `classes`, numbers are names.

    Raises ValueError for a number without a class.
    """
    if classes and isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(classes):
            raise ValueError(f"there is no class {value} among {len(classes)}")
        return classes[value]
    return tag_text(value)
