"""Tables: records with a file name and tags, as people and tools write them, to rows."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tag2mask.config import DataSettings
from tag2mask.formats.rows import Rows

MISSING = object()  # a cell that the record does not have: nobody looked for tags in the photo


def rows_from_records(
    source: Path,
    header: Sequence[object] | None,
    records: Iterable[Sequence[object]],
    settings: DataSettings,
    form: str = "table",
    first: int = 2,
) -> Rows:
    """The rows of a table: one record for each photo, or for each photo and tag.

    Cells are texts or JSON values (a list of tags); None, NaN and MISSING mean that nobody looked.
    `header`: the names of the columns; None: the first record is the header, or there is none.
    `form`: what is known of the form already, for people. `first`: the number of the first record
    in messages. Names of pictures are relative to the folder of `source`, or to photos.images.
    """
    raise NotImplementedError


def rows_from_objects(
    source: Path,
    objects: Sequence[Mapping[str, object]],
    settings: DataSettings,
    form: str = "objects",
    first: int = 1,
) -> Rows:
    """The rows of objects such as {"file_name": "a.jpg", "tags": ["cat"]}; see above."""
    raise NotImplementedError
