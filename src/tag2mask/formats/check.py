"""Everything wrong with a data set, at once, before hours of work."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from tag2mask.errors import DataError
from tag2mask.files import Facts
from tag2mask.formats import read_rows
from tag2mask.formats.findings import Finding
from tag2mask.formats.rows import (
    Row,
    Rows,
    is_file,
    known_tags,
    nearest_tag,
    photo_names,
    row_findings,
)
from tag2mask.photos.images import reading, upright_rgb
from tag2mask.photos.masks import Truth, true_photos
from tag2mask.photos.table import IGNORE, Photo, Table
from tag2mask.processes import cores
from tag2mask.progress import track

MIN_SIDE = 32  # pixels: two patches of a ViT
MAX_ASPECT = 4  # training resizes to a square
MAX_PIXELS = 40_000_000
FEW = 10  # photos of a tag
UNBALANCED = 20  # photos of the commonest tag for one of the rarest
EVERYWHERE = 0.95  # share of photos
ALIKE = 0.85  # difflib ratio of two tags that may be one: "dog" and "dogs"
ALIKE_RARE = 0.75  # the same where one is five times rarer: "elephant" and "elefant"

Reader = Callable[[Path], Rows]

warning = partial(Finding, severity="warning")


def check(
    data: Path,
    val: Path | None = None,
    masks: Path | None = None,
    clusters: Mapping[str, Sequence[str]] | None = None,
    numbering: str = "auto",
    facts: Facts | None = None,
    read: Reader = read_rows,
) -> list[Finding]:
    """A data set to all its faults, errors first: rows, pictures, tags; with `val` that set and what leaked into it; true masks; clusters.

    Every picture and mask is opened once, those that `facts` knows not at all. An empty list means that nothing was found.
    """
    findings: list[Finding] = []
    facts = facts or Facts()
    found = _rows(data, findings, read)
    tags = known_tags(found) if found else ()
    sets = [found] if found else []
    if found:
        findings += [
            *row_findings(found),
            *tag_findings(found, tags),
            *cluster_findings(tags, clusters or {}),
        ]
    if val is not None and (found_val := _rows(val, findings, read)):
        findings += row_findings(found_val, tags, untagged=True)
        sets.append(found_val)
    findings += picture_findings(sets, facts)
    if masks is not None:
        tables = [_existing_table(one, tags) for one in sets]
        if len(tables) > 1:  # with photos to test on, masks of the training photos are a gift
            tables[0] = true_photos(tables[0], tables[1], masks)
        for table in tables:
            findings += mask_findings(table, masks, numbering, facts)
        findings += stray_masks(sets, masks)
    return sorted(dict.fromkeys(findings), key=lambda finding: finding.severity)


def checked_state(
    data: Path, val: Path | None = None, masks: Path | None = None, read: Reader = read_rows
) -> dict[str, str | None]:
    """What decides whether `check` has anything new to look at, as hashes: rows and masks, and each file's size and time of change."""

    def stamp(path: Path) -> tuple[int, int] | None:
        if not is_file(path):
            return None
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns

    def rows(path: Path) -> Iterator[object]:
        try:
            found = read(path)
        except DataError as error:
            yield error.problems
            return
        yield found.tags, found.findings, found.no_tags
        yield from ((str(row.path), row.tags, stamp(row.path)) for row in found.rows)

    def digest(parts: Iterator[object]) -> str:
        whole = hashlib.sha256()
        for part in parts:
            whole.update(repr(part).encode("utf-8", "backslashreplace"))
        return whole.hexdigest()[:16]

    files = ((str(file), stamp(file)) for file in sorted(masks.rglob("*") if masks else ()))
    return {
        "data": digest(rows(data)),
        "val": digest(rows(val)) if val else None,
        "masks": digest(files) if masks else None,
    }


