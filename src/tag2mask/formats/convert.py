"""Tags and masks to other forms: `tag2mask convert --data A --to FORM --out B`."""

import csv
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import write_text
from tag2mask.formats import DEFAULTS, read_rows
from tag2mask.formats.cells import CellError, TagCells, mark
from tag2mask.formats.findings import first_few, plural
from tag2mask.formats.huggingface import holds_pictures, write_pictures
from tag2mask.formats.mask_writers import MASK_WRITERS, Masks, check_new, copy_picture, file_names
from tag2mask.formats.rows import Rows, photos_text, to_table
from tag2mask.formats.shapes import draw
from tag2mask.photos.classes import VOC
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import Truth, write_class_names, write_mask
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Table
from tag2mask.progress import log, track


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
    OUT/photos. Raises DataError with all problems of the data or of the masks, or if the form needs
    masks and there are none.
    """
    check_new(to, out, WRITERS)
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
    notes: Counter[str] = Counter()
    if masks is not None:
        truth = Truth(masks, table, classes)
        readers = {photo.name: partial(truth.read, photo) for photo in truth.photos_with_truth}
        if missing := len(table) - len(readers):
            log.warning(f"warning: {missing} of {len(table)} photos have no mask in {masks}")
        if strays := truth.strays:
            what = f"{plural(len(strays), 'mask')} of none of these photos left out"
            log.warning(f"warning: {masks}: {what}: {first_few(strays)}")
    else:
        readers = drawings(rows, table, notes)
    if to in ("masks", "yolo") and not readers:
        what = "this form needs masks, but the data set has no outlines"
        raise DataError(f"{what}; give a folder of masks with --masks")
    unknown = sum(bool(photo.unknown) for photo in table.photos)
    if unknown and to not in ("csv", "jsonl", "masks"):
        log.warning(
            f"warning: {unknown} photos have unknown tags; {to} cannot hold these, so they become "
            "absent; csv and jsonl keep them"
        )
    check_masks(readers.values(), masks or data)
    notes.clear()  # each mask is drawn once more
    path = WRITERS[to](table, readers, out)
    for what, photos in (+notes).items():
        log.warning(f"warning: in {photos_text(photos)} {what}")
    if rows.val and to in ("csv", "jsonl"):
        val = to_table(rows.val, table.tags, untagged=True)
        list_of_val = to_table_file(f"val.{to}", val, {}, out)
        log.info(f"{list_of_val}: the {len(val)} validation photos; give them as --val")
    elif rows.val:
        count = len(rows.val.rows)
        log.info(f"the {count} validation photos are not converted; csv and jsonl keep them")
    return path


def check_masks(readers: Collection[Callable[[], np.ndarray]], source: Path) -> None:
    """Read all masks. Raises DataError with the faults of all, each once."""
    faults: list[str] = []
    for read in track(readers, "check"):
        try:
            read()
        except DataError as error:
            faults += error.problems
    if faults:
        raise DataError(list(dict.fromkeys(faults)), source)


def drawings(rows: Rows, table: Table, notes: Counter[str]) -> Masks:
    """What draws the masks of the photos that have outlines, and of the photos of nothing among
    them. `notes`: see `draw`."""
    numbers = {tag: i for i, tag in enumerate(table.tags, 1)}
    outlined = [any(shape.outline for shape in row.shapes) for row in rows.rows]
    return {
        photo.name: partial(draw, row, numbers, rows.source, notes)
        for photo, row, outline in zip(table.photos, rows.rows, outlined, strict=True)
        if outline or (any(outlined) and photo.of_nothing)
    }


def to_table_file(name: str, table: Table, masks: Masks, out: Path) -> Path:
    """OUT/NAME (.csv or .jsonl), the pictures stay where they are, and OUT/masks/NAME.png."""
    records = list(_records(table, out))
    if name.endswith(".csv"):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(records[0])
        for record in records:
            writer.writerow(";".join(v) if isinstance(v, list) else v for v in record.values())
        write_text(out / name, text.getvalue())
    else:
        write_text(out / name, "".join(f"{json.dumps(r, ensure_ascii=False)}\n" for r in records))
    tags = _used_tags(table)
    _write_masks(masks, out / "masks", _renumbered(table, tags), tags)
    return out / name


def to_masks(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/NAME.png alone, in the numbers of the data set (COCO: 1 to 80, as in the papers)."""
    numbers = ", ".join(f"{i} {tag}" for i, tag in enumerate(table.tags, 1))
    log.info(f"class numbers in the masks: {numbers}")
    _write_masks(masks, out, np.arange(256, dtype=np.uint8), table.tags)
    return out


def to_voc(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/VOC2012: JPEGImages, Annotations (no boxes), ImageSets, SegmentationClass."""
    root = out / "VOC2012"
    files = file_names(table, flat=True)
    names = {name: str(PurePosixPath(file).with_suffix("")) for name, file in files.items()}
    for photo in track(table.photos, "copy"):
        file, name = files[photo.name], names[photo.name]
        copy_picture(photo, root / "JPEGImages" / file)
        write_text(root / "Annotations" / f"{name}.xml", _voc_xml(file, photo))
    used = _used_tags(table)
    tags = VOC if set(used) <= set(VOC) else used  # as `read_voc` decides
    flat = {names[name]: read for name, read in masks.items()}
    _write_masks(flat, root / "SegmentationClass", _renumbered(table, tags), tags)
    listed = "".join(f"{names[photo.name]}\n" for photo in table.photos)
    write_text(root / "ImageSets" / "Segmentation" / "train.txt", listed)
    return root


WRITERS: dict[str, Callable[[Table, Masks, Path], Path]] = {
    "csv": partial(to_table_file, "tags.csv"),
    "jsonl": partial(to_table_file, "tags.jsonl"),
    "masks": to_masks,
    "voc": to_voc,
    **MASK_WRITERS,
}


def _records(table: Table, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of a table: the tags in one cell, or a column for each tag if some tags are unknown or
    a cell could be read in another way. There 1 is present, 0 absent, and an empty cell unknown."""
    a_column_each = any(photo.unknown for photo in table.photos) or not _clear(table)
    for photo in table.photos:
        place = {"file_name": Path(os.path.relpath(photo.path, folder)).as_posix()}
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
