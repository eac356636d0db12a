"""What `tag2mask check`, `convert` and `download` do; the command line makes their options from these signatures."""

import json
import unicodedata
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.text import Text

from tag2mask.errors import DataError
from tag2mask.files import read_text
from tag2mask.formats.findings import count, findings_text

Data = Annotated[
    Path,
    tyro.conf.arg(
        help="CSV, JSONL, folder per tag, VOC, COCO, YOLO, LabelMe or CVAT: anything that --data takes."
    ),
]
Numbering = Literal["auto", "table", "voc", "coco", "coco91"]
NUMBERS = "What the numbers in the masks mean: the tags in order (table), VOC's classes, COCO's 80, COCO's 91 ids; auto finds out."


def check(
    data: Data,
    val: Annotated[
        Path | None,
        tyro.conf.arg(help="Photos to test on: their own faults, and photos that are in both."),
    ] = None,
    val_masks: Annotated[Path | None, tyro.conf.arg(help="Folder of true masks.")] = None,
    clusters: Annotated[
        Path | None, tyro.conf.arg(help="Cluster file (JSON) that must name every tag.")
    ] = None,
    numbering: Annotated[Numbering, tyro.conf.arg(help=NUMBERS)] = "auto",
) -> None:
    """Print everything that is wrong with a data set. Every picture and mask is opened. Errors would stop a training, warnings not."""
    from tag2mask.formats.check import check as find

    findings = find(data, val, val_masks, _clusters(clusters) if clusters else None, numbering)
    Console().print(findings_text(findings), soft_wrap=True)
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise DataError(f"{data}: {count(errors).split(',')[0]}; a training would not start")


def _clusters(path: Path) -> dict[str, list[str]]:
    try:
        found: dict[str, list[str]] = json.loads(read_text(path))["clusters"]
        return {
            name: [unicodedata.normalize("NFC", tag) for tag in tags]
            for name, tags in found.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f'{path}: a cluster file reads {{"clusters": {{"pets": ["cat", "dog"]}}, "source": "who made it"}}'
        ) from None


def convert(
    data: Data,
    to: Annotated[
        Literal["csv", "jsonl", "masks", "voc", "coco", "yolo"],
        tyro.conf.arg(help="The form wanted."),
    ],
    out: Annotated[Path, tyro.conf.arg(help="A new folder.")],
    masks: Annotated[
        Path | None,
        tyro.conf.arg(
            help="Folder of NAME.png to take along; without it, outlines in the data are drawn."
        ),
    ] = None,
    numbering: Annotated[Numbering, tyro.conf.arg(help=NUMBERS)] = "auto",
) -> None:
    """Tags and masks between the forms that people have: `--to masks` draws COCO's outlines (and LabelMe's, CVAT's, YOLO's) as PNGs."""
    from tag2mask.formats.convert import convert as make

    Console().print(Text(f"written; to use it: --data {make(data, to, out, masks, numbering)}"))


def download(
    name: Annotated[
        tyro.conf.Positional[Literal["voc12", "coco14", "coco17"]],
        tyro.conf.arg(help="The data set."),
    ],
    out: Annotated[Path, tyro.conf.arg(help="Folder for it.")] = Path("data"),
    by_hand: Annotated[
        bool,
        tyro.conf.arg(
            help="Fetch nothing; print what to fetch with a browser and where to put it."
        ),
    ] = False,
) -> None:
    """Fetch the official archives, check their sha256, unpack them. Given again, it goes on where it was cut off."""
    from tag2mask.formats.download import by_hand as instructions
    from tag2mask.formats.download import download as fetch

    text = instructions(name, out) if by_hand else f"ready; to use it: --data {fetch(name, out)}"
    Console().print(Text(text), soft_wrap=True)
