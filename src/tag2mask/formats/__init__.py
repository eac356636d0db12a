"""Pictures and tags: readers of every layout people have, the checks before training, conversions.

A data set is named by one path; `FORMATS` lists what that path may be. To add a format, write its reader (path -> Rows) and add a line.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from tag2mask.errors import DataError
from tag2mask.formats.coco import instances_file, read_coco
from tag2mask.formats.plain import pictures_below, read_csv, read_folder, read_jsonl
from tag2mask.formats.rows import PICTURES, UNREAD, Rows, to_table
from tag2mask.formats.shapes import Outlines
from tag2mask.formats.tools import is_labelme, read_cvat, read_labelme, read_yolo, yolo_file
from tag2mask.formats.voc import is_voc, read_voc
from tag2mask.photos.table import Photo, Table

__all__ = ["FORMATS", "OUTLINES", "Photo", "Table", "find_format", "load_table", "read_rows"]


# name: (is this path mine?, reader); the first that says yes reads. A folder per tag comes last: it takes any folder with pictures.
FORMATS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Rows]]] = {
    "csv": (lambda p: p.suffix.lower() == ".csv", read_csv),
    "jsonl": (lambda p: p.suffix.lower() == ".jsonl", read_jsonl),
    "voc": (is_voc, read_voc),
    "coco": (
        lambda p: instances_file(p) is not None,
        lambda p: read_coco(p, outlines=False).rows(),
    ),
    "yolo": (lambda p: yolo_file(p) is not None, lambda p: read_yolo(p).rows()),
    "cvat": (lambda p: p.suffix.lower() == ".xml", lambda p: read_cvat(p).rows()),
    "metadata.csv": (
        lambda p: (p / "metadata.csv").is_file(),
        lambda p: read_csv(p / "metadata.csv"),
    ),
    "metadata.jsonl": (
        lambda p: (p / "metadata.jsonl").is_file(),
        lambda p: read_jsonl(p / "metadata.jsonl"),
    ),
    "labelme": (is_labelme, lambda p: read_labelme(p).rows()),
    "folder": (lambda p: p.is_dir() and bool(pictures_below(p, PICTURES | UNREAD)), read_folder),
}

# Formats with outlines that people drew, from which true masks can be made.
OUTLINES: dict[str, Callable[[Path], Outlines]] = {
    "coco": read_coco,
    "yolo": read_yolo,
    "cvat": read_cvat,
    "labelme": read_labelme,
}

WANTED = """give one of
  - a .csv or .jsonl file with file_name and tags (separated by ';'), or a Hugging Face folder with such a metadata file
  - a folder with a folder per tag
  - VOC: VOC2012/, one of its lists (ImageSets/Segmentation/val.txt) or a cls_labels.npy in it
  - COCO: its folder, or an instances .json
  - exports: YOLO data.yaml, CVAT .xml, a folder of LabelMe .json files beside the pictures"""


def find_format(path: Path) -> str:
    """Which entry of `FORMATS` a path is. Raises DataError that lists them all."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    for name, (mine, _) in FORMATS.items():
        if mine(path):
            return name
    raise DataError(f"{path}: not a data set; {WANTED}")


def read_rows(path: Path) -> Rows:
    """What the path holds, before any check: rows in the file's order, and what the reader could not understand."""
    return FORMATS[find_format(path)][1](path)


def load_table(
    path: Path | str, tags: Sequence[str] | None = None, untagged: bool = False
) -> Table:
    """A data set to the table.

    `tags` (for a validation set): the tags of the training table, so that class numbers agree; another tag is an error.
    `untagged`: photos without tags may stay (validation, prediction). Raises DataError with all problems, each with file and row.
    """
    return to_table(read_rows(Path(path)), tags, untagged)
