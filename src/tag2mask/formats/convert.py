"""Tags and masks to other forms: `tag2mask convert --data A --to FORM --out B`."""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import write_json, write_text
from tag2mask.formats import DEFAULTS, read_rows
from tag2mask.formats.cells import CellError, TagCells, mark
from tag2mask.formats.huggingface import holds_pictures, write_pictures
from tag2mask.formats.polygons import polygons
from tag2mask.formats.rows import to_table
from tag2mask.formats.shapes import draw, rle_coder
from tag2mask.photos.classes import VOC
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import Truth, write_class_names, write_mask
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Table
from tag2mask.progress import log, track

# Name of a photo that has a mask -> reads the mask: (H, W) uint8 in the table's numbers.
Masks = dict[str, Callable[[], np.ndarray]]


def convert(
    data: Path,
    to: str,
    out: Path,
    masks: Path | None = None,
    classes: str = "auto",
    settings: DataSettings = DEFAULTS,
) -> Path:
    """A data set, with its masks if it has any, to another form in the new folder `out`.

    Returns the path to give as `--data`. `to` is a name of `WRITERS`. `masks` is a folder of
    NAME.png (`classes`: what its numbers mean, see `Truth`); without it, the outlines of a COCO,
    YOLO, LabelMe or CVAT data set are drawn. Pictures that a parquet file holds are written to
    OUT/photos. Raises DataError with all problems of the data, or if the form needs masks and there
    are none.
    """
    if to not in WRITERS:
        raise DataError(f'unknown form "{to}"; use one of {", ".join(WRITERS)}')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists; give a new folder, nothing is overwritten")
    try:
        if holds_pictures(data):
            data = write_pictures(data, out / "photos", settings)
            settings = settings.model_copy(update={"form": "auto", "tag_column": None})
        return _convert(data, to, out, masks, classes, settings)
    except BaseException:  # Ctrl-C too: half of the files would be in the way of the next try
        shutil.rmtree(out, ignore_errors=True)
        raise


def _convert(
    data: Path, to: str, out: Path, masks: Path | None, classes: str, settings: DataSettings
) -> Path:
    rows = read_rows(data, settings, outlines=masks is None)
    table = to_table(rows)
    readers: Masks = {}
    if masks is not None:
        truth = Truth(masks, table, classes)
        readers = {photo.name: partial(truth.read, photo) for photo in truth.photos_with_truth}
    numbers = {tag: i for i, tag in enumerate(table.tags, 1)}
    outlined = [any(shape.outline for shape in row.shapes) for row in rows.rows]
    for photo, row, has_outline in zip(table.photos, rows.rows, outlined, strict=True):
        # There are no outlines if masks are given. Among others, nothing is drawn as background.
        if has_outline or (any(outlined) and photo.of_nothing):
            readers[photo.name] = partial(draw, row, numbers)
    if to in ("masks", "yolo") and not readers:
        what = "this form needs masks, but the data set has no outlines"
        raise DataError(f"{what}; give a folder of masks with --masks")
    unknown = sum(bool(photo.unknown) for photo in table.photos)
    if unknown and to not in ("csv", "jsonl", "masks"):
        log.warning(
            f"warning: {unknown} photos have unknown tags; {to} cannot hold these, so they become "
            "absent; csv and jsonl keep them"
        )
    path = WRITERS[to](table, readers, out)
    if rows.val:
        _convert_val(to_table(rows.val, table.tags, untagged=True), to, out)
    return path


