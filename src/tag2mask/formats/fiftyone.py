"""FiftyOne: labels.json of an image classification (or detection) dataset, pictures in data/."""

from pathlib import Path
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.exports import Export, class_list, class_name, confidence
from tag2mask.formats.json_files import load_json, peek_json
from tag2mask.formats.rows import Rows, Tags


def fiftyone_file(path: Path) -> Path | None:
    """A .json file with the key "labels" whose value is an object, or labels.json in the folder."""
    file = path / "labels.json" if path.is_dir() else path
    value = peek_json(file)
    return file if isinstance(value, dict) and isinstance(value.get("labels"), dict) else None


def read_fiftyone(path: Path, settings: DataSettings) -> Rows:
    """{"classes": [...], "labels": {name: target}}; without classes the targets are names.

    A target is a number, a name, an object with label (and confidence), a list of these, or null: a
    photo of nothing. A label whose confidence is low is absent.
    """
    file = fiftyone_file(path)
    if file is None:
        raise DataError(f"{path}: no labels.json of FiftyOne in it")
    value = load_json(file)
    data = file.parent / "data"
    if settings.images is None and data.is_dir():
        settings = settings.model_copy(update={"images": data})
    export = Export(file, settings)
    classes = class_list(value.get("classes"), file)
    for number, (name, target) in enumerate(value["labels"].items(), 1):
        with export.entry(f"label {number}", "a label of FiftyOne"):
            tags = _tags(target, classes, settings.min_confidence)
            export.add(name, f"label {number}", tags)
    return export.finish("FiftyOne labels.json", classes)


def _tags(target: Any, classes: Tags, least: float) -> Tags:
    if target is None:
        return ()
    if isinstance(target, list):
        return tuple(tag for one in target for tag in _tags(one, classes, least))
    if isinstance(target, dict):
        sure = confidence(target.get("confidence")) >= least
        return (class_name(target["label"], classes),) if sure else ()
    return (class_name(target, classes),)
