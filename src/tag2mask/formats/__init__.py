"""Pictures and tags: readers of the forms in which people have them, checks, conversions.

A data set is one path; `FORMATS` lists what it may be. To add a format, write its reader
(path, settings -> Rows) in a file of its own, and add a line here and in `forms.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.camtrap_dp import camtrap_folder, read_camtrap_dp
from tag2mask.formats.choose import choose
from tag2mask.formats.cloud import is_manifest, is_vertex, read_manifest, read_vertex
from tag2mask.formats.coco import instances_file, read_coco
from tag2mask.formats.cvat import read_cvat
from tag2mask.formats.excel import read_xlsx
from tag2mask.formats.folders import Reader, is_folder, read_folder, read_split, split_folders
from tag2mask.formats.huggingface import parquet_files, read_parquet
from tag2mask.formats.json_lists import (
    fiftyone_file,
    is_mmpretrain,
    read_fiftyone,
    read_json,
    read_mmpretrain,
    read_yaml,
)
from tag2mask.formats.keywords import is_keywords, read_keywords
from tag2mask.formats.label_studio import is_label_studio, read_label_studio
from tag2mask.formats.labelme import is_labelme, read_labelme
from tag2mask.formats.rows import Rows, count_tags, known_tags, many_objects, to_table
from tag2mask.formats.text_tables import read_csv, read_jsonl
from tag2mask.formats.voc import class_lists, is_voc, read_class_lists, read_voc
from tag2mask.formats.yolo import read_yolo, yolo_file
from tag2mask.forms import FORMS, bullets
from tag2mask.photos.addresses import local_copy
from tag2mask.photos.table import Table

DEFAULTS = DataSettings()


class Format(NamedTuple):
    """One data format."""

    accepts: Callable[[Path], object]  # true if a path that exists has this format
    read: Reader


def _ending(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() in suffixes


def _folder_with(name: str, read: Reader) -> Format:
    return Format(lambda path: (path / name).is_file(), lambda path, s: read(path / name, s))


def _read_split(path: Path, settings: DataSettings, outlines: bool = False) -> Rows:
    return read_split(path, settings, partial(_read, outlines=outlines))


# The names are those of `FORMS`. The first that accepts a path reads it. A folder for each tag is
# last: it accepts any pictures.
FORMATS: dict[str, Format] = {
    "manifest": Format(is_manifest, read_manifest),
    "vertex": Format(is_vertex, read_vertex),
    "csv": Format(_ending(".csv", ".tsv", ".tab"), read_csv),
    "xlsx": Format(_ending(".xlsx", ".xlsm"), read_xlsx),
    "jsonl": Format(_ending(".jsonl", ".ndjson"), read_jsonl),
    "parquet": Format(parquet_files, read_parquet),
    "voc-lists": Format(class_lists, read_class_lists),
    "voc": Format(is_voc, read_voc),
    "camtrap-dp": Format(camtrap_folder, read_camtrap_dp),
    "coco": Format(instances_file, read_coco),
    "label-studio": Format(is_label_studio, read_label_studio),
    "fiftyone": Format(fiftyone_file, read_fiftyone),
    "mmpretrain": Format(is_mmpretrain, read_mmpretrain),
    "json": Format(_ending(".json"), read_json),
    "yolo": Format(yolo_file, read_yolo),
    "yaml": Format(_ending(".yaml", ".yml"), read_yaml),
    "cvat": Format(_ending(".xml"), read_cvat),
    "txt": Format(_ending(".txt"), read_csv),
    "metadata.csv": _folder_with("metadata.csv", read_csv),
    "metadata.jsonl": _folder_with("metadata.jsonl", read_jsonl),
    "roboflow": _folder_with("_classes.csv", read_csv),
    "labelme": Format(is_labelme, read_labelme),
    "split": Format(split_folders, _read_split),
    "keywords": Format(is_keywords, read_keywords),
    "folder": Format(is_folder, read_folder),
}

# Forms whose outlines take long to read: only `convert` and `correct` ask for them.
READ_OUTLINES = {"coco": read_coco, "label-studio": read_label_studio, "split": _read_split}


def find_format(path: Path, settings: DataSettings = DEFAULTS) -> str:
    """Which entry of `FORMATS` a path is; `settings.form` decides. Raises DataError."""
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder; if it has moved, give its new place (--data, --val)"
        )
    if not (path.is_file() or path.is_dir()):  # a pipe or a device may have no end
        raise DataError(f"{path}: neither a file nor a folder")
    if settings.form in FORMATS:
        return settings.form
    if settings.form != "auto":
        forms = ", ".join(FORMATS)
        raise DataError(f"photos.form = {settings.form!r}: the forms are auto, {forms}")
    for name, form in FORMATS.items():
        if form.accepts(path):
            return name
    raise DataError(f"{path}: not a data set; give one of{bullets()}")


@many_objects()
def read_rows(
    path: Path,
    settings: DataSettings = DEFAULTS,
    tags: Sequence[str] | None = None,
    outlines: bool = False,
) -> Rows:
    """The rows of a data set in the file's order, with the tags that the settings choose, and the
    faults that the reader met. What is at an address or in an archive is copied first.

    `tags`: for a validation set, the tags of the training photos. Outlines that people drew are
    kept only with `outlines`: `convert` makes true masks of them.
    """
    if settings.images:
        settings = settings.model_copy(update={"images": local_copy(settings.images)})
    path = local_copy(path, beside=settings.images is None)
    rows = _read(path, settings, outlines)
    if settings.images and rows.form.partition(":")[0] in ("folder", "split", "keywords"):
        what = "photos.images is not used: the data are the folder of the photos themselves"
        rows.warn("unused setting", what)
    chosen = _chosen(rows, settings, tags, outlines)
    if rows.val:
        chosen.val = _chosen(rows.val, settings, known_tags(chosen), outlines)
        _add_tags_of_val(chosen, chosen.val)
    return chosen


def _add_tags_of_val(rows: Rows, val: Rows) -> None:
    """Tags that only validation photos have become tags of the data set, with a warning."""
    known = known_tags(rows)
    new = sorted(count_tags(val.rows).keys() - {*known})
    if new:
        rows.tags = (*known, *new) if rows.tags is not None else tuple(sorted((*known, *new)))
        what = f"only validation photos have {', '.join(new)}"
        do = "add training photos of them; without, these classes cannot be learned"
        rows.warn("absent tag", what, do)


def _read(path: Path, settings: DataSettings, outlines: bool = False) -> Rows:
    name = find_format(path, settings)
    if outlines and name in READ_OUTLINES:
        rows = READ_OUTLINES[name](path, settings, True)
    else:
        rows = FORMATS[name].read(path, settings)
    rows.form = f"{name}: {rows.form or FORMS[name]}"
    return rows


def _chosen(rows: Rows, settings: DataSettings, tags: Sequence[str] | None, outlines: bool) -> Rows:
    if not outlines:
        own = [replace(row, shapes=()) if row.shapes else row for row in rows.rows]
        rows = replace(rows, rows=own)
    return choose(rows, settings, tags)


def load_table(
    path: Path | str,
    tags: Sequence[str] | None = None,
    untagged: bool = False,
    settings: DataSettings = DEFAULTS,
) -> Table:
    """A data set to the table.

    `tags` are for a validation set: the tags of the training table, so that class numbers agree;
    another tag is an error. With `untagged`, no photo needs a tag (validation, prediction).
    Raises DataError with all problems, each with file and row.
    """
    return to_table(read_rows(Path(path), settings, tags), tags, untagged)
