"""What every reader returns, the checks of it, and how it becomes the table.

A picture is a file. A photo is a picture with what is known of its tags.
"""

import gc
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tag2mask.errors import DataError
from tag2mask.formats.findings import Finding, plural, problems, warning
from tag2mask.photos.images import EXTENSIONS
from tag2mask.photos.table import Photo, Photos, Table, clean_tag, tag_key
from tag2mask.progress import log

MAX_NAME = 238  # bytes; the mask's temporary file, .NAME.png.4194304.tmp, may have 255
MAX_TAGS = 254  # masks are 8-bit: 0 is background, 255 is ignore

Tags = tuple[str, ...]
# Words for the parts of a split -> train, val or test.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
NOT_UTF8 = re.compile("[\ud800-\udfff]")
is_file = os.path.isfile  # Path.is_file raises an error if a name is too long


class Patch(NamedTuple):
    """A part of a picture in which an object was painted."""

    left: int  # pixels, as the others
    top: int
    width: int
    height: int
    pixels: Callable[[], np.ndarray]  # (height, width) bool; raises ValueError


@dataclass(frozen=True)
class Shape:
    """One object that somebody labeled: its tag, and its outline if it was drawn."""

    tag: str
    # Polygons [x1, y1, x2, y2, ...] in pixels, COCO's run-length code, or what was painted.
    outline: Sequence[Sequence[float]] | Mapping[str, Any] | Patch = ()
    area: float | None = None  # pixels; None: count them
    layer: int = 0  # an object of a higher layer covers those below it


@dataclass(frozen=True, slots=True)
class Row:
    """One picture as its file describes it."""

    path: Path
    tags: tuple[str, ...]
    where: str  # its place for messages: "row 12 (cat.jpg)"
    shapes: Sequence[Shape] = ()  # read by `convert` alone, no training sees them
    size: tuple[int, int] | None = None  # width, height [pixels] of the shapes; None: the picture's
    relative: bool = False  # the shapes' corners are fractions of width and height
    # Tags that are known to be absent. None: all that the photo does not have. Other tags are
    # unknown. A row with neither tags nor known absences is one in which nobody looked for tags.
    absent: tuple[str, ...] | None = None

    @property
    def nobody_looked(self) -> bool:
        """Whether nothing is known of the picture's tags."""
        return not self.tags and self.absent == ()


@dataclass
class Rows:
    """What a reader returns: the rows, and the faults that it met."""

    source: Path
    rows: list[Row] = field(default_factory=list)
    tags: tuple[str, ...] | None = None  # the ordered tags, where the format has a list of them
    findings: list[Finding] = field(default_factory=list)
    no_tags: Finding | None = None  # the file has no place for tags; training photos need them
    form: str = ""  # what was understood, for people: "CSV, columns file_name and tags"
    val: "Rows | None" = None  # the validation photos, where the data have a split

    @cached_property
    def names(self) -> list[str]:
        """The photos' names, see `photo_names`; asked for when all rows are read."""
        return photo_names([row.path for row in self.rows])

    def error(self, kind: str, where: str, what: str, do: str = "") -> None:
        """Note a fault."""
        self.findings.append(Finding(kind, where, what, do))

    def warn(self, kind: str, what: str, do: str = "") -> None:
        """Note a warning about the whole data set."""
        self.findings.append(warning(kind, str(self.source), what, do))


def tags_of(shapes: Iterable[Shape]) -> tuple[str, ...]:
    """The tags of a picture's objects, each once."""
    return split_tags(shape.tag for shape in shapes)


def split_tags(tags: str | Iterable[str]) -> tuple[str, ...]:
    """Tags of a picture, from "cat; dog" or ["cat", "dog"], without empty ones and duplicates."""
    parts = tags.split(";") if isinstance(tags, str) else tags
    return tuple(dict.fromkeys(tag for part in parts if (tag := clean_tag(part))))


def photo_names(paths: Sequence[Path]) -> list[str]:
    """Unique names for pictures: their paths below the folder that they share, without extension.

    The extension stays where two names would be the same (a.jpg, a.heic).
    """
    files = _comparable(paths)
    if not files:
        return []
    root = os.path.join(os.path.commonpath(set(map(os.path.dirname, files))), "")  # noqa: PTH118
    full = [file.removeprefix(root).replace(os.sep, "/") for file in files]
    names = list(map(without_extension, full))
    while True:
        count = Counter(names)
        clash = [i for i, name in enumerate(names) if count[name] > 1 and name != full[i]]
        if not clash:
            return names
        for i in clash:
            names[i] = full[i]


