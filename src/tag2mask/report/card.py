"""The model card: the facts that users of the segmenter need if they do not have the run folder."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tag2mask import __version__
from tag2mask.config import Config
from tag2mask.files import write_text
from tag2mask.photos.table import Table

LABELS = {
    "given": "tags given: a mask can show only the tags of its photo",
    "given and found": "tags given; of the unknown ones, those that the classifier finds",
    "predicted": "tags predicted by the classifier",
    "none": "no tags given",
}
# Names that Hugging Face's hub knows; others are "other" there, with their own name.
KNOWN_LICENSES = (
    "apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "gpl-3.0", "agpl-3.0",
)  # fmt: skip
YES_NO: dict[bool | None, str] = {True: "yes", False: "no"}


def percent(share: float | None, digits: int = 1) -> str:
    """0.6523 to "65.2 %"; None (not measured) to a dash."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def protocol(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """An entry of metrics.json to the facts that must be reported with its mIoU: (what, value)."""
    split, images = metrics.get("split") or "not stated", metrics.get("images")
    stated = {"split": split if images is None else f"{split}, {images:,} photos"}
    if "mean_over" in metrics:
        stated["mean over"] = f"{len(metrics['mean_over'])} classes"
    stated |= {
        "labels": LABELS.get(str(metrics.get("labels"))),
        "CRF": YES_NO.get(metrics.get("crf")),
        "weights": metrics.get("weights"),
        "seed": metrics.get("seed"),
    }
    if ignored := metrics.get("predicted_ignore"):
        stated["predicted 255"] = f"{percent(ignored)} of the pixels, counted as wrong"
    return [(key, "not stated" if text is None else str(text)) for key, text in stated.items()]


def snippet(source: Path | str) -> str:
    """Three lines of Python that use the model of a run folder, or of a hub ("hf://USER/NAME")."""
    return f"""import tag2mask
run = tag2mask.load({json.dumps(str(source), ensure_ascii=False)})
mask = run.predict("picture.jpg").mask  # (H, W) uint8, a class number per pixel"""


def write_card(
    run_dir: Path,
    config: Config,
    train: Table,
    metrics: Mapping[str, Any] | None,
    found: str = "",
) -> Path:
    """A trained segmenter to its model card, segmenter/README.md; returns its path.

    `metrics` is the "segmenter" entry of evaluate/metrics.json. `found`: how many tags it finds, as
    text; "" if nobody knows.
    """
    path = run_dir / "segmenter" / "README.md"
    name = run_dir.resolve().name
    write_text(path, card_text(name, str(run_dir), config, train, metrics, found=found))
    return path


def card_text(
    name: str,
    source: str,
    config: Config,
    train: Table,
    metrics: Mapping[str, Any] | None,
    license: str | None = None,
    data_license: str | None = None,
    found: str = "",
) -> str:
    """A trained segmenter to its model card, Markdown with the front matter that hubs read.

    `source`: what `tag2mask.load` takes. `license` of the weights and of the training photos: None
    if nobody stated them. `found`: as in `write_card`.
    """
    templates = environment(keep_trailing_newline=True)
    templates.filters["cell"] = _cell
    return templates.get_template("card.md.jinja").render(
        name=name,
        source=shlex.quote(source),
        snippet=snippet(source),
        train=train,
        metrics=metrics,
        found=found,
        classifier=config.classifier,
        epochs=config.classifier.num_epochs(len(train.not_nothing)),
        crf_steps=config.masks.crf.iterations,
        segmenter=config.segmenter,
        seed=config.seed,
        version=__version__,
        license=license,
        known_license=(license or "").lower() in KNOWN_LICENSES,
        data_license=data_license,
    )


def environment(**options: Any) -> Environment:
    """The templates of this folder. A name that a template does not get is an error."""
    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, **options)
    templates.filters |= {"percent": percent, "protocol": protocol}
    return templates


def _cell(text: str) -> str:
    """A user's text, escaped for a Markdown table."""
    return "".join(f"&#{ord(c)};" if c in "<>&|`*_[]\\#\n\r" else c for c in text)
