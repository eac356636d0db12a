"""Hugging Face's parquet files: pictures as bytes in a table, written out as a folder of files."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from tag2mask.config import DataSettings
from tag2mask.errors import DataError, import_extra
from tag2mask.files import write_text
from tag2mask.formats.exports import class_name
from tag2mask.formats.pictures import plain_name
from tag2mask.formats.rows import PARTS, Rows, Tags, photos_text
from tag2mask.formats.tables import rows_from_objects
from tag2mask.progress import log

LABELS = ("label", "labels", "tags", "fine_label", "category")
BATCH = 32  # rows that are in memory at once
LARGEST = 1 << 28  # bytes of one picture
MOST_ROWS = 10_000_000  # a small file may say that it has billions


def parquet_files(path: Path) -> dict[str, list[Path]]:
    """Split -> files: of one .parquet file ("train"), or of a folder, in it or in its data/.

    The names are those of the Hub: data/train-00000-of-00002.parquet; one without split trains.
    """
    if not path.is_dir():
        return {"train": [path]} if path.suffix.lower() == ".parquet" else {}
    files = [*sorted(path.glob("*.parquet")), *sorted(path.glob("data/*.parquet"))]
    splits: dict[str, list[Path]] = {}
    for file in files:
        name = re.split(r"[-_.]", file.name.lower())[0]
        splits.setdefault(PARTS.get(name, "train"), []).append(file)
    return splits if "train" in splits else {}


def read_parquet(path: Path, settings: DataSettings) -> Rows:
    """A table with names of pictures. Raises DataError if the pictures are in it: write them out.

    See `write_pictures`.
    """
    files = parquet_files(path)
    if not files:
        raise DataError(f"{path}: no .parquet file of training data in it")
    if column := picture_column(files["train"][0]):
        do = f"write them out: tag2mask convert --data {path} --to csv --out FOLDER"
        raise DataError(f"{path}: the pictures are in the file (column {column}); {do}")
    rows: dict[str, Rows] = {}
    for split in (split for split in ("train", "val") if split in files):
        objects: list[dict[str, Any]] = []
        for file in files[split]:
            table = _open(file)
            classes = _classes(table)
            for row in _records(table, file):
                for column in classes.keys() & row.keys():
                    row[column] = _tags(row[column], classes[column], file)
                objects.append(row)
        rows[split] = rows_from_objects(files[split][0], objects, settings, "parquet")
    rows["train"].val = rows.get("val")
    return rows["train"]


def holds_pictures(path: Path) -> bool:
    """A parquet data set whose pictures are in it: `write_pictures` before it is read."""
    files = parquet_files(path).get("train", [])
    return bool(files) and picture_column(files[0]) is not None


def picture_column(file: Path) -> str | None:
    """The column of a file whose cells are pictures: {"bytes", "path"}. Raises DataError."""
    schema = _open(file).schema_arrow
    for field in schema:
        kind = field.type
        names = {kind.field(i).name for i in range(getattr(kind, "num_fields", 0))}
        if "bytes" in names or str(kind) in ("binary", "large_binary"):
            return str(field.name)
    return None


def write_pictures(path: Path, out: Path, settings: DataSettings) -> Path:
    """The pictures of a parquet data set to files in the new folder `out`; returns `out`.

    It is then a data set with metadata.jsonl (file_name, tags); a validation split has a folder of
    its own. Names are those in the file without folders, or numbers: nothing is written outside.
    Rows without label, or whose bytes are no picture, are left out and counted.
    """
    files = parquet_files(path)
    if "train" not in files:
        raise DataError(f"{path}: no .parquet file of training data in it")
    for part in (part for part in ("train", "val") if part in files):
        _write_part(files[part], out / part if "val" in files else out, settings)
    return out


def _write_part(files: list[Path], folder: Path, settings: DataSettings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    taken: set[str] = set()
    left_out = 0
    for file in files:
        for number, (name, data, tags) in enumerate(_pictures(file, settings)):
            kind = _kind(data)
            if kind is None or tags is None:
                left_out += 1
                continue
            target = _free_name(name or f"{file.stem}-{number:06d}", kind, taken)
            (folder / target).write_bytes(data)
            lines.append(json.dumps({"file_name": target, "tags": tags}, ensure_ascii=False))
    write_text(folder / "metadata.jsonl", "".join(f"{line}\n" for line in lines))
    left = f", {left_out} left out (no label, or no picture)" if left_out else ""
    log.info(f"{folder}: {photos_text(len(lines))} written{left}")


def _pictures(file: Path, settings: DataSettings) -> Iterator[tuple[str, bytes, Tags | None]]:
    """Name, bytes and tags of each row; tags are None if it has no label."""
    table = _open(file)
    column = picture_column(file)
    if column is None:
        raise DataError(f"{file}: no column with pictures in it")
    classes = _classes(table)
    names = [settings.tag_column] if settings.tag_column else [*classes, *LABELS]
    label = next((name for name in names if name in table.schema_arrow.names), None)
    if label is None:
        among = ", ".join(table.schema_arrow.names)
        raise DataError(f"{file}: no labels among {among}; choose with --photos.tag-column")
    for row in _records(table, file, [column, label]):
        cell = row[column] if isinstance(row[column], dict) else {"bytes": row[column]}
        tags = _tags(row[label], classes.get(label, ()), file)
        data = cell.get("bytes")
        yield str(cell.get("path") or ""), data if isinstance(data, bytes) else b"", tags


def _records(table: Any, file: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of an open file, a few in memory at once. Raises DataError."""
    try:
        for batch in table.iter_batches(batch_size=BATCH, columns=columns):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are such
        raise DataError(f"{file}: not a readable parquet file ({error})") from None


