"""Mask files: 8-bit palette PNGs with a class number per pixel, and the folder of true masks that evaluation may read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from tag2mask.errors import DataError
from tag2mask.files import Facts, writing
from tag2mask.photos.classes import COCO, COCO_IDS, VOC
from tag2mask.photos.colors import PALETTE
from tag2mask.photos.images import image_size, reading
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Table, absolute, tag_key

AGREE = (
    0.8  # share of photos whose mask must show what their tags say before a numbering is believed
)
SAMPLE = 50


def read_mask(path: Path) -> np.ndarray:
    """A palette or grey 8-bit PNG to class numbers: (H, W) uint8. Raises DataError."""
    with reading(path, "mask") as image:
        if image.mode not in ("P", "L", "1"):
            raise DataError(
                f"{path}: a mask must be an 8-bit palette or grey picture with a class number per pixel, not {image.mode}"
            )
        if image.format != "PNG":
            raise DataError(
                f"{path}: a mask must be a PNG, not {image.format}; other formats change the numbers"
            )
        return np.array(image, np.uint8)


def look_at_mask(path: Path) -> dict[str, list[int]]:
    """What a mask file holds: its "size" (width, height) [pixels] and the class "numbers" in it, sorted. Raises DataError."""
    mask = read_mask(path)
    return {
        "size": [mask.shape[1], mask.shape[0]],
        "numbers": np.flatnonzero(np.bincount(mask.ravel())).tolist(),
    }


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Class numbers (H, W) uint8 to an 8-bit palette PNG in the colors of `colors.py`, whole or not at all."""
    image = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
    image.putpalette(PALETTE.tobytes())
    with writing(path) as temporary:
        image.save(temporary, "PNG")


# What the numbers in mask files may mean, beside the table's own order: number -> class name.
NUMBERINGS: dict[str, dict[int, str]] = {
    "voc": dict(enumerate(VOC, 1)),
    "coco": dict(enumerate(COCO, 1)),
    "coco91": dict(zip(COCO_IDS, COCO, strict=True)),
}


def true_photos(table: Table, val: Table | None, folder: Path) -> Table:
    """The training photos to which true masks in `folder` may belong: not train/1.jpg where 1.png is the mask of test/1.jpg in `val`.

    None at all if no training photo has a mask of its own there.
    """
    own, others = _find_masks(folder, table), _find_masks(folder, val) if val else {}
    owner = {
        others[photo.name]: absolute(photo.path)
        for photo in (val.photos if val else ())
        if photo.name in others
    }
    kept = tuple(
        p
        for p in table.photos
        if p.name not in own or owner.get(own[p.name], absolute(p.path)) == absolute(p.path)
    )
    return replace(table, photos=kept if any(photo.name in own for photo in kept) else ())


