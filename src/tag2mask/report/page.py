"""A run folder to one HTML page that loads no other file, so that it can be mailed."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape
from PIL import Image, ImageOps

from tag2mask.config import STAGE_NAMES, Config
from tag2mask.files import read_json, write_text, writing
from tag2mask.photos.colors import color, overlay
from tag2mask.photos.masks import NEW_MASKS, newest_masks, read_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.progress import track
from tag2mask.report.card import environment, snippet, write_card
from tag2mask.report.curves import read_chart
from tag2mask.report.draw import INFERNO, heatmap
from tag2mask.report.pictures import (
    LOOK_AT,
    Scores,
    Strip,
    Truth,
    choose,
    count_panels,
    make_strip,
    mask_path,
    picture_width,
)
from tag2mask.report.tags import found_text, tag_rows, total

MEASURED = {"pseudo": "masks", "segmenter": "segmenter"}  # entry of metrics.json: its stage
FAULTS = tuple(LOOK_AT.values())
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
    """A run to its page, `out`/index.html; returns the page's path.

    `out`: None means the run's report/. Writes `out`/picture.jpg too, and the model card if there
    is a model. The page says which stages are missing.
    `scores(photo)`: score maps (C, h, w) float in 0-1, or None if there are none yet.
    `truth(photo)`: true mask (H, W) uint8, or None.
    """
    files = {stage: run_dir / stage / "done.json" for stage in STAGE_NAMES[1:-1]}
    done = {stage: read_json(file) for stage, file in files.items() if file.exists()}
    metrics = _read(run_dir / "evaluate" / "metrics.json") or {}
    masks = run_dir / "masks"
    if "segmenter" in done:
        masks = newest_masks(masks, run_dir / "segmenter", config.segmenter.rounds)
    about = _read(masks / "masks.json") or _read(run_dir / "masks" / "masks.json") or {}
    found = {
        "masks": about.get("finds"),
        "segmenter": metrics.get("finds") or _read(run_dir / "segmenter" / "finds.json"),
    }
    look_at = {stage: (finds or {}).get("look_at") for stage, finds in found.items()}
    count = config.report.photos_per_split
    chosen = choose(train.photos, masks, truth, count, "pseudo masks", look_at["masks"])
    # Without validation photos, the page shows the training photos on which it was tried.
    predictions = run_dir / ("evaluate/predictions" if val else "segmenter/sample")
    tried = [photo for photo in train.photos if mask_path(predictions, photo).exists()]
    others = val.photos if val else tried
    options = (truth, count, "predictions", look_at["segmenter"])
    chosen_val = choose(others, predictions, *options) if others else []
    photos = [choice.photo for _, group in chosen + chosen_val for choice in group]
    width = picture_width(sum(map(count_panels, photos)))

    def strips(groups: list, caption: str, folder: Path, scores: Scores | None) -> Groups:
        options = (train.classes, width, caption, folder, scores, truth)
        bar = f"drawing {caption}s"
        return [(title, [make_strip(c, *options) for c in track(g, bar)]) for title, g in groups]

    train_groups = strips(chosen, "pseudo mask", masks, scores)
    val_groups = strips(chosen_val, "prediction", predictions, None)
    peaks = (metrics.get("pseudo") or {}).get("peaks")
    template = _environment(train.classes).get_template("page.html.jinja")
    html = template.render(
        name=run_dir.resolve().name,
        run_dir=shlex.quote(str(run_dir)),
        config=config,
        train=train,
        val=val,
        done=done,
        hero=_hero(train_groups, val_groups),
        found=found,
        total={stage: total(finds) for stage, finds in found.items()},
        tag_rows=tag_rows(train.tags, found["masks"], found["segmenter"], peaks),
        any_peak=bool(peaks),
        measured=[(stage, metrics.get(key)) for key, stage in MEASURED.items()],
        per_class=_per_class(metrics, train.classes),
        clusters=_read(run_dir / "clusters" / "clusters.json"),
        new_masks=masks == run_dir / "segmenter" / NEW_MASKS,
        masks_folder=f"{masks.relative_to(run_dir).as_posix()}/",
        train_groups=train_groups,
        val_groups=val_groups,
        charts={
            stage: read_chart(run_dir / stage / "metrics.jsonl")
            for stage in ("classifier", "segmenter")
        },
        settings=_settings(config),
        times={stage: facts["seconds"] for stage, facts in done.items() if "seconds" in facts},
        versions={k: v for facts in done.values() for k, v in facts.get("versions", {}).items()},
        snippet=snippet(run_dir),
    )
    page = (out or run_dir / "report") / "index.html"
    write_text(page, html)
    first = [choice.photo for choice in chosen[0][1][:4]]
    _write_picture(page.with_name("picture.jpg"), train.classes, first, masks, scores)
    if "segmenter" in done:
        write_card(run_dir, config, train, metrics.get("segmenter"), found_text(found["segmenter"]))
    return page


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _environment(classes: Sequence[str]) -> Environment:
    templates = environment(autoescape=True, lstrip_blocks=True)
    colors = [color(number) for number in range(len(classes))]
    templates.globals |= {
        "classes": classes,
        "colors": colors,
        "color": dict(zip(classes, colors, strict=True)),
        "inferno": INFERNO,
    }
    templates.filters |= {"duration": _duration, "options": _options}
    return templates


def _options(text: str) -> Markup:
    """A warning with its options, such as --segmenter.steps, as code."""
    return Markup(re.sub(r"--[a-z][\w.-]*\w( [\d.]+\d)?", r"<code>\g<0></code>", str(escape(text))))


def _duration(seconds: float) -> str:
    """Seconds to "48 s", "3 min 20 s" or "2 h 05 min"."""
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def _hero(train_groups: Groups, val_groups: Groups) -> tuple[Strip | None, Strip | None]:
    """A training and a validation photo for the top of the page: of the best ones if these are
    known, and with a mask that shows something, two classes if possible."""

    def best(groups: Groups) -> Strip | None:
        ranked = any(strip.iou is not None for _, strips in groups[:1] for strip in strips)
        # Else those without a fault that the tags know of come first.
        some = groups[:1] if ranked else sorted(groups, key=lambda group: group[0] in FAULTS)
        strips = [strip for _, of_group in some for strip in of_group]
        strips = [strip for strip in strips if _shown(strip) >= 0]
        return max(strips, key=lambda strip: min(_shown(strip), 2), default=None)

    return best(train_groups), best(val_groups)


def _shown(strip: Strip) -> int:
    """How many classes the mask of a strip shows; -1 if it has none."""
    return next((len(panel.labels) for panel in strip.panels if panel.kind == "mask"), -1)


def _per_class(metrics: Mapping[str, Any], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the per-class table, best first, classes outside the mean last.

    Classes that are in no true mask are left out.
    """
    entries = {key: metrics.get(key) or {} for key in MEASURED}
    counted = {name for entry in entries.values() for name in entry.get("mean_over", classes)}
    rows = []
    for name in classes:
        iou = {key: entry.get("iou", {}).get(name) for key, entry in entries.items()}
        if any(value is not None for value in iou.values()):
            rows.append({"name": name, "in_mean": name in counted, **iou})
    return sorted(rows, key=lambda r: (not r["in_mean"], -max(r[key] or 0 for key in MEASURED)))


