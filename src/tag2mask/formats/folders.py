"""Folders: one for each tag, or train/, val/ and test/, each a data set in a form of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.findings import Finding
from tag2mask.formats.pictures import pictures_below, unread_pictures
from tag2mask.formats.rows import PARTS, Row, Rows, photos_text, split_tags
from tag2mask.photos.images import EXTENSIONS
from tag2mask.progress import log

# Folders that hold pictures or masks of all tags: no tags themselves. In lower case.
CONTAINERS = {"images", "image", "imgs", "img", "photos", "pictures", "jpegimages", "data"}
TABLES = {".csv", ".jsonl"}
MASKS = {"masks", "mask", "labels", "annotations", "ground_truth", "groundtruth", "gt"}


def read_folder(path: Path, settings: DataSettings) -> Rows:
    """A folder for each tag: PATH/cat/*.jpg, PATH/dog/*.png; PATH/cat;dog/ has pictures with both.

    Folders in these folders belong to the same tag. In pictures outside of them nobody looked for
    tags. Raises DataError for folders that look like no tags (images/, train/), unless photos.form
    is "folder".
    """
    if tables := table_files(path):
        what = f"has {', '.join(tables)}"  # its images/ and masks/ would become tags
        raise DataError(f"{path}: {what}; give the file to read, not the folder")
    rows = Rows(path)
    for file in pictures_below(path):
        relative = file.relative_to(path)
        where = relative.as_posix()
        if len(relative.parts) > 1:
            rows.rows.append(Row(file, split_tags(relative.parts[0]), where))
        else:
            rows.rows.append(Row(file, (), where, absent=()))
    folders = sorted({Path(row.where).parts[0] for row in rows.rows if row.tags})
    if settings.form != "folder":
        rows.findings += _no_tags(path, folders)
    rows.findings += unread_pictures(path)
    rows.form = f"a folder for each tag: {', '.join(folders)}" if folders else "a folder of photos"
    return rows


def is_folder(path: Path) -> bool:
    """A folder with pictures in it or below it."""
    return path.is_dir() and bool(pictures_below(path, EXTENSIONS))


def table_files(folder: Path) -> list[str]:
    """The names of the tables in a folder, sorted."""
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in TABLES)


def inner_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    files = sorted(folder.iterdir())
    return [file for file in files if file.is_dir() and not file.name.startswith(".")]


def _no_tags(path: Path, folders: list[str]) -> list[Finding]:
    """Faults of folders whose names are those of containers; raises DataError if all are, or if
    there is but one folder, with folders in it."""
    names = {*CONTAINERS, *MASKS, *PARTS}
    odd = [name for name in folders if name.lower() in names]
    if len(folders) == 1 and inner_folders(path / folders[0]):
        odd = folders
    if odd and odd == folders:
        listed = " and ".join(f"{name}/" for name in odd)
        inner = next((name for name in odd if inner_folders(path / name)), None)
        example = "a folder with a folder for each tag"
        example = f"{path / inner}, if its folders are the tags" if inner else example
        raise DataError(
            f"{path}: its pictures are in {listed}, which seems to be no tag; give the file that "
            f"has the tags (with --photos.images {path}), or {example}; "
            f"if {listed} is a tag, use --photos.form folder"
        )
    do = 'if it is none, move this folder out, or use --photos.drop "{}"'
    return [
        Finding("odd tag", f"{name}/", "its name is read as a tag", do.format(name), "warning")
        for name in odd
        if name.lower() in (*CONTAINERS, *MASKS)
    ]


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
