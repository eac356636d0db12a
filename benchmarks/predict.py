"""What `tag2mask predict` gives: its threshold, its tiles and its memory, measured on a run.

`python benchmarks/predict.py threshold RUN`: the run's validation photos with true masks, at five
thresholds, before and after the CRF (the rule) or only after it (a hard cut).
`python benchmarks/predict.py tiles RUN`: a montage of validation photos, whole and in tiles.
`python benchmarks/predict.py memory RUN`: a picture of 20,000 x 20,000 pixels in tiles.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import tag2mask
from tag2mask.crf.decide import decide
from tag2mask.photos.images import open_image
from tag2mask.photos.masks import count_pixels
from tag2mask.photos.rasters import Strips
from tag2mask.photos.resize import enlarged, likeliest, reduced
from tag2mask.photos.tiles import Tiles, predict_bands
from tag2mask.processes import cores, parallel_map
from tag2mask.runs.run import Run
from tag2mask.segmenter.predict import make_tiles, probabilities

THRESHOLDS = (0.2, 0.35, 0.5, 0.65, 0.8)
LARGE = 20_000


def figures(matrix: np.ndarray, classes: int) -> tuple[float, float, float]:
    """(256 true, 256 predicted) pixels to mIoU, and precision and recall of objects as such."""
    m = matrix[:classes, :classes].astype(float)
    iou = np.diag(m) / np.maximum(m.sum(0) + m.sum(1) - np.diag(m), 1)
    both = m[1:, 1:].sum()
    return iou[m.sum(1) > 0].mean(), both / m[:, 1:].sum(), both / m[1:].sum()


def thresholds(run: Run) -> None:
    """Figures of each threshold and rule."""
    truth, network, settings = run.truths["val"], run.segmenter, run.settings
    without = settings.model_copy(update={"crf": settings.crf.model_copy(update={"iterations": 0})})
    total = {(rule, t): np.zeros((256, 256), np.int64) for rule in RULES for t in THRESHOLDS}

    def look(photo):
        image = reduced(photo.open(at_least=settings.image_size), settings.image_size)
        return photo, image, probabilities(network, image, settings)

    def count(work):
        photo, image, probs = work
        true, size = truth.read(photo), photo.size
        objects = enlarged(1 - probs[0], size)
        plain = likeliest(decide(image, probs, settings), size)
        results = {}
        for t in THRESHOLDS:
            refined = likeliest(decide(image, probs, settings, t), size)
            results["before the CRF", t] = count_pixels(refined, true)
            results["after the CRF", t] = count_pixels(np.where(objects >= t, plain, 0), true)
            only = likeliest(decide(image, probs, without, t), size)
            results["no CRF", t] = count_pixels(only.astype(np.uint8), true)
        return results

    for results in parallel_map(count, map(look, truth.photos_with_truth), cores()):
        for key, matrix in results.items():
            total[key] += matrix
    print("| rule | threshold | mIoU | object pixels right | object pixels found |")
    print("|---|---|---|---|---|")
    for (rule, t), matrix in total.items():
        row = (f"{100 * value:.1f}" for value in figures(matrix, run.table.num_classes))
        print(f"| {rule} | {t} | {' | '.join(row)} |")


RULES = ("before the CRF", "after the CRF", "no CRF")


def montage(run: Run, columns: int, rows: int, side: int) -> Image.Image:
    """Validation photos side by side, each cut to a square of `side` pixels."""
    picture = Image.new("RGB", (columns * side, rows * side))
    for i, photo in enumerate(run.val.photos[: columns * rows]):
        image = reduced(open_image(photo.path), side).resize((side, side))
        picture.paste(image, (i % columns * side, i // columns * side))
    return picture


def tiles(run: Run) -> None:
    """Masks and probabilities of a montage, in tiles of several sizes, against those of the whole
    at the same pixels."""
    pixels = np.asarray(montage(run, 6, 4, 300))
    picture = Strips(pixels.shape[1::-1], lambda top, bottom: pixels[top:bottom])
    settings = run.settings

    def whole(probs_only: bool, size: int, overlap: int) -> tuple[np.ndarray, np.ndarray]:
        work = make_tiles(run.segmenter, size, overlap, settings)
        if probs_only:  # no CRF, no rule: the mask is the likeliest class
            work = Tiles(size, overlap, work.probabilities, lambda image, probs: probs)
        bands = list(predict_bands(picture, work))
        return tuple(
            np.concatenate([getattr(b, part) for b in bands]) for part in ("mask", "probs")
        )

    print(f"a montage of {pixels.shape[1]} x {pixels.shape[0]} pixels")
    print("| tile | overlap | other class, no CRF | other class, CRF | difference of probability |")
    print("|---|---|---|---|---|")
    (plain, probs), (refined, _) = (whole(only, max(pixels.shape), 0) for only in (True, False))
    for size, overlap in ((512, 0), (512, 64), (512, 128), (512, 256), (1024, 64), (1024, 256)):
        (a, p), (b, _) = (whole(only, size, overlap) for only in (True, False))
        same = a == plain
        row = (100 * (~same).mean(), 100 * (b != refined).mean(), np.abs(p - probs)[same].mean())
        print("| {} | {} | {:.1f} % | {:.1f} % | {:.3f} |".format(size, overlap, *row))


def memory(run: Run, kind: str, fast: bool) -> None:
    """The largest memory and the time of a large picture."""
    if fast:
        off = {"flip": False, "crf": run.config.segmenter.crf.model_copy(update={"iterations": 0})}
        segmenter = run.config.segmenter.model_copy(update=off)
        run.config = run.config.model_copy(update={"segmenter": segmenter})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"large.{kind}"
        if child := os.fork():  # its memory is not counted
            os.waitpid(child, 0)
        else:
            write_large(run, path)
            os._exit(0)
        start = time.monotonic()
        rows = run.predict_to(path, Path(folder) / "out", tile=512)
        seconds = time.monotonic() - start
        for row in rows:
            print(row)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(f"{kind}, {LARGE} x {LARGE} pixels: {most:.2f} GiB at most, {seconds:.0f} s")


def write_large(run: Run, path: Path) -> None:
    """A large picture of repeated validation photos, strip by strip."""
    strip = np.asarray(montage(run, 67, 1, 300))[:, :LARGE]
    whole = np.tile(strip, (LARGE // 300 + 1, 1, 1))[:LARGE]
    if path.suffix == ".tif":
        import rasterio
        from rasterio.transform import from_origin

        place = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5.6e6, 0.1, 0.1)}
        layout = {"tiled": True, "compress": "deflate", "count": 3, "dtype": "uint8", **place}
        with rasterio.open(path, "w", driver="GTiff", width=LARGE, height=LARGE, **layout) as data:
            data.write(np.moveaxis(whole, -1, 0))
    else:
        Image.fromarray(whole).save(path, quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("threshold", "tiles", "memory"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--kind", default="tif", choices=("tif", "png", "jpg"))
    parser.add_argument("--fast", action="store_true", help="without mirror and CRF")
    options = parser.parse_args()
    torch.set_num_threads(cores())
    run = tag2mask.load(options.run)
    if options.what == "threshold":
        thresholds(run)
    elif options.what == "tiles":
        tiles(run)
    else:
        memory(run, options.kind, options.fast)


if __name__ == "__main__":
    main()
