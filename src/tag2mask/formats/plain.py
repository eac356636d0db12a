"""Own photos in a folder for each tag."""

from pathlib import Path

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.pictures import pictures_below, unread_pictures
from tag2mask.formats.rows import PICTURES, UNREAD, Row, Rows, split_tags


def read_folder(path: Path, settings: DataSettings) -> Rows:
    """A folder for each tag: PATH/cat/*.jpg, PATH/dog/*.png; PATH/cat;dog/ has pictures with both.

    Folders in these folders belong to the same tag. In pictures outside of them nobody looked for
    tags.
    """
    kinds = (".csv", ".jsonl")
    if tables := sorted(file.name for file in path.iterdir() if file.suffix.lower() in kinds):
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
    rows.findings += unread_pictures(path)
    return rows


def is_folder(path: Path) -> bool:
    """A folder with pictures in it or below it."""
    return path.is_dir() and bool(pictures_below(path, PICTURES | UNREAD))
