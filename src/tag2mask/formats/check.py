"""Everything that is wrong with a data set, at once, before hours of work."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import Facts
from tag2mask.formats import read_rows
from tag2mask.formats.check_tags import cluster_findings, tag_findings
from tag2mask.formats.findings import Finding, by_severity, warning
from tag2mask.formats.rows import (
    MAX_TAGS,
    Row,
    Rows,
    as_table,
    is_file,
    known_tags,
    row_findings,
)
from tag2mask.photos.images import reading, upright_rgb
from tag2mask.photos.masks import CLASSES_FILE, PREDICTED_CLASSES, Truth, true_photos
from tag2mask.photos.table import IGNORE, Photo, Table
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import track

MIN_SIDE = 32  # pixels: two patches of a ViT
MAX_ASPECT = 4  # training resizes to a square
MAX_PIXELS = 40_000_000

ReadRows = Callable[..., Rows]  # `read_rows` with settings


def check(
    data: Path,
    val: Path | None = None,
    masks: Path | None = None,
    clusters: Mapping[str, Sequence[str]] | None = None,
    classes: str = "auto",
    facts: Facts | None = None,
    read: ReadRows = read_rows,
) -> list[Finding]:
    """All faults of a data set, errors first; an empty list means that nothing was found.

    `val` is the validation set: its own faults, and photos that are in both. `masks` is a folder of
    true masks, whose numbers mean `classes`. Each picture and mask is opened once; those that
    `facts` knows are not opened.
    """
    findings: list[Finding] = []
    facts = facts or Facts()
    both = _read_both(data, val, read)
    train, tested = (
        _noted(rows, path, findings) for rows, path in zip(both, (data, val), strict=True)
    )
    tags = known_tags(train) if train else ()
    if val and train and tested:  # "row 3" alone could be of either file
        same = data.name == val.name
        train = _with_file(train, str(data) if same else data.name)
        tested = _with_file(tested, str(val) if same else val.name)
    elif train and tested:
        train, tested = _with_file(train, "train"), _with_file(tested, "val")
    if train:
        findings += row_findings(train)
        findings += tag_findings(train, tags) if len(tags) <= MAX_TAGS else ()
        findings += cluster_findings(tags, clusters or {})
    if tested:
        findings += row_findings(tested, tags if train else None, untagged=True)
    sets = [rows for rows in (train, tested) if rows]
    existing = [_existing(rows) for rows in sets]
    findings += picture_findings(existing, facts)
    if masks is not None:
        tables = [as_table(rows, tags) for rows in existing]
        if len(tables) > 1:  # masks of the training photos are not needed then
            tables[0] = true_photos(tables[0], tables[1], masks)
        for table in tables:
            findings += mask_findings(table, masks, classes, facts)
        findings += unused_masks(sets, masks)
    return by_severity(findings)


class Reader:
    """`read_rows` with these settings; a data set is read once, and kept until it is taken."""

    def __init__(self, settings: DataSettings):
        self._settings = settings
        self._rows: dict[tuple[Path, Sequence[str] | None], Rows] = {}

    def __call__(self, path: Path, tags: Sequence[str] | None = None) -> Rows:
        if (path, tags) not in self._rows:
            self._rows[path, tags] = read_rows(path, self._settings, tags)
        return self._rows[path, tags]

    def take(self, path: Path, tags: Sequence[str] | None = None) -> Rows:
        """The rows for the last time: they need 20 times the memory of the table made of them."""
        self(path, tags)
        return self._rows.pop((path, tags))


def checked_state(
    data: Path, val: Path | None = None, masks: Path | None = None, read: ReadRows = read_rows
) -> dict[str, str | None]:
    """Hashes of what `check` looks at: rows, masks, and each file's size and time of change."""

    def stamp(path: Path) -> tuple[int, int] | None:
        try:
            about = os.stat(path)  # noqa: PTH116  pathlib takes several times as long
        except (OSError, ValueError):
            return None
        return (about.st_size, about.st_mtime_ns) if S_ISREG(about.st_mode) else None

    def parts(rows: Rows | DataError | None) -> Iterator[object]:
        if rows is None or isinstance(rows, DataError):
            yield rows and rows.problems
            return
        yield rows.tags, rows.findings, rows.no_tags
        yield from ((str(row.path), row.tags, stamp(row.path)) for row in rows.rows)
        yield from (row.absent for row in rows.rows if row.absent is not None)

    def digest(parts: Iterable[object]) -> str:
        whole = hashlib.sha256()
        for part in parts:
            whole.update(repr(part).encode("utf-8", "backslashreplace"))
        return whole.hexdigest()[:16]

    files = ((str(file), stamp(file)) for file in sorted(masks.rglob("*") if masks else ()))
    train, tested = _read_both(data, val, read)
    return {
        "data": digest(parts(train)),
        "val": digest(parts(tested)) if tested else None,
        "masks": digest(files) if masks else None,
    }


