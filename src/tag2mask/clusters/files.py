"""The list of tags for `tag2mask clusters make`."""

import csv
from pathlib import Path

from tag2mask.errors import ClusterError
from tag2mask.photos.table import clean_tag


def read_tags(path: Path) -> tuple[str, ...]:
    """The tags in the column `tags` of a CSV file (sorted), or in the lines of a text file.

    Raises ClusterError.
    """
    if path.suffix.lower() in (".json", ".jsonl"):
        raise ClusterError(
            f"{path}: tags are read from a CSV file with a column `tags`, "
            "or from a text file with one tag per line"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix.lower() != ".csv":
                tags = [clean_tag(line) for line in stream]
            else:
                rows = csv.DictReader(stream)
                rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
                if "tags" not in rows.fieldnames:
                    raise ClusterError(f"{path}: the column `tags` is missing")
                cells = [row["tags"] or "" for row in rows]
                tags = sorted({clean_tag(tag) for cell in cells for tag in cell.split(";")})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ClusterError(f"{path}: cannot read tags from this file ({error})") from None
    if not any(tags):
        raise ClusterError(f"{path}: no tags in this file")
    return tuple(dict.fromkeys(tag for tag in tags if tag))
