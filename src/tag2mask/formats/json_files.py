"""JSON files: parsed once, though several forms look into them to find out whose they are."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from tag2mask.errors import DataError
from tag2mask.files import read_text

_kept: dict[Path, Any] = {}  # at most one file: from the look into it until it is read


def peek_json(path: Path) -> Any:
    """The value of a .json file, kept for `load_json`; of another file or a folder, None.

    Raises DataError as `load_json`.
    """
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    if path not in _kept:
        value = load_json(path)
        _kept.clear()
        _kept[path] = value
    return _kept[path]


def load_json(path: Path, outlines: bool = False) -> Any:
    """The value of a JSON file. Numbers that JSON does not have (NaN, Infinity) are None.

    Outlines, which may be most of a file of COCO or Label Studio, are left out unless `outlines`.
    Raises DataError with the line if the file is not JSON.
    """
    kept = _kept.pop(path, None)
    if kept is not None and not outlines:
        return kept
    return parse_json(read_text(path, math.inf), str(path), outlines)


def parse_json(text: str, where: str, outlines: bool = True) -> Any:
    """A JSON text to its value; see `load_json`. Raises DataError."""
    hook = unique_keys if outlines else _without_outline
    try:
        return json.loads(text, object_pairs_hook=hook, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{where}: not valid JSON ({place}: {error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 100,000 brackets
        raise DataError(f"{where}: not usable JSON ({error})") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError if a key is in it twice: one value would be lost."""
    value = dict(pairs)
    if len(value) < len(pairs):
        count = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {count.most_common(1)[0][0]!r} is twice in one object")
    return value


def _without_outline(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = unique_keys(pairs)
    for key in ("segmentation", "rle"):
        if isinstance(value.get(key), list | dict):
            del value[key]
    return value