def picture_findings(sets: Sequence[Rows], facts: Facts) -> Iterator[Finding]:
    """Pictures that are unreadable, duplicate (also in training and validation set), or unusual."""
    rows = [(row, i) for i, of_set in enumerate(sets) for row in of_set.rows]
    first: dict[str, tuple[Row, int]] = {}
    looks = parallel_map(partial(_picture, facts), [row.path for row, _ in rows], cores())
    for (row, i), picture in zip(rows, track(looks, "check pictures", len(rows)), strict=True):
        if isinstance(picture, str):
            do = "replace the picture, or delete the row"
            yield Finding("unreadable picture", row.where, picture, do)
            continue
        yield from _shape_findings(row.where, picture)
        other, j = first.setdefault(picture["pixels"], (row, i))
        same = f"the same picture as {other.where}"
        if i != j:
            what = f"{same} of the training set"
            yield warning("leak", row.where, what, "delete it from one of them")
        elif other is not row:
            if set(other.tags) != set(row.tags):
                same += f", but the tags are {_listed(row.tags)}, there {_listed(other.tags)}"
            yield warning("duplicate", row.where, same, "keep one, with all its tags")


def _picture(facts: Facts, path: Path) -> dict[str, Any] | str:
    """`_look`, or why the picture cannot be read, which is tried again each time."""
    try:
        picture: dict[str, Any] = facts.of(path, "picture", _look)
        return picture
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")


def _look(path: Path) -> dict[str, Any]:
    """The size (width, height), a hash of the pixels, whether all are equal, and the frames."""
    with reading(path) as file:
        image = upright_rgb(file)
        frames = getattr(file, "n_frames", 1)
    pixels = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
    flat = image.getcolors(1) is not None
    return {"size": image.size, "pixels": pixels, "flat": flat, "frames": frames}


def _shape_findings(where: str, picture: dict[str, Any]) -> Iterator[Finding]:
    short, long = sorted(picture["size"])
    size = "{} x {} pixels".format(*picture["size"])
    if short < MIN_SIDE:
        do = f"use pictures of at least {MIN_SIDE} pixels"
        yield warning("tiny picture", where, f"only {size}", do)
    if long > MAX_ASPECT * short:
        what = f"{size}: distorted when it is resized to a square"
        yield warning("extreme shape", where, what, "crop it to the part that matters")
    if short * long > MAX_PIXELS:
        do = "make it smaller: networks see less than a megapixel"
        yield warning("huge picture", where, f"{size}: slow, and needs much memory", do)
    if picture["flat"]:
        yield warning("blank picture", where, "only one color", "delete it")
    if (frames := picture["frames"]) > 1:
        yield warning("animation", where, f"{frames} frames; only the first is used")


def mask_findings(table: Table, folder: Path, classes: str, facts: Facts) -> Iterator[Finding]:
    """True masks that are unreadable, of another size, with unknown numbers, or unlike the tags."""
    if not table.photos:
        return
    try:
        truth = Truth(folder, table, classes, facts)
    except DataError as error:
        yield Finding("masks", str(folder), str(error).removeprefix(f"{folder}: "))
        return
    for text in truth.warnings:
        yield warning("masks", str(folder), text)
    photos = truth.photos_with_truth
    if missing := sorted({photo.name for photo in table.photos} - {photo.name for photo in photos}):
        what = f"photos without a mask: {len(missing)} of {len(table)}, such as {missing[0]}.png"
        yield warning("missing mask", str(folder), what, "they are not scored")
    looks = parallel_map(partial(_mask_finding, truth, table, facts), photos, cores())
    yield from filter(None, track(looks, "check masks", len(photos)))


