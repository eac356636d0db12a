"""Tables: records with a file name and tags, as people and tools write them, to rows.

Where the records come from (delimited text, JSON lines, Excel, data frames) does not matter here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.formats.cells import CellError, as_confidence, as_mark, as_text, freeze, is_empty
from tag2mask.formats.columns import ColumnError, Columns, Sample, find_columns, is_header, part_of
from tag2mask.formats.findings import plural
from tag2mask.formats.pictures import Pictures
from tag2mask.formats.records import Records, add_rows
from tag2mask.formats.rows import Rows
from tag2mask.photos.table import tag_key

SAMPLED = 2000  # records from which the columns are found


# In place of a record that could not be read there is the error.
Record = Sequence[object] | CellError


def rows_from_records(
    source: Path,
    header: Sequence[object] | None,
    records: Iterable[Record],
    settings: DataSettings,
    form: str = "table",
    first: int = 2,
) -> Rows:
    """The rows of a table: one record for each photo, or for each photo and tag.

    Cells are texts or JSON values (a list of tags); None and NaN mean that nobody looked for tags.
    `header`: the names of the columns; None: the first record is the header, or there is none.
    `form`: what is known of the form already, for people. `first`: the number of the first record
    in messages. Names of pictures are relative to the folder of `source`, or to photos.images.
    """
    rows = Rows(source, form=form)
    pictures = Pictures.of(source, settings.images)
    numbered = (
        (number, record)
        for number, record in enumerate(records, first)
        if isinstance(record, CellError) or not all(map(is_empty, record))
    )
    start = list(islice(numbered, SAMPLED))
    cells = [record for _, record in start if not isinstance(record, CellError)]
    if header is None and cells and is_header(cells[0], pictures):
        header = cells.pop(0)
        start = [entry for entry in start if entry[1] is not header]
    try:
        sample = _sample(header, cells, settings)
        columns = find_columns(sample, pictures)
    except ColumnError as error:
        for what, do in zip(error.args[::2], error.args[1::2], strict=True):
            rows.error("columns", "header", what, do)
        start = [entry for entry in start if isinstance(entry[1], CellError)]
        _read(start, Columns([], 0), rows)
        return rows
    add_rows(rows, _read(chain(start, numbered), columns, rows), columns, pictures, settings)
    return rows


def rows_from_objects(
    source: Path,
    objects: Iterable[Mapping[str, object] | CellError],
    settings: DataSettings,
    form: str = "objects",
    first: int = 1,
) -> Rows:
    """The rows of objects such as {"file_name": "a.jpg", "tags": ["cat"]}.

    `objects` is iterated twice: first for the keys, of which an object need not have all.
    """
    keys = (key for value in objects if not isinstance(value, CellError) for key in value)
    header = list(dict.fromkeys(keys))
    records = (
        value if isinstance(value, CellError) else [value.get(key) for key in header]
        for value in objects
    )
    return rows_from_records(source, header, records, settings, form, first)


def _sample(
    header: Sequence[object] | None, cells: list[Sequence[object]], settings: DataSettings
) -> Sample:
    """The first records, by columns. Raises ColumnError if there are no columns."""
    width = max(map(len, cells), default=0)
    if header is None:
        names = [f"column {i}" for i in range(1, width + 1)]
    else:
        names = [" ".join(as_text(name).split()) for name in header]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ColumnError("no columns", "the first row has their names: file_name, tags")
    table = [[c[i] if i < len(c) else "" for c in cells] for i in range(len(names))]
    return Sample(names, table, header is not None, settings)


def _read(records: Iterable[tuple[int, Record]], columns: Columns, rows: Rows) -> Records:
    """The cells of all records that are needed; what is wrong with a record is noted."""
    read = Records(with_confidence=columns.confidence is not None)
    width = len(columns.names)
    tag_cells: Callable[[Any], Any] = lambda record: None  # noqa: E731
    if columns.tags:
        tag_cells = itemgetter(*columns.tags)
    as_key = as_mark if columns.one_hot else freeze
    for number, record in records:
        if isinstance(record, CellError):
            rows.error("format", f"row {number}", *record.args)
            continue
        try:
            if len(record) != width:
                record = _fit(record, columns)
            name = record[columns.file]
            name = (name if isinstance(name, str) else as_text(name)).strip()
            if not name:
                raise CellError(f"no {columns.names[columns.file]}")
            cell = tag_cells(record)
            if not isinstance(cell, str):
                cell = tuple(map(as_key, cell)) if columns.several else as_key(cell)
            confidence, machine, part = 1.0, False, ""
            if columns.confidence is not None:
                confidence = _confidence(record[columns.confidence])
                origin = "" if columns.origin is None else as_text(record[columns.origin])
                machine = "machine" in origin
            if columns.split is not None:
                part = _part(record[columns.split], columns.names[columns.split])
        except CellError as error:
            place = f"row {number} ({name})" if len(record) == width and name else f"row {number}"
            rows.error("format", place, *error.args)
        else:
            read.add(number, name, cell, confidence, machine, part)
    return read


def _fit(record: Sequence[object], columns: Columns) -> Sequence[object]:
    """A record with as many cells as there are columns. Raises CellError."""
    width = len(columns.names)
    if any(not is_empty(cell) for cell in record[width:]):
        do = "separate tags by ';' or put the cell in quotes"
    elif len(record) < width and columns.has_header:
        do = "fill the row"
    else:
        return [*record, *[""] * (width - len(record))][:width]
    raise CellError(f"{plural(len(record), 'cell')} under {plural(width, 'column')}", do)


def _confidence(cell: object) -> float:
    text = as_text(cell).strip()
    if not text:
        return 1.0
    value = as_confidence(text)
    if value is None or not 0 <= value <= 1:
        raise CellError(f"the confidence {text[:40]!r} is no number from 0 to 1, yes or no")
    return value


def _part(cell: object, column: str) -> str:
    if (part := part_of(cell, tag_key(column))) is None:
        raise CellError(f"{column} is {as_text(cell)[:40]!r}, and neither train, val nor test")
    return part
