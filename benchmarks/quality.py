"""Masks from tags, side by side on the same photos: `python benchmarks/quality.py voc-animals OUT`.

Every method trains the same backbone from the same weights on the same photos, at the same size, for the same epochs. Its pseudo masks of
the photos in train_seg.txt are scored against the truth, with given tags, before and after the CRF; then, with `--segment`, a segmenter
learns from its masks, another from the true ones, and both are scored on val. The sizes given by default take about an hour on two cores;
`--photos 1300 --epochs 6` is everything. Results already in OUT are not made again, so another call adds methods or seeds.

A fixed threshold for background is chosen on the truth, for the control's benefit: `cam` shows the best of six after the CRF. What is
called ours uses none.
"""

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from tag2mask.classifier import load_classifier, save_classifier, train_classifier
from tag2mask.clusters import cluster_vector, load_clusters, make_clusters, membership
from tag2mask.config import Config, load_recipe, make_config, merged
from tag2mask.crf import CRFParams, dense_crf
from tag2mask.data import load_table
from tag2mask.data.masks import PALETTE, Truth, read_mask, write_mask
from tag2mask.data.plain import read_list
from tag2mask.data.table import Table
from tag2mask.evaluate import evaluate_masks
from tag2mask.loop import keep_freed_memory
from tag2mask.masks import MaskMaker, make_masks
from tag2mask.masks.scores import tag_scores, to_pixels
from tag2mask.report.pictures import photo_iou
from tag2mask.segmenter.predict import predict_photos
from tag2mask.segmenter.train import train_segmenter

SCORED = ("background", "cat", "dog", "horse", "cow", "sheep", "person", "chair", "sofa")
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
PLAIN = {"token": "none", "mixer": "none", "pooling": "mean"}

# Name: (recipe, changes to its classifier, source of its clusters).
METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "cam": ("photos", PLAIN, "none"),
    "vit_pcm": ("vit_pcm", {}, "none"),
    "ppc": ("ppc", {}, "voc-overlapping"),
    "cpc": ("cpc", {}, "voc"),
    "mean": ("photos", {"pooling": "mean"}, "voc"),
    "top_k": ("photos", {"pooling": "top_k"}, "voc"),
    "ours": ("photos", {}, "voc"),
}
TOKENS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"token": "none"}, "none"),
    "class": ({"token": "class"}, "none"),
    **{source: ({}, source) for source in ("random", "onehot", "supercategories", "offline", "voc")},
    "voc, dropout 0.5": ({"cluster_dropout": 0.5}, "voc"),
}
for base in ("cpc", "mean"):
    recipe, own, _ = METHODS[base]
    METHODS |= {f"{base}: {name}": (recipe, {**own, **changes}, source) for name, (changes, source) in TOKENS.items()}
METHODS["cpc: voc, no PCE"] = ("cpc", {"pce_weight": 0.0}, "voc")
METHODS["mean: voc, no BiLSTM"] = ("photos", {"mixer": "none", "pooling": "mean"}, "voc")


def views(method: str, size: int) -> dict[str, dict[str, Any]]:
    """Ways to make masks of a trained classifier's scores: name -> changes to the recipe's mask settings."""
    same = {"scales": [1.0], "flip": True, "affinity": False}
    if method == "cam":
        return {
            f"{size} px": {**same, "image_size": size, "background": "best"},
            "448 px": {**same, "image_size": 448, "background": "best"},
            "448 px, affinity, Otsu": {},
        }
    if ": " in method and METHODS[method][0] != "photos":
        return {f"{size} px": {**same, "image_size": size}}
    if METHODS[method][0] != "photos":
        return {
            f"{size} px": {**same, "image_size": size},
            f"{size} px, affinity": {**same, "image_size": size, "affinity": True},
            "448 px, affinity": {**same, "image_size": 448, "affinity": True},
            f"{size} px, logits, Otsu": {**same, "image_size": size, "labels": "evidence"},
            "448 px, logits, affinity, Otsu": {**same, "image_size": 448, "labels": "evidence", "affinity": True},
        }
    plain = {f"{size} px, Otsu": {**same, "image_size": size}}
    return plain if ": " in method else {**plain, "448 px, affinity, Otsu": {}, "3 scales, affinity, Otsu": {"scales": [1.0, 0.75, 1.3]}}


