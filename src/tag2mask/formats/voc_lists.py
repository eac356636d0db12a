"""PASCAL VOC's lists of each class, ImageSets/Main/cat_train.txt: tags without any XML file."""

import re
from collections import defaultdict
from pathlib import Path

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_text, start_of
from tag2mask.formats.exports import Export
from tag2mask.formats.rows import Rows

LINE = re.compile(r"(\S+)\s+(-1|0|1)\s*")  # the picture's name; absent, only difficult, present
SPLITS = ("train", "val", "trainval", "test")


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
    root = next((p for p in (path, *path.absolute().parents) if (p / "JPEGImages").is_dir()), path)
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
