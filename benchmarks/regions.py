"""What votes of regions give: `python benchmarks/regions.py voc-animals OUT`.

The classifier is `ours` of `quality.py voc-animals OUT --set 320`, which is trained if it is not
there. The same scores become pseudo masks of the 109 scored photos: alone, with the dense CRF, and
with `masks.regions` of several kinds in its place. These are superpixels of scikit-image, and the
parts of the true masks, which nobody has: the limit of what regions can give. Writes its table of
results.md.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from domains import Domain
from jobs import PSEUDO, run_of
from methods import SPREAD, Task, configure, shared_by, views, with_masks
from PIL import Image
from skimage.measure import label
from skimage.segmentation import felzenszwalb, slic
from tables import machine, rule, write

from tag2mask.config import CRFSettings
from tag2mask.photos.masks import write_mask
from tag2mask.photos.regions import Regions
from tag2mask.photos.table import Photo
from tag2mask.processes import cores
from tag2mask.progress import start_log
from tag2mask.runs.pipeline import run_stages
from tag2mask.runs.stages import mask_maker

KINDS: dict[str, list[str]] = {  # the pictures of numbers of each kind
    "neither": [],
    "dense CRF": [],
    "SLIC, 600 superpixels": ["slic"],
    "Felzenszwalb, scales 100 and 400": ["fine", "coarse"],
    "true regions": ["true"],
}


def regions_of(
    domain: Domain, photos: Sequence[Photo], parts: Sequence[str], folder: Path
) -> Regions:
    """Regions, written to `folder`: for each photo, one picture of numbers of each of `parts`."""
    table = domain.tables(None)[0]
    truth = domain.truth(table)

    def labels(photo: Photo, how: str) -> np.ndarray:
        if how == "true":
            return label(truth.read(photo), background=255)
        pixels = np.asarray(photo.open())
        if how == "slic":
            return slic(pixels, n_segments=600, compactness=10, start_label=1)
        scale = {"fine": 100, "coarse": 400}[how]
        return felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=50) + 1

    def write_one(photo: Photo) -> None:
        for how in parts:
            place = folder / photo.name / f"{how}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                Image.fromarray(labels(photo, how).astype(np.uint16)).save(place)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(write_one, photos))
    return Regions(folder, table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder that voc_animals/build.py made")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--photos", type=int, default=320)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, help="epochs of the classifier")
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    options.scratch, options.steps = options.out / "scratch", None
    rows = rule("CRF or regions", "seed", "mIoU", "seconds of one core a photo")
    for seed in options.seeds:
        rows += rows_of(Task(options.data, "320", "ours", seed), options)
    seeds = " ".join(map(str, options.seeds))
    command = f"python benchmarks/regions.py voc-animals OUT --seeds {seeds}"
    write("regions", command, [*rows, "", machine()])


def rows_of(task: Task, options: argparse.Namespace) -> list[str]:
    """The rows of a seed. The classifier is trained unless it is there."""
    domain, shared = Domain(task.data), shared_by(task, options)
    table, scored, _ = domain.tables(options.photos)
    config = with_masks(configure(task, options), views(task, shared)[SPREAD])
    start_log(config.out)
    run = run_of(config, table)
    run_stages(run, ["clusters", "classifier"])
    maker = mask_maker(run)
    maker.overall = maker.measure(table.photos)
    maps = dict(maker.all_score_maps(scored.photos))
    plain = config.masks.model_copy(update={"crf": CRFSettings(iterations=0)})
    rows = []
    for kind, parts in KINDS.items():
        maker.settings = config.masks if kind == "dense CRF" else plain
        place = options.out / "regions" / kind
        maker.regions = regions_of(domain, scored.photos, parts, place) if parts else None
        folder, start = config.out / "regions" / kind, time.process_time()
        for photo in scored.photos:
            scores = maker.scores(maps[photo], maker.present(photo))
            write_mask(folder / f"{photo.name}.png", maker.mask(photo, scores))
        seconds = (time.process_time() - start) / len(scored)
        metrics = domain.figures(folder, scored, **PSEUDO, crf=kind == "dense CRF")
        rows.append(f"| {kind} | {task.seed} | {100 * metrics['miou']:.1f} | {seconds:.2f} |")
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