def _comparable(paths: Sequence[Path]) -> list[str]:
    """Paths as texts that are equal if the files are: all absolute, or all from the same folder.

    For many paths: `absolute` takes longer than looking whether they exist.
    """
    texts = list(map(str, paths))
    same = len(set(map(os.path.isabs, texts))) == 1
    if same and not any(text.startswith(".") or f"{os.sep}." in text for text in texts):
        return texts
    return [os.path.abspath(text) for text in texts]  # noqa: PTH100


def without_extension(name: str) -> str:
    """A name without an extension of pictures: "a.JPG" -> "a", "v1.2" stays."""
    stem, _, end = name.rpartition(".")
    is_extension = stem and not stem.endswith("/") and f".{end.lower()}" in EXTENSIONS
    return stem if is_extension else name


@contextmanager
def many_objects() -> Iterator[None]:
    """No search for garbage meanwhile: among a million rows it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@many_objects()
def to_table(rows: Rows, tags: Sequence[str] | None = None, untagged: bool = False) -> Table:
    """Rows to the table; parameters as in `load_table`. Logs warnings.

    Raises DataError with all `row_findings` if one is an error.
    """
    findings = list(row_findings(rows, tags, untagged))
    if any(finding.severity == "error" for finding in findings):
        raise DataError(problems(findings), rows.source)
    for finding in findings:
        log.info(f"warning: {finding}")
    return as_table(rows, known_tags(rows, tags))


def as_table(rows: Rows, tags: Sequence[str]) -> Table:
    """The table of rows that may have faults: tags that are not in `tags` are left out."""
    order = {tag: i for i, tag in enumerate(tags)}
    ordered: dict[tuple[str, ...], tuple[str, ...]] = {}  # many rows have the same tags
    unknown: dict[frozenset[str], tuple[str, ...]] = {}  # by known tags

    def photo(name: str, row: Row) -> Photo:
        own = ordered.get(row.tags)
        if own is None:
            own = tuple(sorted(order.keys() & row.tags, key=order.__getitem__))
            ordered[row.tags] = own
        if row.absent is None and not rows.no_tags:
            return Photo(name, row.path, own)
        known = frozenset((*own, *(row.absent or ())))
        if known not in unknown:
            unknown[known] = tuple(tag for tag in tags if tag not in known)
        return Photo(name, row.path, own, unknown[known])

    photos = map(photo, rows.names, rows.rows)
    return Table(tuple(tags), Photos(photos), str(rows.source))


def known_tags(rows: Rows, tags: Sequence[str] | None = None) -> tuple[str, ...]:
    """The ordered tags: `tags`, or the format's own list, or all that occur, sorted."""
    tags = rows.tags if tags is None else tags
    if tags is None:
        different = {(row.tags, row.absent or ()) for row in rows.rows}
        tags = sorted({tag for own, absent in different for tag in (*own, *absent)})
    return tuple(tags)


def count_tags(rows: Iterable[Row]) -> Counter[str]:
    """Tag -> how many rows have it, in order of appearance."""
    count: Counter[str] = Counter()
    for tags, number in Counter(row.tags for row in rows).items():
        for tag in tags:
            count[tag] += number
    return count


def row_findings(
    rows: Rows, tags: Sequence[str] | None = None, untagged: bool = False
) -> Iterator[Finding]:
    """All faults that make a table impossible; parameters as in `load_table`.

    They are: missing or duplicate pictures, no tags at all, tags that are unknown or have two
    spellings, and the faults that the reader met.
    """
    yield from rows.findings
    if rows.no_tags and not untagged:
        yield rows.no_tags
    if not rows.rows and all(finding.severity != "error" for finding in rows.findings):
        what, do = "no pictures", "pictures are files such as .jpg, .png, .tif, .webp, .jp2"
        if rows.findings:  # they say why
            what, do = "no photo is left", ""
        yield Finding("empty", str(rows.source), what, do)
    yield from _picture_faults(rows)
    if not untagged and not rows.no_tags and len(rows.rows) and not any(r.tags for r in rows.rows):
        what = f"no tag in {photos_text(len(rows.rows))}"
        do = "write what is in the photos, or correct --photos.keep, drop, nothing and min-count"
        yield Finding("no tags", str(rows.source), what, do)
    known = known_tags(rows, tags)
    if tags is not None or rows.tags is not None:
        yield from _unknown_tags(rows.rows, known)
    if tags is None:
        yield from _spelling_faults(rows.rows, known)
    if not known and untagged:
        do = "give the tags of the training set"
        yield Finding("no tags", str(rows.source), "no photo has a tag", do)
    if len(known) > MAX_TAGS:
        what = f"{len(known)} different tags; an 8-bit mask can hold at most {MAX_TAGS}"
        yield Finding("too many tags", str(rows.source), what)


