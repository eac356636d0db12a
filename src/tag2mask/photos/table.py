"""The one internal form of a data set: photos and their tags.

Every reader of `tag2mask.formats` returns it in the end, and every room starts from it. No mask is
part of it: nothing that trains from tags can open one.

Class numbers: background is 0, tag i is class i + 1. `num_classes` counts background, `num_tags`
does not.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.photos.images import image_size, open_image
from tag2mask.progress import UNPRINTABLE

BACKGROUND = 0
IGNORE = 255


@dataclass(frozen=True, slots=True)
class Photo:
    """One picture and the tags that its owner gave it."""

    name: str  # unique in its table, no extension, may hold "/": the mask of this photo is NAME.png
    path: Path
    tags: tuple[str, ...]  # in the table's order; empty if it has none
    unknown: tuple[str, ...] = ()  # tags of which nobody knows whether they are in the photo

    @property
    def of_nothing(self) -> bool:
        """Whether every tag is known to be absent."""
        return not (self.tags or self.unknown)

    @property
    def file(self) -> str:
        """The path, with "/" on all systems."""
        return self.path.as_posix()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture [pixels], read from its header. Raises DataError."""
        return image_size(self.path)

    def open(self, at_least: int | None = None) -> Image.Image:
        """The picture, RGB and upright; `at_least` as in `open_image`. Raises DataError."""
        return open_image(self.path, at_least)


@dataclass(frozen=True)
class Table:
    """Photos and the ordered list of all tags."""

    tags: tuple[str, ...]
    photos: tuple[Photo, ...]
    source: str = ""

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def num_tags(self) -> int:
        """How many tags; background is not counted."""
        return len(self.tags)

    @property
    def num_classes(self) -> int:
        """How many classes; background is counted."""
        return len(self.tags) + 1

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number: background first."""
        return ("background", *self.tags)

    @cached_property
    def multi_hot(self) -> np.ndarray:
        """Which tags each photo surely has: (N, num_tags) float32 in {0, 1}; unknown is 0."""
        rows = [[tag in photo.tags for tag in self.tags] for photo in self.photos]
        return np.array(rows, np.float32).reshape(len(self.photos), len(self.tags))

    @cached_property
    def labels(self) -> np.ndarray:
        """The tags of each photo: (N, num_tags) float32; 1 present, 0 absent, NaN unknown."""
        labels = self.multi_hot.copy()
        for i, photo in enumerate(self.photos):
            if photo.unknown:
                labels[i, [tag in photo.unknown for tag in self.tags]] = np.nan
        return labels

    @cached_property
    def nothing(self) -> tuple[int, ...]:
        """The indices of the photos of nothing; () if all photos are: then nobody said what is in
        them."""
        places = tuple(i for i, photo in enumerate(self.photos) if photo.of_nothing)
        return places if len(places) < len(self.photos) else ()

    @cached_property
    def not_nothing(self) -> tuple[Photo, ...]:
        """The other photos: those with a tag, or with an unknown one."""
        nothing = set(self.nothing)
        return tuple(photo for i, photo in enumerate(self.photos) if i not in nothing)

    @property
    def with_unknown(self) -> int:
        """The number of photos with unknown tags."""
        return sum(bool(photo.unknown) for photo in self.photos)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names, tags and file sizes: what a stage that read this table depends on."""
        digest = hashlib.sha256(repr(self.tags).encode())
        for photo in self.photos:
            size = os.stat(photo.path).st_size  # noqa: PTH116  pathlib takes twice as long
            digest.update(repr((photo.name, photo.tags, size)).encode())
            digest.update(repr(photo.unknown).encode() if photo.unknown else b"")
        return digest.hexdigest()[:16]


def evenly_spaced(photos: Sequence[Photo], count: int) -> list[Photo]:
    """`count` of the photos, evenly spaced; all if there are fewer."""
    places = np.linspace(0, len(photos) - 1, min(count, len(photos))).astype(int)
    return [photos[place] for place in places]


def tag_key(tag: str) -> str:
    """What the spellings of a tag have in common: "Traffic_light " -> "trafficlight"."""
    return re.sub(r"[\W_]+", "", tag.casefold()) or tag.casefold()


def absolute(path: Path) -> Path:
    """The absolute, normalized path; links keep their names."""
    return Path(os.path.normpath(path.absolute()))


def clean_tag(tag: object) -> str:
    """A tag of a file without extra spaces and in one spelling (NFC): " a  b" -> "a b".

    Without control characters and halves of letters, which nothing could print.
    """
    text = " ".join(str(tag).split())
    if not text.isprintable():
        text = " ".join(UNPRINTABLE.sub("", text).split())
    return unicodedata.normalize("NFC", text)
