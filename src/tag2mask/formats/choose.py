"""Which tags count: the settings photos.rename, nothing, keep, drop, min_count and untagged."""

import csv
import io
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_text
from tag2mask.formats.findings import Finding
from tag2mask.formats.rows import Row, Rows, Tags, nearest_tag, photos_text
from tag2mask.formats.text_tables import find_encoding
from tag2mask.photos.table import clean_tag, tag_key


def choose(rows: Rows, settings: DataSettings, tags: Sequence[str] | None = None) -> Rows:
    """The rows with the tags that the settings choose.

    In this order: tags get their new names (rename), those that mean nothing are removed (nothing),
    and of the others those that count are kept (keep, drop, min_count). Photos in which nobody
    looked for tags are left out, or are photos of nothing (untagged).

    `tags`: for a validation set, the tags of the training photos. Then rare tags are those that are
    not among them, and photos without tags stay, whatever `untagged` is. Raises DataError for a
    faulty file of names.
    """
    if rows.no_tags:
        return rows
    names = read_names(settings.rename) if settings.rename else {}
    new_names = {tag: names.get(tag, tag) for tag in _all_tags(rows)}
    drop = _dropped(rows, settings, new_names, tags)
    findings = list(rows.findings)
    if tags is None:
        findings += _unused(rows, settings, names, new_names)
    kept = rows.rows
    if tags is None and settings.untagged == "leave_out":
        kept = [row for row in kept if row.tags]
    elif tags is None and settings.untagged == "auto":
        kept = [row for row in kept if not row.nobody_looked]
    if left_out := len(rows.rows) - len(kept):
        what = f"{left_out} of {photos_text(len(rows.rows))} have no tag and are left out"
        do = "if nothing is in them, use --photos.untagged nothing"
        if not kept:
            do = "give the file that has the tags, and this folder with --photos.images"
        do = do if settings.untagged == "auto" else ""
        findings.append(Finding("untagged", str(rows.source), what, do, "warning"))
    if settings.untagged == "nothing":
        kept = [replace(row, absent=None) if row.nobody_looked else row for row in kept]
    if drop or any(old != new for old, new in new_names.items()):
        kept = [_row(row, new_names, drop, settings.nothing, findings) for row in kept]
    own = rows.tags and _chosen(rows.tags, new_names, drop)
    return replace(rows, rows=kept, tags=own, findings=findings)


def _dropped(
    rows: Rows, settings: DataSettings, new_names: dict[str, str], tags: Sequence[str] | None
) -> set[str]:
    """The new names of the tags that do not count, or mean that nothing is there."""
    drop = {new_names.get(tag, tag) for tag in (*settings.drop, *settings.nothing)}
    if settings.keep:
        drop |= {tag for tag in new_names.values() if tag not in settings.keep}
    if settings.min_count > 1 and tags is not None:
        drop |= {tag for tag in new_names.values() if tag not in tags}
    elif settings.min_count > 1:
        # Two names of one tag in a photo count once.
        count = Counter(new for row in rows.rows for new in {new_names[tag] for tag in row.tags})
        drop |= {tag for tag in new_names.values() if count[tag] < settings.min_count}
    return drop


def _chosen(tags: Iterable[str], new_names: dict[str, str], drop: set[str]) -> Tags:
    return tuple(dict.fromkeys(new for tag in tags if (new := new_names[tag]) not in drop))


def _row(
    row: Row,
    new_names: dict[str, str],
    drop: set[str],
    nothing: Sequence[str],
    findings: list[Finding],
) -> Row:
    """A row with its tags renamed and without those in `drop`."""
    tags, absent = _chosen(row.tags, new_names, drop), row.absent
    if empty := [tag for tag in row.tags if tag in nothing or new_names[tag] in nothing]:
        if tags:
            what = f'"{empty[0]}" means that nothing is there, but the photo has {", ".join(tags)}'
            do = "remove one of them, or choose tags with --photos.drop"
            findings.append(Finding("nothing", row.where, what, do))
        absent = None
    elif absent is not None:
        absent = tuple(tag for tag in _chosen(absent, new_names, drop) if tag not in tags)
    shapes = [
        replace(shape, tag=new) for shape in row.shapes if (new := new_names[shape.tag]) not in drop
    ]
    return replace(row, tags=tags, absent=absent, shapes=shapes)


def _all_tags(rows: Rows) -> dict[str, None]:
    """All tags that the rows name, in order of appearance."""
    tags = dict.fromkeys(rows.tags or ())
    for own, absent in dict.fromkeys((row.tags, row.absent or ()) for row in rows.rows):
        tags.update(dict.fromkeys((*own, *absent)))
    tags.update((shape.tag, None) for row in rows.rows for shape in row.shapes)
    return tags


def _unused(
    rows: Rows, settings: DataSettings, names: dict[str, str], new_names: dict[str, str]
) -> Iterator[Finding]:
    """Names in the settings that no photo has."""
    known = list(dict.fromkeys(new_names.values()))
    for option in ("keep", "drop", "nothing"):
        for tag in getattr(settings, option):
            if tag not in known and tag not in new_names:
                what = f"photos.{option}: no photo has the tag"
                do = nearest_tag(tag, known)
                yield Finding("unused name", f'tag "{tag}"', what, do, "warning")
    if names and not names.keys() & new_names.keys():
        do = f"the first is {next(iter(names))!r}; correct --photos.rename"
        what = "none of its names is a tag of the photos"
        yield Finding("unused name", str(settings.rename), what, do)


def read_names(path: Path) -> dict[str, str]:
    """A file of names to {name in the data: new name}. Raises DataError.

    TOML: old = "new", or new = ["old", "older"]; or CSV with two columns: old, new.
    """
    if path.suffix.lower() == ".toml":
        pairs = _toml_names(path, read_text(path))
    else:
        pairs = _csv_names(path, path.read_text(find_encoding(path)[0]))
    names: dict[str, str] = {}
    for old, new in ((clean_tag(old), clean_tag(new)) for old, new in pairs):
        if not old or not new:
            raise DataError(f"{path}: an empty name ({old!r}, {new!r})")
        if names.setdefault(old, new) != new:
            raise DataError(f'{path}: "{old}" has two new names, "{names[old]}" and "{new}"')
    return names


def _toml_names(path: Path, text: str) -> Iterator[tuple[str, str]]:
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid TOML ({error})") from None
    for key, value in values.items():
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, list) and all(isinstance(old, str) for old in value):
            yield from ((old, key) for old in value)
        else:
            do = 'write old = "new", or new = ["old", "older"]'
            raise DataError(
                f"{path}: {key} = {value!r} is neither a name nor a list of names; {do}"
            )


def _csv_names(path: Path, text: str) -> Iterator[tuple[str, str]]:
    separator = max(",;\t", key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        for cells in reader:
            header = reader.line_num == 1 and [*map(tag_key, cells)] == ["old", "new"]
            if header or not any(cell.strip() for cell in cells):
                continue
            if len(cells) != 2:
                what = f"row {reader.line_num} has {len(cells)} cells"
                raise DataError(f"{path}: {what}; write two columns: old name, new name")
            yield cells[0], cells[1]
    except csv.Error as error:
        raise DataError(f"{path}: row {reader.line_num}: not valid CSV ({error})") from None