def _tags(value: Any, classes: Tags, file: Path) -> Tags | None:
    if value is None or value == -1:  # nobody looked; the Hub's "no label" of test splits
        return None
    try:
        values = value if isinstance(value, list) else [value]
        return tuple(dict.fromkeys(class_name(one, classes) for one in values))
    except ValueError as error:
        raise DataError(f"{file}: {error}") from None


def _classes(table: Any) -> dict[str, Tags]:
    """Column -> names of its classes, from the "huggingface" metadata of the schema."""
    try:
        features = json.loads(table.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        items = features.items()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    classes = {}
    for column, feature in items:
        for _ in range(3):  # ClassLabel, or a list of it as the versions write it
            if isinstance(feature, list) and feature:
                feature = feature[0]
            elif isinstance(feature, dict) and isinstance(feature.get("names"), list):
                classes[column] = tuple(map(str, feature["names"]))
                break
            elif isinstance(feature, dict):
                feature = feature.get("feature")
    return classes


def _kind(data: bytes) -> str | None:
    """The extension of a picture's bytes; None if they are no picture."""
    if len(data) > LARGEST:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = (image.format or "").lower()
    except Exception:  # Pillow raises errors of many kinds for broken files
        return None
    return {"jpeg": ".jpg", "mpo": ".jpg", "tiff": ".tif"}.get(kind, f".{kind}")


def _free_name(name: str, kind: str, taken: set[str]) -> str:
    """A name in one folder, of plain letters, that is not taken yet."""
    stem = PurePosixPath(PurePosixPath(plain_name(name)).name).stem
    stem = re.sub(r"[^\w.-]+", "_", stem).strip("._")[:100] or "photo"
    target, number = f"{stem}{kind}", 2
    while target.casefold() in taken:
        target, number = f"{stem}-{number}{kind}", number + 1
    taken.add(target.casefold())
    return target


def _open(file: Path) -> Any:
    try:
        if not file.is_file():  # a pipe may have no end
            raise DataError(f"{file}: not a readable parquet file (it is no file)")
        parquet = import_extra("pyarrow.parquet", "parquet", "a parquet file")
        table = parquet.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable parquet file ({error})") from None
    if (rows := table.metadata.num_rows) > MOST_ROWS:
        raise DataError(f"{file}: has {rows} rows, at most {MOST_ROWS} are read; split it")
    return table