def configure(method: str, options: argparse.Namespace) -> Config:
    """A method's recipe with what all methods share."""
    recipe, changes, source = METHODS[method]
    ours = load_recipe("photos").classifier
    shared = {name: getattr(ours, name) for name in ("trained_blocks", "batch_size", "lr_decay", "head_lr_factor")}
    shared |= {"backbone": options.backbone or ours.backbone, "weights": options.weights or ours.weights}
    shared |= {"image_size": options.size, "epochs": options.epochs, "frozen_epochs": options.epochs if options.frozen else 1}
    return make_config(merged(load_recipe(recipe).model_dump(), {"clusters": {"source": source}, "classifier": {**shared, **changes}}))


@cache
def tables(data: Path, photos: int) -> tuple[Table, Table, Truth]:
    """`photos` training photos at even distances, those of them that are scored, and their true masks."""
    whole = load_table(data / "train.csv")
    chosen = [whole.photos[i] for i in np.unique(np.linspace(0, len(whole) - 1, photos).astype(int))]
    table, listed = Table(whole.tags, tuple(chosen)), set(read_list(data / "train_seg.txt"))
    scored = Table(whole.tags, tuple(photo for photo in chosen if photo.name in listed))
    return table, scored, Truth(data / "masks", scored, "voc")


def maker(folder: Path, config: Config, table: Table) -> MaskMaker:
    """A trained classifier in `folder`, ready to make masks."""
    model = load_classifier(folder / "model.safetensors")
    M = membership(load_clusters(folder / "clusters.json"), table.tags)

    def score(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        u, settings = cluster_vector(labels, M), config.masks
        return model.scores(images, u, evidence=settings.labels == "evidence", spread_scores=settings.affinity)

    made = MaskMaker(score, model.backbone.grid_size, table.tags, config.masks)
    made.overall = made.measure(table.photos)
    return made


def file_name(method: str) -> str:
    """What a method's files in OUT are called."""
    return method.replace(": ", "-").replace(", ", "-").replace(" ", "_")


def pseudo(method: str, seed: int, options: argparse.Namespace) -> None:
    """Train one method with one seed, score all its views, write OUT/NAME-SEED.json."""
    torch.set_num_threads(1 if options.workers > 1 else torch.get_num_threads())
    keep_freed_memory()
    name = f"{file_name(method)}-{seed}"
    done = options.out / f"{name}.json"
    if done.exists():
        return
    start, config = time.time(), configure(method, options)
    table, *_ = tables(options.data, options.photos)
    clusters = make_clusters(table.tags, config.clusters.source, seed)
    clusters.save(options.out / name / "clusters.json")
    M = membership(clusters, table.tags)
    vectors = torch.from_numpy(np.asarray(cluster_vector(table.labels, M)))
    model = train_classifier(table, vectors, config.classifier, options.out / name, seed, 0)
    save_classifier(model, options.out / name / "model.safetensors", table.tags, vectors.shape[1])
    trained = time.time() - start
    rows = [row for view, changes in views(method, options.size).items() for row in score_view(name, method, view, changes, seed, options)]
    done.write_text(json.dumps({"train_seconds": trained, "seconds": time.time() - start, "rows": rows}, indent=1))
    for row in rows:
        print(json.dumps(row), flush=True)


def score_view(name: str, method: str, view: str, changes: dict[str, Any], seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """mIoU before and after the CRF for one way to make masks; with background "best" for the threshold that is best after it."""
    table, scored, truth = tables(options.data, options.photos)
    config, background = configure(method, options), changes.get("background")
    ways = [{"background": value} for value in THRESHOLDS] if background == "best" else [{}]
    settings = config.masks.model_copy(update={**changes, **ways[0]})
    made = maker(options.out / name, config.model_copy(update={"masks": settings}), table)
    masks: list[dict[str, list[np.ndarray]]] = [{"before": [], "after": []} for _ in ways]
    for photo in scored.photos:
        (raw,), present, picture = made.maps([photo]), made.present(photo), np.asarray(photo.open())
        for way, found in zip(ways, masks, strict=True):
            z = tag_scores(raw, settings.model_copy(update=way), made.overall)
            probs = to_pixels(z, *picture.shape[:2])
            found["before"].append(np.array(present, np.uint8)[probs.argmax(0)])
            found["after"].append(np.array(present, np.uint8)[dense_crf(picture, probs, CRFParams()).argmax(0)])
    rows = []
    for way, found in zip(ways, masks, strict=True):
        row: dict[str, Any] = {"method": method, "view": view, "seed": seed, "images": len(scored), **way}
        for when, predicted in found.items():
            result = evaluate_masks(
                [(mask, partial(truth.read, photo)) for mask, photo in zip(predicted, scored.photos, strict=True)],
                table.classes,
                mean_over=SCORED,
            )
            row[when], row[f"iou_{when}"] = result.miou, dict(zip(table.classes, result.iou.tolist(), strict=True))
        rows.append((row, found["after"]))
    best, kept = max(rows, key=lambda pair: pair[0]["after"])
    if seed == 0:
        for photo, mask in zip(scored.photos, kept, strict=True):
            write_mask(options.out / "masks" / f"{method}, {view}" / f"{photo.name}.png", mask)
    return [best]


def segment(source: str, options: argparse.Namespace) -> None:
    """A segmenter from the masks of a method (seed 0) or from the true ones, scored on val; writes OUT/segmenter-NAME.json."""
    torch.set_num_threads(1 if options.workers > 1 else torch.get_num_threads())
    name = f"segmenter-{file_name(source)}"
    done, folder = options.out / f"{name}.json", options.out / name
    if done.exists():
        return
    table, *_ = tables(options.data, options.photos)
    settings, masks = load_recipe("photos").segmenter, folder / "masks"
    if source == "truth":
        truth = Truth(options.data / "masks", table, "voc")
        for photo in table.photos:
            write_mask(masks / f"{photo.name}.png", truth.read(photo))
    else:
        config, own = configure(source, options), METHODS[source][0] == "photos" and source != "cam"
        way = {} if own else next(iter(views(source, options.size).values()))
        if source == "cam":  # the threshold that was best, chosen on the truth
            way |= {"background": json.loads((options.out / "cam-0.json").read_text())["rows"][0]["background"]}
        made = maker(
            options.out / f"{file_name(source)}-0", config.model_copy(update={"masks": config.masks.model_copy(update=way)}), table
        )
        make_masks(table, made, masks, 1)
    model = train_segmenter(table, masks, settings, folder, 0, 0)
    val = load_table(options.data / "val.csv", tags=table.tags, untagged=True)
    true = Truth(options.data / "masks", val, "voc")
    pairs = [(found.mask, partial(true.read, photo)) for photo, found in predict_photos(model, val.photos, settings, threads=1)]
    result = evaluate_masks(pairs, table.classes, mean_over=SCORED)
    row = {"source": source, "images": len(val), "miou": result.miou, "iou": dict(zip(table.classes, result.iou.tolist(), strict=True))}
    done.write_text(json.dumps(row, indent=1))
    print(json.dumps(row), flush=True)


def table_of(out: Path) -> list[str]:
    """Markdown: every method and view with mean and spread over seeds, then the segmenters."""
    rows = [row for file in sorted(out.glob("*-[0-9].json")) for row in json.loads(file.read_text())["rows"]]
    lines = ["| method | masks | seeds | before CRF | after CRF | " + " | ".join(SCORED) + " |", "|---" * (5 + len(SCORED)) + "|"]
    for method in METHODS:
        for view in dict.fromkeys(row["view"] for row in rows if row["method"] == method):
            some = [row for row in rows if row["method"] == method and row["view"] == view]
            figures = [figure([100 * row[when] for row in some]) for when in ("before", "after")]
            classes = [f"{100 * mean(row['iou_after'][name] for row in some):.0f}" for name in SCORED]
            chosen = sorted({row["background"] for row in some if "background" in row})
            note = f", best threshold ({', '.join(map(str, chosen))})" if chosen else ""
            lines.append(f"| {method} | {view}{note} | {len(some)} | {figures[0]} | {figures[1]} | {' | '.join(classes)} |")
    segmenters = [json.loads(file.read_text()) for file in sorted(out.glob("segmenter-*.json"))]
    if segmenters:
        lines += ["", "| segmenter from | val, no tags, CRF | " + " | ".join(SCORED) + " |", "|---" * (2 + len(SCORED)) + "|"]
        for row in segmenters:
            classes = [f"{100 * row['iou'][name]:.0f}" for name in SCORED]
            lines.append(f"| {row['source']} | {100 * row['miou']:.1f} | {' | '.join(classes)} |")
    return lines


def figure(values: list[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def sheet(options: argparse.Namespace, count: int = 5, width: int = 220) -> Path | None:
    """A picture of the photos on which ours is best and worst, with the true masks and those of every other method, if these were made."""
    _, scored, truth = tables(options.data, options.photos)
    wanted = ("cam, 448 px", "cpc, 320 px", "cpc, 320 px, logits, Otsu", "cam, 448 px, affinity, Otsu", "ours, 448 px, affinity, Otsu")
    columns = [name for name in wanted if (options.out / "masks" / name).exists()]
    if not columns:
        return None
    last = options.out / "masks" / columns[-1]
    ranked = sorted(scored.photos, key=lambda photo: -(photo_iou(truth.read(photo), read_mask(last / f"{photo.name}.png")) or 0))
    rows = [*ranked[:count], *ranked[-count:]]
    page = Image.new("RGB", (width * (2 + len(columns)), (width + 16) * len(rows)), "white")
    for y, photo in enumerate(rows):
        masks = [truth.read(photo), *(read_mask(options.out / "masks" / name / f"{photo.name}.png") for name in columns)]
        picture = photo.open()
        for x, (caption, mask) in enumerate(zip([", ".join(photo.tags), "truth", *columns], [None, *masks], strict=True)):
            shown = picture
            if mask is not None:
                cover = Image.fromarray(np.where(mask == 0, 0, 150).astype(np.uint8))
                shown = Image.composite(Image.fromarray(PALETTE[mask]), picture, cover)
            shown = shown.copy()
            shown.thumbnail((width - 4, width - 4))
            page.paste(shown, (x * width, y * (width + 16) + 14))
            ImageDraw.Draw(page).text((x * width + 2, y * (width + 16)), caption[:36], "black")
    path = options.out / "sheet.jpg"
    page.save(path, quality=85)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.csv, val.csv, train_seg.txt, images/ and masks/ (voc-animals)")
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", nargs="+", default=["cam", "cpc", "ours"], choices=METHODS, metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--photos", type=int, default=320)
    parser.add_argument("--size", type=int, default=320, help="side of the training photos [pixels]")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--frozen", action="store_true", help="train the heads only: four times as fast")
    parser.add_argument("--backbone", help="a timm model for all methods instead of EfficientNet-Lite0")
    parser.add_argument("--weights", help="its weights file")
    parser.add_argument("--segment", nargs="*", default=[], choices=[*METHODS, "truth"], metavar="NAME", help="or truth")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each; 1: one process with all threads")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = [partial(pseudo, method, seed, options) for seed in options.seeds for method in options.methods]
    jobs2 = [partial(segment, source, options) for source in options.segment]
    context = multiprocessing.get_context("spawn")
    for work in (jobs, jobs2):
        with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
            for future in [pool.submit(job) for job in work]:
                future.result()
    lines = table_of(options.out)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if picture := sheet(options):
        print(picture)


if __name__ == "__main__":
    main()
