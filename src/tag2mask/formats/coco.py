"""COCO 2014/2017 and the COCO exports of other tools: an instances JSON."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_text
from tag2mask.formats.findings import Finding, problems
from tag2mask.formats.rows import Row, Rows, Shape, is_file, tags_of
from tag2mask.photos.classes import COCO
from tag2mask.photos.table import clean_tag

# The lists of a file, and what each entry of a list needs.
ENTRIES: dict[str, dict[str, Any]] = {
    "images": {"id": int | str, "file_name": str, "width": int | float, "height": int | float},
    "annotations": {"image_id": int | str, "category_id": int | str, "area": int | float | None},
    "categories": {"id": int | str, "name": int | str},
}


def instances_file(path: Path) -> Path | None:
    """The instances JSON: the path itself, or the one in that folder, the training split's first.

    Raises DataError if the folder has several training splits.
    """
    if path.suffix.lower() == ".json":
        return path
    patterns = ("annotations/instances*.json", "_annotations.coco.json")
    files = [file for pattern in patterns for file in sorted(path.glob(pattern))]
    train = [file for file in files if "train" in file.name]
    if len(train) > 1:
        names = " and ".join(file.name for file in train)
        raise DataError(f"{path}: {names}; give the file itself")
    return next(iter(train or files), None)


def read_coco(path: Path, settings: DataSettings, outlines: bool = False) -> Rows:
    """An instances JSON, or a COCO folder. A picture without objects is a photo of nothing.

    With `outlines` the rows have shapes, which takes four times the memory. COCO's own 80
    categories are all tags, in their order; of other lists those that occur, in order of their ids.
    """
    file = instances_file(path)
    if file is None:
        raise DataError(f"{path}: no annotations/instances*.json")
    values = _load(file, outlines)
    rows = Rows(file)
    categories = sorted(values["categories"], key=lambda c: (isinstance(c["id"], str), c["id"]))
    names = {category["id"]: clean_tag(category["name"]) for category in categories}
    images: dict[Any, dict[str, Any]] = {}
    for image in values["images"]:
        if (first := images.setdefault(image["id"], image)) is not image:
            what = f"{first['file_name']} and {image['file_name']} have the same id"
            rows.error("annotation", f"image {image['id']}", what, "give each picture its own")
    shapes = _shapes(values["annotations"], images, names, rows)
    folder = _picture_folder(file, [image["file_name"] for image in list(images.values())[:50]])
    for number, image in images.items():
        name, size = image["file_name"], (int(image["width"]), int(image["height"]))
        where = f"image {number} ({name})"
        objects = shapes.get(number, ())
        rows.rows.append(Row(folder / name, tags_of(objects), where, objects, size))
    used = {tag for row in rows.rows for tag in row.tags}
    own = tuple(dict.fromkeys(name for name in names.values() if name in used))
    rows.tags = COCO if set(names.values()) == set(COCO) else own
    return rows


def _shapes(
    annotations: list[dict[str, Any]], images: dict[Any, Any], names: dict[Any, str], rows: Rows
) -> dict[Any, list[Shape]]:
    """The objects of each image id; faults are noted in `rows`."""
    shapes = defaultdict(list)
    for annotation in annotations:
        category, image = annotation["category_id"], annotation["image_id"]
        where = f"annotation {annotation.get('id')}"
        if category not in names:
            rows.error("annotation", where, f"category {category} is not in the list of categories")
        elif image not in images:
            rows.error("annotation", where, f"image {image} is not in the list of images")
        else:
            outline = annotation.get("segmentation") or ()
            shapes[image].append(Shape(names[category], outline, annotation.get("area")))
    return shapes


def _load(file: Path, outlines: bool) -> dict[str, list[dict[str, Any]]]:
    try:
        values = json.loads(read_text(file), object_hook=None if outlines else _without_outline)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: not valid JSON ({error})") from None
    lists = values if isinstance(values, dict) else {}
    if missing := [key for key in ENTRIES if not isinstance(lists.get(key), list)]:
        raise DataError(f"{file}: not an instances file of COCO: no list {', '.join(missing)}")
    faults = [
        Finding("entry", str(file), f"entry {i} of {key} {what}")
        for key, kinds in ENTRIES.items()
        for i, entry in enumerate(lists[key])
        for what in _wrong(entry, kinds)
    ]
    if faults:
        raise DataError(problems(faults), file)
    return lists


def _wrong(entry: Any, kinds: dict[str, Any]) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"is not an object: {entry!r}"
        return
    for name, kind in kinds.items():
        value = entry.get(name)
        if value == "" or not isinstance(value, kind):
            yield f"has no {name}" if value in (None, "") else f"has {value!r} as {name}"


def _without_outline(value: dict[str, Any]) -> dict[str, Any]:
    value.pop("segmentation", None)
    return value


def _picture_folder(file: Path, names: list[str]) -> Path:
    """Where the pictures are: COCO has train2014/, others have images/ or the JSON's own folder."""
    root, split = file.parent.parent, file.stem.split("_")[-1]
    options = [root / split, root / "images" / split, root / "images", root, file.parent]
    return max(options, key=lambda folder: sum(is_file(folder / name) for name in names))
