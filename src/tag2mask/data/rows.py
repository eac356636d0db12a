"""What every reader hands over, and how it becomes the table: names, tag checks, all problems in one error."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePath

from tag2mask.data.table import Photo, Table
from tag2mask.errors import DataError

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jfif"}
MAX_TAGS = 254  # masks are 8-bit: 0 is background, 255 is ignore


@dataclass(frozen=True)
class Row:
    """One picture as its file describes it."""

    path: Path
    tags: tuple[str, ...]
    where: str  # "row 12 (cat.jpg)": what an error message points at


@dataclass
class Rows:
    """What a reader found: rows, and the problems that it met on the way."""

    source: Path
    rows: list[Row] = field(default_factory=list)
    tags: tuple[str, ...] | None = None  # the ordered list, where the format fixes one (VOC's 20, COCO's 80)
    problems: list[str] = field(default_factory=list)


def tag_key(tag: str) -> str:
    """What two spellings of one tag have in common: "Traffic_light " and "traffic light" -> "trafficlight"."""
    return re.sub(r"[\W_]+", "", tag.casefold()) or tag.casefold()


def split_tags(tags: str | Iterable[str]) -> tuple[str, ...]:
    """Tags of one picture, from "cat; dog" or ["cat", "dog"]: stripped, without empty ones and repetitions."""
    parts = tags.split(";") if isinstance(tags, str) else tags
    return tuple(dict.fromkeys(tag for part in parts if (tag := " ".join(str(part).split()))))


def photo_names(paths: Sequence[Path]) -> list[str]:
    """Unique names for pictures: their paths below the common folder of all, without extension unless two would collide (a.jpg, a.png)."""
    absolute = [Path(os.path.normpath(path.absolute())) for path in paths]  # not resolve(): a link keeps the name its owner gave it
    if not absolute:
        return []
    root = os.path.commonpath([path.parent for path in absolute])
    full = [path.relative_to(root).as_posix() for path in absolute]
    names = [name.removesuffix(suffix) if (suffix := PurePath(name).suffix).lower() in PICTURES else name for name in full]
    while True:
        count = Counter(names)
        clash = [i for i, name in enumerate(names) if count[name] > 1 and name != full[i]]
        if not clash:
            return names
        for i in clash:
            names[i] = full[i]


def to_table(found: Rows, tags: Sequence[str] | None = None, untagged: bool = False) -> Table:
    """Rows to the table. `tags`: the training table's, where this one is for validation; `untagged`: photos without tags may stay.

    Raises DataError with every problem: missing and repeated pictures, rows without tags, tags that are unknown or spelt in two ways.
    """
    problems = list(found.problems)
    if not found.rows and not problems:
        problems.append(f"no picture at all; known kinds are {', '.join(sorted(PICTURES))}")
    known = tags if tags is not None else found.tags
    seen: dict[str, str] = {}
    for row in found.rows:
        if not row.path.is_file():
            problems.append(f"{row.where}: no such file: {row.path}")
        elif (same := seen.setdefault(os.path.normpath(row.path.absolute()), row.where)) != row.where:
            problems.append(f"{row.where}: the same picture as {same}; give each picture one row with all its tags")
        if not row.tags and not untagged:
            problems.append(f"{row.where}: no tags; write what is in the picture, or take the row out")
        if known is not None:
            problems += [f"{row.where}: {_unknown(tag, known)}" for tag in row.tags if tag not in known]
    if known is None:
        known = sorted({tag for row in found.rows for tag in row.tags})
        problems += spelling_problems(found.rows)
        if not known and found.rows and untagged:
            problems.append("no photo has a tag; give the tags of the training table")
    if len(known) > MAX_TAGS:
        problems.append(f"{len(known)} different tags; at most {MAX_TAGS} fit in an 8-bit mask")
    if problems:
        raise DataError(problems, found.source)
    order = {tag: i for i, tag in enumerate(known)}
    names = photo_names([row.path for row in found.rows])
    photos = (Photo(name, row.path, tuple(sorted(row.tags, key=order.__getitem__))) for name, row in zip(names, found.rows, strict=True))
    return Table(tuple(known), tuple(photos), str(found.source))


def spelling_problems(rows: Sequence[Row]) -> list[str]:
    """Tags that differ only in case, spaces or punctuation, and the reserved one."""
    count = Counter(tag for row in rows for tag in row.tags)
    spellings = defaultdict(list)
    for tag in count:
        spellings[tag_key(tag)].append(tag)
    problems = []
    for same in spellings.values():
        if len(same) > 1:
            listed = ", ".join(f'"{tag}" ({count[tag]} photos)' for tag in sorted(same, key=count.__getitem__, reverse=True))
            problems.append(f"one tag in {len(same)} spellings: {listed}; they would be taught apart: write one of them everywhere")
    if "background" in spellings:
        first = next(row for row in rows if any(tag_key(tag) == "background" for tag in row.tags))
        problems.append(f'{first.where}: "background" is the name of class 0 (whatever no tag names); use another tag')
    return problems


def _unknown(tag: str, known: Sequence[str]) -> str:
    near = [name for name in known if tag_key(name) == tag_key(tag)] or get_close_matches(tag, known, n=1)
    return f'tag "{tag}" is not one of the {len(known)} known tags' + (f'; did you mean "{near[0]}"?' if near else "")
