"""What every reader hands over, and how it becomes the table: names, tag checks, all faults in one error."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePath

from tag2mask.errors import DataError
from tag2mask.formats.findings import Finding, shorten
from tag2mask.photos.table import Photo, Table, absolute, clean_tag, tag_key
from tag2mask.progress import log

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jfif"}
UNREAD = {
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
}  # pictures too, but Pillow does not open them everywhere
MAX_NAME = 238  # bytes: with what is added while its mask is written (.NAME.png.4194304.tmp) a name has 255
MAX_TAGS = 254  # masks are 8-bit: 0 is background, 255 is ignore


@dataclass(frozen=True)
class Row:
    """One picture as its file describes it."""

    path: Path
    tags: tuple[str, ...]
    where: str  # "row 12 (cat.jpg)": what an error message points at


@dataclass
class Rows:
    """What a reader found: rows, and the faults that it met on the way."""

    source: Path
    rows: list[Row] = field(default_factory=list)
    tags: tuple[str, ...] | None = (
        None  # the ordered list, where the format fixes one (VOC's 20, COCO's 80)
    )
    findings: list[Finding] = field(default_factory=list)
    no_tags: Finding | None = (
        None  # that the file has no place for tags, which only photos to train on need
    )


def split_tags(tags: str | Iterable[str]) -> tuple[str, ...]:
    """Tags of one picture, from "cat; dog" or ["cat", "dog"]: stripped, without empty ones and repetitions."""
    parts = tags.split(";") if isinstance(tags, str) else tags
    return tuple(dict.fromkeys(tag for part in parts if (tag := clean_tag(part))))


def photo_names(paths: Sequence[Path]) -> list[str]:
    """Unique names for pictures: their paths below the common folder of all, without extension unless two would collide (a.jpg, a.png)."""
    whole = [absolute(path) for path in paths]
    if not whole:
        return []
    root = os.path.commonpath([path.parent for path in whole])
    full = [path.relative_to(root).as_posix() for path in whole]
    names = [
        name.removesuffix(suffix) if (suffix := PurePath(name).suffix).lower() in PICTURES else name
        for name in full
    ]
    while True:
        count = Counter(names)
        clash = [i for i, name in enumerate(names) if count[name] > 1 and name != full[i]]
        if not clash:
            return names
        for i in clash:
            names[i] = full[i]


def to_table(found: Rows, tags: Sequence[str] | None = None, untagged: bool = False) -> Table:
    """Rows to the table; parameters as in `load_table`. Raises DataError with every fault of `row_findings`; mere warnings are logged."""
    names = photo_names([row.path for row in found.rows])
    findings = list(row_findings(found, tags, untagged, names))
    if any(finding.severity == "error" for finding in findings):
        raise DataError([str(finding) for finding in shorten(findings)], found.source)
    for finding in findings:
        log.info(f"warning: {finding}")
    known = known_tags(found, tags)
    order = {tag: i for i, tag in enumerate(known)}
    photos = (
        Photo(name, row.path, tuple(sorted(row.tags, key=order.__getitem__)))
        for name, row in zip(names, found.rows, strict=True)
    )
    return Table(known, tuple(photos), str(found.source))


def known_tags(found: Rows, tags: Sequence[str] | None = None) -> tuple[str, ...]:
    """The ordered list of tags: the given one, or the format's own, or all that occur, sorted."""
    if tags is not None:
        return tuple(tags)
    return (
        found.tags
        if found.tags is not None
        else tuple(sorted({tag for row in found.rows for tag in row.tags}))
    )


def row_findings(
    found: Rows,
    tags: Sequence[str] | None = None,
    untagged: bool = False,
    names: Sequence[str] | None = None,
) -> Iterator[Finding]:
    """Every fault that makes the table impossible: missing and repeated pictures, rows without tags, tags unknown or spelt in two ways."""
    yield from found.findings
    if found.no_tags and not untagged:
        yield found.no_tags
    if not found.rows and all(finding.severity == "warning" for finding in found.findings):
        yield Finding(
            "empty",
            str(found.source),
            "no picture at all",
            f"known kinds are {', '.join(sorted(PICTURES))}",
        )
    known = known_tags(found, tags)
    given = tags is not None or found.tags is not None
    seen: dict[Path, str] = {}
    for row, name in zip(
        found.rows, names or photo_names([row.path for row in found.rows]), strict=True
    ):
        first = seen.setdefault(absolute(row.path), row.where)
        if not is_file(row.path):
            yield Finding(
                "missing picture",
                row.where,
                f"no such file: {row.path}",
                "correct the name or take the row out",
            )
        elif first != row.where:
            yield Finding(
                "repeated row",
                row.where,
                f"the same picture as {first}",
                "give each picture one row with all its tags",
            )
        elif (length := len(os.fsencode(PurePath(name).name))) > MAX_NAME:
            yield Finding(
                "file name",
                row.where,
                f"a name of {length} bytes; its mask could not be written",
                f"give it at most {MAX_NAME}",
            )
        if any(
            "\ud800" <= letter <= "\udfff" for letter in str(row.path)
        ):  # what Python makes of bytes that are not UTF-8
            yield Finding("file name", row.where, "not UTF-8", "rename the file or its folder")
        if not row.tags and not untagged and not found.no_tags:
            yield Finding(
                "no tags", row.where, "no tags", "write what is in the picture, or take the row out"
            )
        for tag in row.tags if given else ():
            if tag not in known:
                yield Finding(
                    "unknown tag",
                    row.where,
                    f'tag "{tag}" is not one of the {len(known)} known tags',
                    nearest_tag(tag, known),
                )
    if tags is None:
        yield from _spelling(found.rows, known)
    if not known and untagged:
        yield Finding(
            "no tags",
            str(found.source),
            "no photo has a tag",
            "give the tags of the training table",
        )
    if len(known) > MAX_TAGS:
        yield Finding(
            "too many tags",
            str(found.source),
            f"{len(known)} different tags; at most {MAX_TAGS} fit in an 8-bit mask",
        )


def nearest_tag(tag: str, known: Sequence[str]) -> str:
    """'did you mean "dog"?' or nothing."""
    near = [name for name in known if tag_key(name) == tag_key(tag)] or get_close_matches(
        tag, known, n=1
    )
    return f'did you mean "{near[0]}"?' if near else ""


def _spelling(rows: Sequence[Row], known: Sequence[str]) -> Iterator[Finding]:
    """Tags that differ only in case, spaces or punctuation, and the reserved one."""
    count = Counter(tag for row in rows for tag in row.tags)
    count.update(dict.fromkeys(known, 0))
    spellings = defaultdict(list)
    for tag in count:
        spellings[tag_key(tag)].append(tag)
    for same in spellings.values():
        if len(same) > 1:
            same.sort(key=count.__getitem__, reverse=True)
            listed = ", ".join(f'"{tag}" ({count[tag]} photos)' for tag in same)
            what = f"{listed} are one tag in {len(same)} spellings and would be taught apart"
            yield Finding("spelling", _first(rows, same[-1]), what, f'write "{same[0]}" everywhere')
    for tag in spellings.get("background", ()):
        yield Finding(
            "spelling",
            _first(rows, tag),
            f'"{tag}" is the name of class 0, whatever no tag names',
            "use another tag",
        )


def _first(rows: Sequence[Row], tag: str) -> str:
    return next((row.where for row in rows if tag in row.tags), f'tag "{tag}"')


def is_file(path: Path) -> bool:
    """Whether a file is there; where the name is too long for one, none is."""
    try:
        return path.is_file()
    except OSError:
        return False
