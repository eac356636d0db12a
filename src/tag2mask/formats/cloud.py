"""Files of cloud services: SageMaker Ground Truth's manifests, Vertex AI's import files."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_text
from tag2mask.formats.exports import Export, confidence, csv_rows, tag_text
from tag2mask.formats.json_files import parse_json
from tag2mask.formats.rows import PARTS, Rows, Tags, photos_text

FIRST = 65_536  # bytes: what is looked at to find out whose file it is


def is_manifest(path: Path) -> bool:
    """A .manifest file, or JSON lines with "source-ref"."""
    return path.suffix.lower() == ".manifest" or "source-ref" in _first_object(path)


def read_manifest(path: Path, settings: DataSettings) -> Rows:
    """A manifest of image classification (one label or several) or of boxes.

    The labels of all jobs in it count, or those of the one that photos.tag_column names. A label
    whose confidence is low is absent. A picture whose job failed is left out.
    """
    export = Export(path, settings)
    jobs: dict[str, None] = {}
    for where, value in _json_lines(path, export):
        with export.entry(where, "a line of a SageMaker manifest"):
            name = value["source-ref"]
            names = [key.removesuffix("-metadata") for key in value if key.endswith("-metadata")]
            if settings.tag_column:
                names = [job for job in names if job == settings.tag_column]
            jobs.update(dict.fromkeys(names))
            labels = [_job_tags(value, job, settings.min_confidence) for job in names]
            done = [tags for tags in labels if tags is not None]
            if done:
                export.add(name, where, [tag for tags in done for tag in tags])
            else:
                export.leave_out("not labeled, or the job failed")
    if settings.tag_column and settings.tag_column not in jobs:
        raise DataError(f"{path}: photos.tag_column: no label {settings.tag_column!r} in it")
    return export.finish(f"SageMaker manifest: labels of {', '.join(jobs) or 'no job'}")


def _job_tags(value: dict[str, Any], job: str, least: float) -> Tags | None:
    """The tags that one job gave a picture; None if it failed or did not run."""
    about = value[f"{job}-metadata"]
    if "failure-reason" in about or value.get(job) is None:
        return None
    label = value[job]
    if isinstance(label, list):  # several labels: numbers, their names in class-map
        values = about.get("confidence-map") or {}
        numbers = [number for number in map(str, label) if confidence(values.get(number)) >= least]
        return tuple(tag_text(about["class-map"][number]) for number in numbers)
    if isinstance(label, dict):  # boxes
        values = [confidence(thing.get("confidence")) for thing in about.get("objects") or []]
        boxes = label["annotations"]
        values += [1.0] * (len(boxes) - len(values))
        kept = [box for box, value in zip(boxes, values, strict=False) if value >= least]
        return tuple(tag_text(about["class-map"][str(box["class_id"])]) for box in kept)
    tag = tag_text(about["class-name"])
    return (tag,) if confidence(about.get("confidence")) >= least else ()


def is_vertex(path: Path) -> bool:
    """JSON lines with imageGcsUri, or a CSV whose first or second cell is an address gs://."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return "imageGcsUri" in _first_object(path)
    cells = [cell.strip(' "') for cell in _first_line(path).split(",", 2)[:2]]
    return any(cell.startswith("gs://") for cell in cells)


def read_vertex(path: Path, settings: DataSettings) -> Rows:
    """Vertex AI's (AutoML's) import file: JSON lines, or CSV "[ml_use,]gs://...,label,label".

    ml_use may be training, validation (Rows.val), test (left out) or unassigned. A picture without
    labels is one in which nobody looked. Several lines of one picture are one photo.
    """
    export = Export(path, settings)
    lines = _csv_lines(path, export) if path.suffix.lower() == ".csv" else _vertex(path, export)
    photos: dict[str, list[str]] = defaultdict(list)
    place: dict[str, tuple[str, str]] = {}
    empty: set[str] = set()
    for where, use, name, tags in lines:
        photos[name] += tags or ()
        if tags == ():
            empty.add(name)
        place.setdefault(name, (where, PARTS.get(use.casefold(), "train")))
    tests = [name for name in photos if place[name][1] == "test"]
    for name, own in photos.items():
        where, split = place[name]
        if split == "test":
            continue
        with export.entry(where, "a line of a Vertex AI import file"):
            absent = None if own or name in empty else ()
            export.add(name, where, own, absent, split=split)
    unused = f"; {photos_text(len(tests))} for the test not used" if tests else ""
    return export.finish(f"Vertex AI import file{unused}")


Line = tuple[str, str, str, Tags | None]  # place, ml_use, name, tags (None: nobody looked)


def _vertex(path: Path, export: Export) -> Iterator[Line]:
    for where, value in _json_lines(path, export):
        with export.entry(where, "a line of a Vertex AI import file"):
            labels = value.get("dataItemResourceLabels") or {}
            use = str(labels.get("aiplatform.googleapis.com/ml_use", ""))
            keys = ("classificationAnnotations", "boundingBoxAnnotations")
            lists = [value[key] for key in keys if isinstance(value.get(key), list)]
            if one := value.get("classificationAnnotation"):
                lists.append([one])
            tags = tuple(tag_text(one["displayName"]) for some in lists for one in some)
            name = value["imageGcsUri"]
            if not isinstance(name, str):
                raise ValueError("imageGcsUri is no text")
            yield where, use, name, tags if lists else None


def _csv_lines(path: Path, export: Export) -> Iterator[Line]:
    for where, cells in csv_rows(path, export.rows):
        use = "" if not cells or "://" in cells[0] else cells.pop(0)
        if use and use.casefold() not in (*PARTS, "unassigned"):
            what = f"{use!r} is neither an address nor TRAINING, VALIDATION, TEST, UNASSIGNED"
            export.rows.error("entry", where, what)
        elif cells and cells[0]:
            name, *labels = cells
            # A box: the label, then corners, of which some cells are empty.
            labels = labels[:1] if len(labels) >= 9 and "" in labels else labels
            yield where, use, name, tuple(label for label in labels if label) or None


def _json_lines(path: Path, export: Export) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"row {number}"
        with export.entry(where, "a JSON object"):
            value = parse_json(line, where)
            if not isinstance(value, dict):
                raise ValueError(line[:40])
            yield where, value


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(FIRST).decode("utf-8-sig", "replace").strip().split("\n", 1)[0]


def _first_object(path: Path) -> dict[str, Any]:
    """The first line of JSON lines, or {} if the file is something else."""
    if path.suffix.lower() not in (".jsonl", ".manifest", ".ndjson") or not path.is_file():
        return {}
    try:
        value = json.loads(_first_line(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
