"""What a run takes from the corrections of its user, and masks that were changed by hand."""

import os
import shutil
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tag2mask.errors import DataError
from tag2mask.files import read_json, sha256, write_json
from tag2mask.formats.findings import plural
from tag2mask.photos.corrections import Corrected, Corrections, corrected_table
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import NEW_MASKS, look_at_mask, read_mask, write_mask
from tag2mask.photos.regions import Regions
from tag2mask.photos.table import IGNORE, Photo, Photos, Table, tag_key
from tag2mask.processes import barrier, rank
from tag2mask.progress import log
from tag2mask.runs.folder import MADE, MASKS

if TYPE_CHECKING:
    from tag2mask.runs.run import Run

FINGERPRINT = "fingerprint"  # in the counts of the stage `masks`: that of its masks
CORRECTED = ("corrected_tags", "mended_masks")
MOST_NAMED = 5  # photos in one line of the log


@dataclass(frozen=True)
class Taken:
    """The corrections as they were when a command started. Later ones wait for the next command.

    table: the training photos with the corrected tags. masks: the photos whose mask is kept, by
    name. wrong: names of those whose mask is left out of the segmenter's training. notes: what
    cannot be used, for the user.
    """

    table: Table
    masks: Mapping[str, Corrected]
    wrong: frozenset[str]
    tags: Mapping[str, int]  # photo name -> how many of its tags are not as the data say
    notes: tuple[str, ...]

    @property
    def mended(self) -> tuple[str, ...]:
        """Names of the photos whose mask was mended."""
        return tuple(name for name, one in self.masks.items() if one.mask == "mended")

    @property
    def trained(self) -> Table:
        """The photos on which the segmenter is trained: those whose mask is not wrong."""
        photos = (photo for photo in self.table.photos if photo.name not in self.wrong)
        return replace(self.table, photos=Photos(photos))

    def counts(self, masks: Container[str] | None = None) -> dict[str, int]:
        """How many tags and masks were corrected, for the facts beside a figure; only those that
        are not 0. masks: names of the photos whose masks count; None: all."""
        mended = [name for name in self.mended if masks is None or name in masks]
        counts = zip(CORRECTED, (sum(self.tags.values()), len(mended)), strict=True)
        return {name: count for name, count in counts if count}

    def __str__(self) -> str:
        """What was corrected, as "3 tags corrected in 2 photos; 4 masks mended, 1 left out"."""
        tags, right = sum(self.tags.values()), len(self.masks) - len(self.mended)
        masks = {"mended": len(self.mended), "judged right": right, "left out": len(self.wrong)}
        texts = [f"{count} {what}" for what, count in masks.items() if count]
        if texts:
            count, _, what = texts[0].partition(" ")
            texts[0] = f"{plural(int(count), 'mask')} {what}"
        parts = [f"{plural(tags, 'tag')} corrected in {plural(len(self.tags), 'photo')}"]
        return "; ".join(parts * bool(tags) + [", ".join(texts)] * bool(texts))


def take(corrections: Corrections, given: Table, facts: Any) -> Taken:
    """The corrections that are in force, for the table of training photos as the data give it."""
    state = corrections.state()
    if not state and not corrections.faults:
        return Taken(given, {}, frozenset(), {}, ())
    table = corrected_table(given, state)
    photos = {photo.name: photo for photo in table.photos}
    notes = corrections.faults
    if gone := sorted(state.keys() - photos.keys()):
        what = f"corrections of {plural(len(gone), 'photo')} that the data do not have"
        notes.append(f"{what}: {some(gone)}; they are kept, and not used")
    keys = {tag_key(tag) for tag in table.tags}
    named = {tag for one in state.values() for tag in one.tags} | {
        name
        for one in state.values()
        if one.last and one.keeps_mask
        for name in one.last.classes[1:]
    }
    if lost := sorted(tag for tag in named if tag_key(tag) not in keys):
        what = f"corrections name {some(lost)}, which is no tag of the data now"
        notes.append(f"{what}; they are kept, and not used (in a mask: not learned from)")
    masks = {}
    for name in sorted(state.keys() & photos.keys()):
        if not state[name].keeps_mask:
            continue
        file, last = corrections.kept_file(state[name]), state[name].last
        if fault := _fault(file, photos[name], last.classes if last else (), facts):
            notes.append(f"{fault}; it is kept, and not used")
        else:
            masks[name] = state[name]
    pairs = zip(given.photos, table.photos, strict=True)
    tags = {after.name: n for before, after in pairs if (n := _changed_tags(before, after))}
    wrong = frozenset(name for name in photos if name in state and state[name].mask == "wrong")
    return Taken(table, masks, wrong, tags, tuple(notes))


