"""The commands on data sets: tags, check, convert, download."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.table import Table as Columns
from rich.text import Text
from tyro.conf import Positional, arg

from tag2mask.cli.arguments import PathOption, show
from tag2mask.config import Config, DataSettings
from tag2mask.config_files import changed_config
from tag2mask.errors import DataError
from tag2mask.progress import printable

if TYPE_CHECKING:
    from tag2mask.photos.table import Table

Data = Annotated[Path, arg(help="The data set. Its forms: tag2mask --help.")]
Classes = Annotated[
    str, arg(help="What the numbers in the masks mean: see evaluate.classes in `run --help`.")
]
SHOWN_ROWS, SHOWN_OF_NOTHING, SHOWN_TAGS, LONGEST_CELL = 10, 2, 300, 2000


def _settings(options: Any) -> DataSettings:
    return changed_config(Config(), asdict(options)).photos


def tags(
    data: Data, as_json: Annotated[bool, arg(name="json")] = False, options: Any = None
) -> None:
    """Show what is understood of a data set: its form, its tags, and ten photos.

    Args:
        as_json: Print one JSON object: the form, the tags, all photos, and the validation
            photos under "val". A tag that is neither present nor unknown is absent.
    """
    from tag2mask.formats import read_rows
    from tag2mask.formats.check_tags import nothing_findings
    from tag2mask.formats.findings import problems, shorten
    from tag2mask.formats.rows import as_table, known_tags, row_findings

    rows = read_rows(data, _settings(options))
    tags = known_tags(rows)
    table, findings = as_table(rows, tags), list(row_findings(rows))
    val = None
    if rows.val:
        val = as_table(rows.val, tags)
        findings += row_findings(rows.val, tags, untagged=True)
    errors = [finding for finding in findings if finding.severity == "error"]
    if as_json and not errors:
        text = json.dumps(_as_json(rows.form, table, val), ensure_ascii=False)
        print(text.encode("utf-8", "backslashreplace").decode())  # halves of letters
    elif not as_json:
        _show_table(rows.form, table, val)
        findings += nothing_findings(tags)
        for finding in shorten(f for f in findings if f.severity == "warning"):
            show(f"warning: {finding}")
    if errors:
        raise DataError(problems(findings if as_json else errors), data)


def tags_in(data: Path) -> tuple[str, ...]:
    """The tags of a data set, as `tags` understands them; its pictures need not be there.

    Prints the warnings. Raises DataError with all other faults.
    """
    from tag2mask.formats import read_rows
    from tag2mask.formats.findings import problems, shorten
    from tag2mask.formats.rows import known_tags, row_findings

    rows = read_rows(data)
    findings = [f for f in row_findings(rows) if f.kind != "missing picture"]
    do = "correct it, or give a .txt file with one tag per line"
    if errors := [replace(f, do=do) for f in findings if f.severity == "error"]:
        raise DataError(problems(errors), data)
    for finding in shorten(f for f in findings if f.severity == "warning"):
        show(f"warning: {finding}")
    return known_tags(rows)


def _as_json(form: str, table: "Table", val: "Table | None") -> dict[str, Any]:
    def photos(of: "Table") -> list[dict[str, Any]]:
        return [
            {"file_name": str(photo.path), "present": photo.tags, "unknown": photo.unknown}
            for photo in of.photos
        ]

    value = {"form": form, "tags": table.tags, "photos": photos(table)}
    return value | ({"val": photos(val)} if val else {})


def _show_table(form: str, table: "Table", val: "Table | None") -> None:
    from tag2mask.formats.findings import plural
    from tag2mask.photos.table import evenly_spaced

    nothing = {table.photos[i] for i in table.nothing}
    parts = [plural(len(table), "photo"), plural(table.num_tags, "tag")]
    parts += [f"{plural(len(nothing), 'photo')} of nothing"] if nothing else []
    if table.with_unknown:
        parts.append(f"{plural(table.with_unknown, 'photo')} with unknown tags")
    parts += [plural(len(val), "validation photo")] if val is not None else []
    show(f"Form: {form}", ", ".join(parts))
    if not table.photos:
        return
    present = Counter(tag for photo in table.photos for tag in photo.tags)
    unknown = Counter(tag for photo in table.photos for tag in photo.unknown)
    counts = Columns("tag", "photos", *(["unknown in"] if unknown else []), box=None)
    tags = sorted(table.tags, key=lambda tag: -present[tag])
    for tag in tags[:SHOWN_TAGS]:
        more = [str(unknown[tag])] if unknown else []
        counts.add_row(_cell(tag), str(present[tag]), *more)
    rows = Columns("photo", "tags", *(["unknown"] if unknown else []), box=None)
    # Most photos may be of nothing: they leave room for the others.
    shown = evenly_spaced(table.not_nothing, SHOWN_ROWS - (SHOWN_OF_NOTHING if nothing else 0))
    of_nothing = [table.photos[i] for i in table.nothing]
    for photo in (*shown, *evenly_spaced(of_nothing, SHOWN_ROWS - len(shown))):
        here = ", ".join(photo.tags) or ("nothing" if photo in nothing else "")
        more = [", ".join(photo.unknown)] if unknown else []
        rows.add_row(*map(_cell, (photo.name, here, *more)))
    show(counts, *[f"and {len(tags) - SHOWN_TAGS} more"] * (len(tags) > SHOWN_TAGS), "", rows)


def _cell(text: str) -> Text:
    return Text(printable(text[:LONGEST_CELL]))


def check(
    data: Data,
    val: PathOption = None,
    val_masks: PathOption = None,
    clusters: PathOption = None,
    classes: Classes = "auto",
    options: Any = None,
) -> None:
    """Open every photo and mask, and list all faults. Only errors would stop a training.

    Args:
        val: Validation photos, in any of the forms.
        val_masks: Folder of true masks, NAME.png.
        clusters: Cluster file (JSON) that must contain every tag.
    """
    from tag2mask.clusters import load_clusters
    from tag2mask.formats.check import Reader, check
    from tag2mask.formats.findings import count, findings_text

    groups = load_clusters(clusters).as_mapping if clusters else None
    read = Reader(_settings(options))
    findings = check(data, val, val_masks, groups, classes, read=read)
    show(findings_text(findings))
    if any(finding.severity == "error" for finding in findings):
        raise DataError(f"{data}: {count(findings).split(',')[0]}; training would not start")


def convert(
    data: Data,
    to: Literal["csv", "jsonl", "masks", "voc", "coco", "yolo", "labelme", "cvat", "label-studio"],
    out: Path,
    masks: PathOption = None,
    classes: Classes = "auto",
    options: Any = None,
) -> None:
    """Convert tags and masks to another form. `--to masks` draws outlines as PNG files.

    Args:
        to: The new form.
        out: A new folder.
        masks: Folder of masks, NAME.png, to convert too. Without it: the outlines in the data.
    """
    from tag2mask.formats.convert import convert

    new = convert(data, to, out, masks, classes, _settings(options))
    show(f"To use it: --data {new}")


def correct(
    run: Positional[Path],
    export: Annotated[Path, arg(name="from")],
    options: Any = None,
) -> None:
    """Keep masks that were corrected in another tool as corrections of a run.

    Masks that are as in the run are left alone. The next `tag2mask run` learns from the others.

    Args:
        run: A run folder.
        export: The export of the tool (COCO, YOLO, LabelMe, CVAT, Label Studio), or a folder
            of masks NAME.png with masks.json.
    """
    from tag2mask.formats.findings import plural
    from tag2mask.runs.run import Run
    from tag2mask.runs.tool_masks import bring_masks

    corrected, same = bring_masks(Run(run), export, _settings(options))
    show(f"{plural(len(corrected), 'mask')} corrected, {len(same)} as in the run")
    if corrected:
        show(f"To train with them: tag2mask run --out {run}")


def download(
    name: Positional[Literal["voc12", "coco14", "coco17"]],
    out: Path = Path("data"),
    by_hand: bool = False,
) -> None:
    """Download the official archives, check their sha256 and unpack them.

    Args:
        name: The data set.
        out: Folder for the data set.
        by_hand: Download nothing: print what to download with a browser, and where to put it.
    """
    from tag2mask.formats.download import by_hand as instructions
    from tag2mask.formats.download import download

    show(instructions(name, out) if by_hand else f"To use it: --data {download(name, out)}")
