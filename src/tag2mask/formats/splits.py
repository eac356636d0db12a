"""A data set in folders train/, val/ (valid, validation) and test/, each in a form of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.findings import Finding
from tag2mask.formats.folders import TABLES, inner_folders, table_files
from tag2mask.formats.pictures import pictures_below
from tag2mask.formats.rows import PARTS, Rows, photos_text
from tag2mask.progress import log

Reader = Callable[[Path, DataSettings], Rows]


def split_folders(path: Path) -> dict[str, Path]:
    """ "train", "val", "test" -> their folders; {} if the folder is no such data set.

    A folder train/ alone is one only if it has folders or tables in it, and nothing is beside it:
    else it is a tag. Raises DataError if a split has two folders.
    """
    if not path.is_dir():
        return {}
    folders = inner_folders(path)
    splits: dict[str, Path] = {}
    for folder in folders:
        if kind := PARTS.get(folder.name.lower()):
            if kind in splits:
                what = f"{splits[kind].name}/ and {folder.name}/ are both for one purpose ({kind})"
                raise DataError(f"{path}: {what}; remove or rename one")
            splits[kind] = folder
    if "train" not in splits:
        return {}
    if len(splits) == 1:
        deeper = any(not f.name.startswith(".") and _deeper(f) for f in splits["train"].iterdir())
        return splits if len(folders) == 1 and deeper else {}
    return splits


def _deeper(file: Path) -> bool:
    return file.is_dir() or file.suffix.lower() in {*TABLES, ".json", ".parquet"}


def read_split(path: Path, settings: DataSettings, read: Reader) -> Rows:
    """train/ is for training, val/ for validation (`Rows.val`), test/ is not used.

    `read` reads one of these folders in the form that it has. Raises DataError if train/ or val/
    has no tags.
    """
    splits = split_folders(path)
    if not splits:
        raise DataError(f"{path}: no folders train/ and val/ (valid, validation) in it")
    inner = settings.model_copy(update={"form": "auto"})
    rows, val = (
        _read(splits[kind], inner, read) if kind in splits else None for kind in ("train", "val")
    )
    assert rows is not None
    uses = [f"{splits['train'].name}/ for training ({photos_text(len(rows.rows))})"]
    if val:
        uses.append(f"{splits['val'].name}/ for validation ({photos_text(len(val.rows))})")
    if "test" in splits:
        uses.append(f"{splits['test'].name}/ is not used")
    used = {*splits.values()}
    findings = list(rows.findings)
    if others := [f for f in inner_folders(path) if f not in used and pictures_below(f)]:
        what = f"the pictures in {', '.join(f'{f.name}/' for f in others)} are not used"
        findings.append(Finding("split", str(path), what, severity="warning"))
    form = f"folders of a split: {', '.join(uses)}; in each: {rows.form}"
    log.info(f"{path}: {', '.join(uses)}")
    return replace(rows, source=path, form=form, val=val, findings=findings)


def _read(folder: Path, settings: DataSettings, read: Reader) -> Rows:
    rows = read(folder, settings)
    if rows.rows and all(row.nobody_looked for row in rows.rows):
        what = f"{photos_text(len(rows.rows))}, but no tags: no folder for each tag and no table"
        tables = table_files(folder.parent)
        perhaps = f" ({', '.join(tables)}?)" if tables else ""
        raise DataError(f"{folder}: {what}; give the file that has the tags{perhaps}")
    own = [replace(row, where=f"{folder.name}/{row.where}") for row in rows.rows]
    return replace(rows, rows=own)
