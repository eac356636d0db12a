"""What corrections bring, and --continue: `python benchmarks/corrections.py voc-animals OUT`.

`voc-animals` is the folder that `benchmarks/voc_animals/build.py` makes. The training photos are
320 of those with true masks. A script corrects 20 of them as a person would: those with the most
doubt, or 20 at random. It looks at the true mask and paints two strokes for each wrong object: one
of its class in the middle of what is missing, one of what is there in the middle of what is too
much. Runs are OUT/base, OUT/doubt, OUT/random; those that are done are not made again.
`--part new` measures --continue with new photos, from OUT/fewer. Writes tables of results.md.
"""

import argparse
import csv
import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from domains import SCORED
from tables import machine, rule, write

from tag2mask.api import run_config
from tag2mask.cli.arguments import parse_config
from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.evaluate.doubt import combined, difference, uncertainty
from tag2mask.files import read_json, read_list, write_json
from tag2mask.masks import read_score_maps
from tag2mask.masks.mend import mend
from tag2mask.photos.corrections import Stroke
from tag2mask.photos.masks import Truth, read_mask
from tag2mask.photos.table import IGNORE, Photo
from tag2mask.runs.run import Run
from tag2mask.segmenter.predict import predict_photos

SEGMENTER = "--segmenter.steps 150 --segmenter.crop-size 161 --segmenter.batch-size 8"
SETTINGS = [*SEGMENTER.split(), "--segmenter.image-size", "257"]
GOOD = 0.75  # IoU from which a person leaves an object as it is
SMALL = 0.005  # share of the photo below which a person does not see it
SCALE = 4  # of the masks on which strokes are planned


# ---- a person ------------------------------------------------------------------------------------


def middle(region: np.ndarray, tag: str, width: float) -> Stroke:
    """A short stroke through the deepest point of a region (h, w), along its longer extent."""
    depth, core = np.zeros(region.shape, int), np.pad(region, 1)
    while core.any():
        depth += core[1:-1, 1:-1]
        core = core & np.roll(core, 1, 0) & np.roll(core, -1, 0)
        core = core & np.roll(core, 1, 1) & np.roll(core, -1, 1)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    rows, columns = np.nonzero(region)
    wide = np.ptp(columns) >= np.ptp(rows)
    line, at = (region[y], x) if wide else (region[:, x], y)
    half = max(1, int(0.2 * np.ptp(columns if wide else rows)))
    ends = []
    for step in (-1, 1):
        end = at
        while abs(end - at) < half and 0 <= end + step < len(line) and line[end + step]:
            end += step
        ends.append(float(end))
    points = [(end, float(y)) if wide else (float(x), end) for end in ends]
    scaled = tuple((SCALE * (a + 0.5), SCALE * (b + 0.5)) for a, b in points)
    return Stroke(tag=tag, points=scaled, radius=max(1, min(width, 0.6 * SCALE * depth.max())))


def strokes(mask: np.ndarray, truth: np.ndarray, classes: tuple[str, ...]) -> list[Stroke]:
    """What a person paints who sees a mask and knows the truth, (H, W) uint8 both."""
    mask, truth = mask[::SCALE, ::SCALE], truth[::SCALE, ::SCALE]
    width, painted = 0.012 * SCALE * max(mask.shape), []
    for number in range(1, len(classes)):
        true, own = truth == number, (mask == number) & (truth != IGNORE)
        if not (true | own).any() or (true & own).sum() >= GOOD * (true | own).sum():
            continue
        missing, false = true & ~own, own & ~true
        if true.mean() >= SMALL:
            much = missing.sum() >= 0.15 * true.sum() and missing.mean() >= SMALL
            painted.append(middle(missing if much else true, classes[number], width))
        if false.mean() >= SMALL:
            what = int(np.bincount(truth[false]).argmax())
            painted.append(middle(false & (truth == what), classes[what], width))
    return painted


# ---- the runs ------------------------------------------------------------------------------------


def write_photos(data: Path, file: Path, count: int, leave_out: int = 0) -> None:
    """A table of `count` photos with true masks, evenly spaced, without `leave_out` of them."""
    names = set(read_list(data / "train_seg.txt"))
    with (data / "train.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if Path(row["file_name"]).stem in names]
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))
    if leave_out:
        chosen = np.setdiff1d(chosen, chosen[:: len(chosen) // leave_out][:leave_out])
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "tags"])
        writer.writerows([data / rows[i]["file_name"], rows[i]["tags"]] for i in chosen)


def run(options: argparse.Namespace, name: str, table: Path, continued: bool = False) -> Run:
    """A run, which is made if it is not done; its seconds of computing are kept in cost.json."""
    out, data, start = options.out / name, options.data, time.process_time()
    argv = ["--data", str(table), "--val", str(data / "val.csv"), "--out", str(out)]
    argv += ["--val-masks", str(data / "masks"), "--evaluate.classes", "voc"]
    argv += ["--evaluate.mean-over", *SCORED, *options.settings]
    result = run_config(parse_config(argv), continued=continued)
    cost = out / "cost.json"
    if not cost.exists():
        write_json(cost, {"seconds": round(time.process_time() - start)})
    return result


def truth_of(run: Run) -> Truth:
    """The true masks of the training photos."""
    truth = run.truths["train"]
    assert truth
    return truth


