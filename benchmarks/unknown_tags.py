"""What unknown tags cost, and how masks should treat them: `python benchmarks/unknown_tags.py
voc-animals OUT`.

320 photos of voc-animals, as `quality.py` takes them. A share of all tags, present and absent, is
made unknown at random. The classifier learns with the losses leaving them out, and for comparison
as if they were absent. Pseudo masks of the 109 scored photos treat unknown tags in three ways: not
at all, as the classifier finds them (a tag whose mean logit over the photo is above 0 is in it),
and as they truly are, which nobody knows. Each result is a line of OUT/unknown_tags.jsonl; a line
that is there is not made again. Writes its table of results.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from domains import Domain
from jobs import PSEUDO, run_of
from methods import Task, configure
from tables import machine, rule, write

from tag2mask.classifier import load_classifier
from tag2mask.clusters import cluster_vector, membership
from tag2mask.masks.scores import mean_scores
from tag2mask.photos.masks import write_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.photos.tensors import to_square
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import start_log
from tag2mask.runs.pipeline import run_stages
from tag2mask.runs.run import Run
from tag2mask.runs.stages import mask_maker


def hide(table: Table, share: float, seed: int, absent: bool) -> Table:
    """The table with a share of its tags unknown, or, with `absent`, said to be absent."""
    hidden = np.random.default_rng(seed).random((len(table), table.num_tags)) < share

    def photo(old: Photo, row: np.ndarray) -> Photo:
        unknown = tuple(np.array(table.tags)[row].tolist())
        tags = tuple(tag for tag in old.tags if tag not in unknown)
        return Photo(old.name, old.path, tags, () if absent else unknown)

    photos = tuple(photo(old, row) for old, row in zip(table.photos, hidden, strict=True))
    return Table(table.tags, photos, table.source)


def found_tags(run: Run, photos: tuple[Photo, ...]) -> list[tuple[str, ...]]:
    """The unknown tags of each photo that the classifier finds in it."""
    model = load_classifier(run.files.result("classifier", "model.safetensors")).to(run.device)
    table = Table(run.table.tags, photos)
    u = cluster_vector(torch.from_numpy(table.multi_hot), membership(run.clusters, table.tags))
    side = model.backbone.side(run.config.classifier.image_size)
    found = []
    for i, photo in enumerate(photos):
        image = to_square(photo.open(), side)[None].to(run.device)
        with torch.inference_mode():
            logits = model(image, u[i : i + 1].to(run.device))[0][0, :, :, 1:].mean((0, 1)).tolist()
        likely = {tag for tag, logit in zip(table.tags, logits, strict=True) if logit > 0}
        found.append(tuple(tag for tag in photo.unknown if tag in likely))
    return found


def measure(
    options: argparse.Namespace, share: float, seed: int, absent: bool
) -> list[dict[str, Any]]:
    """Train on tags of which a share is unknown; make and score the masks in each way."""
    full, scored, _ = Domain(options.data).tables(options.photos)
    table = hide(full, share, seed, absent)
    name = f"unknown-{share}-{seed}" + "-absent" * absent
    task = argparse.Namespace(**vars(options), epochs=options.of_epochs, steps=None)
    config = configure(Task(options.data, "320", "ours", seed), task).model_copy(
        update={"out": options.out / "scratch" / name}
    )
    start_log(config.out)
    run = run_of(config, table)
    run_stages(run, ["clusters", "classifier"])
    maker = mask_maker(run)
    maker.overall = maker.measure(table.photos)
    known = {photo.name: photo for photo in table.photos}
    photos = tuple(known[photo.name] for photo in scored.photos)
    ways = {"not at all": [photo.tags for photo in photos]}
    if share and not absent:
        finds = found_tags(run, photos)
        ways["as found"] = [(*p.tags, *tags) for p, tags in zip(photos, finds, strict=True)]
        ways["as they are"] = [photo.tags for photo in scored.photos]
    maps: list[torch.Tensor] = []
    for batch in maker.batches(photos):
        labels = torch.from_numpy(Table(table.tags, tuple(batch)).multi_hot)
        maps += mean_scores(maker.score, maker.read(batch), labels, config.masks)

    rows = []
    for way, tags in ways.items():
        folder = config.out / way

        def write(work: tuple[Photo, tuple[str, ...], torch.Tensor], folder: Path = folder) -> None:
            photo, own, scores = work
            shown = Photo(photo.name, photo.path, own)
            present = maker.present(shown)
            probs = maker.scores(scores[present].float(), present)
            write_mask(folder / f"{photo.name}.png", maker.mask(shown, probs))

        list(parallel_map(write, zip(photos, tags, maps, strict=True), cores()))
        counts = {
            "present": sum(map(len, (photo.tags for photo in photos))),
            "shown": sum(map(len, tags)),
            "right": sum(
                len({*own} & {*photo.tags}) for own, photo in zip(tags, scored.photos, strict=True)
            ),
        }
        metrics = Domain(options.data).figures(folder, scored, **PSEUDO, crf=True)
        rows.append(
            {"share": share, "seed": seed, "learned": "absent" if absent else "left out"}
            | {"masks": way, **counts, **metrics}
        )
    return rows


def table_of(rows: list[dict[str, Any]]) -> list[str]:
    """The results as lines of a table."""
    columns = ("unknown tags", "in the losses", "tags that masks show", "of these right", "mIoU")
    lines = rule(*columns[:2], "in the masks", "seed", *columns[2:])
    for row in rows:
        unknown = f"{row['share']:.0%}".replace("%", " %")
        cells = [unknown, row["learned"], row["masks"], str(row["seed"]), str(row["shown"])]
        if not row["share"]:
            cells[1:3] = "-", "-"
        lines.append(f"| {' | '.join(cells)} | {row['right']} | {100 * row['miou']:.1f} |")
    return [*lines, "", machine()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder that voc_animals/build.py made")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.3, 0.6])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--photos", type=int, default=320)
    parser.add_argument("--epochs", type=int, dest="of_epochs", help="epochs of the classifier")
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    options.scratch = options.out / "scratch"
    results = options.out / "unknown_tags.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    lines = results.read_text().splitlines() if results.exists() else []
    done = {(row["share"], row["seed"], row["learned"]) for row in map(json.loads, lines)}
    for seed in options.seeds:
        for share in options.shares:
            for absent in (False, True)[: 1 + (share > 0)]:
                if (share, seed, "absent" if absent else "left out") in done:
                    continue
                for row in measure(options, share, seed, absent):
                    with results.open("a") as stream:
                        stream.write(json.dumps(row) + "\n")
                    about = f"{row['share']:.0%} unknown, {row['learned']}, masks {row['masks']}"
                    print(f"{about}: {100 * row['miou']:.1f}", flush=True)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    seeds = " ".join(map(str, options.seeds))
    command = f"python benchmarks/unknown_tags.py voc-animals OUT --seeds {seeds}"
    write("unknown", command, table_of(rows))


if __name__ == "__main__":
    main()
