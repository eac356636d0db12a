"""Delimited text (CSV, TSV, Excel's Unicode text) and JSON lines to the records of a table."""

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.cells import CellError
from tag2mask.formats.columns import is_column_name
from tag2mask.formats.json_files import unique_keys
from tag2mask.formats.pictures import Pictures, looks_like_picture
from tag2mask.formats.rows import Rows
from tag2mask.formats.tables import rows_from_objects, rows_from_records
from tag2mask.photos.table import tag_key

SEPARATORS = ",;\t|"
SAMPLED = 1000  # lines from which the separator is found
LONGEST_LINE = 16 << 20  # bytes
MARKS = [  # byte order marks; UTF-32 begins as UTF-16 does
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]
NAMES = {"utf-8-sig": "UTF-8", "utf-8": "UTF-8", "cp1252": "Windows' encoding (cp1252)"}
# What text in other encodings has when it is read as cp1252: signs in or at words, and three
# letters with accents in a row.
STRANGE = re.compile(
    r"[^\W\d_][‚„‹›“”«»¡¿×÷§°£][^\W\d_]|[^\W\d_][ƒ†‡ˆ‰•˜¢¤¥¦¨¬¯±´¶¸¹³]"
    r"|[ƒ†‡ˆ‰•˜¢¤¥¦¨¬¯±´¶¸¹³][^\W\d_]|[À-ÿŠŒŽšœžŸƒ]{3}"
)
WORD = re.compile(r"[\w'’-]*[^\x00-\x7f][\w'’-]*")


def read_csv(path: Path, settings: DataSettings) -> Rows:
    """A table as delimited text, in the separator and encoding that Excel and others write.

    Names of pictures are relative to the file or to photos.images. Raises DataError if it is no
    text.
    """
    encoding, words = find_encoding(path)
    dialect = find_dialect(path, encoding, Pictures.of(path, settings.images))
    separator = {"\t": "tabs", " ": "spaces"}.get(dialect.separator, repr(dialect.separator))
    name = NAMES.get(encoding, encoding.upper())
    form = f"table in {name}, cells separated by {separator}"
    rows = rows_from_records(path, None, _records(path, encoding, dialect), settings, form, 1)
    if words:
        what = f"not UTF-8, so read in {name}: {', '.join(words)}"
        do = "if a letter is wrong, save the file as UTF-8"
        rows.warn("encoding", what, do)
    return rows


def read_jsonl(path: Path, settings: DataSettings) -> Rows:
    """A file with a JSON object in each line: {"file_name": "a.jpg", "tags": ["cat", "dog"]}."""
    encoding, _ = find_encoding(path)
    return rows_from_objects(path, _Lines(path, encoding), settings, "JSON lines")


class _Lines:
    """The objects of a file of JSON lines; they can be iterated again."""

    def __init__(self, path: Path, encoding: str):
        self.path, self.encoding = path, encoding

    def __iter__(self) -> Iterator[dict[str, Any] | CellError]:
        with self.path.open(encoding=self.encoding) as lines:
            for line in lines:
                if not line.strip():
                    yield {}
                    continue
                try:
                    value = json.loads(line, object_pairs_hook=unique_keys)
                except (ValueError, RecursionError) as error:
                    what = f"not valid JSON ({getattr(error, 'msg', error)})"
                    yield CellError(what, "write one JSON object in each line")
                else:
                    fault = CellError(f"not a JSON object: {line[:40].strip()!r}")
                    yield value if isinstance(value, dict) else fault


