"""Masks that were corrected in another tool: from its export to the corrections of a run."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_json
from tag2mask.formats import find_format, read_rows
from tag2mask.formats.convert import check_masks, drawings
from tag2mask.formats.findings import plural
from tag2mask.formats.mask_writers import file_names
from tag2mask.formats.polygons import polygons
from tag2mask.formats.rows import Row, Rows, Shape, nearest_tag, photos_text, to_table
from tag2mask.formats.shapes import draw
from tag2mask.photos.masks import Truth, class_names, file_of_names, read_mask
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Table, absolute, tag_key
from tag2mask.progress import log, track
from tag2mask.runs.corrected import some
from tag2mask.runs.folder import MASKS
from tag2mask.runs.run import Run

COPIES = ("labelme", "yolo")  # forms whose pictures are beside their files


class Brought(NamedTuple):
    """Names of photos: those whose masks came back corrected, and the others."""

    corrected: list[str]
    as_before: list[str]


class _Mask(NamedTuple):
    photo: Photo
    read: Callable[[], np.ndarray]  # (H, W) uint8 in the run's numbers
    of_polygons: bool = False


def bring_masks(run: Run, source: Path, settings: DataSettings) -> Brought:
    """Masks of training photos to the corrections of a run; those that are not as in the run.

    `source`: an export of a tool, in a form of `tag2mask convert`, or a folder of NAME.png with
    masks.json. The pictures of an export are the run's, or those in photos.images. Polygons are
    compared with the run's masks as polygons. Raises DataError with all faults, before anything is
    kept.
    """
    brought, notes = Brought([], []), Counter[str]()
    masks = list(_masks(run, source, settings, notes))
    check_masks([mask.read for mask in masks], source)
    notes.clear()
    for photo, read, of_polygons in track(masks, "masks"):
        new, before = read(), _current(run, photo)
        same = before is not None and (
            np.array_equal(new, before)
            or (of_polygons and np.array_equal(new, _as_polygons(before, photo)))
        )
        if same:
            brought.as_before.append(photo.name)
            continue
        run.files.corrections.mend(photo.name, new, run.given.classes, ())
        brought.corrected.append(photo.name)
        shown = {run.given.classes[n] for n in np.unique(new) if n not in (BACKGROUND, IGNORE)}
        notes["the mask shows a tag that the photo does not have"] += not shown <= {*photo.tags}
    for what, photos in (+notes).items():
        log.warning(f"warning: in {photos_text(photos)} {what}")
    return brought


def _masks(run: Run, source: Path, settings: DataSettings, notes: Counter[str]) -> Iterator[_Mask]:
    """The masks that can be read from `source`. Raises DataError if it has none of the run's."""
    if names_file := file_of_names(source):
        yield from _masks_of_folder(run, source, names_file)
        return
    beside = find_format(source, settings) in COPIES
    if settings.images is None and not beside:
        settings = settings.model_copy(update={"images": _folder(run.given)})
    rows = read_rows(source, settings, run.given.tags, outlines=True)
    readers = drawings(rows, to_table(rows, run.given.tags, untagged=True), notes)
    if not readers:
        raise DataError(f"{source}: no mask and no outline in it")
    photos = _by_path(run.given, rows, beside)
    names = [name for name in rows.names if name in readers and name not in photos]
    if len(names) == len(readers):
        raise DataError(f"{source}: none of its pictures is a training photo of {run.folder}")
    if names:
        what = f"{photos_text(len(names))} left out, which the run does not have: {some(names)}"
        log.warning(f"warning: {what}")
    for name, row in zip(rows.names, rows.rows, strict=True):
        if name in photos and name in readers:
            lists = [isinstance(shape.outline, list) for shape in row.shapes if shape.outline]
            yield _Mask(photos[name], readers[name], all(lists))


def _masks_of_folder(run: Run, source: Path, names_file: Path) -> Iterator[_Mask]:
    """The masks NAME.png in a folder, with a file of what their numbers mean."""
    tags = run.given.tags
    truth, known = Truth(source, run.given), {tag_key(tag) for tag in tags}
    do = f"it has {some(tags)}"
    lacking = {
        number: f'{names_file}: "{tag}" is no tag of the run; {nearest_tag(tag, tags) or do}'
        for number, tag in class_names(str(names_file)).items()
        if tag_key(tag) not in known
    }

    def read(photo: Photo) -> np.ndarray:
        """Raises DataError with every class in the mask that the run does not have."""
        if faults := [lacking[n] for n in truth.look(photo)["numbers"] if n in lacking]:
            raise DataError(faults)
        return truth.read(photo)

    if strays := truth.strays:
        what = f"{plural(len(strays), 'mask')} of no training photo left out: {some(strays)}"
        log.warning(f"warning: {source}: {what}")
    yield from (_Mask(photo, partial(read, photo)) for photo in truth.photos_with_truth)


def _folder(table: Table) -> Path:
    """The folder that all photos share. Raises DataError if it is the root of the disk."""
    folder = Path(os.path.commonpath([absolute(photo.path).parent for photo in table.photos]))
    if folder == Path(folder.anchor):
        raise DataError("the photos share no folder; give theirs with --photos.images")
    return folder


def _by_path(table: Table, rows: Rows, copies: bool) -> dict[str, Photo]:
    """Name in `rows` -> the photo of the run with the same picture, or of which it is a copy that
    `convert` or `predict` made."""
    paths = {absolute(photo.path): photo for photo in table.photos}
    flat = file_names(table, flat=True) if copies else {}
    by_file = {flat[photo.name]: photo for photo in table.photos if flat}
    found = {}
    for name, row in zip(rows.names, rows.rows, strict=True):
        photo = paths.get(absolute(row.path)) or by_file.get(row.path.name)
        if photo and photo.path.stat().st_size == row.path.stat().st_size:
            found[name] = photo
    return found


def _current(run: Run, photo: Photo) -> np.ndarray | None:
    """The mask that the run has of a photo, corrected or made, in the numbers of `run.given`."""
    now = run.files.corrections.of(photo.name)
    if now.keeps_mask:
        return run.files.corrections.read_mask(now, run.given.classes)
    about = run.files.result("masks", MASKS)  # segmenter/learned has none of its own
    if not about.exists() or tuple(read_json(about)["classes"]) != run.given.classes:
        return None
    path = run.newest_masks / f"{photo.name}.png"
    return read_mask(path) if path.is_file() else None


def _as_polygons(mask: np.ndarray, photo: Photo) -> np.ndarray:
    """A mask as it comes back, without any correction, from a form that has polygons."""
    shapes = [
        Shape(str(number), [part.ravel().tolist()])
        for number in np.unique(mask).tolist()
        if number not in (BACKGROUND, IGNORE)
        for part in polygons(mask == number)
    ]
    numbers = {shape.tag: int(shape.tag) for shape in shapes}
    return draw(Row(photo.path, (), photo.name, shapes), numbers, photo.path, Counter())
