"""COCO 2014/2017, COCO Camera Traps, and the COCO exports of other tools: an instances JSON."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.exports import Export
from tag2mask.formats.findings import Finding, first_few, problems, warning
from tag2mask.formats.json_files import load_json, peek_json
from tag2mask.formats.rows import Rows, Shape, is_file, photos_text, tags_of
from tag2mask.photos.classes import COCO
from tag2mask.photos.table import clean_tag

SIZE = int | float | None
EMPTY = {"empty", "blank"}  # camera traps: the category of photos of nothing

# The lists of a file, and what each entry of a list needs.
ENTRIES: dict[str, dict[str, Any]] = {
    "images": {"id": int | str, "file_name": str, "width": SIZE, "height": SIZE},
    "annotations": {"image_id": int | str, "category_id": int | str, "area": int | float | None},
    "categories": {"id": int | str, "name": int | str},
}


def instances_file(path: Path) -> Path | None:
    """The instances JSON: the path itself, or the one in that folder, the training split's first.

    Raises DataError if the folder has several training splits.
    """
    if path.is_file():
        value = peek_json(path)
        return path if isinstance(value, dict) and value.keys() & ENTRIES.keys() else None
    patterns = ("annotations/instances*.json", "_annotations.coco.json")
    files = [file for pattern in patterns for file in sorted(path.glob(pattern))]
    train = [file for file in files if "train" in file.name]
    if len(train) > 1:
        names = " and ".join(file.name for file in train)
        raise DataError(f"{path}: {names}; give the file itself")
    return next(iter(train or files), None)


def read_coco(path: Path, settings: DataSettings, outlines: bool = False) -> Rows:
    """An instances JSON, or a COCO folder; its instances_val* is the validation set.

    A picture without objects is a photo of nothing. In camera traps, which have a category "empty",
    a picture of it is one, and a picture without annotation is one in which nobody looked. With
    `outlines` the rows have shapes, which takes four times the memory. COCO's own 80 categories are
    all tags, in their order; of other lists those that occur, in order of their ids.
    """
    file = instances_file(path)
    if file is None:
        raise DataError(f"{path}: no annotations/instances*.json")
    rows = _read(file, settings, outlines)
    val = file.with_name(file.name.replace("train", "val"))
    if path.is_dir() and val != file and val.is_file():
        rows.val = _read(val, settings, outlines)
        rows.form += f"; {val.name} is the validation set"
    return rows


def _read(file: Path, settings: DataSettings, outlines: bool) -> Rows:
    values = _load(file, outlines)
    names_of_files = [image["file_name"] for image in values["images"][:50]]
    export = Export(file, settings, _picture_folder(file, names_of_files))
    categories = sorted(values["categories"], key=lambda c: (isinstance(c["id"], str), c["id"]))
    names: dict[Any, str] = {}
    for category in categories:
        name = clean_tag(category["name"])
        if (other := names.setdefault(category["id"], name)) != name:
            what, do = f"{other} and {name} have the same id", "give each category its own"
            export.rows.error("annotation", f"category {category['id']}", what, do)
    images: dict[Any, dict[str, Any]] = {}
    for image in values["images"]:
        if (first := images.setdefault(image["id"], image)) is not image:
            what = f"{first['file_name']} and {image['file_name']} have the same id"
            where = f"image {image['id']}"
            export.rows.error("annotation", where, what, "give each picture its own")
    empty = _empty_categories(names, values["annotations"])
    annotations = [note for note in values["annotations"] if note["category_id"] not in empty]
    shapes = _shapes(annotations, images, names, export.rows)
    nothing = {n["image_id"] for n in values["annotations"] if n["category_id"] in empty}
    for number, image in images.items():
        objects = shapes.get(number, ())
        if image.get("corrupt") is True or (objects and number in nothing):
            continue
        name, where = image["file_name"], f"image {number}"
        absent = () if empty and not objects and number not in nothing else None
        with export.entry(f"{where} ({name})", "an image of COCO"):
            size = _size(image)
            export.add(name, where, tags_of(objects), absent, shapes=objects, size=size)
    form = f"COCO Camera Traps ({names[empty[0]]} is nothing)" if empty else "COCO"
    rows = export.finish(form, names.values())
    if set(names.values()) == set(COCO):
        rows.tags = COCO
    rows.findings += _warnings(file, values, shapes.keys() & nothing)
    return rows


def _empty_categories(names: dict[Any, str], annotations: Iterable[dict[str, Any]]) -> list[Any]:
    """The ids of "empty" and "blank", if no object with a box has them: an empty bottle is one."""
    ids = [number for number, name in names.items() if name.casefold() in EMPTY]
    boxed = {note["category_id"] for note in annotations if note.get("bbox")} if ids else set()
    return [number for number in ids if number not in boxed]


def _warnings(file: Path, values: dict[str, Any], both: set[Any]) -> Iterator[Finding]:
    warn = partial(warning, "annotation", str(file))
    notes = values["annotations"]
    if burst := sum(note.get("sequence_level_annotation") is True for note in notes):
        what = f"{burst} of {len(notes)} annotations hold for a burst of photos"
        yield warn(f"{what} (sequence_level_annotation), not surely for each photo")
    if corrupt := sum(image.get("corrupt") is True for image in values["images"]):
        yield warn(f"{photos_text(corrupt)} left out: marked as corrupt")
    if both:
        what = f'{photos_text(len(both))} left out: "empty", but with objects'
        yield warn(f"{what} (image {first_few(sorted(map(str, both)))})")


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = (image.get(key) or 0 for key in ("width", "height"))
    return (int(width), int(height)) if 0 < width < 1e6 and 0 < height < 1e6 else None


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
    values = load_json(file, outlines)
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


def _picture_folder(file: Path, names: list[str]) -> Path:
    """Where the pictures are: COCO has train2014/, others have images/ or the JSON's own folder."""
    root, split = file.parent.parent, file.stem.split("_")[-1]
    options = [root / split, root / "images" / split, root / "images", root, file.parent]
    return max(options, key=lambda folder: sum(is_file(folder / name) for name in names))