def most_doubtful(run: Run) -> list[Photo]:
    """The training photos, the most doubtful first, as `tag2mask view` orders them."""
    photos, folder = run.table.photos, run.files.result("masks")
    settings, numbers = run.config.segmenter, []
    for photo, prediction in predict_photos(run.segmenter, photos, settings):
        mask, (_, maps) = read_mask(folder / f"{photo.name}.png"), read_score_maps(folder, photo)
        numbers.append((difference(mask, prediction.mask), uncertainty(maps.numpy())))
    order = np.argsort(-combined(np.array(numbers)), kind="stable")
    return [photos[i] for i in order]


def correct(base: Run, name: str, photos: list[Photo]) -> dict[str, Any]:
    """A copy of the base run with corrections of these photos."""
    folder = base.folder.with_name(name)
    if not folder.exists():
        shutil.copytree(base.folder, folder, ignore=shutil.ignore_patterns("report", "cost.json"))
    run, count = Run(folder), 0
    corrections, masks = run.files.corrections, run.files.result("masks")
    for photo in photos:
        mask, truth = read_mask(masks / f"{photo.name}.png"), truth_of(base).read(photo)
        if painted := strokes(mask, truth, base.table.classes):
            count += len(painted)
            if not corrections.of(photo.name).keeps_mask:
                mended = mend(masks, photo, base.table.tags, painted)
                corrections.mend(photo.name, mended, base.table.classes, painted)
    return {"strokes": count, "mended": len(corrections.state())}


def quality(base: Run, folder: Path, photos: list[Photo]) -> float:
    """mIoU of the masks of some photos in a folder."""
    truth = truth_of(base)
    pairs = [(folder / f"{photo.name}.png", partial(truth.read, photo)) for photo in photos]
    return float(evaluate_masks(pairs, base.table.classes, mean_over=SCORED).miou)


def corrected_part(options: argparse.Namespace) -> list[str]:
    """20 photos of the most doubt against 20 at random, and both ways to train again."""
    table = options.out / "photos.csv"
    write_photos(options.data, table, options.photos)
    base = run(options, "base", table)
    random = np.random.default_rng(0).permutation(len(base.table.photos))
    arms = {
        "of the most doubt": ("doubt", most_doubtful(base)[: options.corrected], False),
        "of the most doubt, `--continue`": ("doubt-continued", [], True),
        "at random": (
            "random",
            [base.table.photos[i] for i in random[: options.corrected]],
            False,
        ),
    }
    columns = ("masks mended", "strokes", "their mIoU before", "after", "all pseudo masks")
    lines = rule("photos corrected", *columns, "segmenter", "minutes of one core")
    metrics = base.metrics
    cells = [figure(metrics["pseudo"]["miou"]), figure(metrics["segmenter"]["miou"])]
    lines.append(f"| none | 0 | 0 | - | - | {' | '.join(cells)} | - |")
    for title, (name, photos, continued) in arms.items():
        photos = photos or arms["of the most doubt"][1]
        counts = correct(base, name, photos)
        done = run(options, name, table, continued)
        before, after = (
            quality(base, folder, photos) for folder in (base.newest_masks, done.newest_masks)
        )
        cost = read_json(done.folder / "cost.json")["seconds"] / 60
        values = [done.metrics[key]["miou"] for key in ("pseudo", "segmenter")]
        cells = [str(counts["mended"]), str(counts["strokes"]), figure(before), figure(after)]
        lines.append(f"| {title} | {' | '.join(cells + list(map(figure, values)))} | {cost:.1f} |")
    return lines


def new_part(options: argparse.Namespace) -> list[str]:
    """New photos: a training that continues against one from nothing."""
    table, few = options.out / "photos.csv", options.out / "fewer.csv"
    write_photos(options.data, table, options.photos)
    write_photos(options.data, few, options.photos, options.photos // 10)
    base, fewer = run(options, "base", table), run(options, "fewer", few)
    folder = options.out / "more"
    if not folder.exists():
        shutil.copytree(fewer.folder, folder, ignore=shutil.ignore_patterns("report", "cost.json"))
    more = run(options, "more", table, continued=True)
    columns = ("pseudo masks", "segmenter", "steps of the classifier", "of the segmenter")
    lines = rule("run", "photos", *columns)
    titles = {"before": fewer, "with the new photos, from nothing": base}
    for title, one in {**titles, "with the new photos, `--continue`": more}.items():
        cells = [figure(one.metrics[key]["miou"]) for key in ("pseudo", "segmenter")]
        for stage in ("classifier", "segmenter"):
            last = one.files.result(stage, "metrics.jsonl").read_text().splitlines()[-1]
            cells.append(str(json.loads(last)["step"]))
        lines.append(f"| {title} | {len(one.table)} | {' | '.join(cells)} |")
    return lines


def figure(miou: float) -> str:
    return f"{100 * miou:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder that voc_animals/build.py made")
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--part", choices=("corrected", "new"), default="corrected")
    parser.add_argument("--photos", type=int, default=320, help="training photos")
    parser.add_argument("--corrected", type=int, default=20, help="photos that are corrected")
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=SETTINGS)
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    part = corrected_part if options.part == "corrected" else new_part
    command = f"python benchmarks/corrections.py voc-animals OUT --part {options.part}"
    lines = [*part(options), "", machine()]
    print("\n".join(lines))
    write(f"corrections-{options.part}", command, lines)


if __name__ == "__main__":
    main()