def find_encoding(path: Path) -> tuple[str, list[str]]:
    """The encoding of a text file; if it is not Unicode, also a few words that depend on it.

    Text without a mark is UTF-8, else cp1252, which Excel writes in Western Europe and America.
    Libraries that guess among many encodings are wrong about tables of a few words (a "ä" in
    cp1252 was taken for cp1250, Cyrillic for Polish), so none is used. Raises DataError.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
            if start in (b"PK\3\4", b"\xd0\xcf\x11\xe0"):
                do = "save it as .xlsx or as CSV UTF-8"
                raise DataError(f"{path}: no text; is it an Excel file? {do}")
            marked = [name for mark, name in MARKS if start.startswith(mark)][:1]
            wide = [f"utf-16-{'bl'[i]}e" for i in (0, 1) if start[i : i + 1] == b"\0"][:1]
            for encoding in marked or wide or ["utf-8", "cp1252"]:
                stream.seek(0)
                try:
                    return encoding, _words(path, stream, encoding)
                except UnicodeDecodeError:
                    continue
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    raise DataError(f"{path}: not UTF-8 text; save it as UTF-8 (in Excel: CSV UTF-8)")


def _words(path: Path, stream: BinaryIO, encoding: str) -> list[str]:
    """Decode a file in pieces. Returns a few words whose letters depend on it being cp1252.

    Raises UnicodeDecodeError, or DataError if it is no text or has endless lines.
    """
    decode = codecs.getincrementaldecoder(encoding)().decode
    words: dict[str, None] = {}
    rest = ""
    while True:
        piece = stream.read(1 << 20)
        text = rest + decode(piece, not piece)
        if "\0" in text:
            raise DataError(f"{path}: not a text file (it has zero bytes)")
        rest = text[max(text.rfind("\n"), text.rfind("\r")) + 1 :]
        if len(rest) > LONGEST_LINE:
            what = f"a line is longer than {LONGEST_LINE >> 20} MB"
            raise DataError(f"{path}: {what}; is it a table?")
        if encoding == "cp1252":
            lines = text if not piece else text.removesuffix(rest)
            if strange := STRANGE.search(lines):
                word = lines[strange.start() :].split(None, 1)[0][:20]
                what = f"not UTF-8, and not Windows' cp1252 either ({word!r})"
                raise DataError(f"{path}: {what}; save it as UTF-8 (in Excel: CSV UTF-8)")
            if len(words) < 3 and not lines.isascii():
                words.update(dict.fromkeys(islice(WORD.findall(lines), 3)))
        if not piece:
            return list(words)[:3]


class Dialect(NamedTuple):
    """How a text is cut into cells."""

    separator: str
    quote: str = '"'
    skipped: int = 0  # lines before the table: Excel's sep=;

    def cells(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """The records of a text. Raises csv.Error."""
        cut = partial(csv.reader, skipinitialspace=True, strict=True)
        return cut(lines, delimiter=self.separator, quotechar=self.quote)


def find_dialect(path: Path, encoding: str, pictures: Pictures) -> Dialect:
    """The separator with which the first lines have equal numbers of cells, and names of pictures.

    Raises DataError if two fit.
    """
    with path.open(encoding=encoding, newline="") as stream:
        lines = list(islice(stream, SAMPLED))
    if lines and (sep := re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE | re.DOTALL)):
        return Dialect(sep[1], skipped=1)
    quotes = ['"', "'"] if any("'" in line for line in lines) else ['"']
    dialects = [Dialect(separator, quote) for quote in quotes for separator in SEPARATORS]
    scores = [_score(dialect, lines) for dialect in dialects]
    best = max(scores)
    fits = [d for d, score in zip(dialects, scores, strict=True) if score == best]
    if len(fits) > 1:
        fits = [d for d in fits if _finds_pictures(d, lines[:50], pictures)] or fits
    if len({d.separator for d in fits}) > 1 and best[1]:
        both = " or ".join(repr(dialect.separator) for dialect in fits)
        do = "save it with commas, and with quotes around cells that have commas in them"
        raise DataError(f"{path}: the cells may be separated by {both}; {do}")
    return fits[0]


def _score(dialect: Dialect, lines: Sequence[str]) -> tuple[bool, bool, float, int]:
    """How well a dialect fits: names of pictures, several columns, equal rows, no quotes left."""
    records = [cells for cells in _start(dialect, lines) if any(map(str.strip, cells))]
    if not records:
        return False, False, 0.0, 0
    width = len(records[0])
    equal = sum(len(cells) == width for cells in records) / len(records)
    pictures = sum(
        any(looks_like_picture(c) and not any(s in c for s in SEPARATORS) for c in cells)
        for cells in records
    )
    named = any(is_column_name(tag_key(cell)) for cell in records[0])
    quoted = sum(cell[:1] == cell[-1:] and cell[:1] in ("'", '"') for r in records for cell in r)
    return named or pictures * 2 > len(records), width > 1, round(equal, 2), -quoted


def _start(dialect: Dialect, lines: Sequence[str]) -> Iterator[list[str]]:
    with suppress(csv.Error):  # the last record may go on after the lines
        yield from dialect.cells(lines)


def _finds_pictures(dialect: Dialect, lines: Sequence[str], pictures: Pictures) -> bool:
    found = [any(c and pictures.there(c) for c in cells) for cells in _start(dialect, lines)]
    return sum(found) * 2 >= len(found) > 0


def _records(path: Path, encoding: str, dialect: Dialect) -> Iterator[list[str] | CellError]:
    """The records of the file; after a fault there are no more."""
    with path.open(encoding=encoding, newline="") as stream:
        for _ in range(dialect.skipped):
            next(stream)
            yield []
        try:
            yield from dialect.cells(stream)
        except csv.Error as error:
            yield CellError(f"not valid CSV ({error})", "look for a quote that is not closed")
