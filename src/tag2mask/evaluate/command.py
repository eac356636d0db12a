"""What `tag2mask evaluate --pred DIR --truth DIR` does: score any masks, of any tool."""

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.text import Text

from tag2mask.evaluate.folders import evaluate_folders, list_hash
from tag2mask.evaluate.show import result_table
from tag2mask.files import write_json


def evaluate(
    pred: Annotated[Path, tyro.conf.arg(help="Folder of predicted masks, NAME.png.")],
    truth: Annotated[
        Path,
        tyro.conf.arg(
            help="Folder of true masks, NAME.png, in the same class numbers; 255 is skipped."
        ),
    ],
    names: Annotated[
        Path | None,
        tyro.conf.arg(
            name="list", help="File with one NAME a line; without it every true mask is scored."
        ),
    ] = None,
    classes: Annotated[
        str | None,
        tyro.conf.arg(help="voc, coco, or a file with one class name a line; without it, numbers."),
    ] = None,
    mean_over: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="Classes that mIoU is the mean of; without it all in the truth."),
    ] = (),
    labels: Annotated[
        str,
        tyro.conf.arg(
            help="Whether the masks were made with the photos' true tags: given, predicted, none, unknown."
        ),
    ] = "unknown",
    boundary: Annotated[bool, tyro.conf.arg(help="Boundary IoU as well.")] = False,
    out: Annotated[Path | None, tyro.conf.arg(help="JSON file for the figures.")] = None,
) -> None:
    """Score masks of any tool: one confusion matrix over all of them, a predicted 255 counting as wrong."""
    result, scored = evaluate_folders(pred, truth, names, classes, boundary, mean_over=mean_over)
    stated = {
        "split": names.stem if names else truth.name,
        "labels": labels,
        "list_hash": list_hash(scored),
    }
    console = Console()
    console.print(result_table(result, f"mIoU {100 * result.miou:.2f} %"))
    console.print(
        Text(
            f"{result.images} images, "
            + ", ".join(f"{key} {value}" for key, value in stated.items())
        )
    )
    if out:
        write_json(out, result.summary(**stated))
