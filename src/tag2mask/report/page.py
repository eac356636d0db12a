"""A run folder to one self-contained HTML page: no file beside it, no address in it, so it can be mailed or put anywhere."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageOps

from tag2mask.config import Config
from tag2mask.files import read_json, write_text, writing
from tag2mask.photos.colors import color, legend, overlay
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import Table
from tag2mask.progress import track
from tag2mask.report.card import percent, protocol, snippet, write_card
from tag2mask.report.curves import read_chart
from tag2mask.report.draw import INFERNO, heatmap
from tag2mask.report.pictures import (
    Scores,
    Shown,
    Strip,
    Truth,
    choose,
    count_panels,
    make_strip,
    mask_path,
    picture_width,
)

STAGES = ("clusters", "classifier", "masks", "segmenter", "evaluate")
Groups = list[tuple[str, list[Strip]]]


def write_report(
    run_dir: Path,
    config: Config,
    train: Table,
    val: Table | None,
    scores: Scores,
    truth: Truth,
    out: Path | None = None,
) -> Path:
    """A run to its page, `out`/index.html (`out`: the run's report/), and beside it picture.jpg, a few of the training photos; returns the page's path.

    `scores(photo)`: (C, h, w) float patch scores in 0-1, of which those of the photo's tags are shown, or None where there are none yet.
    `truth(photo)`: (H, W) uint8 true mask, or None. A stage that has not run yet is said to be missing on the page.
    Writes the model card too where there is a model.
    """
    done = {
        stage: read_json(path)
        for stage in STAGES
        if (path := run_dir / stage / "done.json").exists()
    }
    metrics = _read(run_dir / "evaluate" / "metrics.json") or {}
    masks, predictions = (
        config.pseudo_masks(run_dir) if "segmenter" in done else run_dir / "masks",
        run_dir / "evaluate" / "predictions",
    )
    chosen = choose(train.photos, masks, truth, config.report.photos_per_split, "pseudo masks")
    chosen_val = (
        choose(val.photos, predictions, truth, config.report.photos_per_split, "predictions")
        if val
        else []
    )
    width = picture_width(
        sum(count_panels(shown.photo) for _, group in chosen + chosen_val for shown in group)
    )

    def strips(
        groups: list[tuple[str, list[Shown]]], caption: str, folder: Path, scores: Scores | None
    ) -> Groups:
        return [
            (
                title,
                [
                    make_strip(s, train.classes, width, caption, folder, scores, truth)
                    for s in track(group, f"drawing {caption}s")
                ],
            )
            for title, group in groups
        ]

    train_groups = strips(chosen, "pseudo mask", masks, scores)
    val_groups = strips(chosen_val, "prediction", predictions, None)
    html = (
        _environment(train.classes)
        .get_template("page.html.jinja")
        .render(
            name=run_dir.resolve().name,
            config=config,
            train=train,
            val=val,
            done=done,
            hero=_hero(train_groups, val_groups),
            figures=[
                {"stage": stage, "figure": metrics.get(key), "protocol": protocol(metrics.get(key))}
                for key, stage in FIGURES.items()
            ],
            per_class=_per_class(metrics, train.classes),
            clusters=_read(run_dir / "clusters" / "clusters.json"),
            train_groups=train_groups,
            val_groups=val_groups,
            charts={
                stage: read_chart(run_dir / stage / "metrics.jsonl")
                for stage in ("classifier", "segmenter")
            },
            settings=_settings(config),
            times={stage: done[stage]["seconds"] for stage in done if "seconds" in done[stage]},
            versions={
                name: version
                for stage in done
                for name, version in done[stage].get("versions", {}).items()
            },
            snippet=snippet(run_dir),
            run_dir=shlex.quote(str(run_dir)),
        )
    )
    page = (out or run_dir / "report") / "index.html"
    write_text(page, html)
    _write_picture(page.with_name("picture.jpg"), train, chosen[0][1][:4], masks, scores)
    if "segmenter" in done:
        write_card(run_dir, config, train, metrics.get("segmenter"))
    return page


FIGURES = {
    "pseudo": "masks",
    "segmenter": "segmenter",
}  # what evaluate/metrics.json calls them, and the stage they measure


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _environment(classes: Sequence[str]) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    colors = [color(number) for number in range(len(classes))]
    environment.globals |= {
        "classes": classes,
        "colors": colors,
        "color": dict(zip(classes, colors, strict=True)),
        "inferno": [f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in INFERNO.tolist()],
    }
    environment.filters |= {"duration": _duration, "percent": percent}
    return environment


def _duration(seconds: float) -> str:
    """Seconds to "48 s", "3 min 20 s" or "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s"
        if whole < 3600
        else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


def _hero(train_groups: Groups, val_groups: Groups) -> tuple[Strip | None, Strip | None]:
    """The first of the training photos that has most to show, and a test photo with as many classes as there are."""
    train = [
        strip
        for _, strips in train_groups[:1]
        for strip in strips
        if any(p.kind == "mask" for p in strip.panels)
    ]
    val = [strip for _, strips in val_groups[:1] for strip in strips if strip.panels]
    most = max(train, key=lambda strip: min(len(strip.numbers), 2), default=None)
    return most, max(val, key=lambda strip: min(len(strip.panels[0].labels), 2), default=None)


def _per_class(metrics: dict[str, Any], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the per-class table, best first, those outside the mean last; classes that no true mask has are left out."""
    figures = {key: metrics.get(key) or {} for key in FIGURES}
    counted = {name for figure in figures.values() for name in figure.get("mean_over", classes)}
    rows = [
        {
            "name": name,
            "in_mean": name in counted,
            **{key: figures[key].get("iou", {}).get(name) for key in FIGURES},
        }
        for name in classes
    ]
    known = [row for row in rows if any(row[key] is not None for key in FIGURES)]
    return sorted(
        known, key=lambda row: (not row["in_mean"], -max(row[key] or 0 for key in FIGURES))
    )


def _settings(config: Config) -> list[dict[str, Any]]:
    """config.toml as lines: text, whether it differs from the default, and that default."""
    lines = []

    def section(name: str, values: dict[str, Any], defaults: dict[str, Any]) -> None:
        if name:
            lines.append({"text": "", "changed": False, "default": ""})
            lines.append({"text": f"[{name}]", "changed": False, "default": ""})
        for key, value in values.items():
            if not isinstance(value, dict):
                changed = value != defaults.get(key)
                lines.append(
                    {
                        "text": _toml(key, value),
                        "changed": changed,
                        "default": _toml(key, defaults.get(key)).removeprefix(f"{key} = ")
                        if changed
                        else "",
                    }
                )
        for key, value in values.items():
            if isinstance(value, dict):
                section(f"{name}.{key}" if name else key, value, defaults[key])

    section(
        "",
        config.model_dump(mode="json", exclude_none=True),
        type(config)().model_dump(mode="json"),
    )
    return lines


def _toml(key: str, value: Any) -> str:
    """One setting as one line of TOML."""
    if value is None:
        return "not set"
    if isinstance(value, list):
        return f"{key} = [{', '.join(tomli_w.dumps({'x': item}).strip().removeprefix('x = ') for item in value)}]"
    return tomli_w.dumps({key: value}).strip()


def _write_picture(
    path: Path, train: Table, chosen: list[Shown], masks: Path, scores: Scores
) -> None:
    """One picture to show around: a column for each photo, with its first tag's heatmap and its pseudo mask below."""
    columns = [shown.photo for shown in chosen if mask_path(masks, shown.photo).exists()]
    if not columns:
        return
    width, height, gap = 400, 300, 8
    numbers = sorted({train.classes.index(tag) for photo in columns for tag in photo.tags})
    names = legend(train.classes, numbers, len(columns) * (width + gap) - gap)
    maps = [scores(photo) for photo in columns]
    rows = 2 if all(found is None for found in maps) else 3
    sheet = Image.new("RGB", (names.width, rows * (height + gap) + names.height), "white")
    for column, (photo, found) in enumerate(zip(columns, maps, strict=True)):
        picture = photo.open(at_least=width)
        picture = picture.resize((width, max(1, round(width * picture.height / picture.width))))
        cells = [picture, overlay(picture, read_mask(mask_path(masks, photo)), train.classes)]
        if photo.tags and found is not None:
            cells.insert(1, heatmap(picture, found[train.classes.index(photo.tags[0])]))
        for row, cell in enumerate(cells):
            sheet.paste(
                ImageOps.fit(cell, (width, height)), (column * (width + gap), row * (height + gap))
            )
    sheet.paste(names, (0, rows * (height + gap)))
    with writing(path) as temporary:
        sheet.save(temporary, "JPEG", quality=88)
