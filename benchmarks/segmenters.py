"""Compare segmenters on the masks of finished runs: `python benchmarks/segmenters.py OUT RUN ...`.

Each RUN is the folder of a `tag2mask run` with validation photos and their true masks. A segmenter
of each arm (`ARMS`) is trained on its pseudo masks, or with `--true` on the true masks of its
training photos, with the seed of the run. The settings are those of the run's recipe today, with
the changes of the arm. Validation photos are scored without tags, before and after the CRF. Each
result is a line of OUT/segmenters.jsonl; a line that is there is not made again. Writes its table
of results.md.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from tables import figure, machine, rule, write

from tag2mask.config import SegmenterSettings
from tag2mask.config_files import load_recipe
from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.photos.masks import write_mask
from tag2mask.progress import start_log
from tag2mask.runs.run import Run
from tag2mask.segmenter.heads import load_segmenter, save_segmenter
from tag2mask.segmenter.predict import predict_photos
from tag2mask.segmenter.train import train_segmenter

ARMS: dict[str, dict[str, Any]] = {
    "deeplab_v2": {
        "head": "deeplab_v2",
        "backbone": "tf_efficientnet_lite0",
        "output_stride": 16,
        "lr": 2.5e-3,
        "weight_decay": 5e-4,
    },
    "fpn": {"head": "fpn", "output_stride": 8, "lr": 2e-4, "weight_decay": 0.01},
}
Row = dict[str, Any]
LEAST = 20  # pixels; a photo of nothing with more object pixels is marked wrongly


def read_rows(path: Path) -> list[Row]:
    """The rows of a file with one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def settings_of(run: Run, arm: str, steps: int | None) -> SegmenterSettings:
    """The settings of an arm: those of the run's recipe today, changed."""
    changes = {**ARMS[arm], **({"steps": steps} if steps else {})}
    return load_recipe(run.config.recipe).segmenter.model_copy(update=changes)


def measure(run: Run, arm: str, true: bool, steps: int | None, out: Path, seed: int) -> Row:
    """Train one segmenter, unless its model is there, and score it."""
    settings = settings_of(run, arm, steps)
    name = f"{run.folder.name}, {arm}{', true masks' * true}, {seed}".replace(", ", "-")
    folder, masks = out / name.replace(" ", "_"), run.folder / "masks"
    start_log(folder)
    if true:
        truth = run.truths["train"]
        masks = folder / "true"
        assert truth, f"{run.folder} has no true masks of its training photos"
        for photo in run.table.photos:
            write_mask(masks / f"{photo.name}.png", truth.read(photo))
    model_file = folder / "model.safetensors"
    if not model_file.exists():
        save_segmenter(train_segmenter(run.table, masks, settings, folder, seed, 0), model_file)
    model = load_segmenter(model_file)
    val = run.truths["val"]
    assert run.val and val, f"{run.folder} has no true masks of validation photos"
    result: Row = {
        "run": run.folder.name,
        "arm": arm,
        "masks": "true" if true else "pseudo",
        "steps": settings.steps,
        "seed": seed,
    }
    lines = read_rows(folder / "metrics.jsonl")
    result["seconds_per_step"] = round(median(line["seconds_per_step"] for line in lines), 3)
    for crf in (False, True):
        off = settings.crf.model_copy(update={} if crf else {"iterations": 0})
        start, masks_of = time.process_time(), {}
        for photo, prediction in predict_photos(
            model, run.val.photos, settings.model_copy(update={"crf": off})
        ):
            masks_of[photo.name] = prediction.mask
        seconds = (time.process_time() - start) / len(masks_of)
        scored = val.photos_with_truth
        pairs = [(masks_of[photo.name], val.read(photo)) for photo in scored]
        over = run.config.evaluate.mean_over
        metrics = evaluate_masks(pairs, run.table.classes, mean_over=over)
        nothing = [masks_of[run.val.photos[i].name] for i in run.val.nothing]
        result["after the CRF" if crf else "before"] = {
            "miou": metrics.miou,
            "iou": metrics.summary()["iou"],
            "seconds_per_photo": round(seconds, 3),
            "marked": [sum((mask > 0).sum() > LEAST for mask in nothing), len(nothing)],
        }
    return result


def table_of(rows: list[Row]) -> list[str]:
    """The rows of all seeds, as a table."""
    columns = ("run", "masks", "segmenter", "steps", "seconds a step", "seeds")
    columns += ("mIoU before the CRF", "after it")
    lines = rule(*columns, "photos of nothing marked", "seconds a photo, without and with CRF")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        name = row["run"].rstrip("0123456789").rstrip("-")
        groups.setdefault((name, row["masks"], row["arm"], row["steps"]), []).append(row)
    for key, group in sorted(groups.items()):
        parts = [[row[when] for row in group] for when in ("before", "after the CRF")]
        cells = [f"{mean(row['seconds_per_step'] for row in group):.2f}"]
        cells += [", ".join(str(row["seed"]) for row in group)]
        cells += [figure(part["miou"] for part in values) for values in parts]
        marked = [part["marked"] for part in parts[1]]
        cells += [f"{sum(m for m, _ in marked)} of {sum(n for _, n in marked)}"]
        cells += [" / ".join(f"{mean(p['seconds_per_photo'] for p in v):.2f}" for v in parts)]
        lines.append(f"| {' | '.join([*map(str, key), *cells])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for networks and results")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["deeplab_v2", "fpn"])
    parser.add_argument("--true", action="store_true", help="train on true masks")
    parser.add_argument("--seed", type=int, help="default: that of each run")
    parser.add_argument("--steps", type=int, help="training steps, for a quick test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.out / "segmenters.jsonl"
    rows = read_rows(lines)
    for folder in options.runs:
        run = Run(folder)
        seed = run.config.seed if options.seed is None else options.seed
        for arm in options.arms:
            masks = "true" if options.true else "pseudo"
            key = {"run": folder.name, "arm": arm, "masks": masks, "seed": seed}
            if any(key.items() <= row.items() for row in rows):
                continue
            rows.append(measure(run, arm, options.true, options.steps, options.out, seed))
            with lines.open("a") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    command = "python benchmarks/segmenters.py OUT RUN ..."
    write("segmenters", command, [*table_of(rows), "", machine()])


if __name__ == "__main__":
    main()
