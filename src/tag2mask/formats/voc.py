"""PASCAL VOC 2012 with SBD, and every tool's VOC export: tags from the XML files or from cls_labels*.npy files. No mask is opened."""

import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from tag2mask.errors import DataError
from tag2mask.files import read_list
from tag2mask.formats.findings import Finding
from tag2mask.formats.rows import PICTURES, Row, Rows, split_tags
from tag2mask.photos.classes import VOC
from tag2mask.progress import log

LISTS = (  # the training list, best first
    "ImageSets/Segmentation/train_aug.txt",
    "ImageSets/Segmentation/trainaug.txt",
    "ImageSets/SegmentationAug/train_aug.txt",
    "ImageSets/Segmentation/train.txt",
    "ImageSets/Main/train.txt",
    "ImageSets/Segmentation/default.txt",
    "ImageSets/Main/default.txt",
)


def voc_root(path: Path) -> Path | None:
    """The folder with JPEGImages that a path is, holds (VOCdevkit), or lies in (a list file); None if there is none."""
    path = path.absolute()
    below = sorted(path.glob("VOC20*/")) if path.is_dir() else []
    return next(
        (
            folder
            for folder in (path, *reversed(below), *path.parents[:4])
            if (folder / "JPEGImages").is_dir()
        ),
        None,
    )


def is_voc(path: Path) -> bool:
    """A folder with JPEGImages, VOCdevkit, or a list or label file inside one."""
    if path.is_dir():
        return (path / "JPEGImages").is_dir() or any(
            (folder / "JPEGImages").is_dir() for folder in path.glob("VOC20*/")
        )
    return path.suffix.lower() in (".txt", ".npy") and voc_root(path) is not None


def read_voc(path: Path) -> Rows:
    """VOC2012/ (its train_aug list, else train), one of its lists (ImageSets/Segmentation/val.txt), or a cls_labels*.npy in it, to rows.

    Tags come from Annotations/*.xml, objects marked difficult among them; from the .npy where one is named, or no XML exists.
    """
    root = voc_root(path)
    if root is None:
        raise DataError(f"{path}: no JPEGImages folder beside or above it")
    pictures = {
        file.stem: file
        for file in sorted((root / "JPEGImages").iterdir())
        if file.suffix.lower() in PICTURES
    }
    lists = (
        [path]
        if path.suffix == ".txt"
        else [root / name for name in LISTS if (root / name).is_file()][:1]
    )
    names = read_list(lists[0]) if lists else list(pictures)
    labels = path if path.suffix == ".npy" else None
    if labels is None and not (root / "Annotations").is_dir():
        labels = next(
            (
                file
                for folder in (*(file.parent for file in lists), root)
                for file in sorted(folder.glob("cls_labels*.npy"))
            ),
            None,
        )
        if labels is None:
            raise DataError(
                f"{root}: neither Annotations/*.xml nor cls_labels*.npy: there are no tags to learn from"
            )
    log.info(
        f"{root.name}: {lists[0].name if lists else 'all pictures'}, tags from {labels.name if labels else 'Annotations/*.xml'}"
    )
    tags = (
        {
            name: [VOC[i] for i in np.flatnonzero(row)]
            for name, row in read_cls_labels(labels).items()
        }
        if labels
        else None
    )
    found = Rows(path)
    for number, name in enumerate(names, 1):
        where = f"{lists[0].name} line {number} ({name})" if lists else name
        picture = pictures.get(name, root / "JPEGImages" / f"{name}.jpg")
        named = (
            split_tags(tags.get(name, ()))
            if tags
            else _xml_tags(root / "Annotations" / f"{name}.xml", where, found)
        )
        found.rows.append(Row(picture, named, where))
    if all(tag in VOC for row in found.rows for tag in row.tags):
        found.tags = VOC
    return found


def _xml_tags(file: Path, where: str, found: Rows) -> tuple[str, ...]:
    try:
        objects = ElementTree.parse(file).getroot().iter("object")
        return split_tags(thing.findtext("name") or "" for thing in objects)
    except FileNotFoundError:
        found.findings.append(
            Finding(
                "annotation", where, f"no such file: {file}", "tags of this picture are in no file"
            )
        )
    except ElementTree.ParseError as error:
        found.findings.append(Finding("annotation", where, f"{file} is not valid XML ({error})"))
    return ()


def read_cls_labels(path: Path) -> dict[str, np.ndarray]:
    """The field's cls_labels.npy / cls_labels_onehot.npy to {picture name: (20,) 0/1}. Raises DataError if it is anything else.

    The file is a pickle, which may run any code when NumPy opens it: it is read here with nothing but arrays allowed.
    """
    try:
        with path.open("rb") as file:
            labels = _ArrayUnpickler(_after_header(file), encoding="latin1").load().item()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # a hostile pickle may raise anything
        raise DataError(
            f"{path}: not a plain dictionary of label vectors ({error}). Nothing of it was run. If you trust it, write its tags into a "
            "CSV file with the columns file_name and tags"
        ) from None
    if (
        not isinstance(labels, dict)
        or not labels
        or any(np.shape(row) != (len(VOC),) for row in labels.values())
    ):
        raise DataError(
            f"{path}: not a dictionary from picture names to vectors of {len(VOC)} labels"
        )
    return {_voc_name(name): np.asarray(row) for name, row in labels.items()}


def _from_buffer(values: Any, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(values, dtype).reshape(shape, order=order)


# The functions that pickles of arrays and of their single values name; where NumPy keeps them depends on its version.
ARRAYS = {
    "_reconstruct": np.zeros(0).__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
    "_frombuffer": _from_buffer,
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


def _after_header(file: BinaryIO) -> BinaryIO:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"an array of {dtype} with shape {shape}")
    return file


def _voc_name(name: Any) -> str:
    """IRN's integer keys to VOC's names: 2007000032 -> "2007_000032"."""
    text = str(name)
    return f"{text[:4]}_{text[4:]}" if re.fullmatch(r"\d{10}", text) else text
