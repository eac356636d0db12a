"""Masks to the forms of tools in which people look at masks and correct them.

A writer holds one mask at a time. All forms have the pixels of the upright photo. None of them
knows pixels that are not scored (255): these become background, and a warning says so.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from tag2mask.errors import DataError
from tag2mask.files import write_json, write_text, writing_text
from tag2mask.formats.brush import encode_brush
from tag2mask.formats.polygons import polygons
from tag2mask.formats.rows import photos_text
from tag2mask.formats.shapes import rle_coder
from tag2mask.photos.colors import color
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Table
from tag2mask.progress import log, track

# Name of a photo that has a mask -> reads the mask: (H, W) uint8 in the table's numbers.
Masks = dict[str, Callable[[], np.ndarray]]
UNWRITABLE = re.compile("[\0-\x1f\x7f\ufffe\uffff]")  # XML and lists of names cannot hold them


class Outlined(NamedTuple):
    """A photo whose picture is in the new form's folder, with its mask."""

    file: str  # the picture's name there
    width: int  # pixels
    height: int
    regions: dict[str, np.ndarray]  # tag -> its pixels, (H, W) bool
    other_tags: tuple[str, ...]  # those that the mask does not show


def write_outlines(
    to: str, photos: Sequence[Photo], masks: Mapping[str, Path], classes: Sequence[str], out: Path
) -> Path:
    """Predicted masks to one of the forms `MASK_WRITERS` in the folder `out`.

    `masks`: photo name -> the file of its mask. `classes`: what the numbers in the masks mean,
    background first. Photos without a mask are left out. If it is stopped, nothing is left in
    `out`. Returns the file or folder that the tool opens. Raises DataError, as `check_new`.
    """
    check_new(to, out)
    with_mask = tuple(photo for photo in photos if photo.name in masks)
    readers: Masks = {photo.name: partial(read_mask, masks[photo.name]) for photo in with_mask}
    if missing := len(photos) - len(with_mask):
        log.warning(f"warning: {photos_text(missing)} left out of {out}: no mask")
    try:
        return MASK_WRITERS[to](Table(tuple(classes[1:]), with_mask), readers, out)
    except BaseException:  # Ctrl-C too: half of the files would be in the way of the next try
        shutil.rmtree(out, ignore_errors=True)
        raise


def check_new(to: str, out: Path, forms: Iterable[str] = ()) -> None:
    """Raises DataError if `to` is none of the forms (without them: those of `MASK_WRITERS`), or if
    something is in the folder `out`."""
    if to not in (forms := forms or MASK_WRITERS):
        raise DataError(f'unknown form "{to}"; use one of {", ".join(forms)}')
    if to == "coco":
        rle_coder()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists; give a new folder, nothing is overwritten")


