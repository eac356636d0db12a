"""COCO 2014/2017 and every tool's COCO export: tags from the instances JSON, and outlines for masks."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tag2mask.errors import DataError
from tag2mask.files import read_text
from tag2mask.formats.findings import Finding, shorten
from tag2mask.formats.rows import clean_tag, is_file
from tag2mask.formats.shapes import Outlined, Outlines, Shape
from tag2mask.photos.classes import COCO
from tag2mask.progress import log

# What a file must hold: list -> what each entry of it needs.
ENTRIES: dict[str, dict[str, Any]] = {
    "images": {"id": int | str, "file_name": str, "width": int | float, "height": int | float},
    "annotations": {"image_id": int | str, "category_id": int | str, "area": int | float | None},
    "categories": {"id": int | str, "name": int | str},
}


def instances_file(path: Path) -> Path | None:
    """The instances JSON of a COCO folder (or the file itself), the training split's where there are several; None if there is none."""
    if path.suffix.lower() == ".json":
        return path
    found = [
        *sorted(path.glob("annotations/instances*.json")),
        *sorted(path.glob("_annotations.coco.json")),
    ]
    train = [file for file in found if "train" in file.name]
    if len(train) > 1:
        raise DataError(
            f"{path}: {' and '.join(file.name for file in train)}; name the file itself"
        )
    return train[0] if train else found[0] if found else None


def read_coco(path: Path, outlines: bool = True) -> Outlines:
    """An instances JSON, or a COCO folder, to pictures with outlines. Pictures without any object are left out, as in the field's lists.

    Without `outlines` the objects' names alone are kept, in a quarter of the memory.

    COCO's own 80 categories are all tags, in their order; of other category lists those that occur, in the order of their ids.
    """
    file = instances_file(path)
    if file is None:
        raise DataError(f"{path}: no annotations/instances*.json")
    values = _load(file, outlines)
    found = Outlines(file)
    categories = sorted(
        values["categories"], key=lambda category: (isinstance(category["id"], str), category["id"])
    )
    names = {category["id"]: clean_tag(category["name"]) for category in categories}
    images: dict[Any, dict[str, Any]] = {}
    for image in values["images"]:
        if (first := images.setdefault(image["id"], image)) is not image:
            what = f"{first['file_name']} and {image['file_name']} both have this id"
            found.findings.append(
                Finding("annotation", f"image {image['id']}", what, "give each picture its own")
            )
    shapes: dict[Any, list[Shape]] = defaultdict(list)
    for annotation in values["annotations"]:
        where = f"annotation {annotation.get('id')}"
        if annotation.get("category_id") not in names:
            found.findings.append(
                Finding(
                    "annotation",
                    where,
                    f"category {annotation.get('category_id')} is not in the list of categories",
                )
            )
        elif annotation.get("image_id") not in images:
            found.findings.append(
                Finding(
                    "annotation",
                    where,
                    f"image {annotation.get('image_id')} is not in the list of images",
                )
            )
        else:
            shape = Shape(
                names[annotation["category_id"]],
                annotation.get("segmentation") or (),
                annotation.get("area"),
            )
            shapes[annotation["image_id"]].append(shape)
    folder = _picture_folder(file, [image["file_name"] for image in list(images.values())[:50]])
    for number, image in images.items():
        if number in shapes:
            size = (int(image["width"]), int(image["height"]))
            found.pictures.append(
                Outlined(
                    folder / image["file_name"],
                    f"image {number} ({image['file_name']})",
                    shapes[number],
                    size,
                )
            )
    if empty := len(images) - len(found.pictures):
        log.info(f"{file.name}: {empty} of {len(images)} pictures have no object and are left out")
    used = {shape.tag for picture in found.pictures for shape in picture.shapes}
    found.tags = (
        COCO
        if set(names.values()) == set(COCO)
        else tuple(dict.fromkeys(name for name in names.values() if name in used))
    )
    return found


def _load(file: Path, outlines: bool) -> dict[str, list[dict[str, Any]]]:
    try:
        values = json.loads(read_text(file), object_hook=None if outlines else _without_outline)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: not valid JSON ({error})") from None
    missing = [
        key
        for key in ENTRIES
        if not isinstance(values, dict) or not isinstance(values.get(key), list)
    ]
    if missing:
        raise DataError(f"{file}: not an instances file of COCO: no list {', '.join(missing)}")
    problems = [
        Finding("entry", str(file), f"entry {i} of {key} {what}")
        for key, kinds in ENTRIES.items()
        for i, entry in enumerate(values[key])
        for what in _wrong(entry, kinds)
    ]
    if problems:
        raise DataError([str(problem) for problem in shorten(problems)], file)
    return values


def _wrong(entry: Any, kinds: dict[str, Any]) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"is no object but {entry!r}"
        return
    for name, kind in kinds.items():
        value = entry.get(name)
        if value == "" or not isinstance(value, kind):
            yield f"has no {name}" if value in (None, "") else f"has {value!r} as {name}"


def _without_outline(value: dict[str, Any]) -> dict[str, Any]:
    value.pop("segmentation", None)
    return value


def _picture_folder(file: Path, names: list[str]) -> Path:
    """Where the pictures lie: COCO keeps train2014/ beside annotations/, other tools images/ or the JSON's own folder."""
    root, split = file.parent.parent, file.stem.split("_")[-1]
    options = [root / split, root / "images" / split, root / "images", root, file.parent]
    return max(options, key=lambda folder: sum(is_file(folder / name) for name in names))
