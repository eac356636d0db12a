"""Names in tables and exports to picture files; all pictures of a folder."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator
from functools import cached_property
from itertools import takewhile
from math import inf
from operator import attrgetter
from pathlib import Path, PurePath
from unicodedata import normalize
from urllib.parse import parse_qs, unquote, urlsplit

from tag2mask.errors import DataError
from tag2mask.formats.findings import Finding, first_few, warning
from tag2mask.formats.rows import is_file, without_extension
from tag2mask.photos.images import EXTENSIONS, PICTURES, UNREAD

MOST_SEARCHED = 200_000  # pictures below the folder of a table, without photos.images
UPLOAD = re.compile("^[0-9a-f]{8}-(?=.)")  # Label Studio writes it before the names of uploads


class TooManyError(DataError):
    """More pictures than are searched without being told so."""


class Pictures:
    """Names of pictures, as people and tools write them, to files below some folders.

    A name that is a path from one of the folders, or an absolute path, is that file. Otherwise the
    folders are searched, with all folders in them: for the longest end of the name that fits, in
    any case, with another extension or none. Of an address, only the path counts; nothing is
    downloaded. A name that fits several files is an error. `most`: pictures that are searched.
    """

    def __init__(self, folders: list[Path], most: float = inf):
        self.folders, self._most = folders, most

    @classmethod
    def of(cls, data: Path, images: Path | None, *more: Path) -> "Pictures":
        """Those of a data set: below `images` (photos.images) if it is given, else below `more`
        and the folder of the file `data`. Raises DataError if `images` does not exist."""
        if images is None:
            return cls([*more, data if data.is_dir() else data.parent], MOST_SEARCHED)
        if not images.is_dir():
            raise DataError(f"{images}: no such folder; correct --photos.images")
        return cls([images])

    def find(self, name: str) -> Path:
        """The file of a name; where there is none, the path at which it should be.

        Raises DataError if several files fit, with their paths; if the name leads to a file outside
        of the folders that is no picture; or if there are too many files to search (TooManyError).
        """
        path = self.at(name) or self._search(name)
        if path is None:
            plain = plain_name(name.strip()).lstrip("/")
            path = Path(os.path.normpath(self.folders[0] / plain))
        return path

    def there(self, name: str, search: bool = True) -> Path | None:
        """The file of a name; None if there is none, or if it is not decided."""
        try:
            return self.at(name) or (self._search(name) if search else None)
        except DataError:
            return None

    def at(self, name: str) -> Path | None:
        """The file at this path from one of the folders, without a search. Raises DataError."""
        name = name.strip()
        plain = plain_name(name)
        for written in (name,) if plain == name else (name, plain):
            for folder in self._roots:
                path = os.path.normpath(os.path.join(folder, written))  # noqa: PTH118 it is faster
                if is_file(path):
                    if (written[0] == "/" or ".." in written) and not self._may_open(path):
                        what = "it is outside of the folder and has no extension of a picture"
                        raise DataError(f"{name} is not read: {what}")
                    return Path(path)
        return None

    def _may_open(self, path: str) -> bool:
        """Whether a file has the name of a picture, or is in one of the folders."""
        roots = (f"{os.path.abspath(root)}{os.sep}" for root in self._roots)  # noqa: PTH100
        inside = any(os.path.abspath(path).startswith(root) for root in roots)  # noqa: PTH100
        return inside or looks_like_picture(path)

    def _search(self, name: str) -> Path | None:
        """The file whose path ends as the name does, in any case and with any extension."""
        parts = [part for part in plain_name(name.strip()).split("/") if part.strip(".")]
        if not parts:
            return None
        for start in range(1, len(parts) - 1):  # without the folders of another computer
            for folder in self._roots:
                path = os.path.join(folder, *parts[start:])  # noqa: PTH118
                if is_file(path):
                    return Path(os.path.normpath(path))
        *folders, last = map(_folded, parts)
        files = self._named(last) or self._named(UPLOAD.sub("", last))
        if len(files) > 1:  # the longest common end of the paths decides
            score = [_common_end(folders, file) for file in files]
            files = [file for file, n in zip(files, score, strict=True) if n == max(score)]
        if len(files) > 1:
            what = f"{len(files)} pictures have this name: {first_few(sorted(files))}"
            raise DataError(f"{what}; write its folder too")
        return Path(files[0]) if files else None

    def _named(self, name: str) -> list[str]:
        """The files of this name, or with another extension than it has or does not have."""
        same = self._with_stem(without_extension(name))
        exact = [file for file in same if _folded(file.rpartition(os.sep)[2]) == name]
        return exact or self._with_stem(name) or same

    def _with_stem(self, stem: str) -> list[str]:
        files = self._by_stem.get(stem, [])
        return [files] if isinstance(files, str) else files

    @cached_property
    def _by_stem(self) -> dict[str, str | list[str]]:
        if isinstance(self._listing, TooManyError):
            raise self._listing
        index: dict[str, str | list[str]] = {}
        for file in self._listing:
            stem = _folded(file.rpartition(os.sep)[2].rpartition(".")[0])
            others = index.setdefault(stem, file)
            if isinstance(others, list):
                others.append(file)
            elif others is not file:
                index[stem] = [others, file]
        return index

    @cached_property
    def _roots(self) -> list[str]:
        return [str(folder) for folder in self.folders]

    @cached_property
    def _listing(self) -> list[str] | TooManyError:
        files: list[str] = []
        for folder in self.folders:
            for file in _walk(folder, PICTURES):
                files.append(file)
                if len(files) > self._most:
                    return TooManyError(
                        f"{folder}: more than {self._most} pictures in it and below it; "
                        "give the folder of these pictures with --photos.images"
                    )
        return files if len(self.folders) == 1 else list(dict.fromkeys(files))


def looks_like_picture(name: str) -> bool:
    """Whether a name ends as those of pictures do."""
    return PurePath(plain_name(name)).suffix.lower() in EXTENSIONS


def plain_name(name: str) -> str:
    """A Windows path or an address to a path with slashes; a local-files address to its file."""
    if "://" in name or "/?d=" in name:
        try:
            parts = urlsplit(name)
        except ValueError:  # http://[x: no address, and no file either
            return name.partition("://")[2]
        inner = parse_qs(parts.query).get("d")  # Label Studio: /data/local-files/?d=a/b.jpg
        return inner[0] if inner else unquote(parts.path)
    return name.replace("\\", "/")


def pictures_below(folder: Path, kinds: Container[str] = PICTURES) -> list[Path]:
    """All picture files in a folder and below it, sorted; links are followed, hidden files not."""
    return sorted(map(Path, _walk(folder, kinds)))


def _walk(
    folder: Path, kinds: Container[str], faults: list[Finding] | None = None
) -> Iterator[str]:
    """The files in a folder and below it whose extension is in `kinds`. `faults` gets what cannot
    be read: folders, and links that lead nowhere."""
    seen: set[str] = set()
    places = [str(folder)]
    faults = [] if faults is None else faults
    while places:
        place = places.pop()
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(place) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            what = f"the folder cannot be read ({error.strerror})"
            faults.append(Finding("unread folder", place, what, "change who may read it"))
            continue
        places += sorted((entry.path for entry in visible if _is(entry.is_dir)), reverse=True)
        for entry in visible:
            _, dot, end = entry.name.rpartition(".")
            if f"{dot}{end.lower()}" not in kinds or _is(entry.is_dir):
                continue
            if _is(entry.is_file):
                yield entry.path
            else:
                what = "no file, or a link that leads to none"
                faults.append(Finding("missing picture", entry.path, what, "remove or correct it"))


def _is(what: Callable[[], bool]) -> bool:
    """`DirEntry.is_file` or `is_dir`; False for a link that leads to itself."""
    try:
        return what()
    except OSError:
        return False


def unread_pictures(folder: Path) -> list[Finding]:
    """What is not read in a folder and below it: an error for each folder that cannot be read and
    each link that leads nowhere; a warning for each remedy for pictures of other kinds."""
    faults: list[Finding] = []
    ends = (f".{file.rpartition('.')[2].lower()}" for file in _walk(folder, EXTENSIONS, faults))
    count = Counter(end for end in ends if end in UNREAD)
    kinds: dict[str, list[str]] = defaultdict(list)  # what to do -> kinds of files
    for kind in sorted(count):
        kinds[UNREAD[kind]].append(f"{count[kind]} {kind}")
    what = "pictures of kinds that are not read are left out"
    return sorted(faults, key=attrgetter("where")) + [
        warning("unread pictures", str(folder), f"{what}: {', '.join(same)}", do)
        for do, same in kinds.items()
    ]


def picture_path(name: str, folder: Path) -> Path:
    """The path that a file in `folder` names, relative or absolute; backslashes are understood."""
    path = folder / name
    if "\\" in name and not is_file(path):
        path = folder / name.replace("\\", "/")
    return Path(os.path.normpath(path))


def _folded(name: str) -> str:
    """A name in one case, and in one spelling of letters with accents: macOS may write two."""
    return (name if name.isascii() else normalize("NFC", name)).casefold()


def _common_end(folders: list[str], file: str) -> int:
    """How many folders above two files have the same names, from the file upward."""
    above = map(_folded, reversed(PurePath(file).parent.parts))
    same = zip(reversed(folders), above, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], same))
