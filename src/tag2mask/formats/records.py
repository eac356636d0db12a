"""The needed cells of a table's records, and how they become rows."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.cells import CellError, Marks, TagCells, as_mark
from tag2mask.formats.columns import LISTED, RATINGS, Columns
from tag2mask.formats.findings import Finding, first_few, plural, warning
from tag2mask.formats.pictures import Pictures, TooManyError
from tag2mask.formats.rows import Row, Rows, Tags, photos_text
from tag2mask.photos.table import clean_tag, tag_key

# What the tag cells of a record say: tags that are present, and those that are known to be absent
# (as in `Row`). None stands for cells with a fault.
Meaning = tuple[Tags, Tags | None]
NOBODY_LOOKED: Meaning = ((), ())
FEW = 0.05  # photos in several rows: as few are mentioned


class Records:
    """The needed cells of many records, in little memory: equal cells are stored once."""

    def __init__(self, with_confidence: bool):
        self.names: list[str] = []
        self.numbers = array("Q")
        self.kinds = array("Q")  # which of `cells` a record has
        self.cells: dict[object, int] = {}  # different tag cells -> first record that has them
        self.confidences = array("d")
        self.machine = bytearray()  # 1: Open Images' machine says it
        self.parts: list[str] = []  # train, val or test, where the table has a split
        self._kinds: dict[object, int] = {}
        self._with_confidence = with_confidence

    def add(
        self, number: int, name: str, cell: object, confidence: float, machine: bool, part: str
    ) -> None:
        """Add a record."""
        kind = self._kinds.setdefault(cell, len(self._kinds))
        if kind == len(self.cells):
            self.cells[cell] = len(self.names)
        self.kinds.append(kind)
        self.names.append(name)
        self.numbers.append(number)
        if self._with_confidence:
            self.confidences.append(confidence)
            self.machine.append(machine)
        if part:
            self.parts.append(part)

    def where(self, i: int) -> str:
        """The place of a record for messages."""
        return f"row {self.numbers[i]} ({self.names[i]})"


def add_rows(
    rows: Rows, records: Records, columns: Columns, pictures: Pictures, settings: DataSettings
) -> None:
    """Add a row for each photo to `rows`, its form, and what is wrong with the records."""
    rows.no_tags = columns.no_tags
    long = len(set(records.names)) < len(records.names)
    try:
        meanings, how = _meanings(rows, records, columns, settings, long)
    except CellError as error:
        places = ", ".join(columns.names[i] for i in columns.tags)
        rows.error("tags", f"column {places}", *error.args)
        return
    several = any(meaning and len(meaning[0]) > 1 for meaning in meanings)
    rated = columns.confidence is not None and tag_key(columns.names[columns.confidence]) in RATINGS
    if several and rated:  # of the photo, not of a tag
        columns.confidence, records.confidences = None, array("d")
    if not long and not records.confidences:
        groups: Iterable[Sequence[int]] = ((i,) for i in range(len(records.names)))
    else:
        groups = _by_photo(rows, records, meanings, columns)
    merge = _Merge(rows, records, meanings, settings.min_confidence, columns)
    parts: dict[str, list[Row]] = {}
    for group in groups:
        first = group[0]
        meaning = meanings[records.kinds[first]]
        if records.confidences or len(group) > 1:
            meaning = merge.meaning(group)
        if meaning is None:
            continue
        try:
            path = pictures.find(records.names[first])
        except TooManyError:
            raise
        except DataError as error:
            rows.error("picture", records.where(first), str(error))
            continue
        row = Row(path, meaning[0], records.where(first), absent=meaning[1])
        part = records.parts[first] if records.parts else "train"
        parts.setdefault(part, []).append(row)
    _split(rows, parts)
    rows.form += _form(columns, how, merge)


def _meanings(
    rows: Rows, records: Records, columns: Columns, settings: DataSettings, long: bool
) -> tuple[list[Meaning | None], str]:
    """What each of the different cells means, and how they are read, for people.

    A cell with a fault is noted once. Raises CellError if all may be read in several ways.
    """
    cells = list(records.cells)
    if not columns.tags:
        return [NOBODY_LOOKED] * len(cells), ""
    groups: list[Sequence[Any]] = [
        cell if columns.several and isinstance(cell, tuple) else (cell,) for cell in cells
    ]
    if columns.one_hot:  # without columns that are always empty
        number = range(len(columns.tags))
        filled = [i for i in number if any(as_mark(group[i]).strip() for group in groups)]
        if len(filled) < len(number):
            columns.tags = tuple(columns.tags[i] for i in filled)
            groups = [[group[i] for i in filled] for group in groups]
    parts = [part for group in groups for part in group]
    read: Callable[[Sequence[Any]], Meaning]
    if columns.one_hot:
        marks = Marks(as_mark(part) for part in parts)
        how = str(marks)
        read = partial(_one_hot, [clean_tag(columns.names[i]) for i in columns.tags], marks)
    else:
        tag_cells = TagCells(parts, settings.separator, long, columns.label_studio)
        if tag_cells.doubt:
            what = f"each of these is taken for one tag: {tag_cells.doubt}"
            do = 'if their words are tags, use --photos.separator " "'
            rows.warn("words", what, do)
        how = tag_cells.form
        read = partial(_union, tag_cells)
    meanings: list[Meaning | None] = []
    for group, first in zip(groups, records.cells.values(), strict=True):
        try:
            meanings.append(read(group))
        except CellError as error:
            rows.error("format", records.where(first), *error.args)
            meanings.append(None)
    return meanings, how


def _union(tag_cells: TagCells, cells: Sequence[Any]) -> Meaning:
    """A record with one cell of tags, or several."""
    own = [tags for cell in cells if (tags := tag_cells.tags(cell)) is not None]
    if not own:
        return NOBODY_LOOKED
    return tuple(dict.fromkeys(tag for tags in own for tag in tags)), None


def _one_hot(names: Sequence[str], marks: Marks, cells: Sequence[Any]) -> Meaning:
    """A record with one cell for each tag."""
    values = dict(zip(names, (marks.value(as_mark(cell)) for cell in cells), strict=True))
    present = tuple(name for name, value in values.items() if value)
    if None not in values.values():
        return present, None
    return present, tuple(name for name, value in values.items() if value is False)


def _by_photo(
    rows: Rows, records: Records, meanings: Sequence[Meaning | None], columns: Columns
) -> list[list[int]]:
    """The records of each photo together, where each has one tag; others are duplicates.

    In the order of the first records.
    """
    photos: dict[str, list[int]] = {}
    for i, name in enumerate(records.names):
        photos.setdefault(name, []).append(i)
    groups: list[list[int]] = []
    repeated: list[str] = []
    for name, group in photos.items():
        own = [meanings[records.kinds[i]] for i in group]
        one_tag = all(m is None or len(m[0]) == 1 or m == NOBODY_LOOKED for m in own)
        together = columns.label_studio or (one_tag and not columns.one_hot)
        if len(group) > 1 and not together:
            groups += ([i] for i in group)
        else:
            if len(group) > 1:
                repeated.append(name)
            groups.append(group)
    if 0 < len(repeated) < FEW * len(photos) and not records.confidences:
        what = f"{photos_text(len(repeated))} in several rows: their tags are put together"
        rows.findings.append(warning("several rows", first_few(repeated), what))
    return sorted(groups)


class _Merge:
    """Records of one photo to what they say together, by their confidences.

    A confidence of 0 is a person's word that the tag is absent (Open Images); then tags that are
    not listed are unknown, and absent otherwise. A tag below `limit` is unknown: a machine was not
    sure. A person's word counts more than a machine's. Of Label Studio's annotations of a photo, a
    tag that only some have is unknown, as in `label_studio`.
    """

    def __init__(
        self,
        rows: Rows,
        records: Records,
        meanings: Sequence[Meaning | None],
        limit: float,
        columns: Columns,
    ):
        self.rows, self.records, self.meanings, self.limit = rows, records, meanings, limit
        self.listed_only = columns.origin is not None or 0.0 in records.confidences
        self.votes = columns.label_studio
        self.tags = dict.fromkeys(tag for meaning in meanings if meaning for tag in meaning[0])

    def meaning(self, group: Sequence[int]) -> Meaning | None:
        """What the records of one photo say; None if one has a fault."""
        records = self.records
        own: list[tuple[int, Meaning]] = []
        for i in group:
            meaning = self.meanings[records.kinds[i]]
            if meaning is None:
                return None
            if meaning != NOBODY_LOOKED:
                own.append((i, meaning))
        if not own:
            return NOBODY_LOOKED
        if len(own) == 1 and not own[0][1][0]:  # an empty cell: a photo of nothing
            return own[0][1]
        if self.votes:
            sets = [set(tags) for _, (tags, _) in own]
            every, some = set.intersection(*sets), set.union(*sets)
            rest = None if every == some else tuple(tag for tag in self.tags if tag not in some)
            return tuple(tag for tag in self.tags if tag in every), rest
        present: dict[str, bool] = {}  # tag -> a person says it
        absent: dict[str, None] = {}
        unsure: dict[str, None] = {}
        for i, (tags, _) in own:
            confidence = records.confidences[i] if records.confidences else 1.0
            person = not (records.confidences and records.machine[i])
            for tag in tags:
                if confidence == 0 and person:
                    absent[tag] = None
                elif confidence == 0 or confidence < self.limit:
                    unsure[tag] = None
                else:
                    present[tag] = present.get(tag, False) or person
        for tag in present.keys() & absent.keys():
            if present[tag]:
                what = f'"{tag}" is both present and absent (confidence 0) in this photo'
                self.rows.error("contradiction", records.where(group[0]), what, "delete one row")
            del present[tag]
        if self.listed_only:
            return tuple(present), tuple(absent)
        unsure = {tag: None for tag in unsure if tag not in present}
        if unsure:
            return tuple(present), tuple(t for t in self.tags if t not in present | unsure)
        return tuple(present), None


def _split(rows: Rows, parts: dict[str, list[Row]]) -> None:
    """Rows for training, and those for validation, where a column tells them apart."""
    held_out = parts.get("val") or parts.get("test")
    if not held_out or "train" not in parts:
        rows.rows = [row for part in parts.values() for row in part]
        return
    rows.rows = parts["train"]
    rows.val = Rows(rows.source, held_out)
    if "val" in parts and (left_out := len(parts.get("test", ()))):
        what = f"{photos_text(left_out)} of the part test are left out"
        rows.findings.append(Finding("split", str(rows.source), what, severity="info"))


def _form(columns: Columns, how: str, merge: _Merge) -> str:
    """What was understood of the columns, for people."""
    names = [columns.names[i] for i in columns.tags]
    text = f", file names in {columns.names[columns.file]}"
    if columns.one_hot:
        text += f", a column for each of {plural(len(names), 'tag')} ({first_few(names)}; {how})"
    elif names:
        text += f", tags in {', '.join(names)}{how}"
    if columns.confidence is not None:
        rest = "unknown" if merge.listed_only else "absent"
        text += f", {columns.names[columns.confidence]} below {merge.limit:g} unknown"
        text += f"{', 0 absent' if merge.listed_only else ''}, tags that are not listed {rest}"
    if columns.split is not None:
        text += f", split in {columns.names[columns.split]}"
    if ignored := columns.ignored:
        shown = ", ".join(ignored[:LISTED] + ["..."] * (len(ignored) > LISTED))
        text += f"; other columns are ignored: {shown}"
    return text