class Truth:
    """A folder of true masks (NAME.png for each photo of `table`). For evaluation: nothing that trains from tags opens one.

    The numbers in the files become the table's. `numbering` says what they mean: the table's own order ("table"), "voc", "coco"
    (1 to 80), "coco91", or class names for 1, 2, ...; None or "auto": the one under which masks and tags agree.
    `facts` spares opening masks that have been looked at before. Raises DataError if no file fits or no numbering agrees.
    """

    def __init__(
        self,
        folder: Path | str,
        table: Table,
        numbering: str | Sequence[str] | None = None,
        facts: Facts | None = None,
    ):
        self.folder, self._facts = Path(folder), facts or Facts()
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder of masks")
        self._paths = _find_masks(self.folder, table)
        self.photos_with_truth = tuple(photo for photo in table.photos if photo.name in self._paths)
        if not self.photos_with_truth:
            found = [path.name for path in sorted(self.folder.glob("*"))[:3]]
            raise DataError(
                f"{self.folder}: no mask for any of the {len(table)} photos; the first should be {table.photos[0].name}.png, "
                f"the folder holds {', '.join(found) or 'nothing'}"
            )
        numberings = {"table": dict(enumerate(table.tags, 1)), **NUMBERINGS}
        numbering = numbering or "auto"
        if not isinstance(numbering, str):
            numberings["given"] = dict(enumerate(numbering, 1))
            numbering = "given"
        if numbering != "auto" and numbering not in numberings:
            raise DataError(f'numbering "{numbering}" is not one of auto, {", ".join(numberings)}')
        self.numbering = self._guess(table, numberings) if numbering == "auto" else numbering
        self._numbers = _to_table(numberings[self.numbering], table.tags)

    def path(self, photo: Photo) -> Path:
        """Where the true mask of a photo lies."""
        return self._paths[photo.name]

    def read(self, photo: Photo) -> np.ndarray:
        """The true mask of a photo in the table's class numbers: (H, W) uint8, H and W the photo's. Raises DataError."""
        mask = read_mask(self.path(photo))
        numbers, size = self._numbers[mask], image_size(photo.path)
        if mask.shape != size[::-1] or numbers.min() < 0:
            raise DataError(self.fault(photo, size))
        return numbers.astype(np.uint8)

    def look(self, photo: Photo) -> dict[str, list[int]]:
        """`look_at_mask` of a photo's true mask, which is opened only if that is not known yet."""
        looked: dict[str, list[int]] = self._facts.of(self.path(photo), "mask", look_at_mask)
        return looked

    def fault(self, photo: Photo, size: Sequence[int]) -> str:
        """What is wrong with the true mask of a photo of this width and height [pixels]; nothing if it fits. Raises DataError."""
        path, mask = self.path(photo), self.look(photo)
        if mask["size"] != list(size):
            return f"{path}: {mask['size'][0]} x {mask['size'][1]}, but {photo.path} is {size[0]} x {size[1]} (width x height)"
        unknown = [number for number in mask["numbers"] if self._numbers[number] < 0]
        return (
            f'{path}: holds {unknown}, which numbering "{self.numbering}" does not have'
            if unknown
            else ""
        )

    def shown(self, photo: Photo) -> set[int]:
        """The table's classes that the true mask of a photo shows, background left out. Raises DataError."""
        return set(self._numbers[self.look(photo)["numbers"]].tolist()) - {BACKGROUND, IGNORE}

    def _guess(self, table: Table, numberings: dict[str, dict[int, str]]) -> str:
        tagged = [photo for photo in self.photos_with_truth if photo.tags]
        looked = [
            (photo, self._values(photo))
            for photo in tagged[:: max(1, len(tagged) // SAMPLE)][:SAMPLE]
        ]
        sample = [(photo, values) for photo, values in looked if values is not None]
        if not sample:
            raise DataError(
                f"{self.folder}: none of the photos with a mask here has tags, so nothing tells which class the numbers in the masks mean; "
                f"give --photos.numbering: {', '.join(numberings)}"
            )
        agree = dict.fromkeys(numberings, 0)
        for name, classes in numberings.items():
            numbers = _to_table(classes, table.tags)
            for photo, values in sample:
                mapped = {int(numbers[value]) for value in values}
                agree[name] += mapped - {IGNORE} == {
                    table.tags.index(tag) + 1 for tag in photo.tags
                }
        best = max(agree, key=agree.__getitem__)  # the first of equals: the table's own order
        if agree[best] >= AGREE * len(sample):
            return best
        shown = "; ".join(
            f"{photo.name}.png holds {sorted(values)}, tags {', '.join(photo.tags)}"
            for photo, values in sample
            if values
        )
        counts = ", ".join(f"{name} {count}" for name, count in agree.items())
        raise DataError(
            f"{self.folder}: cannot tell which class the numbers in the masks mean. Of {len(sample)} photos with both, they agree "
            f"in: {counts}. {shown[:400]}. Give the numbering: {', '.join(numberings)}, or the class names for 1, 2, ..."
        )

    def _values(self, photo: Photo) -> set[int] | None:
        """Numbers in a mask file, without background and ignore; None if it cannot be read, which `read` will say."""
        try:
            return set(self.look(photo)["numbers"]) - {BACKGROUND, IGNORE}
        except DataError:
            return None


def _find_masks(folder: Path, table: Table) -> dict[str, Path]:
    """Photo name -> its mask: NAME.png in the same folders as the photos, or all in one folder where that is unambiguous."""
    last = {photo.name: PurePath(photo.name).name for photo in table.photos}
    count = Counter(last.values())
    places = {name: [name, end] if count[end] == 1 else [name] for name, end in last.items()}
    files = (
        (name, folder / f"{place}.png")
        for name, options in places.items()
        for place in reversed(options)
    )
    return {name: path for name, path in files if path.is_file()}


def _to_table(classes: dict[int, str], tags: Sequence[str]) -> np.ndarray:
    """Number in a file -> number in the table: (256,) int16, -1 where the numbering has no such class."""
    index = {tag_key(tag): i for i, tag in enumerate(tags, 1)}
    numbers = np.full(256, -1, np.int16)
    numbers[[BACKGROUND, IGNORE]] = BACKGROUND, IGNORE
    for number, name in classes.items():
        # A class that the table lacks is neither background nor an error of the network, which was never told of it: not scored.
        numbers[number] = index.get(tag_key(name), IGNORE)
    return numbers
