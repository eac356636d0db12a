"""Mask files: 8-bit palette PNGs with a class number per pixel; and folders of true masks."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from tag2mask.errors import DataError
from tag2mask.files import Facts, read_text, write_json, writing
from tag2mask.photos.classes import COCO, COCO_IDS, VOC
from tag2mask.photos.colors import PALETTE
from tag2mask.photos.images import image_size, reading
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Photos, Table, absolute, tag_key

CLASSES_FILE = "masks.json"  # beside the masks of a run: their class names
NEW_MASKS, LEARNED = "masks", "learned"  # in the folder of the stage segmenter
PREDICTED_CLASSES = "classes.json"  # beside those of `tag2mask predict`: names and colors
AGREE = 0.8  # share of photos whose mask must show exactly their tags to accept a numbering
SAMPLE = 50  # masks that are opened to find the numbering

# What the numbers in mask files can mean, besides the table's own order: number -> class name.
NUMBERINGS: dict[str, dict[int, str]] = {
    "voc": dict(enumerate(VOC, 1)),
    "coco": dict(enumerate(COCO, 1)),
    "coco91": dict(zip(COCO_IDS, COCO, strict=True)),
}


def read_mask(path: Path) -> np.ndarray:
    """A palette or gray 8-bit PNG to class numbers: (H, W) uint8. Raises DataError.

    A TIFF with a palette is read too: `tag2mask predict` writes it for a GeoTIFF.
    """
    with reading(path, "mask") as image:
        if image.mode not in ("P", "L", "1"):
            what = "a mask must be an 8-bit palette or gray picture with a class number per pixel"
            raise DataError(f"{path}: {what}, not {image.mode}")
        if image.format != "PNG" and (image.format, image.mode) != ("TIFF", "P"):
            what = f"a mask must be a PNG, not {image.format}; other formats change the numbers"
            raise DataError(f"{path}: {what}")
        return np.array(image, np.uint8)


def look_at_mask(path: Path) -> dict[str, list[int]]:
    """The "size" (width, height) [pixels] of a mask file, and the class "numbers" in it, sorted.

    Raises DataError.
    """
    mask = read_mask(path)
    numbers = np.flatnonzero(np.bincount(mask.ravel()))
    return {"size": [mask.shape[1], mask.shape[0]], "numbers": numbers.tolist()}


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Class numbers (H, W) uint8 to an 8-bit PNG with the palette of `colors.py`, atomically."""
    with writing(path) as temporary:
        temporary.write_bytes(mask_png(mask))


def mask_png(mask: np.ndarray) -> bytes:
    """Class numbers (H, W) uint8 to the bytes of an 8-bit PNG with the palette of `colors.py`."""
    image = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
    image.putpalette(PALETTE.tobytes())
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write_class_names(folder: Path, classes: Sequence[str]) -> None:
    """Write `folder`/masks.json: what the numbers of the masks there mean, background being 0."""
    write_json(folder / CLASSES_FILE, {"classes": list(classes), "ignore": IGNORE})