def tag_findings(found: Rows, tags: Sequence[str]) -> Iterator[Finding]:
    """What makes tags hard or impossible to learn: too few photos, too alike, always together, everywhere."""
    count = Counter(tag for row in found.rows for tag in row.tags if tag in tags)
    photos = sum(bool(row.tags) for row in found.rows)
    for tag, n in sorted(count.items(), key=lambda item: item[1]):
        if n == 1:
            where = next(row.where for row in found.rows if tag in row.tags)
            yield warning(
                "rare tag",
                where,
                f'tag "{tag}" is in this photo only',
                "a misspelling? else find more photos, or drop the tag",
            )
        elif n < FEW:
            yield warning(
                "rare tag", f'tag "{tag}"', f"only {n} photos", f"{FEW} or more can be learnt from"
            )
        if photos >= FEW and n >= EVERYWHERE * photos:
            what = f"in {n} of {photos} photos: nothing to tell it from the background"
            yield warning("tag everywhere", f'tag "{tag}"', what, "add photos without it")
    if absent := [tag for tag in tags if tag not in count]:
        yield warning(
            "absent tag",
            str(found.source),
            f"no photo has {', '.join(absent)}",
            "these classes cannot be learnt",
        )
    if count and max(count.values()) > UNBALANCED * min(count.values()):
        (top, most), *_, (rare, least) = count.most_common()
        yield warning(
            "balance",
            str(found.source),
            f'{most} photos of "{top}", {least} of "{rare}"',
            "rare tags will be learnt badly",
        )
    together = defaultdict(list)
    for tag in count:
        together[tuple(i for i, row in enumerate(found.rows) if tag in row.tags)].append(tag)
    for rows, same in together.items():
        if len(same) > 1 and len(rows) > 1:
            what = f"always together ({len(rows)} photos): nothing can tell them apart"
            yield warning(
                "always together",
                f"tags {', '.join(sorted(same))}",
                what,
                "add photos with one of them alone, or make them one tag",
            )
    for a, b in combinations(sorted(count), 2) if found.tags is None else ():
        alike = ALIKE_RARE if max(count[a], count[b]) >= 5 * min(count[a], count[b]) else ALIKE
        if (
            min(len(a), len(b)) > 2
            and SequenceMatcher(None, a.casefold(), b.casefold()).ratio() >= alike
        ):
            what = f'"{a}" ({count[a]} photos) and "{b}" ({count[b]} photos) look like one tag'
            yield warning(
                "spelling",
                f'tag "{min((a, b), key=count.__getitem__)}"',
                what,
                "if they are, write one of them everywhere",
            )