def to_csv(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/tags.csv, the pictures stay where they are, and OUT/masks/NAME.png."""
    return _write_table(out / "tags.csv", table, masks)


def to_jsonl(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/tags.jsonl, the pictures stay where they are, and OUT/masks/NAME.png."""
    return _write_table(out / "tags.jsonl", table, masks)


def to_masks(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/NAME.png alone, in the numbers of the data set (COCO: 1 to 80, as in the papers)."""
    numbers = ", ".join(f"{i} {tag}" for i, tag in enumerate(table.tags, 1))
    log.info(f"class numbers in the masks: {numbers}")
    _write_masks(masks, out, np.arange(256, dtype=np.uint8), table.tags)
    return out


def to_voc(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/VOC2012: JPEGImages, Annotations (no boxes), ImageSets, SegmentationClass."""
    root = out / "VOC2012"
    names = _flat_names(table)
    for photo in track(table.photos, "copy"):
        name = names[photo.name]
        file = _copy(photo, root / "JPEGImages", name)
        write_text(root / "Annotations" / f"{name}.xml", _voc_xml(file.name, photo))
    used = _used_tags(table)
    tags = VOC if set(used) <= set(VOC) else used  # as `read_voc` decides
    flat = {names[name]: read for name, read in masks.items()}
    _write_masks(flat, root / "SegmentationClass", _renumbered(table, tags), tags)
    listed = "".join(f"{names[photo.name]}\n" for photo in table.photos)
    write_text(root / "ImageSets" / "Segmentation" / "train.txt", listed)
    return root


def to_coco(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/train and OUT/annotations/instances_train.json.

    Each tag of a photo has an annotation, with run lengths if there is a mask.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, photo in enumerate(track(table.photos, "convert"), 1):
        width, height = image_size(photo.path)
        file = _copy(photo, out / "train", photo.name.removesuffix(photo.path.suffix))
        name = file.relative_to(out / "train").as_posix()
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        mask = masks[photo.name]() if photo.name in masks else np.zeros((height, width), np.uint8)
        for shape in _coco_shapes(table, photo, mask):
            ids = {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0}
            annotations.append({**ids, **shape})
    tags = enumerate(table.tags, 1)
    categories = [{"id": i, "name": tag, "supercategory": tag} for i, tag in tags]
    path = out / "annotations" / "instances_train.json"
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})
    return path


def to_yolo(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/data.yaml, images/train, labels/train: a polygon for each connected part of a mask."""
    names = _flat_names(table)
    for photo in track(table.photos, "convert"):
        name = names[photo.name]
        _copy(photo, out / "images" / "train", name)
        lines = _yolo_lines(masks[photo.name]()) if photo.name in masks else ()
        write_text(out / "labels" / "train" / f"{name}.txt", "".join(lines))
    tags = (f"  {i}: {json.dumps(t, ensure_ascii=False)}\n" for i, t in enumerate(table.tags))
    folders = "path: .\ntrain: images/train\nval: images/train\n"
    write_text(out / "data.yaml", f"{folders}names:\n{''.join(tags)}")
    return out / "data.yaml"


WRITERS: dict[str, Callable[[Table, Masks, Path], Path]] = {
    writer.__name__.removeprefix("to_"): writer
    for writer in (to_csv, to_jsonl, to_masks, to_voc, to_coco, to_yolo)
}


def _convert_val(val: Table, to: str, out: Path) -> None:
    """The validation photos of a data set with a split: OUT/val.csv or OUT/val.jsonl."""
    if to in ("csv", "jsonl"):
        path = _write_table(out / f"val.{to}", val, {})
        log.info(f"{path}: the {len(val)} validation photos; give them as --val")
    else:
        log.info(f"the {len(val)} validation photos are not converted; csv and jsonl keep them")


def _write_table(path: Path, table: Table, masks: Masks) -> Path:
    records = list(_records(table, path.parent))
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(records[0])
        for record in records:
            writer.writerow(";".join(v) if isinstance(v, list) else v for v in record.values())
        write_text(path, text.getvalue())
    else:
        write_text(path, "".join(f"{json.dumps(r, ensure_ascii=False)}\n" for r in records))
    tags = _used_tags(table)
    _write_masks(masks, path.parent / "masks", _renumbered(table, tags), tags)
    return path


def _records(table: Table, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of a table: the tags in one cell, or a column for each tag if some tags are unknown or
    a cell could be read in another way. There 1 is present, 0 absent, and an empty cell unknown."""
    a_column_each = any(photo.unknown for photo in table.photos) or not _clear(table)
    for photo in table.photos:
        place = {"file_name": _from(folder, photo)}
        if a_column_each:
            known = {tag: int(tag in photo.tags) for tag in table.tags}
            yield place | known | dict.fromkeys(photo.unknown)
        else:
            yield place | {"tags": list(photo.tags)}


def _clear(table: Table) -> bool:
    """Whether the tags of each photo, separated by ";", are read as the same tags."""
    cells = {";".join(photo.tags): photo.tags for photo in table.photos}
    try:
        read = TagCells(cells)
        same = all(read.tags(cell) == tags for cell, tags in cells.items())
    except CellError:
        return False
    return same and not read.doubt and any(mark(cell) is None for cell in cells if cell)


def _write_masks(masks: Masks, folder: Path, numbers: np.ndarray, tags: Sequence[str]) -> None:
    """The masks in the `numbers` of the new form, and the names of its classes."""
    if masks:
        write_class_names(folder, ("background", *tags))
    for name, read in track(list(masks.items()), "masks"):
        write_mask(folder / f"{name}.png", numbers[read()])


def _used_tags(table: Table) -> tuple[str, ...]:
    """The tags that photos have, in the order in which a reader of the new form has them."""
    return tuple(sorted({tag for photo in table.photos for tag in photo.tags}))


def _renumbered(table: Table, tags: Sequence[str]) -> np.ndarray:
    """The table's class number -> the number in `tags`: (256,) uint8; ignore if it is not there."""
    numbers = np.full(256, IGNORE, np.uint8)
    order = {"background": BACKGROUND} | {tag: i for i, tag in enumerate(tags, 1)}
    numbers[: table.num_classes] = [order.get(name, IGNORE) for name in table.classes]
    return numbers


def _coco_shapes(table: Table, photo: Photo, mask: np.ndarray) -> Iterator[dict[str, Any]]:
    """Annotations of one picture: classes of the mask, then the other tags without an outline."""
    coder, classes = rle_coder(), _classes(mask)
    for number in classes:
        code = coder.encode(np.asfortranarray(mask == number))
        outline = {"size": code["size"], "counts": code["counts"].decode()}
        area, box = int(coder.area(code)), coder.toBbox(code).tolist()
        yield {"category_id": number, "segmentation": outline, "area": area, "bbox": box}
    for number in (table.tags.index(tag) + 1 for tag in photo.tags):
        if number not in classes:
            yield {"category_id": number, "segmentation": [], "area": 0, "bbox": [0.0] * 4}


def _yolo_lines(mask: np.ndarray) -> Iterator[str]:
    for number in _classes(mask):
        for polygon in polygons(mask == number):
            corners = (polygon / mask.shape[::-1]).ravel()
            yield f"{number - 1} {' '.join(f'{value:.6f}' for value in corners)}\n"


def _classes(mask: np.ndarray) -> list[int]:
    return [int(number) for number in np.unique(mask) if number not in (BACKGROUND, IGNORE)]


def _voc_xml(file_name: str, photo: Photo) -> str:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file_name
    size = ElementTree.SubElement(root, "size")
    for key, value in zip(("width", "height", "depth"), (*image_size(photo.path), 3), strict=True):
        ElementTree.SubElement(size, key).text = str(value)
    for tag in photo.tags:
        ElementTree.SubElement(ElementTree.SubElement(root, "object"), "name").text = tag
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _flat_names(table: Table) -> dict[str, str]:
    """Unique names without folders, for forms that have all pictures in one folder."""
    flat: dict[str, str] = {}  # flat name -> name
    for photo in table.photos:
        name = photo.name.removesuffix(photo.path.suffix).replace("/", "__")
        name = re.sub(r"[\0-\x1f\x7f]", "_", name)  # XML and lists of names cannot hold them
        while name in flat:
            name += f"-{len(flat)}"
        flat[name] = photo.name
    return {name: short for short, name in flat.items()}


def _copy(photo: Photo, folder: Path, name: str) -> Path:
    file = folder / f"{name}{photo.path.suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(photo.path, file)
    return file


def _from(folder: Path, photo: Photo) -> str:
    return Path(os.path.relpath(photo.path, folder)).as_posix()
