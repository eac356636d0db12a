"""Pictures and tags: readers of the forms in which people have them, checks, conversions.

A data set is one path; `FORMATS` lists what it may be. To add a format, write its reader
(path, settings -> Rows) in a file of its own and add a line.
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
from tag2mask.formats.fiftyone import fiftyone_file, read_fiftyone
from tag2mask.formats.folders import is_folder, read_folder
from tag2mask.formats.huggingface import parquet_files, read_parquet
from tag2mask.formats.json_lists import is_mmpretrain, read_json, read_mmpretrain, read_yaml
from tag2mask.formats.keywords import is_keywords, read_keywords
from tag2mask.formats.label_studio import is_label_studio, read_label_studio
from tag2mask.formats.labelme import is_labelme, read_labelme
from tag2mask.formats.rows import Rows, count_tags, known_tags, many_objects, to_table
from tag2mask.formats.splits import Reader, read_split, split_folders
from tag2mask.formats.text_tables import read_csv, read_jsonl
from tag2mask.formats.voc import is_voc, read_voc
from tag2mask.formats.voc_lists import class_lists, read_class_lists
from tag2mask.formats.yolo import read_yolo, yolo_file
from tag2mask.photos.addresses import local_copy
from tag2mask.photos.table import Table

DEFAULTS = DataSettings()


class Format(NamedTuple):
    """One data format."""

    accepts: Callable[[Path], object]  # true if a path that exists has this format
    read: Reader
    what: str  # how to name it with --data


def _suffix(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() in suffixes


def _metadata(name: str, read: Reader) -> Format:
    what = f"a Hugging Face folder: with a file {name}"
    return Format(lambda path: (path / name).is_file(), lambda path, s: read(path / name, s), what)


# The first that accepts a path reads it. A folder for each tag is last: it accepts any pictures.
FORMATS: dict[str, Format] = {
    "manifest": Format(is_manifest, read_manifest, "SageMaker Ground Truth: its .manifest"),
    "vertex": Format(is_vertex, read_vertex, "Vertex AI: its import file, .csv or .jsonl"),
    "csv": Format(
        _suffix(".csv", ".tsv", ".tab"),
        read_csv,
        "a table: .csv or .tsv with a column of file names, and one of tags or one for each tag",
    ),
    "xlsx": Format(_suffix(".xlsx", ".xlsm"), read_xlsx, "an Excel table: .xlsx"),
    "jsonl": Format(_suffix(".jsonl", ".ndjson"), read_jsonl, "JSON lines: file_name and tags"),
    "parquet": Format(parquet_files, read_parquet, "a .parquet file of Hugging Face, or a folder"),
    "voc-lists": Format(class_lists, read_class_lists, "VOC: ImageSets/Main with cat_train.txt"),
    "voc": Format(is_voc, read_voc, "VOC: VOC2012/, a list in it (val.txt), or its cls_labels.npy"),
    "camtrap-dp": Format(
        camtrap_folder, read_camtrap_dp, "Camtrap DP: the folder with media.csv, observations.csv"
    ),
    "coco": Format(
        instances_file, read_coco, "COCO or COCO Camera Traps: the folder, or the .json file"
    ),
    "label-studio": Format(
        is_label_studio, read_label_studio, "Label Studio: its .json or JSON-MIN export"
    ),
    "fiftyone": Format(fiftyone_file, read_fiftyone, "FiftyOne: labels.json, or its folder"),
    "mmpretrain": Format(is_mmpretrain, read_mmpretrain, "mmpretrain: a .json with data_list"),
    "json": Format(_suffix(".json"), read_json, 'a .json file: {"a.jpg": ["cat", "dog"]}'),
    "yolo": Format(yolo_file, read_yolo, "YOLO: its data.yaml, or a folder of its pictures"),
    "yaml": Format(_suffix(".yaml", ".yml"), read_yaml, "a .yaml file: a.jpg: [cat, dog]"),
    "cvat": Format(_suffix(".xml"), read_cvat, "CVAT for images: its .xml"),
    "txt": Format(_suffix(".txt"), read_csv, "a table in a .txt file"),
    "metadata.csv": _metadata("metadata.csv", read_csv),
    "metadata.jsonl": _metadata("metadata.jsonl", read_jsonl),
    "roboflow": Format(
        lambda path: (path / "_classes.csv").is_file(),
        lambda path, settings: read_csv(path / "_classes.csv", settings),
        "Roboflow: a folder with _classes.csv",
    ),
    "labelme": Format(is_labelme, read_labelme, "LabelMe: a folder of .json files and pictures"),
    "split": Format(
        split_folders,
        lambda path, settings: read_split(path, settings, _read),
        "a folder with train/ and val/ (valid, validation), each in one of these forms",
    ),
    "keywords": Format(
        is_keywords, read_keywords, "a folder of pictures with keywords in them or beside them"
    ),
    "folder": Format(is_folder, read_folder, "a folder with a folder for each tag"),
}

# Forms whose outlines take long to read: only `convert` and `correct` ask for them.
READ_OUTLINES = {"coco": read_coco, "label-studio": read_label_studio}


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
    forms = "".join(f"\n  - {form.what}" for form in FORMATS.values())
    raise DataError(f"{path}: not a data set; give one of{forms}")


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
    elif outlines and name == "split":
        rows = read_split(path, settings, partial(_read, outlines=True))
    else:
        rows = FORMATS[name].read(path, settings)
    rows.form = f"{name}: {rows.form or FORMATS[name].what}"
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
