"""Label Studio: its exports JSON and JSON-MIN, choices and labels of objects as tags, outlines."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats.brush import decode_brush
from tag2mask.formats.exports import Export, tag_texts
from tag2mask.formats.json_files import load_json, peek_json
from tag2mask.formats.pictures import looks_like_picture
from tag2mask.formats.rows import Patch, Rows, Shape, Tags, photos_text
from tag2mask.formats.shapes import polygon

MIN_KEYS = ("annotator", "annotation_id", "lead_time")  # that JSON-MIN adds to each record


class Task(NamedTuple):
    """One picture: where its name may be, and the tags that each annotation gives it."""

    data: dict[str, Any]
    annotations: list[dict[str, Tags]]  # question (the control's name) -> tags
    where: str
    unfinished: str = ""  # why there are no annotations
    shapes: Sequence[Shape] = ()  # of the newest annotation
    size: tuple[int, int] | None = None  # width, height [pixels] of the shapes


def is_label_studio(path: Path) -> bool:
    """A .json file with tasks, or with JSON-MIN's records."""
    value = peek_json(path)
    first = value[:50] if isinstance(value, list) else []
    tasks = [entry for entry in first if isinstance(entry, dict)]
    return any(isinstance(task.get("data"), dict) or _is_minimal(task) for task in tasks)


def read_label_studio(path: Path, settings: DataSettings, outlines: bool = False) -> Rows:
    """The tags of each task: in all of its annotations present, in some of them unknown.

    An annotation that is marked as ground truth counts alone. Tasks without annotation, and those
    that were skipped, are left out. With photos.tag_column only one question counts;
    photos.file_column is the key of the picture in the task's data. With `outlines` the rows of the
    JSON export have the brushes and polygons of the newest annotation.
    """
    export = Export(path, settings)
    value = load_json(path, outlines)
    if not isinstance(value, list):
        raise DataError(f"{path}: not a list of Label Studio's tasks")
    other: Counter[str] = Counter()  # results that are no tags: type -> how many
    if any(_is_minimal(entry) for entry in value if isinstance(entry, dict)):
        tasks, form = list(_minimal_tasks(value, export)), "Label Studio JSON-MIN"
    else:
        tasks, form = list(_tasks(value, export, other, outlines)), "Label Studio JSON"
    if not tasks:
        return export.finish(form)  # with the faults of all entries
    questions = list(dict.fromkeys(q for task in tasks for a in task.annotations for q in a))
    if (only := settings.tag_column) and only not in questions:
        among = ", ".join(questions) or "none"
        raise DataError(f"{path}: no question {only!r} (photos.tag_column) among {among}")
    if not questions and other:
        kinds = ", ".join(other)
        raise DataError(f"{path}: no choices and no labels among its results ({kinds})")
    key = settings.file_column or _picture_key(path, tasks)

    def tags_of(annotation: dict[str, Tags]) -> set[str]:
        return {tag for name, tags in annotation.items() if only in (None, name) for tag in tags}

    sets = [list(map(tags_of, task.annotations)) for task in tasks]
    every = set().union(*(tags for own in sets for tags in own))
    disputed = 0
    for task, own in zip(tasks, sets, strict=True):
        if task.unfinished:
            export.leave_out(task.unfinished)
            continue
        present = set.intersection(*own)
        unknown = set.union(*own) - present
        if unknown == every and unknown:
            export.leave_out("its annotations agree on no tag")
            continue
        disputed += bool(unknown)
        with export.entry(task.where, f"a task with a picture in {key!r}"):
            name, where, tags = task.data.get(key), task.where, sorted(present)
            unsure, shapes = tuple(unknown), task.shapes
            export.add(name, where, tags, unknown=unsure, shapes=shapes, size=task.size)
    if disputed:
        what = f"annotations of {photos_text(disputed)} disagree"
        export.rows.warn("export", f"{what}: a tag that only some of them have is unknown there")
    asked = only or ", ".join(questions) or "no question"
    return export.finish(f"{form}: pictures in {key}, tags of {asked}")


def _is_minimal(entry: dict[str, Any]) -> bool:
    return all(key in entry for key in MIN_KEYS)


def _tasks(
    values: list[Any], export: Export, other: Counter[str], outlines: bool
) -> Iterator[Task]:
    several = 0
    for number, value in enumerate(values, 1):
        where = f"task {value.get('id', number)}" if isinstance(value, dict) else f"task {number}"
        with export.entry(where, "a task of Label Studio"):
            if not isinstance(value["data"], dict):
                raise ValueError("its data are not a JSON object")
            annotations = value.get("annotations", value.get("completions")) or []
            done = [a for a in annotations if not (a.get("was_cancelled") or a.get("skipped"))]
            done = [a for a in done if a.get("ground_truth") is True] or done
            answers = [_answers(a.get("result") or [], export, other) for a in done]
            why = "" if done else "skipped (canceled)" if annotations else "not annotated yet"
            shapes, size = _drawn(done) if outlines and done else ((), None)
            several += outlines and len(done) > 1
            yield Task(value["data"], answers, where, why, shapes, size)
    if several:
        what = f"{photos_text(several)} with several annotations"
        export.rows.warn("export", f"{what}: the outlines are those of the newest")