def count_pixels(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Two masks (H, W) uint8 to pixels per pair of numbers: (256 true, 256 predicted) int64.

    255 is counted like every other number. Raises DataError if the sizes differ.
    """
    if predicted.shape != truth.shape:
        size, true_size = (" x ".join(map(str, mask.shape[::-1])) for mask in (predicted, truth))
        raise DataError(f"the mask is {size}, the true mask {true_size} (width x height)")
    pairs = truth.astype(np.uint16) << 8 | predicted
    return np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)


def true_photos(table: Table, val: Table | None, folder: Path) -> Table:
    """The training photos whose true masks may be in `folder`; none if none has a mask of its own.

    Not among them is train/1.jpg if 1.png is the mask of the validation photo val/1.jpg.
    """
    own, others = files_of(folder, table), files_of(folder, val) if val else {}
    photos = val.photos if val else ()
    owner = {others[p.name]: absolute(p.path) for p in photos if p.name in others}

    def may_have_mask(photo: Photo) -> bool:
        path = absolute(photo.path)
        return photo.name not in own or owner.get(own[photo.name], path) == path

    train = Photos(photo for photo in table.photos if may_have_mask(photo))
    return replace(table, photos=train if any(photo.name in own for photo in train) else ())


class Truth:
    """A folder of true masks, NAME.png for the photos of `table`.

    They are for evaluation: nothing that trains from tags opens one. The numbers in the files
    become the table's class numbers. `classes` is what they mean: see `evaluate.classes`. auto: as
    the file masks.json in the folder says, else the numbering under which masks and tags agree.
    Masks that `facts` knows are not opened to look at them. Raises DataError if no photo has a mask
    or no numbering agrees. `warnings` are for people.
    """

    def __init__(
        self,
        folder: Path | str,
        table: Table,
        classes: str = "auto",
        facts: Facts | None = None,
    ):
        self.folder, self._facts = Path(folder), facts or Facts()
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder of masks")
        self._paths = files_of(self.folder, table)
        self.photos_with_truth = tuple(photo for photo in table.photos if photo.name in self._paths)
        if not self.photos_with_truth:
            files = [path.name for path in sorted(self.folder.glob("*"))[:3]]
            raise DataError(
                f"{self.folder}: no mask for any of the {len(table)} photos; the first should be "
                f"{table.photos[0].name}.png, the folder has {', '.join(files) or 'no files'}"
            )
        self.warnings: list[str] = []
        numberings = {"table": dict(enumerate(table.tags, 1)), **NUMBERINGS}
        if classes == "auto" and (own := file_of_names(self.folder)):
            classes = str(own)
        if classes == "auto":
            classes = self._find_numbering(table, numberings)
        elif classes not in numberings:
            numberings["names"] = class_names(classes)
            classes = "names"
            self._note_names(numberings["names"], table)
        self.numbering = classes
        self._numbers = _to_table(numberings[classes], table.tags)
        self._note_disagreement(table, numberings[classes])

    def path(self, photo: Photo) -> Path:
        """The file of a photo's true mask."""
        return self._paths[photo.name]

    @property
    def strays(self) -> list[str]:
        """Names, sorted, of the PNG files in the folder that are the mask of no photo."""
        files = set(self.folder.rglob("*.png")) - {*self._paths.values()}
        return sorted(file.relative_to(self.folder).as_posix() for file in files)

    def read(self, photo: Photo) -> np.ndarray:
        """The true mask of a photo in the table's class numbers: (H, W) uint8. Raises DataError.

        H and W are the photo's height and width.
        """
        mask = read_mask(self.path(photo))
        numbers, size = self._numbers[mask], image_size(photo.path)
        if mask.shape != size[::-1] or numbers.min() < 0:
            raise DataError(self.fault(photo, size))
        return numbers.astype(np.uint8)

    def look(self, photo: Photo) -> dict[str, list[int]]:
        """`look_at_mask` of a photo's true mask."""
        mask: dict[str, list[int]] = self._facts.of(self.path(photo), "mask", look_at_mask)
        return mask

    def fault(self, photo: Photo, size: Sequence[int]) -> str:
        """What is wrong with the true mask of a photo of `size` (width, height) [pixels], or "".

        Raises DataError if the mask cannot be read.
        """
        path, mask = self.path(photo), self.look(photo)
        if mask["size"] != list(size):
            sizes = "{} x {}, but {} is {} x {}".format(*mask["size"], photo.path, *size)
            return f"{path}: {sizes} (width x height)"
        unknown = [number for number in mask["numbers"] if self._numbers[number] < 0]
        what = f"{path}: no class has the number {unknown} (evaluate.classes: {self.numbering})"
        return what if unknown else ""

    def classes(self, photo: Photo) -> set[int]:
        """The table's classes in the true mask of a photo, without background. Raises DataError."""
        return set(self._numbers[self.look(photo)["numbers"]].tolist()) - {BACKGROUND, IGNORE}

    def _sample(self) -> Iterator[tuple[Photo, set[int]]]:
        """Some photos with tags, and the numbers in their masks."""
        tagged = [photo for photo in self.photos_with_truth if photo.tags]
        for photo in tagged[:: max(1, len(tagged) // SAMPLE)][:SAMPLE]:
            try:
                yield photo, set(self.look(photo)["numbers"]) - {BACKGROUND, IGNORE}
            except DataError:
                continue  # `read` will say why

    def _note_names(self, names: Mapping[int, str], table: Table) -> None:
        known = {tag_key(tag) for tag in table.tags}
        others = [name for name in names.values() if tag_key(name) not in known]
        missing = known - {tag_key(name) for name in names.values()}
        if others:
            what = f"classes that are no tags of the photos: {', '.join(others)}"
            self.warnings.append(f"{what}; they are not scored")
        if missing:
            tags = ", ".join(tag for tag in table.tags if tag_key(tag) in missing)
            self.warnings.append(f"no number in the masks means {tags}")

    def _note_disagreement(self, table: Table, names: Mapping[int, str]) -> None:
        """A warning if the masks show other classes than the tags say."""
        numbers = _to_table(names, table.tags)
        named = {table.classes[n] for n in numbers[numbers > 0] if n != IGNORE}
        sample = [
            (replace(photo, tags=tuple(tag for tag in photo.tags if tag in named)), values)
            for photo, values in self._sample()
            if named.intersection(photo.tags)
        ]
        agree = sum(_agrees(photo, values, numbers, table) for photo, values in sample)
        if agree < AGREE * len(sample):
            self.warnings.append(
                f"the classes in the masks are the photo's tags in only {agree} of {len(sample)} "
                "photos; check --evaluate.classes"
            )

    def _find_numbering(self, table: Table, numberings: Mapping[str, dict[int, str]]) -> str:
        """The numbering under which masks show what the tags say. Raises DataError if none does."""
        sample = list(self._sample())
        do = (
            "give --evaluate.classes (--classes in check and convert): the class names of 1, 2, "
            f"... separated by commas, a JSON file of them, or {', '.join(numberings)}"
        )
        unclear = "cannot tell which class the numbers in the masks mean"
        if not sample:
            what = "none of the photos with a readable mask has tags"
            raise DataError(f"{self.folder}: {unclear}: {what}; {do}")
        agree = dict.fromkeys(numberings, 0)
        for name, classes in numberings.items():
            numbers = _to_table(classes, table.tags)
            agree[name] = sum(_agrees(photo, values, numbers, table) for photo, values in sample)
        best = max(agree, key=agree.__getitem__)  # the first of equals: the table's own order
        if agree[best] >= AGREE * len(sample):
            return best
        examples = [
            f"{photo.name}.png has {sorted(values)}, its tags are {', '.join(photo.tags)}"
            for photo, values in sample
            if values
        ]
        counts = ", ".join(f"{name} {count}" for name, count in agree.items())
        raise DataError(
            f"{self.folder}: {unclear}. Photos (of {len(sample)}) whose mask shows their tags: "
            f"{counts}. Examples: {'; '.join(examples[:3])}. To choose, {do}"
        )


def file_of_names(folder: Path) -> Path | None:
    """The file in a folder of masks that says what their numbers mean, if there is one."""
    files = (folder / PREDICTED_CLASSES, folder / CLASSES_FILE)
    return next((file for file in files if file.is_file()), None)


def class_names(classes: str) -> dict[int, str]:
    """Class names of 1, 2, ... separated by commas, or a JSON file of them, to {number: name}.

    JSON: ["cat", "dog"], {"1": "cat", "2": "dog"}, {"cat": 1, "dog": 2}, or masks.json as tag2mask
    writes it. Raises DataError.
    """
    path = Path(classes)
    if path.suffix.lower() != ".json":
        names = [name.strip() for name in classes.split(",")]
        if len(names) < 2 or not all(names):
            numberings = ", ".join(("auto", "table", *NUMBERINGS))
            what = f'"{classes}" is neither one of {numberings} nor a JSON file'
            raise DataError(f"{what} nor class names separated by commas")
        return dict(enumerate(names, 1))
    try:
        values = json.loads(read_text(path))
        if isinstance(values, dict) and isinstance(values.get("classes"), list):
            values = dict(enumerate(values["classes"]))  # background is number 0
        if isinstance(values, list):
            values = dict(enumerate(values, 1))
        pairs = [(k, v) if str(k).isdecimal() else (v, k) for k, v in values.items()]
        names_by_number = {int(number): name for number, name in pairs}
        if not all(isinstance(name, str) for name in names_by_number.values()):
            raise ValueError("a name is not a text")
        if not all(0 <= number < IGNORE for number in names_by_number):
            raise ValueError("a number is not between 0 and 254")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        what = f"not class names and their numbers ({error})"
        raise DataError(f'{path}: {what}; write ["cat", "dog"] or {{"1": "cat"}}') from None
    return {number: name for number, name in names_by_number.items() if number != BACKGROUND}


def _agrees(photo: Photo, values: set[int], numbers: np.ndarray, table: Table) -> bool:
    """Whether a mask with these numbers shows exactly the photo's tags, and maybe unknown ones."""
    tags, unknown = (
        {table.tags.index(tag) + 1 for tag in names} for names in (photo.tags, photo.unknown)
    )
    shown = set(numbers[list(values)].tolist()) - {IGNORE}
    return tags <= shown <= tags | unknown


def files_of(folder: Path, table: Table, endings: Sequence[str] = (".png",)) -> dict[str, Path]:
    """Photo name -> its file: NAME.png in the same subfolder, or in `folder` if it is unique.

    `endings`: the first that exists wins; "" is a folder, unless it has the name of a folder of
    photos.
    """
    names = table.names if "" in endings else ()
    parents = {str(folder / parent) for name in names for parent in PurePath(name).parents}
    last = {photo.name: PurePath(photo.name).name for photo in table.photos}
    count = Counter(last.values())
    places = {name: [name, end] if count[end] == 1 else [name] for name, end in last.items()}
    found = {}
    for name, of in places.items():
        for path, kind in ((folder / f"{place}{end}", end) for place in of for end in endings):
            if path.is_file() if kind else path.is_dir() and str(path) not in parents:
                found[name] = path
                break
    return found


def _to_table(classes: Mapping[int, str], tags: Sequence[str]) -> np.ndarray:
    """Number in a file -> number in the table: (256,) int16, -1 if the numbering has no such class.

    A class that the table does not have is ignored, not scored: no network was trained on it.
    """
    index = {tag_key(tag): i for i, tag in enumerate(tags, 1)}
    numbers = np.full(256, -1, np.int16)
    numbers[[BACKGROUND, IGNORE]] = BACKGROUND, IGNORE
    for number, name in classes.items():
        numbers[number] = index.get(tag_key(name), IGNORE)
    return numbers


def newest_masks(masks: Path, segmenter: Path, rounds: int) -> Path:
    """The folders of the stages `masks` and `segmenter` to that of the newest masks of the training
    photos."""
    of_round = segmenter / f"round-{rounds - 1}" / "masks"
    made = (segmenter / NEW_MASKS, of_round, segmenter / LEARNED)
    return next((folder for folder in made if folder.exists()), masks)
