"""Everything that is wrong with a data set, at once, before hours of work."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from tag2mask.errors import DataError
from tag2mask.files import Facts
from tag2mask.formats import read_rows
from tag2mask.formats.findings import Finding, by_severity
from tag2mask.formats.rows import (
    MAX_TAGS,
    Row,
    Rows,
    as_table,
    is_file,
    known_tags,
    nearest_tag,
    photos_text,
    row_findings,
    spellings,
)
from tag2mask.photos.images import reading, upright_rgb
from tag2mask.photos.masks import Truth, true_photos
from tag2mask.photos.table import IGNORE, Photo, Table
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import track

MIN_SIDE = 32  # pixels: two patches of a ViT
MAX_ASPECT = 4  # training resizes to a square
MAX_PIXELS = 40_000_000
FEW = 10  # photos of a tag
UNBALANCED = 20  # photos of the most frequent tag for each photo of the rarest
EVERYWHERE = 0.95  # share of photos
ALIKE = 0.85  # difflib ratio of two tags that may be one: "dog" and "dogs"
ALIKE_RARE = 0.75  # the same where one is five times rarer: "elephant" and "elefant"

Reader = Callable[..., Rows]  # `read_rows` with settings

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
    """All faults of a data set, errors first; an empty list means that nothing was found.

    `val` is the validation set: its own faults, and photos that are in both. `masks` is a folder of
    true masks, with class numbers in `numbering`. Each picture and mask is opened once; those that
    `facts` knows are not opened.
    """
    findings: list[Finding] = []
    facts = facts or Facts()
    train = _read(data, read, findings)
    tags = known_tags(train) if train else ()
    if val:
        tested = _read(val, partial(read, tags=tags) if train else read, findings)
    else:
        tested = train.val if train else None
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
            findings += mask_findings(table, masks, numbering, facts)
        findings += unused_masks(sets, masks)
    return by_severity(findings)


def checked_state(
    data: Path, val: Path | None = None, masks: Path | None = None, read: Reader = read_rows
) -> dict[str, str | None]:
    """Hashes of what `check` looks at: rows, masks, and each file's size and time of change."""

    def stamp(path: Path) -> tuple[int, int] | None:
        stat = path.stat() if is_file(path) else None
        return stat and (stat.st_size, stat.st_mtime_ns)

    def parts(rows: Rows | DataError | None) -> list[object]:
        if rows is None or isinstance(rows, DataError):
            return [rows and rows.problems]
        files = [(str(row.path), row.tags, stamp(row.path)) for row in rows.rows]
        absent = [row.absent for row in rows.rows if row.absent is not None]
        return [(rows.tags, rows.findings, rows.no_tags), *files, *absent]

    def digest(parts: Iterable[object]) -> str:
        text = "".join(map(repr, parts)).encode("utf-8", "backslashreplace")
        return hashlib.sha256(text).hexdigest()[:16]

    def attempt(path: Path, **tags: Sequence[str]) -> Rows | DataError:
        try:
            return read(path, **tags)
        except DataError as error:
            return error

    files = ((str(file), stamp(file)) for file in sorted(masks.rglob("*") if masks else ()))
    train = attempt(data)
    if val:
        tested: Rows | DataError | None = (
            attempt(val, tags=known_tags(train)) if isinstance(train, Rows) else attempt(val)
        )
    else:
        tested = train.val if isinstance(train, Rows) else None
    return {
        "data": digest(parts(train)),
        "val": digest(parts(tested)) if tested else None,
        "masks": digest(files) if masks else None,
    }


