"""Two folders of masks, made by any tool, to metrics."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tag2mask.errors import DataError
from tag2mask.evaluate.confusion import Result, evaluate_masks
from tag2mask.files import read_list
from tag2mask.photos.classes import COCO, VOC

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
    """Two folders of NAME.png to their metrics and the names of the evaluated masks.

    `names`: a file with one name a line; None: every mask in `truth`.
    `classes`: "voc", "coco", or a file with one class name a line; None: class numbers.
    Raises DataError with every mask that is missing or does not fit.
    """
    for folder in (predicted, truth):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of masks")
    if names is not None:
        scored = read_list(names)
    else:
        files = (path for path in truth.rglob("*.png") if not path.name.startswith("."))
        scored = sorted(file.relative_to(truth).with_suffix("").as_posix() for file in files)
    if not scored:
        raise DataError(f"{names or truth}: no mask to evaluate")
    if missing := [name for name in scored if not (predicted / f"{name}.png").is_file()]:
        first = ", ".join(f"{name}.png" for name in missing[:3])
        raise DataError(
            f"{predicted}: {len(missing)} of {len(scored)} masks are missing, first {first}; "
            "list the names to evaluate in a file and give it with --list"
        )
    pairs = [(predicted / f"{name}.png", truth / f"{name}.png") for name in scored]
    return evaluate_masks(pairs, _class_names(classes), workers, boundary, mean_over), scored


def list_hash(names: Iterable[str]) -> str:
    """A hash of the names of the evaluated photos. Their order has no effect."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]


def _class_names(classes: str | None) -> Sequence[str] | None:
    if classes is None or classes in CLASSES:
        return CLASSES[classes] if classes else None
    names = read_list(Path(classes))
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{classes}: duplicate class names: {', '.join(duplicates)}")
    return names if names[:1] == ["background"] else ["background", *names]
