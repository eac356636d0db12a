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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from PIL import Image

from tag2mask.photos.images import image_size, open_image
from tag2mask.progress import UNPRINTABLE

BACKGROUND = 0
IGNORE = 255
SURROGATES = "surrogatepass"  # names of files that are no text have halves of letters


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


class Kind(NamedTuple):
    """What many photos have in common: all but their names."""

    tags: tuple[str, ...]
    unknown: tuple[str, ...]
    before: str  # the path is: before, name, after
    name_in_path: bool
    after: str


class Photos(Sequence[Photo]):
    """Photos in little memory: a name and 16 bytes each. A `Photo` is made when it is asked for.

    Processes that read photos share it after a fork. They do not share a list of objects: Python
    writes into an object whenever it looks at it, so each process gets a copy in time.
    """

    ENTRY = np.dtype([("start", np.uint64), ("length", np.uint32), ("kind", np.uint32)])

    def __init__(self, photos: Iterable[Photo] = ()):
        names, numbers = bytearray(), dict[tuple[Any, ...], int]()

        def entry(photo: Photo) -> tuple[int, int, int]:
            start, (before, name, after) = len(names), photo.file.rpartition(photo.name)
            names.extend(photo.name.encode("utf-8", SURROGATES))
            kind = photo.tags, photo.unknown, before, bool(name), after
            return start, len(names) - start, numbers.setdefault(kind, len(numbers))

        self._entries = np.fromiter(map(entry, photos), self.ENTRY)
        self._names, self.kinds = bytes(names), tuple(Kind(*kind) for kind in numbers)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Photo]:
        for name, file, kind in self.fields():
            yield Photo(name, Path(file), kind.tags, kind.unknown)

    @overload
    def __getitem__(self, index: int) -> Photo: ...
    @overload
    def __getitem__(self, index: slice) -> "Photos": ...
    def __getitem__(self, index: int | slice) -> "Photo | Photos":
        if isinstance(index, slice):
            return self.at(index)
        name, file, kind = self._fields(*self._entries[index].item())
        return Photo(name, Path(file), kind.tags, kind.unknown)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Photos) and tuple(self) == tuple(other)

    def at(self, indices: slice | Sequence[int] | np.ndarray) -> "Photos":
        """Some of the photos; their names are not copied."""
        some = Photos()
        some._entries, some._names, some.kinds = self._entries[indices], self._names, self.kinds
        return some

    def fields(self) -> Iterator[tuple[str, str, Kind]]:
        """Name, path as text, and kind of each photo."""
        for place in range(0, len(self), 1000):
            for entry in self._entries[place : place + 1000].tolist():
                yield self._fields(*entry)

    def _fields(self, start: int, length: int, number: int) -> tuple[str, str, Kind]:
        name = self._names[start : start + length].decode("utf-8", SURROGATES)
        kind = self.kinds[number]
        return name, f"{kind.before}{name if kind.name_in_path else ''}{kind.after}", kind

    def of_kind(self, value: Callable[[Kind], Any]) -> np.ndarray:
        """(N, ...): a value of each photo that is the same for all photos of its kind."""
        return np.array([value(kind) for kind in self.kinds])[self._entries["kind"]]


@dataclass(frozen=True)
class Table:
    """Photos and the ordered list of all tags."""

    tags: tuple[str, ...]
    photos: Sequence[Photo]  # kept as `Photos`
    source: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.photos, Photos):
            object.__setattr__(self, "photos", Photos(self.photos))

    @property
    def _photos(self) -> Photos:
        assert isinstance(self.photos, Photos)
        return self.photos

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

    @property
    def names(self) -> Iterator[str]:
        """The names of the photos; ten times as fast as making the photos."""
        return (name for name, _, _ in self._photos.fields())

    @property
    def multi_hot(self) -> np.ndarray:
        """Which tags each photo surely has: (N, num_tags) float32 in {0, 1}; unknown is 0."""
        return np.nan_to_num(self.labels)

    @property
    def labels(self) -> np.ndarray:
        """The tags of each photo: (N, num_tags) float32; 1 present, 0 absent, NaN unknown."""
        absent = dict.fromkeys(self.tags, 0.0)

        def label(kind: Kind) -> list[float]:
            unknown, present = dict.fromkeys(kind.unknown, np.nan), dict.fromkeys(kind.tags, 1.0)
            return list((absent | unknown | present).values())

        labels = self._photos.of_kind(label).astype(np.float32)
        return labels.reshape(len(self), self.num_tags)

    @property
    def counts(self) -> Counter[str]:
        """Tag -> how many photos have it, without tags that none has."""
        numbers = self.multi_hot.sum(0, np.int64).tolist()
        return +Counter(dict(zip(self.tags, numbers, strict=True)))

    @cached_property
    def nothing(self) -> tuple[int, ...]:
        """The indices of the photos of nothing; () if all photos are: then nobody said what is in
        them."""
        places = np.flatnonzero(self._photos.of_kind(lambda kind: not (kind.tags or kind.unknown)))
        return tuple(places.tolist()) if len(places) < len(self.photos) else ()

    @property
    def not_nothing(self) -> Photos:
        """The other photos: those with a tag, or with an unknown one."""
        return self.without(self.nothing)._photos

    def without(self, indices: Sequence[int]) -> "Table":
        """The table without the photos at these indices."""
        return replace(self, photos=self._photos.at(np.delete(np.arange(len(self)), indices)))

    @property
    def with_unknown(self) -> int:
        """The number of photos with unknown tags."""
        return int(self._photos.of_kind(lambda kind: bool(kind.unknown)).sum())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names, tags and file sizes: what a stage that read this table depends on."""
        digest = hashlib.sha256(repr(self.tags).encode())
        for name, file, kind in self._photos.fields():
            size = os.stat(file).st_size  # noqa: PTH116  pathlib takes twice as long
            digest.update(repr((name, kind.tags, size)).encode())
            digest.update(repr(kind.unknown).encode() if kind.unknown else b"")
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