def _mask_finding(truth: Truth, table: Table, facts: Facts, photo: Photo) -> Finding | None:
    where, picture = str(truth.path(photo)), _picture(facts, photo.path)
    if isinstance(picture, str):
        return None  # the picture is an error already
    try:
        fault = truth.fault(photo, picture["size"])
        if truth.look(photo)["numbers"] == [IGNORE]:
            return warning("empty mask", where, "only ignore (255): nothing to score")
    except DataError as error:
        fault = str(error)
    if fault:
        return Finding("mask", where, fault.removeprefix(f"{where}: "), "make the mask again")
    classes = {table.classes[i] for i in truth.classes(photo)}
    if {*photo.tags} <= classes <= {*photo.tags, *photo.unknown}:
        return None
    what = f"shows {_listed(sorted(classes))}, but the tags are {_listed(photo.tags)}"
    return warning("mask and tags", where, what, "look at the picture")


def unused_masks(sets: Sequence[Rows], folder: Path) -> Iterator[Finding]:
    """One finding for masks that no photo has, one for files that are not masks."""
    if not folder.is_dir():
        return
    places = {row.path.parent for rows in sets for row in rows.rows}
    names = {row.path.stem for rows in sets for row in rows.rows}
    names |= {file.stem for place in places if place.is_dir() for file in place.iterdir()}
    files = [f for f in sorted(folder.rglob("*")) if not f.is_dir() and not f.name.startswith(".")]
    png = {file for file in files if file.suffix.lower() == ".png"}
    if unused := [f.relative_to(folder) for f in files if f in png and f.stem not in names]:
        what = f"masks without a photo of their name: {len(unused)}, such as {unused[0]}"
        yield Finding("unused mask", str(folder), what, "they are not used", "info")
    known = {CLASSES_FILE, PREDICTED_CLASSES}
    others = [f.relative_to(folder) for f in files if f not in png and f.name not in known]
    if others:
        what = f"files that are not PNG: {len(others)}, such as {others[0]}"
        yield warning("not a mask", str(folder), what, "they are not used")


def _read_both(
    data: Path, val: Path | None, read: ReadRows
) -> tuple[Rows | DataError, Rows | DataError | None]:
    """Training photos and validation photos, those of `val` or of the split that `data` has. In
    place of photos that cannot be read: the error."""

    def attempt(path: Path, **tags: Sequence[str]) -> Rows | DataError:
        try:
            return read(path, **tags)
        except DataError as error:
            return error

    train = attempt(data)
    if not isinstance(train, Rows):
        return train, attempt(val) if val else None
    return train, attempt(val, tags=known_tags(train)) if val else train.val


def _noted(
    rows: Rows | DataError | None, path: Path | None, findings: list[Finding]
) -> Rows | None:
    """The rows; None for an error, which is added to the findings."""
    if not isinstance(rows, DataError):
        return rows
    whats = (problem.removeprefix(f"{path}: ") for problem in rows.problems)
    findings += [Finding("format", str(path), what) for what in whats]
    return None


def _with_file(rows: Rows, name: str) -> Rows:
    """The rows and findings with the data set's name in their places."""

    def place(where: str) -> str:
        return where if where.startswith(name) else f"{name} {where}"

    return replace(
        rows,
        rows=[replace(row, where=place(row.where)) for row in rows.rows],
        findings=[replace(finding, where=place(finding.where)) for finding in rows.findings],
        no_tags=rows.no_tags and replace(rows.no_tags, where=place(rows.no_tags.where)),
    )


def _existing(rows: Rows) -> Rows:
    """The first row of each picture that exists."""
    first = {row.path: row for row in reversed(rows.rows)}
    paths = dict.fromkeys(row.path for row in rows.rows)
    return replace(rows, rows=[first[path] for path in paths if is_file(path)])


def _listed(tags: Sequence[str]) -> str:
    return ", ".join(tags) or "nothing"