def _drawn(annotations: list[Any]) -> tuple[list[Shape], tuple[int, int] | None]:
    """The objects of the newest annotation, and the size of their picture."""
    newest = max(annotations[::-1], key=lambda a: str(a.get("updated_at") or ""))
    shapes, sizes = [], set()
    for result in newest.get("result") or []:
        kind = str(result.get("type"))
        if kind.endswith("labels") and (outline := _outline(result, kind)):
            sizes.add((int(result["original_width"]), int(result["original_height"])))
            shapes += [Shape(tag, outline) for tag in tag_texts(result["value"].get(kind) or [])]
    if len(sizes) > 1:
        raise ValueError(f"its objects are of pictures of {len(sizes)} sizes")
    return shapes, next(iter(sizes), None)


def _outline(result: dict[str, Any], kind: str) -> list[list[float]] | Patch | None:
    """What was painted with a brush, or the corners of a polygon."""
    value = result["value"]
    if "rle" not in value and kind != "polygonlabels":
        return None  # a box or an ellipse does not show the object's edge
    if result.get("image_rotation"):
        raise ValueError("the picture was turned; turn it back in Label Studio")
    width, height = int(result["original_width"]), int(result["original_height"])
    if "rle" not in value:
        corners = np.array(value["points"], float).reshape(-1, 2) / 100 * [width, height]
        return [polygon(corners.ravel().tolist())]
    if not isinstance(value["rle"], list):
        raise ValueError(f"{short(value['rle'])} is no code of a brush")
    return Patch(0, 0, width, height, partial(decode_brush, bytes(value["rle"]), height, width))


def _answers(results: list[Any], export: Export, other: Counter[str]) -> dict[str, Tags]:
    """The tags of one annotation by question."""
    answers: dict[str, Tags] = {}
    for result in results:
        kind = str(result.get("type"))
        if kind == "taxonomy":
            tags = _levels(result["value"][kind], export.settings.level)
        elif kind == "choices" or kind.endswith("labels"):
            tags = tag_texts(result["value"].get(kind) or [])
        else:  # a text, a number, a relation between objects
            other[kind] += 1
            continue
        question = str(result.get("from_name"))
        answers[question] = answers.get(question, ()) + tags
    return answers


def _minimal_tasks(values: list[Any], export: Export) -> Iterator[Task]:
    """JSON-MIN has a record for each annotation: data, id, answers, annotator, in this order."""
    tasks: dict[Any, Task] = {}
    for number, value in enumerate(values, 1):
        where = f"record {number}"
        with export.entry(where, "a record of Label Studio's JSON-MIN"):
            keys = list(value)
            start = keys.index("id") + 1 if "id" in keys else 0
            names = keys[start : keys.index("annotator")]
            if only := export.settings.tag_column:
                names = [only] if only in value else []
            elif "id" not in keys:
                raise ValueError("no id before the answers; name one with photos.tag_column")
            answers = {name: _minimal_tags(value[name], export) for name in names}
            why = "not annotated yet" if value["annotation_id"] is None else ""
            number_of_task = value.get("id", number)
            task = tasks.setdefault(number_of_task, Task(value, [], where, why))
            task.annotations.append(answers)
    yield from tasks.values()


def _minimal_tags(value: Any, export: Export) -> Tags:
    """ "cat", {"choices": ["cat", "dog"]}, a list of objects with labels, or of taxonomies."""
    if isinstance(value, str):
        return tag_texts([value])
    tags: Tags = ()
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, dict):
            lists = [entry[key] for key in entry if key == "choices" or key.endswith("labels")]
            tags += tuple(tag for texts in lists for tag in tag_texts(texts))
            tags += _levels(entry.get("taxonomy") or [], export.settings.level)
        elif isinstance(entry, list):
            tags += _levels([entry], export.settings.level)
        elif isinstance(entry, str):
            tags += tag_texts([entry])
    return tags


def _levels(paths: list[list[Any]], level: str) -> Tags:
    """Tags of a taxonomy, [["Animals", "Dog"]], as photos.level chooses."""
    tags: Tags = ()
    for path in map(tag_texts, paths):
        if level == "any":
            tags += path
        else:
            tags += path[-1:] if level == "leaf" else path[int(level) - 1 : int(level)]
    return tags


def _picture_key(path: Path, tasks: list[Task]) -> str:
    """The key of the tasks' data whose texts are names of pictures. Raises DataError."""
    keys = dict.fromkeys(
        key
        for task in tasks
        for key, value in task.data.items()
        if isinstance(value, str) and (value.startswith("/data/") or looks_like_picture(value))
    )
    if len(keys) == 1:
        return next(iter(keys))
    listed = ", ".join(keys or dict.fromkeys(key for task in tasks for key in task.data))
    what = "pictures may be in" if keys else "no key has names of pictures; the keys are"
    raise DataError(f"{path}: {what} {listed}; choose with --photos.file-column")
