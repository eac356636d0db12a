"""What can be predicted: files, folders, patterns, and pictures in memory."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tag2mask.errors import DataError
from tag2mask.formats.pictures import pictures_below, unread_pictures
from tag2mask.formats.rows import name_faults, photo_names
from tag2mask.photos.addresses import local_copy
from tag2mask.photos.images import array_image, image_size, upright_rgb
from tag2mask.photos.table import Photo, absolute
from tag2mask.progress import log
from tag2mask.runs.folder import CORRECTIONS, DONE

MASKS = (".png", ".tif", ".overlay.jpg")  # what `predict_to` writes for a photo
exists, is_dir = os.path.exists, os.path.isdir  # those of Path raise an error if a name is too long
FAR_LARGER = 8  # times the longest side of the training photos


@dataclass(frozen=True)
class InMemory:
    """A picture in memory: RGB, upright. `file`: where it came from, if that is known."""

    image: Image.Image
    file: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height [pixels]."""
        return self.image.size

    def open(self, at_least: int | None = None) -> Image.Image:
        """The picture, at its own size."""
        return self.image


def as_picture(picture: Any) -> Photo | InMemory:
    """A photo, a path, a PIL picture or an array to what the segmenter predicts. Raises DataError
    if it is none of these."""
    if isinstance(picture, Photo):
        return picture
    if isinstance(picture, Path | str):
        return Photo(Path(picture).stem, Path(picture), ())
    if isinstance(picture, Image.Image):
        return _of_pillow(picture)
    if isinstance(picture, np.ndarray):
        return InMemory(array_image(picture))
    raise DataError(
        f"not a picture: {type(picture).__name__}; give a path, a PIL picture or a NumPy array "
        "(H, W, 3) uint8, or a list of them"
    )


def _of_pillow(picture: Image.Image) -> InMemory:
    file = str(getattr(picture, "filename", ""))
    if not all(picture.size):
        raise DataError(f"{file or 'the picture'}: has no pixels")
    try:
        return InMemory(upright_rgb(picture), file)
    except Exception as error:  # Pillow raises errors of many kinds for broken files
        raise DataError(f"{file or 'the picture'}: cannot be read ({error})") from None


def is_several(pictures: Any) -> bool:
    """Whether these are several pictures: a folder, a pattern, a list or another iterable."""
    if isinstance(pictures, Path | str):
        return is_dir(pictures) or _is_pattern(pictures)
    return isinstance(pictures, Iterable) and not isinstance(pictures, Image.Image | np.ndarray)


def _is_pattern(path: Path | str) -> bool:
    return has_magic(str(path)) and not exists(path)


def photos_to_predict(
    given: Iterable[Path | str],
    out: Path | None = None,
    on_error: Callable[[DataError], None] | None = None,
) -> list[Photo]:
    """Photos, and those in folders but not in `out`, named by their path relative to the folder.

    A pattern ("new/*.jpg") stands for the files that match: not every shell replaces it. For each
    photo or folder that is left out, `on_error` is called; without it, DataError is raised. Raises
    DataError if there are none, if a mask in `out` would overwrite one of them, or if `out` is in a
    folder of a run that later stages or the user's corrections need.
    """
    if out:
        _refuse_run(out)
    places: dict[Path, tuple[Path, str]] = {}
    faults: list[str] = []
    for path in _paths(given):
        if not is_dir(path):
            places[absolute(path)] = (path, path.stem)
            continue
        inside = _photos_in(path, out)
        places |= inside
        faults += [] if inside else [f"no photos in {path}"]
        for finding in unread_pictures(path):
            if finding.severity == "error":
                faults.append(str(finding))
            else:
                log.warning(str(finding))
    if not places:
        raise DataError(faults)
    files, names = map(list, zip(*places.values(), strict=True))
    if len(set(names)) < len(names):
        names = photo_names(files)
    photos = [Photo(name, file, ()) for name, file in zip(names, files, strict=True)]
    if out:
        _refuse_covered(photos, out)
        wrong = {photo: list(map(str, name_faults(photo.file, photo))) for photo in photos}
        photos = [photo for photo in photos if not wrong[photo]]
        faults += [fault for those in wrong.values() for fault in those]
    _report(faults, on_error)
    return photos


