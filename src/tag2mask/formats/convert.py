"""Tags and masks between the forms that people have: `tag2mask convert --data A --to FORM --out B`."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tag2mask.errors import DataError
from tag2mask.files import write_json, write_text
from tag2mask.formats import OUTLINES, find_format, load_table
from tag2mask.formats.outline import polygons
from tag2mask.formats.rows import to_table
from tag2mask.formats.shapes import draw, rle_coder
from tag2mask.photos.classes import VOC
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import Truth, write_mask
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Table
from tag2mask.progress import log, track

Masks = dict[
    str, Callable[[], np.ndarray]
]  # name of a photo that has a mask -> reads it: (H, W) uint8 in the table's numbers


def convert(
    data: Path, to: str, out: Path, masks: Path | None = None, numbering: str = "auto"
) -> Path:
    """A data set, with its masks if there are any, to another form in the folder `out`; returns what `--data` can name from then on.

    `to`: a name of `WRITERS`. `masks`: a folder of NAME.png in `numbering` (as `Truth`); without it the outlines of a COCO, YOLO,
    LabelMe or CVAT data set are drawn. Raises DataError with all problems of the data, or if the form needs masks and none are given.
    """
    if to not in WRITERS:
        raise DataError(f'no form is called "{to}"; there are {", ".join(WRITERS)}')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists; give a new folder, nothing is overwritten")
    loaded = _load(data, masks, numbering)
    try:
        return WRITERS[to](*loaded, out)
    except BaseException:  # Ctrl-C too: what is half written would be in the way of the next try
        shutil.rmtree(out, ignore_errors=True)
        raise


def _load(data: Path, masks: Path | None, numbering: str) -> tuple[Table, Masks]:
    if masks is not None:
        table = load_table(data)
        truth = Truth(masks, table, numbering)
        return table, {photo.name: partial(truth.read, photo) for photo in truth.photos_with_truth}
    form = find_format(data)
    if form not in OUTLINES:
        return load_table(data), {}
    found = OUTLINES[form](data)
    table = to_table(found.rows())
    numbers = {tag: i for i, tag in enumerate(table.tags, 1)}
    pictures = zip(table.photos, found.pictures, strict=True)
    return table, {
        photo.name: partial(draw, one, numbers)
        for photo, one in pictures
        if any(shape.outline for shape in one.shapes)
    }


def to_csv(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/tags.csv, pictures staying where they are, and OUT/masks/NAME.png."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file_name", "tags"))
    writer.writerows((_from(out, photo.path), ";".join(photo.tags)) for photo in table.photos)
    write_text(out / "tags.csv", text.getvalue())
    _write_masks(masks, out / "masks", _renumbered(table, _named(table)))
    return out / "tags.csv"


def to_jsonl(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/tags.jsonl, pictures staying where they are, and OUT/masks/NAME.png."""
    lines = (
        json.dumps({"file_name": _from(out, photo.path), "tags": photo.tags}, ensure_ascii=False)
        for photo in table.photos
    )
    write_text(out / "tags.jsonl", "".join(f"{line}\n" for line in lines))
    _write_masks(masks, out / "masks", _renumbered(table, _named(table)))
    return out / "tags.jsonl"


