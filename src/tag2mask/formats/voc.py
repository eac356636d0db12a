"""PASCAL VOC 2012 with SBD, and the VOC exports of other tools. No mask is opened.

Tags come from the XML files, from the field's cls_labels*.npy files, or, without any of them, from
VOC's lists of each class (ImageSets/Main/cat_train.txt).
"""

import pickle
import re
from collections import defaultdict
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_list, read_text, start_of
from tag2mask.formats.exports import Export
from tag2mask.formats.rows import Row, Rows, split_tags
from tag2mask.formats.xml_files import read_xml
from tag2mask.photos.classes import VOC
from tag2mask.photos.images import PICTURES
from tag2mask.progress import log

LISTS = [  # the training list, best first
    f"ImageSets/{folder}/{name}.txt"
    for name in ("train_aug", "trainaug", "train", "default")
    for folder in ("Segmentation", "SegmentationAug", "Main")
]
LINE = re.compile(r"(\S+)\s+(-1|0|1)\s*")  # the picture's name; absent, only difficult, present
SPLITS = ("train", "val", "trainval", "test")


def voc_root(path: Path) -> Path | None:
    """The folder with JPEGImages: the path, the newest VOC20* in it, or a folder above it."""
    path = path.absolute()
    below = sorted(path.glob("VOC20*/"), reverse=True) if path.is_dir() else []
    folders = (path, *below, *path.parents[:4])
    return next((folder for folder in folders if (folder / "JPEGImages").is_dir()), None)


def is_voc(path: Path) -> bool:
    """A folder with JPEGImages, VOCdevkit, or a list or label file inside one."""
    root = voc_root(path)
    if path.is_dir():
        return root is not None and path.absolute() in (root, root.parent)
    return root is not None and path.suffix.lower() in (".txt", ".npy")


def read_voc(path: Path, settings: DataSettings) -> Rows:
    """VOC2012/, one of its lists (ImageSets/Segmentation/val.txt), or a cls_labels*.npy in it.

    Of a folder the first of `LISTS` is read. Tags come from Annotations/*.xml, objects marked as
    difficult too; from the .npy if it is given, or if there is no XML file.
    """
    root = voc_root(path)
    if root is None:
        raise DataError(f"{path}: no JPEGImages folder beside or above it")
    files = sorted((root / "JPEGImages").iterdir())
    pictures = {file.stem: file for file in files if file.suffix.lower() in PICTURES}
    lists = [path] if path.suffix == ".txt" else [root / name for name in LISTS]
    listed = next((file for file in lists if file.is_file()), None)
    names = read_list(listed) if listed else list(pictures)
    labels = _label_file(path, root, listed)
    tags = read_cls_labels(labels) if labels else None
    list_name = listed.name if listed else "all pictures"
    source = labels.name if labels else "Annotations/*.xml"
    log.info(f"{root.name}: {list_name}, tags from {source}")
    rows = Rows(path)
    for number, name in enumerate(names, 1):
        where = f"{list_name} line {number} ({name})" if listed else name
        if ".." in PurePath(name).parts:
            rows.error("annotation", where, "it leads out of the data set", "correct the list")
            continue
        picture = pictures.get(name, root / "JPEGImages" / f"{name}.jpg")
        if tags is not None:
            own: tuple[str, ...] | None = tuple(VOC[i] for i in np.flatnonzero(tags.get(name, ())))
        else:
            own = _xml_tags(root / "Annotations" / f"{name}.xml", where, rows)
        if own is not None:
            rows.rows.append(Row(picture, own, where))
    if all(tag in VOC for row in rows.rows for tag in row.tags):
        rows.tags = VOC
    return rows


def _label_file(path: Path, root: Path, listed: Path | None) -> Path | None:
    """The .npy file with the tags; None for XML files. Raises DataError if there is neither."""
    if path.suffix == ".npy":
        return path
    if (root / "Annotations").is_dir():
        return None
    folders = (listed.parent, root) if listed else (root,)
    files = [file for folder in folders for file in sorted(folder.glob("cls_labels*.npy"))]
    if not files:
        what = "no tags to learn from: neither Annotations/*.xml nor cls_labels*.npy"
        raise DataError(f"{root}: {what}")
    return files[0]


def _xml_tags(file: Path, where: str, rows: Rows) -> tuple[str, ...] | None:
    """The objects' names in an XML file. If it is not readable, None; `rows` gets the fault."""
    try:
        objects = read_xml(file).iter("object")
        return split_tags(thing.findtext("name") or "" for thing in objects)
    except DataError as error:
        rows.error("annotation", where, str(error), "without it this picture has no tags")
    return None


