"""Pictures and tags: readers of the forms in which people have them, checks, conversions.

A data set is one path; `FORMATS` lists what it may be. To add a format, write its reader
(path -> Rows) in a file of its own and add a line.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tag2mask.errors import DataError
from tag2mask.formats.coco import instances_file, read_coco
from tag2mask.formats.cvat import read_cvat
from tag2mask.formats.labelme import is_labelme, read_labelme
from tag2mask.formats.plain import is_folder, read_csv, read_folder, read_jsonl
from tag2mask.formats.rows import Rows, to_table
from tag2mask.formats.voc import is_voc, read_voc
from tag2mask.formats.yolo import read_yolo, yolo_file
from tag2mask.photos.table import Table


class Format(NamedTuple):
    """One form in which people have tags."""

    accepts: Callable[[Path], bool]  # whether a path that exists has this format
    read: Callable[[Path], Rows]


# The first that accepts a path reads it. A folder for each tag is last: it accepts any pictures.
FORMATS: dict[str, Format] = {
    "csv": Format(lambda p: p.suffix.lower() == ".csv", read_csv),
    "jsonl": Format(lambda p: p.suffix.lower() == ".jsonl", read_jsonl),
    "voc": Format(is_voc, read_voc),
    "coco": Format(lambda p: instances_file(p) is not None, read_coco),
    "yolo": Format(lambda p: yolo_file(p) is not None, read_yolo),
    "cvat": Format(lambda p: p.suffix.lower() == ".xml", read_cvat),
    "metadata.csv": Format(
        lambda p: (p / "metadata.csv").is_file(), lambda p: read_csv(p / "metadata.csv")
    ),
    "metadata.jsonl": Format(
        lambda p: (p / "metadata.jsonl").is_file(), lambda p: read_jsonl(p / "metadata.jsonl")
    ),
    "labelme": Format(is_labelme, read_labelme),
    "folder": Format(is_folder, read_folder),
}

EXPECTED = """give one of
  - a .csv or .jsonl file with file_name and tags (separated by ';'), or a Hugging Face folder
    with such a metadata file
  - a folder with a folder for each tag
  - VOC: VOC2012/, one of its lists (ImageSets/Segmentation/val.txt) or a cls_labels.npy in it
  - COCO: its folder, or an instances .json
  - exports: YOLO data.yaml, CVAT .xml, a folder of LabelMe .json files beside the pictures"""


def find_format(path: Path) -> str:
    """Which entry of `FORMATS` a path is. Raises DataError that lists them all."""
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder; if it has moved, give its new place (--data, --val)"
        )
    for name, (accepts, _) in FORMATS.items():
        if accepts(path):
            return name
    raise DataError(f"{path}: not a data set; {EXPECTED}")


def read_rows(path: Path, outlines: bool = False) -> Rows:
    """The rows of a data set in the file's order, and the faults that the reader met.

    Outlines that people drew are kept only with `outlines`: `convert` makes true masks of them.
    """
    name = find_format(path)
    if outlines:
        return read_coco(path, outlines) if name == "coco" else FORMATS[name].read(path)
    rows = FORMATS[name].read(path)
    return replace(rows, rows=[replace(row, shapes=()) if row.shapes else row for row in rows.rows])


def load_table(
    path: Path | str, tags: Sequence[str] | None = None, untagged: bool = False
) -> Table:
    """A data set to the table.

    `tags` are for a validation set: the tags of the training table, so that class numbers agree;
    another tag is an error. With `untagged`, photos without tags may stay (validation, prediction).
    Raises DataError with all problems, each with file and row.
    """
    return to_table(read_rows(Path(path)), tags, untagged)
