"""Two folders of masks, made by any tool, to metrics."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tag2mask.errors import DataError
from tag2mask.evaluate.confusion import Result, evaluate_masks
from tag2mask.files import read_list
from tag2mask.photos.classes import COCO, VOC
from tag2mask.photos.masks import class_names, file_of_names
from tag2mask.photos.table import tag_key

CLASSES = {"voc": ("background", *VOC), "coco": ("background", *COCO)}


def evaluate_folders(
    predicted: Path,
    truth: Path,
    names: Path | None = None,
    classes: str | None = None,
    boundary: bool = False,
    workers: int | None = None,
    mean_over: Sequence[str] = (),
) -> tuple[Result, list[str]]:
    """Two folders of NAME.png (or .PNG) to their metrics and the names of the evaluated masks.

    `names`: a file with one name a line; None: every mask in `truth`.
    `classes`: "voc", "coco", or a file with one class name a line; None: the names in masks.json or
    classes.json of the folders, else class numbers.
    Raises DataError with every mask that is missing or does not fit, if a name stands twice, or if
    the files of names in both folders contradict each other.
    """
    for folder in (predicted, truth):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of masks")
    if names is not None:
        scored = read_list(names)
    else:
        files = (path for path in truth.rglob("*") if path.suffix.lower() == ".png")
        shown = (file.relative_to(truth) for file in files if not file.name.startswith("."))
        scored = sorted(file.with_suffix("").as_posix() for file in shown)
    if not scored:
        raise DataError(f"{names or truth}: no mask to evaluate")
    _check_once(scored, names or truth, "names")
    stated = _names_in((predicted, truth))
    if missing := [name for name in scored if not _mask(predicted, name).is_file()]:
        first = ", ".join(f"{name}.png" for name in missing[:3])
        raise DataError(
            f"{predicted}: {len(missing)} of {len(scored)} masks are missing, first {first}; "
            "list the names to evaluate in a file and give it with --list"
        )
    pairs = [(_mask(predicted, name), _mask(truth, name)) for name in scored]
    order = _class_names(classes) or stated
    return evaluate_masks(pairs, order, workers, boundary, mean_over), scored


def list_hash(names: Iterable[str]) -> str:
    """A hash of the names of the evaluated photos. Their order has no effect."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]


def _mask(folder: Path, name: str) -> Path:
    """The file of a mask, which may not be there."""
    upper = folder / f"{name}.PNG"
    return upper if upper.is_file() else folder / f"{name}.png"


def _check_once(names: Sequence[str], source: Path | str, what: str) -> None:
    """Raises DataError with the names that stand in a list twice."""
    if duplicates := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"{source}: duplicate {what}: {', '.join(duplicates)}")


def _names_in(folders: Iterable[Path]) -> Sequence[str] | None:
    """The classes, background first, that the files of names in two folders of masks state; None if
    there is no file. Raises DataError if they contradict each other."""
    files = [file for folder in folders if (file := file_of_names(folder))]
    if not files:
        return None
    stated = [class_names(str(file)) for file in files]
    for file, names in zip(files, stated, strict=True):
        _check_once(list(names.values()), file, "class names")
    short, long = sorted((stated[0], stated[-1]), key=len)
    keys = [{number: tag_key(name) for number, name in names.items()} for names in (short, long)]
    if not keys[0].items() <= keys[1].items():  # else one goes on where the other ends
        lists = (", ".join(f"{n} {name}" for n, name in sorted(names.items())) for names in stated)
        lines = [f"{file}: {text}" for file, text in zip(files, lists, strict=True)]
        what = "the numbers in the two folders mean different classes"
        raise DataError(f"{what} ({'; '.join(lines)}); bring the masks to the same numbers")
    return ("background", *(long.get(n, str(n)) for n in range(1, max(long, default=0) + 1)))


def _class_names(classes: str | None) -> Sequence[str] | None:
    if classes is None or classes in CLASSES:
        return CLASSES[classes] if classes else None
    names = read_list(Path(classes))
    _check_once(names, classes, "class names")
    return names if names[:1] == ["background"] else ["background", *names]