def to_masks(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/NAME.png alone: 8-bit palette PNGs in the numbers of the data set itself (COCO: 1 to 80, the field's 81 classes)."""
    _need(masks)
    log.info(
        f"numbers in the masks: {', '.join(f'{i} {tag}' for i, tag in enumerate(table.tags, 1))}"
    )
    _write_masks(masks, out, np.arange(256, dtype=np.uint8))
    return out


def to_voc(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/VOC2012 with JPEGImages, Annotations/*.xml (names, no boxes), ImageSets/Segmentation/train.txt and SegmentationClass."""
    root = out / "VOC2012"
    names = _flat_names(table)
    for photo in track(table.photos, "copy"):
        name = names[photo.name]
        _copy(photo.path, root / "JPEGImages" / f"{name}{photo.path.suffix}")
        write_text(
            root / "Annotations" / f"{name}.xml", _voc_xml(f"{name}{photo.path.suffix}", photo)
        )
    named = _named(table)
    numbers = _renumbered(table, VOC if set(named) <= set(VOC) else named)  # as `read_voc` decides
    _write_masks(
        {names[name]: read for name, read in masks.items()}, root / "SegmentationClass", numbers
    )
    write_text(
        root / "ImageSets" / "Segmentation" / "train.txt",
        "".join(f"{names[photo.name]}\n" for photo in table.photos),
    )
    return root


def to_coco(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/annotations/instances_train.json and OUT/train: an annotation for each tag, with run lengths where there is a mask."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, photo in enumerate(track(table.photos, "convert"), 1):
        width, height = image_size(photo.path)
        file_name = (
            f"{photo.name}{'' if photo.name.endswith(photo.path.suffix) else photo.path.suffix}"
        )
        _copy(photo.path, out / "train" / file_name)
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        mask = masks[photo.name]() if photo.name in masks else np.zeros((height, width), np.uint8)
        for shape in _coco_shapes(table, photo, mask):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, **shape}
            )
    categories = [
        {"id": i, "name": tag, "supercategory": tag} for i, tag in enumerate(table.tags, 1)
    ]
    path = out / "annotations" / "instances_train.json"
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})
    return path


def to_yolo(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/data.yaml, images/train and labels/train: a polygon for each connected part of the masks."""
    _need(masks)
    names = _flat_names(table)
    for photo in track(table.photos, "convert"):
        name = names[photo.name]
        _copy(photo.path, out / "images" / "train" / f"{name}{photo.path.suffix}")
        lines = _yolo_lines(masks[photo.name]()) if photo.name in masks else ()
        write_text(out / "labels" / "train" / f"{name}.txt", "".join(f"{line}\n" for line in lines))
    listed = "".join(
        f"  {i}: {json.dumps(tag, ensure_ascii=False)}\n" for i, tag in enumerate(table.tags)
    )
    write_text(
        out / "data.yaml", f"path: .\ntrain: images/train\nval: images/train\nnames:\n{listed}"
    )
    return out / "data.yaml"


WRITERS: dict[str, Callable[[Table, Masks, Path], Path]] = {
    "csv": to_csv,
    "jsonl": to_jsonl,
    "masks": to_masks,
    "voc": to_voc,
    "coco": to_coco,
    "yolo": to_yolo,
}


def _need(masks: Masks) -> None:
    if not masks:
        raise DataError(
            "this form needs masks: nobody drew outlines in the data set, and no folder of masks was given"
        )


def _write_masks(masks: Masks, folder: Path, numbers: np.ndarray) -> None:
    for name, read in track(list(masks.items()), "masks"):
        write_mask(folder / f"{name}.png", numbers[read()])


def _named(table: Table) -> tuple[str, ...]:
    """The tags that a reader finds in the photos' rows, in its order."""
    return tuple(sorted({tag for photo in table.photos for tag in photo.tags}))


def _renumbered(table: Table, tags: Sequence[str]) -> np.ndarray:
    """The table's class number -> the number among `tags`: (256,) uint8; ignore where they lack the class."""
    numbers = np.full(256, IGNORE, np.uint8)
    numbers[: table.num_classes] = [
        BACKGROUND,
        *(tags.index(tag) + 1 if tag in tags else IGNORE for tag in table.tags),
    ]
    return numbers


def _coco_shapes(table: Table, photo: Photo, mask: np.ndarray) -> Iterator[dict[str, Any]]:
    """Annotations of one picture: the mask's classes with their run lengths, the other tags without an outline."""
    shown = [int(i) for i in np.unique(mask) if i not in (BACKGROUND, IGNORE)]
    for number in shown:
        code = rle_coder().encode(np.asfortranarray(mask == number))
        outline = {"size": code["size"], "counts": code["counts"].decode()}
        box = [float(value) for value in rle_coder().toBbox(code)]
        yield {
            "category_id": number,
            "segmentation": outline,
            "area": int(rle_coder().area(code)),
            "bbox": box,
        }
    for tag in photo.tags:
        if (number := table.tags.index(tag) + 1) not in shown:
            yield {
                "category_id": number,
                "segmentation": [],
                "area": 0,
                "bbox": [0.0, 0.0, 0.0, 0.0],
            }


def _yolo_lines(mask: np.ndarray) -> Iterator[str]:
    size = mask.shape[::-1]
    for number in np.unique(mask):
        for polygon in polygons(mask == number) if number not in (BACKGROUND, IGNORE) else ():
            yield f"{number - 1} " + " ".join(f"{value:.6f}" for value in (polygon / size).ravel())


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
    """Names without folders, for forms that keep all pictures in one; numbered where two would meet."""
    flat: dict[str, str] = {}
    taken: set[str] = set()
    for photo in table.photos:
        name = plain = photo.name.removesuffix(photo.path.suffix).replace("/", "__")
        while name in taken:
            name = f"{plain}-{len(taken)}"
        taken.add(name)
        flat[photo.name] = name
    return flat


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, to)


def _from(folder: Path, path: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
