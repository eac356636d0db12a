"""Names in tables and exports to picture files; all pictures of a folder."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from tag2mask.errors import DataError
from tag2mask.formats.findings import Finding
from tag2mask.formats.rows import PICTURES, UNREAD, is_file

MOST_SEARCHED = (
    200_000  # pictures below the folder of a table, where no folder of pictures is given
)

UPLOAD = re.compile("^[0-9a-f]{8}-(?=.)")  # Label Studio writes it before the names of uploads


class Pictures:
    """Names of pictures, as people and tools write them, to files below some folders.

    A name that is a path from one of the folders, or an absolute path, is that file. Otherwise the
    folders are searched, with all folders in them: for the longest end of the name that fits, in
    any case, with another extension or none. Of an address, only the path counts; nothing is
    downloaded. A name that fits several files is not decided: DataError.
    """

    def __init__(self, folders: list[Path], given: bool = True):
        self.folders, self.given = folders, given

    @classmethod
    def of(cls, data: Path, images: Path | None, *more: Path) -> "Pictures":
        """Those of a data set: below `images` (photos.images) if it is given, else below `more`
        and the folder of the file `data`. Raises DataError if `images` does not exist."""
        if images is None:
            return cls([*more, data if data.is_dir() else data.parent], given=False)
        if not images.is_dir():
            raise DataError(f"{images}: no such folder; correct --photos.images")
        return cls([images])

    def find(self, name: str) -> Path:
        """The file of a name; where there is none, the path at which it should be.

        Raises DataError if several files fit, with their paths.
        """
        name = name.strip()
        for folder in self.folders:
            path = Path(os.path.normpath(folder / name))
            if is_file(path):
                return path
        plain = plain_name(name)
        for folder in self.folders if plain != name else ():
            path = Path(os.path.normpath(folder / plain))
            if is_file(path):
                return path
        return self._search(plain) or Path(os.path.normpath(self.folders[0] / plain.lstrip("/")))

    def _search(self, name: str) -> Path | None:
        parts = [part.casefold() for part in PurePosixPath(name).parts if part.strip("./")]
        if not parts:
            return None
        files = self._named(parts[-1]) or self._named(UPLOAD.sub("", parts[-1]))
        if len(files) > 1:  # the longest common end of the paths decides
            score = [_common_end(parts[:-1], file) for file in files]
            files = [file for file, n in zip(files, score, strict=True) if n == max(score)]
        if len(files) > 1:
            listed = ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
            raise DataError(f"{len(files)} pictures have this name: {listed}; write its folder too")
        return files[0] if files else None

    def _named(self, name: str) -> list[Path]:
        files = self._by_name.get(name) or self._by_stem.get(name)
        return files or self._by_stem.get(_stem(name)) or []

    @cached_property
    def _files(self) -> list[Path]:
        files = [file for folder in self.folders for file in pictures_below(folder)]
        if not self.given and len(files) > MOST_SEARCHED:
            raise DataError(
                f"{self.folders[-1]}: {len(files)} pictures in it and below it; "
                "give the folder of these pictures with --photos.images"
            )
        return list(dict.fromkeys(files))

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return _index(self._files, lambda file: file.name.casefold())

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return _index(self._files, lambda file: file.stem.casefold())


def plain_name(name: str) -> str:
    """A Windows path or an address to a path with slashes; a local-files address to its file."""
    if "://" in name or "/?d=" in name:
        parts = urlsplit(name)
        inner = parse_qs(parts.query).get("d")  # Label Studio: /data/local-files/?d=a/b.jpg
        return inner[0] if inner else unquote(parts.path)
    return name.replace("\\", "/")


def pictures_below(folder: Path, kinds: Container[str] = PICTURES) -> list[Path]:
    """All picture files in a folder and below it, sorted; links are followed, hidden files not."""
    files: list[Path] = []
    seen: set[str] = set()
    for place, subfolders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        visible = [name for name in subfolders if not name.startswith(".")]
        subfolders[:] = [n for n in visible if os.path.realpath(Path(place, n)) not in seen]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.suffix.lower() in kinds and file.is_file())


def unread_pictures(folder: Path) -> list[Finding]:
    """Warnings for the pictures in a folder and below it that are not read: one for each remedy."""
    count = Counter(file.suffix.lower() for file in pictures_below(folder, UNREAD))
    kinds: dict[str, list[str]] = defaultdict(list)  # what to do -> kinds of files
    for kind in sorted(count):
        kinds[UNREAD[kind]].append(kind)
    return [
        Finding(
            "unread pictures",
            str(folder),
            f"{sum(count[kind] for kind in same)} pictures are left out, their kinds are not read: "
            + ", ".join(f"{count[kind]} {kind}" for kind in same),
            do,
            "warning",
        )
        for do, same in kinds.items()
    ]


def picture_path(name: str, folder: Path) -> Path:
    """The path that a file in `folder` names, relative or absolute; backslashes are understood."""
    path = folder / name
    if "\\" in name and not is_file(path):
        path = folder / name.replace("\\", "/")
    return Path(os.path.normpath(path))


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and (f".{suffix}" in PICTURES or f".{suffix}" in UNREAD) else name


def _common_end(folders: list[str], file: Path) -> int:
    """How many folders above two files have the same names, from the file upward."""
    count = 0
    for a, b in zip(reversed(folders), reversed(file.parent.parts), strict=False):
        if a != b.casefold():
            break
        count += 1
    return count


def _index(files: Iterable[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    index = defaultdict(list)
    for file in files:
        index[key(file)].append(file)
    return index
