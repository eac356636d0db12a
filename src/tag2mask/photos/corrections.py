"""What a user corrected in a run: tags and masks. It is kept apart from all that was computed.

corrections.jsonl               one line for each correction; lines are only added
corrections/NAME.png            the mask that the user mended or accepted, with the newest changes
corrections/.versions/HASH.png  every such mask there ever was, so that each change can be undone

A photo is known by its name in the table of training photos, a class by its tag: both outlive a
change of the data. The state of a photo is what its last correction that was not undone says.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tag2mask.errors import DataError
from tag2mask.files import sha256
from tag2mask.photos.correction_log import (
    Correction,
    CorrectionLog,
    MaskCorrection,
    MaskValue,
    Stroke,
    TagCorrection,
    TagValue,
    Undo,
    new_line,
    write_through,
)
from tag2mask.photos.masks import mask_png, read_mask
from tag2mask.photos.table import IGNORE, Photo, Photos, Table, tag_key

__all__ = ["Corrected", "Corrections", "Stroke", "corrected_table"]


@dataclass(frozen=True)
class Corrected:
    """The corrections of one photo that are in force.

    `mask` is "computed" (as tag2mask makes it), "right" (kept as the user saw it), "wrong" (left
    out of the segmenter's training) or "mended". `last` is the newest line about the mask.
    """

    tags: Mapping[str, TagValue] = field(default_factory=dict)
    mask: MaskValue = "computed"
    last: MaskCorrection | None = None

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        """The strokes of a mended mask."""
        return self.last.strokes if self.last else ()

    @property
    def keeps_mask(self) -> bool:
        """Whether the photo has a mask in corrections/."""
        return self.mask in ("right", "mended")


class Corrections:
    """The corrections in a run folder. Threads and processes may add to them at the same time.

    file: corrections.jsonl. folder: corrections/. Neither has to exist.
    """

    def __init__(self, file: Path, folder: Path):
        self.folder, self._log = folder, CorrectionLog(file)

    # ---- what is there ---------------------------------------------------------------------------

    @property
    def lines(self) -> list[Correction]:
        """All corrections, oldest first; those that are undone too."""
        return self._log.read()

    @property
    def faults(self) -> list[str]:
        """Lines that cannot be read, as text for the user. They are left as they are."""
        return self._log.faults()

    @property
    def in_force(self) -> list[TagCorrection | MaskCorrection]:
        """The corrections that are not undone, oldest first."""
        dead: set[str] = set()
        alive = []
        for line in reversed(self.lines):
            if line.id in dead:
                continue  # an Undo that was undone takes nothing back
            if isinstance(line, Undo):
                dead.add(line.of)
            else:
                alive.append(line)
        return alive[::-1]

    def state(self) -> dict[str, Corrected]:
        """Photo name -> the corrections of the photo. Others have none."""
        photos: dict[str, Corrected] = {}
        for line in self.in_force:
            before = photos.get(line.photo, Corrected())
            if isinstance(line, TagCorrection):
                photos[line.photo] = replace(before, tags={**before.tags, line.tag: line.value})
            else:
                photos[line.photo] = replace(before, mask=line.value, last=line)
        return photos

    def of(self, photo: str) -> Corrected:
        """The corrections of one photo."""
        return self.state().get(photo, Corrected())

    def read_mask(self, corrected: Corrected, classes: Sequence[str]) -> np.ndarray:
        """The mask that is kept of a photo: (H, W) uint8 in the numbers of `classes`, background
        first. A class that is not among them becomes 255. Raises DataError if it cannot be read.
        """
        assert corrected.last
        number = {tag_key(name): i for i, name in enumerate(classes)}
        numbers = np.full(256, IGNORE, np.uint8)
        for i, name in enumerate(corrected.last.classes):
            numbers[i] = number.get(tag_key(name), IGNORE)
        mask: np.ndarray = numbers[read_mask(self.kept_file(corrected))]
        return mask

    def kept_file(self, corrected: Corrected) -> Path:
        """The file of the mask that is kept of a photo, as it was written."""
        assert corrected.last and corrected.keeps_mask
        return self._version(corrected.last.sha256)

    # ---- what is added ---------------------------------------------------------------------------

    def set_tag(self, photo: str, tag: str, value: TagValue) -> str:
        """Say whether a tag is in a photo; returns the id of the line."""
        return self._add(TagCorrection(**new_line(), photo=photo, tag=tag, value=value))

    def judge_right(self, photo: str, mask: np.ndarray, classes: Sequence[str]) -> str:
        """Say that the mask (H, W) uint8, which the user saw, is right; returns the id of the line.

        It is kept, and trains the segmenter whatever tag2mask computes later. classes: what its
        numbers mean, background first.
        """
        return self._keep("right", photo, mask_png(mask), classes)

    def judge_wrong(self, photo: str) -> str:
        """Leave a mask out of the segmenter's training; returns the id of the line."""
        return self._add(MaskCorrection(**new_line(), photo=photo, value="wrong"))

    def mend(
        self, photo: str, mask: np.ndarray, classes: Sequence[str], strokes: Iterable[Stroke]
    ) -> str:
        """Keep the mask (H, W) uint8 that the user mended; returns the id of the line.

        classes: what its numbers mean, background first. strokes: all of the photo, also those of
        earlier mendings.
        """
        return self._keep("mended", photo, mask_png(mask), classes, strokes=tuple(strokes))

    def take_back(self, photo: str) -> str:
        """Take back a photo's strokes or judgement: its mask is again as computed. Returns the id
        of the line."""
        return self._add(MaskCorrection(**new_line(), photo=photo, value="computed"))

    def undo(self, of: str | None = None) -> str | None:
        """Take back a line, without `of` the newest that is in force; returns the id of the new
        line, None if there is nothing to undo. To redo, undo the id that this returned.

        Raises DataError if no line has the id `of`.
        """
        with self._log.lock:
            if of is None:
                if not (alive := self.in_force):
                    return None
                of = alive[-1].id
            if of not in {line.id for line in self.lines}:
                raise DataError(f"{self._log.file}: no correction {of}, so it cannot be undone")
            return self._add(Undo(**new_line(), of=of))

    def keep_file(self, photo: str, file: Path, classes: Sequence[str]) -> bool:
        """Keep a mask that another program wrote or changed, if it is not kept yet; returns
        whether it is new. `file` may be corrections/NAME.png itself. Raises DataError if it is no
        mask.
        """
        with self._log.lock:
            if file == self.file(photo):  # after a kill, it may be an earlier version
                is_new = self.is_changed(photo)
            else:
                last = self.of(photo).last
                is_new = file.is_file() and (last is None or last.sha256 != sha256(file))
            if not is_new:
                return False
            read_mask(file)
            self._keep("mended", photo, file.read_bytes(), classes, by_hand=True)
            return True

    def is_changed(self, photo: str) -> bool:
        """Whether corrections/NAME.png is there and is none of the masks that were kept of it."""
        digest = _digest(self.file(photo))
        return bool(digest) and digest not in self._versions().get(photo, ())

    def _versions(self) -> dict[str, set[str]]:
        """Photo name -> hashes of all masks that were ever kept of it."""
        versions: dict[str, set[str]] = {}
        for line in self.lines:
            if isinstance(line, MaskCorrection):
                versions.setdefault(line.photo, set()).add(line.sha256)
        return versions

    def _keep(
        self, value: MaskValue, photo: str, png: bytes, classes: Sequence[str], **more: Any
    ) -> str:
        self.file(photo)  # raises before anything is written
        digest = hashlib.sha256(png).hexdigest()
        write_through(self._version(digest), png)
        kept = {"sha256": digest, "classes": tuple(classes)}
        return self._add(MaskCorrection(**new_line(), photo=photo, value=value, **kept, **more))

    def _add(self, line: Correction) -> str:
        """Append a line: it is on the disk when this returns. Then show it in `folder`."""
        photo = self.photo_of(line)
        with self._log.lock:
            before = self.of(photo).last if photo else None
            if photo and before and not (isinstance(line, MaskCorrection) and line.by_hand):
                # The file that `show` replaces may hold changes that are nowhere else.
                self.keep_file(photo, self.file(photo), before.classes)
            self._log.append(line)
            self.show([photo] if photo else [])
        return line.id

    def photo_of(self, line: Correction | None) -> str | None:
        """The photo of a line, None if it takes back a line that cannot be read. Raises DataError
        if its name is no photo's."""
        lines = {other.id: other for other in self.lines} if isinstance(line, Undo) else {}
        while isinstance(line, Undo):
            line = lines.get(line.of)
        if line:
            self.file(line.photo)
        return line.photo if line else None

    # ---- files -----------------------------------------------------------------------------------

    def show(self, photos: Iterable[str] | None = None) -> None:
        """Make corrections/NAME.png of these photos (None: all) what the log says, also after a
        kill. A file that another program changed stays as it is: see `keep_file`."""
        with self._log.lock:
            state, versions = self.state(), self._versions()
            for photo in versions.keys() & (versions if photos is None else set(photos)):
                last, path = state.get(photo, Corrected()).last, self.file(photo)
                wanted, there = last.sha256 if last else "", _digest(path)
                if there == wanted or (there and there not in versions[photo]):
                    continue
                if wanted:
                    write_through(path, self._version(wanted).read_bytes())
                else:
                    path.unlink(missing_ok=True)  # it is in .versions

    def file(self, photo: str) -> Path:
        """corrections/NAME.png of a photo. Raises DataError if this is no photo's name."""
        parts = PurePosixPath(photo).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in photo:
            raise DataError(f"{photo!r} is not the name of a photo")
        return self.folder / f"{photo}.png"

    def _version(self, digest: str) -> Path:
        return self.folder / ".versions" / f"{digest}.png"


def corrected_table(table: Table, state: Mapping[str, Corrected]) -> Table:
    """A table with the tags that the user corrected. Tags that the table does not have, and photos
    that it does not have, are left out."""
    if not state:
        return table
    names = {tag_key(tag): tag for tag in table.tags}

    def corrected(photo: Photo) -> Photo:
        values = {
            names[tag_key(tag)]: value
            for tag, value in (state[photo.name].tags if photo.name in state else {}).items()
            if tag_key(tag) in names
        }
        if not values:
            return photo
        before = dict.fromkeys(photo.tags, "present") | dict.fromkeys(photo.unknown, "unknown")
        after: dict[str, str] = {**before, **values}
        tags, unknown = (
            tuple(tag for tag in table.tags if after.get(tag) == value)
            for value in ("present", "unknown")
        )
        return replace(photo, tags=tags, unknown=unknown)

    return replace(table, photos=Photos(map(corrected, table.photos)))


def _digest(path: Path) -> str:
    return sha256(path) if path.is_file() else ""
