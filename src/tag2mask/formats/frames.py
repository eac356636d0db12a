"""Tables in memory to files: pandas and polars DataFrames, lists of dictionaries."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tag2mask.errors import DataError
from tag2mask.files import write_text


def write_records(data: Any, folder: Path, name: str) -> Path:
    """A DataFrame (pandas, polars), or a dictionary for each photo, to `folder`/NAME-HASH.jsonl.

    In a DataFrame, a missing value is an empty cell, as in a CSV file: nothing is in the photo. In
    a dictionary, None or a missing key means that nobody looked. Raises DataError.
    """
    if hasattr(data, "to_dicts"):  # polars
        records, empty = data.to_dicts(), ""
    elif hasattr(data, "to_dict") and hasattr(data, "columns"):  # pandas
        records, empty = data.to_dict("records"), ""
    elif isinstance(data, Iterable) and not isinstance(data, Mapping):
        records, empty = list(data), None
    else:
        records = [data]
    faulty = [i for i, record in enumerate(records) if not isinstance(record, Mapping)]
    if faulty or isinstance(data, Mapping):
        at = f" (item {faulty[0]})" if faulty else ""
        raise DataError(
            f"the data are {type(data).__name__}{at}; give a path, a DataFrame, or a list of "
            'dictionaries such as {"file_name": "a.jpg", "tags": ["cat"]}'
        )
    lines = (
        json.dumps({str(k): _plain(v, empty) for k, v in record.items()}, ensure_ascii=False)
        for record in records
    )
    text = "".join(f"{line}\n" for line in lines)
    # The hash: other data do not replace those of a run before they are known to be sound.
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.jsonl"
    write_text(path, text)
    return path


def _plain(value: Any, empty: str | None) -> Any:
    """A cell as JSON can hold it."""
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        value = value.tolist()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return empty
    if isinstance(value, list | tuple | set):
        return [_plain(item, empty) for item in value]
    return value if isinstance(value, str | int | float | bool | dict) else str(value)
