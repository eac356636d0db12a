"""JSON and YAML with tags: mmpretrain's and FiftyOne's files, dictionaries, lists of objects."""

from collections.abc import Iterable
from pathlib import Path
from reprlib import repr as short
from typing import Any, ClassVar

import yaml

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_text
from tag2mask.formats.exports import Export, class_list, class_name, confidence, tag_text, tag_texts
from tag2mask.formats.json_files import load_json, peek_json
from tag2mask.formats.rows import Rows, Tags
from tag2mask.formats.tables import rows_from_objects
from tag2mask.forms import bullets

JSON_FORMS = ("coco", "label-studio", "fiftyone", "mmpretrain", "json")


def is_mmpretrain(path: Path) -> bool:
    """A .json file with a data_list."""
    value = peek_json(path)
    return isinstance(value, dict) and isinstance(value.get("data_list"), list)


def read_mmpretrain(path: Path, settings: DataSettings) -> Rows:
    """{"metainfo": {"classes": [...]}, "data_list": [{"img_path": ..., "gt_label": [0, 1]}]}.

    An empty list is a photo of nothing; without gt_label nobody looked.
    """
    value = load_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("data_list"), list):
        raise DataError(f"{path}: no list data_list in it")
    info = value.get("metainfo")
    export = Export(path, settings, path.parent / "data", path.parent.parent / "data")
    classes = class_list(info.get("classes"), path) if isinstance(info, dict) else ()
    for number, entry in enumerate(value["data_list"]):
        where = f"entry {number} of data_list"
        with export.entry(where, "an entry of mmpretrain"):
            label = entry.get("gt_label")
            labels = label if isinstance(label, list) else [] if label is None else [label]
            tags = [class_name(one, classes) for one in labels]
            export.add(entry["img_path"], where, tags, () if label is None else None)
    return export.finish("mmpretrain's data_list", classes)


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
            tags = _fiftyone_tags(target, classes, settings.min_confidence)
            export.add(name, f"label {number}", tags)
    return export.finish("FiftyOne labels.json", classes)


def _fiftyone_tags(target: Any, classes: Tags, least: float) -> Tags:
    if target is None:
        return ()
    if isinstance(target, list):
        return tuple(tag for one in target for tag in _fiftyone_tags(one, classes, least))
    if isinstance(target, dict):
        sure = confidence(target.get("confidence")) >= least
        return (class_name(target["label"], classes),) if sure else ()
    return (class_name(target, classes),)


def read_json(path: Path, settings: DataSettings) -> Rows:
    """A dictionary from pictures to tags, or a list or dictionary of objects, each a table's row.

    Raises DataError with the forms that are known if it is neither.
    """
    value = load_json(path)
    if isinstance(value, dict) and value and all(map(_is_target, value.values())):
        return _dictionary(value, path, settings, "JSON dictionary")
    if isinstance(value, dict) and value and _are_objects(value.values()):
        value = [{"file_name": name, **entry} for name, entry in value.items()]
    if isinstance(value, list) and value and _are_objects(value):
        return rows_from_objects(path, value, settings, "JSON list of objects")
    kind = type(value).__name__
    keys = f"with {', '.join(map(short, list(value)[:5]))}" if isinstance(value, dict) else ""
    kind = {"dict": f"an object {keys}", "list": "a list", "NoneType": "null"}.get(kind, kind)
    if isinstance(value, dict) and "shapes" in value:
        raise DataError(f"{path}: one file of LabelMe; give the folder in which it is")
    forms = bullets(JSON_FORMS)
    raise DataError(f"{path}: {kind}, in no form that is known; the JSON forms are{forms}")


def read_yaml(path: Path, settings: DataSettings) -> Rows:
    """A YAML dictionary, "a.jpg: [cat, dog]"; [] is a photo of nothing, null: nobody looked."""
    try:
        value = yaml.load(read_text(path), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(value, dict) or not all(map(_is_target, value.values())):
        forms = "a data.yaml of YOLO (with names), or a dictionary such as a.jpg: [cat, dog]"
        raise DataError(f"{path}: of no form that is known; the YAML forms are {forms}")
    return _dictionary(value, path, settings, "YAML dictionary")


class _Loader(yaml.SafeLoader):
    """All is text but null: names such as 0001, tags such as `no`. No merge keys: they can grow."""

    yaml_implicit_resolvers: ClassVar = {
        letter: [(tag, regexp) for tag, regexp in resolvers if tag.endswith(":null")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        pass

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        value = super().construct_mapping(node, deep)
        if len(value) < len(node.value):
            raise ValueError(f"a key is twice in the mapping from line {node.start_mark.line + 1}")
        return value


def _dictionary(value: dict[Any, Any], path: Path, settings: DataSettings, form: str) -> Rows:
    """A target is one tag, a list, null (nobody looked), or an object: tag -> 0, 1, confidence or
    null; tags that the object does not name are unknown."""
    export = Export(path, settings)
    for number, (name, target) in enumerate(value.items(), 1):
        where = f"entry {number}"
        with export.entry(where, "a picture with its tags"):
            export.add(name, where, *_tags(target, settings))
    return export.finish(form)


def _are_objects(values: Iterable[Any]) -> bool:
    return all(isinstance(value, dict) for value in values)


def _is_target(target: Any) -> bool:
    if isinstance(target, dict):
        return all(value is None or _number(value) is not None for value in target.values())
    one = str | int | None
    return isinstance(target, one) or (
        isinstance(target, list) and all(isinstance(tag, one) for tag in target)
    )


def _number(value: Any) -> float | None:
    """Of 1, 0.7, true, "yes", "0"; None if it is something else."""
    if isinstance(value, str):
        value = {"true": 1, "yes": 1, "false": 0, "no": 0}.get(value.casefold(), value)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _tags(target: Any, settings: DataSettings) -> tuple[Tags, Tags | None]:
    """The tags that are present, and those that are known to be absent (None: all others)."""
    if target is None:
        return (), ()
    if isinstance(target, dict):
        known = {tag_text(t): confidence(_number(v)) for t, v in target.items() if v is not None}
        present = tuple(tag for tag, value in known.items() if value >= settings.min_confidence)
        return present, tuple(tag for tag in known if tag not in present)
    if isinstance(target, list):
        return tag_texts(target), None
    text = str(target)
    separator = settings.separator or (";" if ";" in text else None)
    if separator is None and "," in text:
        do = 'write a list, or choose with --photos.separator: "," (several) or none (one)'
        raise DataError(f"is {short(text)} one tag or several? {do}")
    parts = [text] if separator in (None, "none") else text.split(separator)
    return tag_texts([part for part in parts if part.strip()]), None