def _changed_tags(before: Photo, after: Photo) -> int:
    values = [
        dict.fromkeys(photo.tags, 1) | dict.fromkeys(photo.unknown, 0) for photo in (before, after)
    ]
    return sum(values[0].get(tag) != values[1].get(tag) for tag in {**values[0], **values[1]})


def some(names: Iterable[str]) -> str:
    """Up to five names as text."""
    listed = list(names)
    more = len(listed) - MOST_NAMED
    return ", ".join(listed[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _fault(file: Path, photo: Photo, classes: Sequence[str], facts: Any) -> str:
    """Why a mask in the numbers of `classes` cannot be that of a photo, or ""."""
    try:
        mask, size = facts.of(file, "mask", look_at_mask), image_size(photo.path)
    except DataError as error:
        return str(error)
    if mask["size"] != list(size):
        sizes = "{} x {} pixels, but {} is {} x {}".format(*mask["size"], photo.path, *size)
        return f"{file} is {sizes}"
    if unknown := [n for n in mask["numbers"] if n >= len(classes) and n != IGNORE]:
        what = f"{file}: no class has the number {some(map(str, unknown))}"
        return f"{what}; the classes are {some(f'{i} {name}' for i, name in enumerate(classes))}"
    return ""


# ---- masks of the segmenter's training -----------------------------------------------------------


def changed_masks(run: "Run") -> list[list[Any]] | None:
    """What differs from the masks that tag2mask made: [name, hash of the mask, its classes], or
    [name, "wrong"]; None if nothing does. For the inputs of a stage."""
    taken, folder = run.taken, run.files.result("masks")
    changes: list[list[Any]] = [[name, "wrong"] for name in sorted(taken.wrong)]
    for name, one in taken.masks.items():
        assert one.last
        made = folder / f"{name}.png"
        same = made.exists() and run.facts.of(made, "sha256", sha256) == one.last.sha256
        if not same or one.last.classes != run.table.classes:
            changes.append([name, one.last.sha256, list(one.last.classes)])
    return changes or None


def write_kept(run: "Run", folder: Path) -> None:
    """Write the masks that are kept into `folder`/NAME.png, in the run's class numbers."""
    for name, one in run.taken.masks.items():
        mask = run.files.corrections.read_mask(one, run.table.classes)
        write_mask(folder / f"{name}.png", mask)


def training_masks(run: "Run", masks: Path, folder: Path) -> Path:
    """A folder of masks with those that are kept in their places: `folder`, most of it links, or
    `masks` itself if no mask is kept."""
    if not run.taken.masks:
        return masks
    if rank() == 0:
        write_kept(run, folder)
    for photo in run.table.photos if rank() == 0 else ():
        path = folder / f"{photo.name}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            link(masks / f"{photo.name}.png", path)
    barrier()
    return folder


def link(file: Path, to: Path) -> None:
    """A second name of a file; a copy where the file system has no such thing."""
    with suppress(OSError):
        os.link(file, to)
        return
    shutil.copy(file, to)


# ---- masks changed by hand -----------------------------------------------------------------------


def keep_changed(run: "Run") -> None:
    """Keep, as corrections, masks that were changed by hand: in masks/ and segmenter/masks/, where
    what tag2mask made comes back, and in corrections/. Raises DataError if one of them is no mask
    of its photo.
    """
    corrections, folder = run.files.corrections, run.files.result("masks")
    corrections.show()  # a killed process may not have done this
    own = {path for path in corrections.folder.rglob("*.png") if ".versions" not in path.parts}
    _warn_of_strays(run, own)
    places = {"masks": folder, "segmenter": run.files.result("segmenter", NEW_MASKS)}
    changed = [pair for stage, place in places.items() for pair in _changed(run, stage, place)]
    kept = [
        (file, photo)
        for photo in (run.given.photos if own else ())
        if (file := corrections.file(photo.name)) in own and corrections.is_changed(photo.name)
    ]
    noted = folder / (MASKS if (folder / MADE).exists() else "")
    classes = read_json(noted)["classes"] if noted.is_file() else list(run.given.classes)
    pairs = changed + kept
    faults = [fault for pair in pairs if (fault := _fault(*pair, classes, run.facts))]
    if faults:
        do = "save it as a PNG with a class number per pixel; without it, it is made again"
        raise DataError([f"{fault}; {do}" for fault in faults])
    before = {file: _made_again(file, photo, run.regions) for file, photo in changed}
    new = [
        photo.name
        for file, photo in pairs
        if (file not in before or not np.array_equal(read_mask(file), before[file]))
        and corrections.keep_file(photo.name, file, classes)
    ]
    if new:
        text = f"{plural(len(new), 'mask')} changed by hand: {some(new)}"
        log.info(f"{text}; kept as corrections, in {corrections.folder}")
    for file, mask in before.items():
        write_mask(file, mask)
    for place in places.values():
        if here := [(file, photo) for file, photo in changed if file.is_relative_to(place)]:
            made = read_json(place / MADE)
            for file, photo in here:
                made[photo.name]["mask"] = sha256(file)
            write_json(place / MADE, made)
    if pairs:
        run.forget()


def _changed(run: "Run", stage: str, folder: Path) -> list[tuple[Path, Photo]]:
    """The masks in the folder of a stage that are not as tag2mask made them, with their photos."""
    counts = (run.files.done(stage) or {}).get("counts", {})
    if counts.get(FINGERPRINT) == run.fingerprint(folder, "*.png") or not (folder / MADE).exists():
        return []
    made = read_json(folder / MADE)
    now = dict(run.facts.of_all(folder, "*.png", "sha256", sha256))
    return [
        (folder / name, photo)
        for photo in run.given.photos
        if photo.name in made
        and (name := f"{photo.name}.png") in now
        and now[name] != made[photo.name]["mask"]
    ]


def _warn_of_strays(run: "Run", files: Iterable[Path]) -> None:
    """Say which of the `files` in corrections/ are of no photo that the run has or had."""
    corrections = run.files.corrections
    names = {path.relative_to(corrections.folder).with_suffix("").as_posix() for path in files}
    if names:
        names -= {photo.name for photo in run.given.photos} | corrections.state().keys()
    if names:
        what = f"{plural(len(names), 'mask')} of no photo: {some(sorted(names))}"
        log.warning(f"warning: {corrections.folder}: {what}; not used")


def _made_again(file: Path, photo: Photo, regions: Regions | None) -> np.ndarray:
    """The mask (H, W) uint8 of a photo as it was made, from the score maps stored beside `file`."""
    from tag2mask.masks.mend import mend

    folder = file.parents[photo.name.count("/")]
    made, tags = read_json(folder / MADE)[photo.name], read_json(folder / MASKS)["classes"][1:]
    then = replace(photo, tags=tuple(made["tags"]), unknown=tuple(made["unknown"]))
    return mend(folder, then, tags, regions=regions)
