"""A folder with a folder for each tag."""

from pathlib import Path

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.findings import Finding
from tag2mask.formats.pictures import pictures_below, unread_pictures
from tag2mask.formats.rows import PARTS, Row, Rows, split_tags
from tag2mask.photos.images import EXTENSIONS

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
