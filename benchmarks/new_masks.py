"""Are the segmenter's new masks better than those that it learned from?

`python benchmarks/new_masks.py OUT RUN ...`: finished runs with true masks of training photos. In
each, the trained segmenter makes new masks of the training photos, given their tags, into
OUT/NAME. Both are scored on the same photos. Writes a table of results.md.
"""

import argparse
from functools import partial
from pathlib import Path

from tables import machine, rule, write

from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.runs.folder import MODEL
from tag2mask.runs.run import Run
from tag2mask.runs.stages import make_new_masks


def miou(run: Run, folder: Path) -> float:
    """The mIoU of the masks in a folder, on the training photos with a tag and a true mask."""
    truth = run.truths["train"]
    assert truth, f"{run.folder}: no true masks of training photos"
    pairs = [
        (folder / f"{photo.name}.png", partial(truth.read, photo)) for photo in run.pseudo_photos
    ]
    return evaluate_masks(pairs, run.table.classes, mean_over=run.config.evaluate.mean_over).miou


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for the new masks")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    options = parser.parse_args()
    lines = rule("run", "photos", "seed", "first masks", "new masks")
    for folder in options.runs:
        run = Run(folder)
        model = run.files.need("segmenter", MODEL)
        folders = (run.files.need("masks"), make_new_masks(run, model, options.out / folder.name))
        first, new = (f"{100 * miou(run, masks):.1f}" for masks in folders)
        count = len(run.pseudo_photos)
        lines.append(f"| {folder.name} | {count} | {run.config.seed} | {first} | {new} |")
    lines += ["", machine()]
    names = " ".join(run.name for run in options.runs)
    write("new-masks", f"python benchmarks/new_masks.py OUT {names}", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