def _picture_faults(rows: Rows) -> Iterator[Finding]:
    exists = [is_file(row.path) for row in rows.rows]
    if len(exists) > 1 and not any(exists):
        what = f"none of the {len(exists)} pictures exists; the first should be {rows.rows[0].path}"
        do = "correct the file names; if the data set has moved, give its new place (--data, --val)"
        yield Finding("missing picture", str(rows.source), what, do)
        return
    seen: dict[str, str] = {}
    files = _comparable([row.path for row in rows.rows])
    for row, name, there, file in zip(rows.rows, rows.names, exists, files, strict=True):
        where = row.where
        first = seen.setdefault(file, where)
        if not there:
            do = "correct the name or delete the row"
            yield Finding("missing picture", where, f"no such file: {row.path}", do)
        elif first != where:
            do = "give each picture one row with all its tags"
            yield Finding("duplicate", where, f"duplicate row: the same picture as {first}", do)
        else:
            yield from name_faults(where, Photo(name, row.path, ()))


def name_faults(where: str, photo: Photo) -> Iterator[Finding]:
    """Faults of a photo's name that make its mask impossible, or its row in a table."""
    if (length := len(os.fsencode(photo.name.rpartition("/")[2]))) > MAX_NAME:
        what = f"the name has {length} bytes: its mask could not be written"
        yield Finding("file name", where, what, f"use at most {MAX_NAME} bytes")
    # Python reads bytes that are not UTF-8 as such letters.
    if NOT_UTF8.search(photo.file):
        yield Finding("file name", where, "not UTF-8", "rename the file or its folder")


def _unknown_tags(rows: Sequence[Row], known: Sequence[str]) -> Iterator[Finding]:
    """Tags that are not in the list, each once, with the first row that has it."""
    count, order = count_tags(rows), {*known}
    for tag, photos in count.items():
        if tag not in order:
            what = f'tag "{tag}" ({photos_text(photos)}) is not one of the {len(known)} known tags'
            yield Finding("unknown tag", _first(rows, tag), what, nearest_tag(tag, known))


def photos_text(number: int) -> str:
    """'1 photo', '2 photos'."""
    return plural(number, "photo")


def nearest_tag(tag: str, known: Sequence[str]) -> str:
    """'did you mean "dog"?', or nothing."""
    near = [name for name in known if tag_key(name) == tag_key(tag)]
    near = near or get_close_matches(tag, known, n=1)
    return f'did you mean "{near[0]}"?' if near else ""


def spellings(rows: Sequence[Row], known: Sequence[str] = ()) -> list[dict[str, int]]:
    """Tags that differ only in case, spaces or punctuation, together: their photos, most first."""
    count = count_tags(rows)
    count.update(dict.fromkeys(known, 0))
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for tag, photos in sorted(count.items(), key=lambda item: -item[1]):
        groups[tag_key(tag)][tag] = photos
    return list(groups.values())


def _spelling_faults(rows: Sequence[Row], known: Sequence[str]) -> Iterator[Finding]:
    """Tags in several spellings, and tags with the reserved name."""
    for group in spellings(rows, known):
        best, *others = group
        if others:
            tags = ", ".join(f'"{tag}" ({photos_text(photos)})' for tag, photos in group.items())
            what = f"{tags} are spellings of one tag, but would become {len(group)} classes"
            do = f'write "{best}" everywhere, or use --photos.rename'
            yield Finding("spelling", _first(rows, others[-1]), what, do)
        if tag_key(best) == "background":
            what = f'"{best}" is the name of class 0, the pixels without a tag'
            do = f"use another tag; if nothing is there, use --photos.nothing {best}"
            yield Finding("spelling", _first(rows, best), what, do)


def _first(rows: Sequence[Row], tag: str) -> str:
    return next((row.where for row in rows if tag in row.tags), f'tag "{tag}"')