def read_cls_labels(path: Path) -> dict[str, np.ndarray]:
    """cls_labels.npy or cls_labels_onehot.npy to {picture name: (20,) 0/1}. Raises DataError.

    The file is a pickle, which could run any code when NumPy opens it. It is read here with nothing
    but arrays allowed.
    """
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            labels = _ArrayUnpickler(file, encoding="latin1").load().item()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # a hostile pickle may raise anything
        raise DataError(
            f"{path}: not a plain dictionary of label vectors ({error}). No code in it was run. "
            "If you trust it, write its tags into a CSV file with the columns file_name and tags"
        ) from None
    vectors = labels.values() if isinstance(labels, dict) else ()
    if (
        not vectors
        or not all(isinstance(name, str | int | np.integer) for name in labels)
        or not all(isinstance(vector, np.ndarray) for vector in vectors)
        or any(vector.shape != (len(VOC),) or vector.dtype.kind == "O" for vector in vectors)
    ):
        what = f"not a dictionary from picture names to vectors of {len(VOC)} labels"
        raise DataError(f"{path}: {what}")
    # IRN's keys are integers: 2007000032 -> "2007_000032".
    names = (re.sub(r"^(\d{4})(\d{6})$", r"\1_\2", str(name)) for name in labels)
    return dict(zip(names, map(np.asarray, vectors), strict=True))


# The functions that pickles of arrays and of their single values call; their module varies.
ARRAYS = {
    "_reconstruct": np.zeros(0).__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
    "_frombuffer": np.zeros(0).__reduce_ex__(5)[0],
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and plain values; refuses every other class and function by name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if re.fullmatch(r"numpy\._?core\.(multiarray|numeric)", module) and name in ARRAYS:
            return ARRAYS[name]
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is code")


def class_lists(path: Path) -> dict[str, dict[str, Path]]:
    """Split -> class -> list: of one list, of the folder of lists, or of VOC's root.

    A root that has Annotations or cls_labels*.npy is read from these: {}.
    """
    main = path / "ImageSets" / "Main"
    if main.is_dir() and not (path / "Annotations").is_dir():
        arrays = (*path.glob("cls_labels*.npy"), *path.glob("ImageSets/*/cls_labels*.npy"))
        path = path if arrays else main
    if path.is_dir() and path.name != "Main":
        return {}
    files = sorted(path.glob("*_*.txt")) if path.is_dir() else [path]
    lists: dict[str, dict[str, Path]] = defaultdict(dict)
    for file in files:
        name, _, split = file.stem.rpartition("_")
        if name and split in SPLITS and file.suffix == ".txt":
            lists[split][name] = file
    firsts = (start_of(file, 1000) for own in lists.values() for file in own.values())
    return lists if any(LINE.fullmatch(text.partition("\n")[0].strip()) for text in firsts) else {}


def read_class_lists(path: Path, settings: DataSettings) -> Rows:
    """A picture's tags are the classes in whose list it has 1; those with 0 are unknown.

    Of a folder: *_train.txt for training (*_trainval.txt, if there are none), *_val.txt for
    validation.
    """
    lists = class_lists(path)
    train = next((split for split in SPLITS if split in lists), None)
    if train is None:
        raise DataError(f"{path}: no lists such as cat_train.txt in it")
    root = voc_root(path) or path
    export = Export(path, settings, root / "JPEGImages")
    classes = dict.fromkeys(name for split in lists.values() for name in split)
    for split in dict.fromkeys((train, "val")):
        values: dict[str, dict[str, str]] = defaultdict(dict)  # picture -> class -> value
        for name, file in lists.get(split, {}).items():
            for number, line in enumerate(read_text(file).splitlines(), 1):
                if match := LINE.fullmatch(line.strip()):
                    values[match[1]][name] = match[2]
                elif line.strip():
                    what = f"not a name and -1, 0 or 1: {line[:60]!r}"
                    export.rows.error("entry", f"{file.name} line {number}", what)
        for picture, own in values.items():
            present = [name for name in classes if own.get(name) == "1"]
            unknown = tuple(name for name in classes if own.get(name) not in ("1", "-1"))
            with export.entry(split, "a VOC list"):
                place = "train" if split == train else "val"
                export.add(picture, split, present, unknown=unknown, split=place)
    val = ", *_val.txt for validation" if train == "train" and "val" in lists else ""
    return export.finish(f"VOC lists of {len(classes)} classes, *_{train}.txt{val}", classes)
