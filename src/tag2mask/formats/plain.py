"""Own photos: a CSV or JSONL file with `file_name` and `tags`.

Metadata files of Hugging Face are such CSV and JSONL files.
"""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.files import read_text
from tag2mask.formats.findings import Finding
from tag2mask.formats.pictures import picture_path
from tag2mask.formats.rows import Row, Rows, split_tags

COLUMNS = ("file_name", "tags")


def read_csv(path: Path, settings: DataSettings) -> Rows:
    """A CSV file with the columns `file_name` and `tags`.

    File names are relative to the file, or absolute. Tags are separated by ";".
    """
    rows = Rows(path)
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if fault := _header_fault(header, path):
            rows.error("columns", "header", *fault)
            return rows
        if "tags" not in header:
            rows.no_tags = Finding("columns", "header", f'no column "tags" among {_listed(header)}')
        for cells in reader:
            where = f"row {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) == len(header):
                _add(rows, dict(zip(header, cells, strict=True)), where)
            else:
                many = len(cells) > len(header)
                do = "separate tags by ';' or put the cell in quotes" if many else "fill the row"
                what = f"{len(cells)} cells under {len(header)} columns"
                rows.error("format", where, what, do)
    except csv.Error as error:
        rows.error("format", f"row {reader.line_num}", f"not valid CSV ({error})")
    return rows


def read_jsonl(path: Path, settings: DataSettings) -> Rows:
    """A file with a JSON object in each line: {"file_name": "a.jpg", "tags": ["cat", "dog"]}.

    The tags may also be one text, separated by ";".
    """
    rows = Rows(path)
    faults: dict[tuple[str, str], list[str]] = defaultdict(list)  # of the keys: rows that have it
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"row {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            do = "write one JSON object in each line"
            rows.error("format", where, f"not valid JSON ({error.msg})", do)
            continue
        if not isinstance(value, dict):
            rows.error("format", where, f"not a JSON object: {line[:40]!r}")
        elif fault := _header_fault(list(value), path):
            faults[fault].append(where)
        else:
            _add(rows, value, where)
    for fault, places in faults.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        rows.error("columns", f"{places[0]}{more}", *fault)
    return rows


def _header_fault(header: Sequence[str], file: Path) -> tuple[str, str] | None:
    """What is wrong with the names of the columns and what to do; None if nothing is.

    A file may do without tags. Metadata files of Hugging Face may have other columns; in a file
    that was made for this tool they are a mistake.
    """
    if len(header) == 1 and (separator := next((c for c in ";\t" if c in header[0]), "")):
        return f"the columns are separated by {separator!r}", "save the file with commas"
    columns = f"the columns are {_listed(COLUMNS)}"
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in COLUMNS and file.stem != "metadata"]
    if "file_name" in missing or (missing and unknown):
        renames, others = [], list(header)
        for name in missing:
            near = get_close_matches(name, others, n=1, cutoff=0.5)
            near = near or [other for other in others if other in unknown]
            if len(near) == 1:
                others.remove(near[0])
                renames.append(f'"{near[0]}" to "{name}"')
        rename = f"rename {' and '.join(renames)}?"
        names = " and ".join(f'"{name}"' for name in missing)
        s = "s" if len(missing) > 1 else ""
        return f"no column{s} {names} among {_listed(header)}", rename if renames else columns
    if unknown:
        s = "s" if len(unknown) > 1 else ""
        names = ", ".join(f'"{name}"' for name in unknown)
        return f"unknown column{s} {names}", columns
    if duplicate := [name for name in COLUMNS if header.count(name) > 1]:
        return f'duplicate column "{duplicate[0]}"', "keep one of them"
    return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _add(rows: Rows, value: dict[str, Any], where: str) -> None:
    """Add the row that a CSV or JSONL file describes, or note what is wrong with it."""
    name, tags = value["file_name"], value.get("tags", "")
    if not isinstance(name, str) or not name.strip():
        rows.error("format", where, "no file_name")
        return
    name = name.strip()
    where = f"{where} ({name})"
    texts = [tags] if isinstance(tags, str) else tags
    if isinstance(texts, list) and all(isinstance(tag, str) for tag in texts):
        rows.rows.append(Row(picture_path(name, rows.source.parent), split_tags(tags), where))
    else:
        what = f"tags must be a text or a list of texts, not {json.dumps(tags)}"
        rows.error("format", where, what)