def _paths(given: Iterable[Path | str]) -> list[Path]:
    """Files and folders: patterns replaced, addresses copied. Raises DataError for all that are
    not there."""
    if wrong := [type(path).__name__ for path in given if not isinstance(path, Path | str)]:
        raise DataError(f"not a path: {wrong[0]}; give files or folders, or use Run.predict")
    paths: list[Path] = []
    problems: list[str] = []
    for path in given:
        try:
            paths += _found(path)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError([*dict.fromkeys(problems)])
    if not paths:
        raise DataError("no photos given. Give files or folders")
    return paths


def _found(path: Path | str) -> list[Path]:
    if not str(path):
        raise DataError('"" is no path; give files or folders')
    if _is_pattern(path):
        if not (matching := sorted(glob(str(path)))):  # noqa: PTH207
            raise DataError(f"no file matches {path}")
        return [local_copy(Path(file)) for file in matching]
    file = local_copy(Path(path))
    if not exists(file):
        raise DataError(f"{path}: no such photo or folder")
    return [file]


def _photos_in(folder: Path, out: Path | None) -> dict[Path, tuple[Path, str]]:
    """The photos in a folder, but not in `out`, by absolute path: files and names."""
    if out and folder.resolve() == out.resolve():
        raise DataError(
            f"{folder}: the masks would be among these photos and be read as photos; "
            "give another --out"
        )
    files = {absolute(file): file for file in pictures_below(folder)}
    return {
        path: (file, file.relative_to(folder).with_suffix("").as_posix())
        for path, file in files.items()
        if not (out and path.is_relative_to(absolute(out)))
    }


def _refuse_covered(photos: Sequence[Photo], out: Path) -> None:
    """Raises DataError with all photos that a mask would overwrite."""
    targets = {(out / f"{photo.name}{suffix}").resolve() for photo in photos for suffix in MASKS}
    if covered := [photo.file for photo in photos if photo.path.resolve() in targets]:
        text = "the mask would overwrite this photo; give another --out"
        raise DataError([f"{file}: {text}" for file in covered])


def _report(faults: Sequence[str], on_error: Callable[[DataError], None] | None) -> None:
    if faults and on_error is None:
        raise DataError(faults)
    for fault in faults:
        assert on_error
        on_error(DataError(fault))


def _refuse_run(out: Path) -> None:
    """Raises DataError if a folder is the result of a stage, the corrections, or lies in them."""
    places = (absolute(out), out.resolve())  # either may be a link to the other
    for folder in (folder for place in places for folder in (place, *place.parents)):
        is_result = folder.name == CORRECTIONS or (folder / DONE).is_file()
        if is_result and (folder.parent / "config.toml").is_file():
            what = f"{folder.name}/ of the run {folder.parent} would get other masks"
            raise DataError(f"{out}: {what}; give another --out")


class SizeNote:
    """Says once that a photo is far larger than those on which the network was trained.

    `masks`: the folder of the training photos' masks, which have their sizes; a sample is read.
    None: unknown. `longest`: photos are reduced to this longer side.
    """

    def __init__(self, masks: Path | None, longest: int):
        self._longest, self._said = longest, False
        self._trained = 0
        with suppress(DataError):  # a mask that somebody broke
            for path in islice(masks.glob("*.png") if masks else (), 200):
                self._trained = max(self._trained, *image_size(path))

    def look(self, file: str, size: tuple[int, int]) -> None:
        """Look at the size of a photo: width and height [pixels]."""
        if self._said or not self._trained or max(size) <= FAR_LARGER * self._trained:
            return
        self._said = True
        log.warning(
            f"{file} is {size[0]} x {size[1]} pixels; the longest side of the training photos is "
            f"{self._trained}. It is reduced to {self._longest} pixels, in which small things are "
            "lost. If things are as large in it as in the training photos, in pixels, give "
            "--tile 512"
        )