def _settings(config: Config) -> list[tuple[str, str | None]]:
    """config.toml as lines, each with the default if that differs."""
    lines: list[tuple[str, str | None]] = []

    def section(name: str, values: dict[str, Any], defaults: dict[str, Any]) -> None:
        if name:
            lines.extend([("", None), (f"[{name}]", None)])
        for key, value in values.items():
            if not isinstance(value, dict):
                default = None if value == defaults.get(key) else _toml(defaults.get(key))
                lines.append((f"{key} = {_toml(value)}", default))
        for key, value in values.items():
            if isinstance(value, dict):
                section(f"{name}.{key}" if name else key, value, defaults[key])

    defaults = type(config)().model_dump(mode="json")
    section("", config.model_dump(mode="json", exclude_none=True), defaults)
    return lines


def _toml(value: Any) -> str:
    """A string, number, boolean, or list of these in TOML: the same as in JSON."""
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _write_picture(
    path: Path, classes: Sequence[str], photos: Sequence[Photo], masks: Path, scores: Scores
) -> None:
    """A picture to share, with a column per photo: photo, score map of one tag, pseudo mask."""
    columns = []
    for photo in photos:
        if not mask_path(masks, photo).exists():
            continue
        picture = photo.open(at_least=400)
        picture = picture.resize((400, max(1, round(400 * picture.height / picture.width))))
        cells = [picture, overlay(picture, read_mask(mask_path(masks, photo)), classes)]
        if photo.tags and (score_maps := scores(photo)) is not None:
            cells.insert(1, heatmap(picture, score_maps[classes.index(photo.tags[0])]))
        columns.append(cells)
    if not columns:
        return
    height = min(sorted(cells[0].height for cells in columns)[len(columns) // 2], 600)
    size = (408 * len(columns) - 8, (height + 8) * max(map(len, columns)) - 8)
    sheet = Image.new("RGB", size, "white")
    for x, cells in enumerate(columns):
        for y, cell in enumerate(cells):
            sheet.paste(ImageOps.fit(cell, (400, height)), (408 * x, (height + 8) * y))
    with writing(path) as temporary:
        sheet.save(temporary, "JPEG", quality=88)