def to_coco(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/train and OUT/annotations/instances_train.json.

    Each tag of a photo has an annotation, with run lengths if the mask shows it.
    """
    coder, path = rle_coder(), out / "annotations" / "instances_train.json"
    numbers = {tag: i for i, tag in enumerate(table.tags, 1)}
    categories = [{"id": i, "name": tag, "supercategory": tag} for tag, i in numbers.items()]
    images: list[dict[str, Any]] = []
    count = 0
    with writing_text(path) as file:
        file.write(f'{{"categories": {_json(categories)},\n"annotations": [')
        for number, photo in enumerate(_outlined(table, masks, out / "train"), 1):
            size = {"width": photo.width, "height": photo.height}
            images.append({"id": number, "file_name": photo.file, **size})
            for tag in (*photo.regions, *photo.other_tags):
                outline: Any = []
                area, box = 0, [0.0] * 4
                if tag in photo.regions:
                    code = coder.encode(np.asfortranarray(photo.regions[tag]))
                    area, box = int(coder.area(code)), coder.toBbox(code).tolist()
                    outline = {"size": code["size"], "counts": code["counts"].decode()}
                count += 1
                note = {"id": count, "image_id": number, "category_id": numbers[tag], "iscrowd": 0}
                shape = {"segmentation": outline, "area": area, "bbox": box}
                file.write(f"{',' * (count > 1)}\n{_json(note | shape)}")
        file.write(f'],\n"images": {_json(images)}}}\n')
    return path


def to_yolo(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/data.yaml, images/train, labels/train: a polygon for each connected part of a mask.

    Photos with tags and without a mask are left out: here they would be photos of nothing.
    """
    numbers = {tag: i for i, tag in enumerate(table.tags)}
    kept = tuple(photo for photo in table.photos if photo.name in masks or photo.of_nothing)
    if missing := len(table) - len(kept):
        log.warning(f"warning: {photos_text(missing)} with tags, but without a mask, left out")
    lost = 0
    table = Table(table.tags, kept)
    for photo in _outlined(table, masks, out / "images" / "train", flat=True):
        lines = (
            f"{numbers[tag]} {' '.join(f'{value:.6f}' for value in corners.ravel())}\n"
            for tag, region in photo.regions.items()
            for corners in (part / [photo.width, photo.height] for part in polygons(region))
        )
        labels = out / "labels" / "train" / f"{_stem(photo.file)}.txt"
        write_text(labels, "".join(lines))
        lost += bool(photo.other_tags)
    if lost:
        what = "the mask does not show some tag, which YOLO's form then cannot hold"
        log.warning(f"warning: in {photos_text(lost)} {what}")
    names = "".join(f"  {i}: {_json(tag)}\n" for tag, i in numbers.items())
    folders = "path: .\ntrain: images/train\nval: images/train\n"
    write_text(out / "data.yaml", f"{folders}names:\n{names}")
    return out / "data.yaml"


def to_labelme(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/NAME.json beside the picture: a polygon for each connected part of a mask.

    Flags are the tags that the mask does not show.
    """
    for photo in _outlined(table, masks, out, flat=True):
        kind: dict[str, Any] = {"shape_type": "polygon", "group_id": None, "flags": {}}
        value = {
            "version": "5.5.0",
            "flags": {tag: tag in photo.other_tags for tag in table.tags},
            "shapes": [
                {"label": tag, "points": part.tolist(), **kind}
                for tag, region in photo.regions.items()
                for part in polygons(region)
            ],
            "imageData": None,
            "imagePath": photo.file,
            "imageHeight": photo.height,
            "imageWidth": photo.width,
        }
        write_text(out / f"{_stem(photo.file)}.json", _json(value) + "\n")
    return out


def to_cvat(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/annotations.xml ("CVAT for images 1.1"), the pictures, and labels.json for a new task.

    A mask of run lengths for each class; tags of the photo that the mask does not show.
    """
    labels = [
        {"name": tag, "color": color(i), "attributes": []} for i, tag in enumerate(table.tags, 1)
    ]
    write_json(out / "labels.json", labels)
    with writing_text(out / "annotations.xml") as file:
        file.write(
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        )
        names = "".join(f"<label><name>{escape(tag)}</name></label>\n" for tag in table.tags)
        file.write(f"<meta><task><labels>\n{names}</labels></task></meta>\n")
        for number, photo in enumerate(_outlined(table, masks, out / "images")):
            name = f"id={quoteattr(str(number))} name={quoteattr(photo.file)}"
            file.write(f'<image {name} width="{photo.width}" height="{photo.height}">\n')
            for tag, region in photo.regions.items():
                file.write(f'<mask label={quoteattr(tag)} source="auto" {_cvat_rle(region)}/>\n')
            for tag in photo.other_tags:
                file.write(f'<tag label={quoteattr(tag)} source="auto"/>\n')
            file.write("</image>\n")
        file.write("</annotations>\n")
    return out / "annotations.xml"


def _cvat_rle(region: np.ndarray) -> str:
    """CVAT's run lengths: by rows in the box around the region, the first is background."""
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    box = region[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    ends = np.flatnonzero(np.diff(box.ravel(), prepend=False))
    runs = ", ".join(map(str, np.diff([0, *ends, box.size]).tolist()))
    place = f'left="{left}" top="{top}" width="{box.shape[1]}" height="{box.shape[0]}"'
    return f'occluded="0" rle="{runs}" {place} z_order="0"'


def to_label_studio(table: Table, masks: Masks, out: Path) -> Path:
    """OUT/tasks.json with predictions, the pictures, and config.xml for a new project.

    A brush for each class; choices are the tags that the mask does not show. The addresses of the
    pictures are those of Label Studio's local storage whose root is OUT.
    """
    names = [quoteattr(tag) for tag in table.tags]
    choices = "".join(f"    <Choice value={name}/>\n" for name in names)
    brushes = "".join(
        f'    <Label value={name} background="{color(i)}"/>\n' for i, name in enumerate(names, 1)
    )
    write_text(
        out / "config.xml",
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="mask" toName="image">\n{brushes}  </BrushLabels>\n'
        f'  <Choices name="tags" toName="image" choice="multiple">\n{choices}  </Choices>\n'
        "</View>\n",
    )
    with writing_text(out / "tasks.json") as file:
        for number, photo in enumerate(_outlined(table, masks, out / "images")):
            result = list(_label_studio_results(photo))
            address = f"/data/local-files/?d={quote(f'images/{photo.file}')}"
            prediction = {"model_version": "tag2mask", "result": result}
            task = {"data": {"image": address}, "predictions": [prediction]}
            file.write(f"{',' if number else '['}\n{_json(task)}")
        file.write("\n]\n")
    return out / "tasks.json"


def _label_studio_results(photo: Outlined) -> Iterator[dict[str, Any]]:
    size = {"original_width": photo.width, "original_height": photo.height, "image_rotation": 0}
    for number, (tag, region) in enumerate(photo.regions.items(), 1):
        value = {"format": "rle", "rle": encode_brush(region), "brushlabels": [tag]}
        what = {"id": f"mask{number}", "type": "brushlabels", "from_name": "mask"}
        yield what | {"to_name": "image", "value": value} | size
    if photo.other_tags:
        what = {"id": "tags", "type": "choices", "from_name": "tags", "to_name": "image"}
        yield what | {"value": {"choices": list(photo.other_tags)}}


MASK_WRITERS: dict[str, Callable[[Table, Masks, Path], Path]] = {
    "coco": to_coco,
    "yolo": to_yolo,
    "labelme": to_labelme,
    "cvat": to_cvat,
    "label-studio": to_label_studio,
}


def file_names(table: Table, flat: bool = False) -> dict[str, str]:
    """Photo name -> a unique name for a copy of its picture, with the folders that the photos do
    not share; if `flat`, without folders, and unique without its extension too."""
    names: dict[str, str] = {}  # what is unique -> photo name
    for photo in table.photos:
        suffix = photo.path.suffix
        stem = str(PurePosixPath(photo.name).with_name(photo.path.stem))
        stem = UNWRITABLE.sub("_", stem.replace("/", "__") if flat else stem)
        end = "" if flat else suffix
        while f"{stem}{end}" in names:
            stem += f"-{len(names)}"
        names[f"{stem}{end}"] = photo.name
    suffixes = {photo.name: photo.path.suffix if flat else "" for photo in table.photos}
    return {name: f"{short}{suffixes[name]}" for short, name in names.items()}


def copy_picture(photo: Photo, file: Path) -> None:
    """The picture of a photo, with its time, to the new path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(photo.path, file)


def _outlined(table: Table, masks: Masks, folder: Path, flat: bool = False) -> Iterator[Outlined]:
    """The photos with their masks, one after the other; their pictures are copied to `folder`."""
    files, unscored = file_names(table, flat), 0
    for photo in track(table.photos, "convert"):
        width, height = image_size(photo.path)
        copy_picture(photo, folder / files[photo.name])
        read = masks.get(photo.name, lambda: np.zeros((height, width), np.uint8))  # noqa: B023
        mask = read()
        if mask.shape != (height, width):
            size = "{1} x {0}".format(*mask.shape)
            what = f"the mask is {size}, the photo {width} x {height} (width x height)"
            raise DataError(f"{photo.path}: {what}")
        numbers = np.unique(mask).tolist()
        unscored += IGNORE in numbers
        shown = [number for number in numbers if number not in (BACKGROUND, IGNORE)]
        regions = {table.classes[number]: mask == number for number in shown}
        other = tuple(tag for tag in photo.tags if tag not in regions)
        yield Outlined(files[photo.name], width, height, regions, other)
    if unscored:
        what = "some pixels are not scored (255): in this form they are background"
        log.warning(f"warning: in {photos_text(unscored)} {what}")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _stem(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(""))
