"""Own photos: a CSV or JSONL file with `file_name` and `tags` (Hugging Face metadata files too), or a folder per tag."""

import csv
import io
import json
import os
from collections.abc import Container, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tag2mask.errors import DataError
from tag2mask.files import read_text
from tag2mask.formats.findings import Finding
from tag2mask.formats.rows import PICTURES, UNREAD, Row, Rows, is_file, split_tags

COLUMNS = ("file_name", "tags")


def read_csv(path: Path) -> Rows:
    """A CSV file with the columns `file_name` (relative to the file, or absolute) and `tags` (separated by ";"; test photos need none)."""
    found = Rows(path)
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_columns(header, found)
        for cells in () if found.findings else reader:
            where = f"row {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                do = (
                    "separate tags by ';' or put the cell in quotes"
                    if len(cells) > len(header)
                    else "fill the row"
                )
                found.findings.append(
                    Finding("format", where, f"{len(cells)} cells under {len(header)} columns", do)
                )
                continue
            _add(found, dict(zip(header, cells, strict=True)), where)
    except csv.Error as error:
        found.findings.append(
            Finding("format", f"row {reader.line_num}", f"not valid CSV ({error})")
        )
    return found


def read_jsonl(path: Path) -> Rows:
    """A file with a JSON object a line: {"file_name": "a.jpg", "tags": ["cat", "dog"]}; tags may be one ";"-separated string."""
    found = Rows(path)
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"row {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            found.findings.append(
                Finding(
                    "format", where, f"not valid JSON ({error.msg})", "write one JSON object a line"
                )
            )
            continue
        if not isinstance(value, dict):
            found.findings.append(Finding("format", where, f"not a JSON object but {line[:40]!r}"))
            continue
        before = len(found.findings)
        _check_columns(value, found, where)
        if len(found.findings) == before:
            _add(found, value, where)
    return found


def read_folder(path: Path) -> Rows:
    """A folder per tag: PATH/cat/*.jpg, PATH/dog/*.png; PATH/cat;dog/ holds pictures with both. Deeper folders belong to the first."""
    listed = sorted(
        file.name for file in path.iterdir() if file.suffix.lower() in (".csv", ".jsonl")
    )
    if listed:  # else its images/ and masks/ would be taken for tags
        raise DataError(f"{path}: holds {', '.join(listed)}; name the file to read, not the folder")
    found = Rows(path)
    for file in pictures_below(path):
        relative = file.relative_to(path)
        tags = split_tags(relative.parts[0]) if len(relative.parts) > 1 else ()
        found.rows.append(Row(file, tags, relative.as_posix()))
    found.findings += unread_pictures(path)
    return found


def pictures_below(folder: Path, kinds: Container[str] = PICTURES) -> list[Path]:
    """All picture files of a folder and its subfolders, linked ones too, hidden ones left out, sorted."""
    files: list[Path] = []
    seen: set[str] = set()
    for place, subfolders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and os.path.realpath(Path(place, name)) not in seen
        ]
        files += [
            Path(place, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in kinds
        ]
    return sorted(file for file in files if file.is_file())


def unread_pictures(folder: Path) -> list[Finding]:
    """A warning if pictures of kinds that are not read lie in a folder or its subfolders."""
    files = pictures_below(folder, UNREAD)
    kinds = ", ".join(sorted({file.suffix.lower() for file in files}))
    what = f"{len(files)} pictures are of kinds that are not read ({kinds}) and are left out"
    return (
        [Finding("unread pictures", str(folder), what, "convert them to JPEG", "warning")]
        if files
        else []
    )


def picture_path(name: str, folder: Path) -> Path:
    """The path that a file names: relative to the folder of that file, or absolute; backslashes as Windows writes them are understood."""
    path = folder / name
    if "\\" in name and not is_file(path):
        path = folder / name.replace("\\", "/")
    return Path(os.path.normpath(path))


def _check_columns(header: Iterable[str], found: Rows, where: str = "header") -> None:
    names = list(header)
    for name in COLUMNS:
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.5)
            do = f'rename "{near[0]}"?' if near else ""
            missing = Finding(
                "columns", where, f'no column "{name}" among {", ".join(names) or "none"}', do
            )
            if name == "tags" and names:
                found.no_tags = (
                    missing if where == "header" else found.no_tags
                )  # a row of a JSONL file: as if it had none
            else:
                found.findings.append(missing)
        elif names.count(name) > 1:
            found.findings.append(
                Finding("columns", where, f'{names.count(name)} columns "{name}"', "make them one")
            )
    # Hugging Face metadata files hold whatever else their owner noted; in a file made for this tool another column is a mistake.
    if found.source.stem != "metadata":
        do = f"the columns are {' and '.join(COLUMNS)}"
        found.findings += [
            Finding("columns", where, f'unknown column "{name}"', do)
            for name in names
            if name not in COLUMNS
        ]


def _add(found: Rows, value: dict[str, Any], where: str) -> None:
    name, tags = value["file_name"], value.get("tags", "")
    if not isinstance(name, str) or not name.strip():
        found.findings.append(Finding("format", where, "no file_name"))
        return
    where = f"{where} ({name.strip()})"
    if not isinstance(tags, str) and not (
        isinstance(tags, Sequence) and all(isinstance(tag, str) for tag in tags)
    ):
        found.findings.append(
            Finding("format", where, f"tags must be text or a list of texts, not {tags!r}")
        )
        return
    found.rows.append(Row(picture_path(name.strip(), found.source.parent), split_tags(tags), where))