def tag_findings(rows: Rows, tags: Sequence[str]) -> Iterator[Finding]:
    """What makes tags hard or impossible to learn."""
    # Spellings that differ only in case, spaces or punctuation are an error already: one tag here.
    main = {tag: next(iter(group)) for group in spellings(rows.rows, tags) for tag in group}
    tagged = [{main[tag] for tag in row.tags} for row in rows.rows]
    count = Counter(tag for tags_of_row in tagged for tag in sorted(tags_of_row))
    alike = _alike_tags(count) if rows.tags is None else []
    for few, many in alike:
        tags_text = (f'"{tag}" ({photos_text(count[tag])})' for tag in (few, many))
        what = f"{' and '.join(tags_text)} may be one tag"
        yield warning("spelling", f'tag "{few}"', what, "if they are, use one spelling")
    yield from _rare_tags(rows, tagged, count, {few for few, _ in alike})
    if absent := [tag for tag in tags if main[tag] not in count]:
        what = f"no photo has {', '.join(absent)}"
        yield warning("absent tag", str(rows.source), what, "these classes cannot be learned")
    known = Counter(
        tag for row in rows.rows if row.absent is not None for tag in (*row.tags, *row.absent)
    )
    all_known = sum(row.absent is None for row in rows.rows)
    for tag, n in count.items():
        photos = all_known + known[tag]  # in which somebody looked for this tag
        if (photos >= FEW or len(count) == 1) and n >= EVERYWHERE * photos:
            what = f"in {n} of {photos} photos: nothing distinguishes it from the background"
            do = "add photos without it: in a row of a table, leave the cell of the tags empty"
            yield warning("tag everywhere", f'tag "{tag}"', what, do)
    together = defaultdict(list)
    for tag in count:
        together[tuple(i for i, row in enumerate(tagged) if tag in row)].append(tag)
    for numbers, same in together.items():
        if len(same) > 1 and len(numbers) > 1:
            what = f"always together ({len(numbers)} photos): nothing distinguishes them"
            do = "add photos with one of them alone, or make them one tag"
            yield warning("always together", f"tags {', '.join(sorted(same))}", what, do)


def _rare_tags(
    rows: Rows, tagged: Sequence[set[str]], count: Counter[str], misspelled: set[str]
) -> Iterator[Finding]:
    for tag, n in sorted(count.items(), key=lambda item: item[1]):
        if n == 1 and tag not in misspelled:
            where = rows.rows[next(i for i, own in enumerate(tagged) if tag in own)].where
            what, do = f'tag "{tag}" is in this photo only', "add photos of it or delete the tag"
            yield warning("rare tag", where, what, do)
        elif n < FEW and tag not in misspelled:
            do = f"at least {FEW} are recommended"
            yield warning("rare tag", f'tag "{tag}"', f"only {n} photos", do)
    enough = [(tag, n) for tag, n in count.most_common() if n >= FEW]
    if enough and enough[0][1] > UNBALANCED * enough[-1][1]:
        (top, most), (rare, least) = enough[0], enough[-1]
        what = f'{most} photos of "{top}", {least} of "{rare}"'
        yield warning("balance", str(rows.source), what, "rare tags are learned badly")


def _alike_tags(count: Counter[str]) -> list[tuple[str, str]]:
    """Pairs of tags that may be one, the rarer first."""
    pairs = []
    for pair in combinations(sorted(count), 2):
        few, many = sorted(pair, key=count.__getitem__)
        least = ALIKE_RARE if count[many] >= 5 * count[few] else ALIKE
        a, b = (tag.casefold() for tag in pair)
        if min(map(len, pair)) > 2 and SequenceMatcher(None, a, b).ratio() >= least:
            pairs.append((few, many))
    return pairs


def cluster_findings(
    tags: Sequence[str], clusters: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Tags that no cluster has, and names in clusters that are not tags."""
    members = [(cluster, tag) for cluster, names in clusters.items() for tag in names]
    for tag in tags if clusters else ():
        if tag not in {member for _, member in members}:
            yield Finding("cluster", f'tag "{tag}"', "in no cluster", "add it to a cluster")
    for cluster, tag in members:
        if tag not in tags:
            what = f'"{tag}" is not a tag of this data set'
            yield Finding("cluster", f'cluster "{cluster}"', what, nearest_tag(tag, tags))


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


def mask_findings(table: Table, folder: Path, numbering: str, facts: Facts) -> Iterator[Finding]:
    """True masks that are unreadable, of another size, with unknown numbers, or unlike the tags."""
    if not table.photos:
        return
    try:
        truth = Truth(folder, table, numbering, facts)
    except DataError as error:
        yield Finding("masks", str(folder), str(error).removeprefix(f"{folder}: "))
        return
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
    if others := [file.relative_to(folder) for file in files if file not in png]:
        what = f"files that are not PNG: {len(others)}, such as {others[0]}"
        yield warning("not a mask", str(folder), what, "they are not used")


def _read(path: Path, read: Reader, findings: list[Finding]) -> Rows | None:
    try:
        return read(path)
    except DataError as error:
        whats = (problem.removeprefix(f"{path}: ") for problem in error.problems)
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