def cluster_findings(
    tags: Sequence[str], clusters: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Tags named in no cluster, and names in clusters that are no tag."""
    named = {tag for members in clusters.values() for tag in members}
    for tag in tags if clusters else ():
        if tag not in named:
            yield Finding(
                "cluster", f'tag "{tag}"', "in no cluster", "add it to one, or give it its own"
            )
    for cluster, members in clusters.items():
        for tag in members:
            if tag not in tags:
                yield Finding(
                    "cluster",
                    f'cluster "{cluster}"',
                    f'"{tag}" is no tag of this data set',
                    nearest_tag(tag, tags),
                )


@dataclass(frozen=True)
class _Seen:
    """What one look at a picture tells."""

    size: tuple[int, int]
    pixels: str  # hash
    flat: bool
    frames: int


def picture_findings(sets: Sequence[Rows], facts: Facts) -> Iterator[Finding]:
    """Pictures that cannot be read, that occur twice (also in training and validation), or of extreme size, shape or content."""
    rows = [(row, i) for i, found in enumerate(sets) for row in _existing(found)]
    first: dict[str, tuple[Row, int]] = {}
    with ThreadPoolExecutor(cores()) as pool:
        looks = pool.map(partial(_seen, facts), (row.path for row, _ in rows))
        for (row, i), seen in zip(rows, track(looks, "check pictures", len(rows)), strict=True):
            if isinstance(seen, str):
                yield Finding(
                    "unreadable picture",
                    row.where,
                    seen,
                    "get the picture again, or take the row out",
                )
                continue
            yield from _shape_findings(row.where, seen)
            same, j = first.setdefault(seen.pixels, (row, i))
            if i != j:
                yield warning(
                    "leak",
                    row.where,
                    f"the same picture as {same.where} of the training set",
                    "take it out of one of them",
                )
            elif same is not row and set(same.tags) != set(row.tags):
                what = f"the same picture as {same.where}, but tagged {_listed(row.tags)} here and {_listed(same.tags)} there"
                yield warning(
                    "duplicate, other tags", row.where, what, "keep one, with all its tags"
                )
            elif same is not row:
                yield warning(
                    "duplicate", row.where, f"the same picture as {same.where}", "keep one"
                )


def _seen(facts: Facts, path: Path) -> _Seen | str:
    """What one look at a picture has told, or why it cannot be read: that is tried again each time, the cause may lie outside the file."""
    try:
        return _Seen(**facts.of(path, "picture", _look))
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")


def _look(path: Path) -> dict[str, Any]:
    with reading(path) as file:
        image = upright_rgb(file)
        frames = getattr(file, "n_frames", 1)
    pixels = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
    return asdict(_Seen(image.size, pixels, image.getcolors(1) is not None, frames))


def _shape_findings(where: str, seen: _Seen) -> Iterator[Finding]:
    width, height = seen.size
    size = f"{width} x {height} pixels"
    if min(seen.size) < MIN_SIDE:
        yield warning(
            "tiny picture", where, f"only {size}", f"use pictures of {MIN_SIDE} pixels or more"
        )
    if max(seen.size) > MAX_ASPECT * min(seen.size):
        yield warning(
            "extreme shape",
            where,
            f"{size}: squeezed out of shape when resized to a square",
            "cut it to the part that matters",
        )
    if width * height > MAX_PIXELS:
        yield warning(
            "huge picture",
            where,
            f"{size}: slow, and needs much memory",
            "make it smaller; networks see less than a megapixel",
        )
    if seen.flat:
        yield warning("blank picture", where, "one colour all over", "take it out")
    if seen.frames > 1:
        yield warning("animation", where, f"{seen.frames} frames, of which only the first is used")


def mask_findings(table: Table, folder: Path, numbering: str, facts: Facts) -> Iterator[Finding]:
    """True masks that are unreadable, of another size, hold unknown numbers, or show other things than the tags say."""
    if not table.photos:
        return
    try:
        truth = Truth(folder, table, numbering, facts)
    except DataError as error:
        yield Finding("masks", str(folder), str(error).removeprefix(f"{folder}: "))
        return
    if missing := sorted(
        {photo.name for photo in table.photos} - {photo.name for photo in truth.photos_with_truth}
    ):
        what = f"{len(missing)} of {len(table)} photos have no mask, first {missing[0]}.png: they are not scored"
        yield warning("missing mask", str(folder), what)
    with ThreadPoolExecutor(cores()) as pool:
        looks = pool.map(partial(_look_at_mask, truth, table, facts), truth.photos_with_truth)
        for findings in track(looks, "check masks", len(truth.photos_with_truth)):
            yield from findings


def _look_at_mask(truth: Truth, table: Table, facts: Facts, photo: Photo) -> list[Finding]:
    where, seen = str(truth.path(photo)), _seen(facts, photo.path)
    if isinstance(seen, str):
        return []  # the picture is an error already
    try:
        fault = truth.fault(photo, seen.size)
        if truth.look(photo)["numbers"] == [IGNORE]:
            return [warning("empty mask", where, "ignore (255) everywhere: nothing to score")]
    except DataError as error:
        fault = str(error)
    if fault:
        return [Finding("mask", where, fault.removeprefix(f"{where}: "), "make the mask again")]
    shown = {table.classes[i] for i in truth.shown(photo)}
    if not photo.tags or shown == set(photo.tags):
        return []
    return [
        warning(
            "mask and tags",
            where,
            f"shows {_listed(sorted(shown))}, but the tags are {_listed(photo.tags)}",
            "look at the picture",
        )
    ]


def stray_masks(sets: Sequence[Rows], folder: Path) -> Iterator[Finding]:
    """Files in the folder of masks that are no mask, and masks for which no picture exists."""
    if not folder.is_dir():
        return
    stems = {
        file.stem
        for place in {row.path.parent for found in sets for row in found.rows}
        if place.is_dir()
        for file in place.iterdir()
    }
    for file in sorted(folder.rglob("*")):
        if file.is_dir() or file.name.startswith("."):
            continue
        if file.suffix.lower() != ".png":
            yield warning(
                "stray file",
                str(file),
                "not a PNG, so not a mask",
                "masks are PNG files with a class number per pixel",
            )
        elif file.stem not in stems:
            yield warning(
                "stray mask",
                str(file),
                "no picture of this name",
                "a mask is called as its picture, NAME.png",
            )


def _rows(path: Path, findings: list[Finding], read: Reader) -> Rows | None:
    try:
        return read(path)
    except DataError as error:
        findings += [
            Finding("format", str(path), problem.removeprefix(f"{path}: "))
            for problem in error.problems
        ]
        return None


def _existing(found: Rows) -> list[Row]:
    """The first row of each picture that exists."""
    rows = {row.path: row for row in reversed(found.rows)}
    return [rows[path] for path in dict.fromkeys(row.path for row in found.rows) if is_file(path)]


def _existing_table(found: Rows, tags: Sequence[str]) -> Table:
    rows = _existing(found)
    names = photo_names([row.path for row in rows])
    photos = (
        Photo(name, row.path, tuple(t for t in row.tags if t in tags))
        for name, row in zip(names, rows, strict=True)
    )
    return Table(tuple(tags), tuple(photos), str(found.source))


def _listed(tags: Sequence[str]) -> str:
    return ", ".join(tags) or "nothing"
