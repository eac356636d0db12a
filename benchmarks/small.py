"""What each part of the rule for small things does: `python benchmarks/small.py RUN ...`.

RUN: finished runs with true masks of training photos (of `tiles.py`, or of voc-animals). The rule
was chosen on every second of these photos; the others are scored here. Nothing is trained. Writes
its table of results.md.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from tables import figure, machine, rule, write

from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.masks import make
from tag2mask.photos.table import Photo
from tag2mask.processes import cores, parallel_map
from tag2mask.runs.run import Run
from tag2mask.runs.stages import mask_maker


def parts(run: Run, half: int) -> list[str]:
    """A run to its table: the rule, without each of its parts, and without all of it."""
    truth, maker = run.truths["train"], mask_maker(run)
    photos = [photo for photo in run.pseudo_photos if photo.tags][half::2]
    names = run.config.evaluate.mean_over or run.table.classes
    maker.features = maker.contrast = None  # what photos of nothing add is not part of this rule
    maker.overall = maker.measure(run.table.photos)
    small = maker.small

    def row(name: str, maps: dict[Photo, torch.Tensor]) -> str:
        def masks(photo: Photo) -> tuple[np.ndarray, np.ndarray]:
            assert truth is not None
            scores = maker.scores(maps[photo], maker.present(photo))
            return maker.mask(photo, scores), truth.read(photo)

        pairs = list(parallel_map(masks, photos, cores()))
        result = evaluate_masks(pairs, run.table.classes, mean_over=names)
        iou = result.summary()["iou"]
        cells = [f"{100 * (iou[name] or 0):.0f}" for name in names]
        return f"| {name} | {figure([result.miou])} | {' | '.join(cells)} |"

    tags = ", ".join(run.table.classes[number] for number in sorted(small)) or "none"
    lines = rule(f"{run.folder.name}; small: {tags}", "mIoU", *names)
    maps = dict(maker.all_score_maps(photos))
    lines.append(row("the rule", maps))
    if small:
        with patch.object(make, "narrow", lambda settings: settings):
            lines.append(row("without the short reach of the CRF", maps))
        maker.small, maker._measured = frozenset(), {}
        maps = dict(maker.all_score_maps(photos))
        lines.append(row("without the rule", maps))
        maker.small = small
        lines.append(row("without the close scores", maps))
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--half", type=int, choices=(0, 1), default=1, help="0: those chosen on")
    options = parser.parse_args()
    lines = [line for folder in options.runs for line in parts(Run(folder), options.half)]
    write("small", "python benchmarks/small.py RUN ...", [*lines, machine()])
    print("\n".join(lines))


if __name__ == "__main__":
    main()
