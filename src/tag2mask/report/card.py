"""The model card: what someone who gets the segmenter without the run folder has to know."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tag2mask import __version__
from tag2mask.config import Config
from tag2mask.files import write_text
from tag2mask.photos.table import Table

LABELS = {
    "given": "tags given: a photo's mask may show only what it is tagged with",
    "predicted": "tags predicted by the classifier",
    "none": "no tags given",
}


def percent(share: float | None, digits: int = 1) -> str:
    """0.6523 to "65.2 %"; None, where nothing could be measured, to a dash."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def protocol(figure: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """An entry of metrics.json to what must stand beside its mIoU: (what, value) pairs; empty where nothing was measured."""
    if not figure:
        return []
    said = {
        "split": f"{figure.get('split', 'not stated')}, {figure['images']:,} photos"
        if "images" in figure
        else figure.get("split"),
        "mean over": f"{len(figure['mean_over'])} classes" if "mean_over" in figure else None,
        "labels": LABELS.get(str(figure.get("labels"))),
        "CRF": {True: "yes", False: "no"}.get(figure.get("crf")),  # type: ignore[arg-type]
        "weights": figure.get("weights"),
        "seed": figure.get("seed"),
        "left at 255": f"{percent(figure['predicted_ignore'])} of the pixels, counted as wrong"
        if figure.get("predicted_ignore")
        else None,
    }
    always = ("split", "labels", "CRF", "weights", "seed")
    return [
        (what, "not stated" if value is None else str(value))
        for what, value in said.items()
        if value is not None or what in always
    ]


def snippet(run_dir: Path) -> str:
    """Three lines of Python that use the model of this run."""
    return f"""import tag2mask
run = tag2mask.load({json.dumps(str(run_dir), ensure_ascii=False)})
mask = run.predict("picture.jpg").mask  # (H, W) uint8, a class number per pixel"""


def write_card(
    run_dir: Path, config: Config, train: Table, figure: Mapping[str, Any] | None
) -> Path:
    """A trained segmenter to its model card, segmenter/README.md (Markdown, with the front matter that model hubs read); returns its path.

    `figure` is the "segmenter" entry of evaluate/metrics.json.
    """
    path = run_dir / "segmenter" / "README.md"
    write_text(path, _card(run_dir, config, train, figure))
    return path


def _card(run_dir: Path, config: Config, train: Table, figure: Mapping[str, Any] | None) -> str:
    classifier, segmenter, steps = config.classifier, config.segmenter, config.masks.crf.iterations
    token = {"cluster": "a cluster token", "class": "a class token", "none": "nothing"}[
        classifier.token
    ]
    crf = f"refined by a dense CRF ({steps} steps)" if steps else "without a dense CRF"
    classes = "\n".join(
        f"| {number} | {_cell(name)} |" for number, name in enumerate(train.classes)
    )
    return f"""---
library_name: tag2mask
pipeline_tag: image-segmentation
tags: [semantic-segmentation, weakly-supervised, image-tags]
---

# {_cell(run_dir.resolve().name)}

A semantic segmentation network for background and {train.num_tags} classes, learned from image tags alone: nobody drew a mask for it.

## Use

```console
tag2mask predict {shlex.quote(str(run_dir))} picture.jpg --out masks/
```

```python
{snippet(run_dir)}
```

## Figures

{_figures(figure)}

## How it was trained

1. {len(train):,} photos, each with its tags.
2. A patch classifier learned from the tags which patches show what: `{classifier.backbone}` (weights: {_cell(classifier.weights)}),
   {token} beside every patch token, {classifier.num_epochs(len(train))} epochs at {classifier.image_size} pixels.
3. Its scores became one pseudo mask for each photo, {crf}.
4. DeepLabV2 learned those masks: `{segmenter.backbone}` (weights: {_cell(segmenter.weights)}) at output stride {segmenter.output_stride},
   {segmenter.steps:,} steps of {segmenter.batch_size} crops of {segmenter.crop_size} pixels, seed {config.seed}.

Every setting is in the run's `config.toml`; `tag2mask run --recipe config.toml` repeats the training. Made with tag2mask {__version__}.

## Classes

| number | class |
|---:|---|
{classes}

Background is whatever no tag names. Tags never say where a thing ends: what often stands beside it, such as rails under trains,
may be taken for part of it.

## Licence

tag2mask is Apache-2.0. These weights derive from the photos they were trained on and from the weights that the backbones started
with; the terms of both apply to them.
"""


def _figures(figure: Mapping[str, Any] | None) -> str:
    if not figure:
        return "Not measured: no true masks were given. Run with `--val` and `--val-masks` to have some."
    rows = "\n".join(f"| {what} | {_cell(value)} |" for what, value in protocol(figure))
    per_class = "\n".join(
        f"| {_cell(name)} | {percent(iou)} |" for name, iou in figure["iou"].items()
    )
    return f"""**mIoU {percent(figure["miou"])}**: mean over one confusion matrix of the whole split, true 255 (ignore) skipped.

| | |
|---|---|
{rows}

| class | IoU |
|---|---:|
{per_class}"""


def _cell(text: str) -> str:
    """Anything a user wrote as plain text in a Markdown table."""
    return "".join(f"&#{ord(c)};" if c in "<>&|`*_[]\\#\n\r" else c for c in text)
