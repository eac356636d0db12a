"""An exported network against PyTorch, on the same photos, cores and minutes.

    python benchmarks/export.py RUN PHOTOS 60

Writes two files from the run (fixed size, any size) to a temporary folder. Each photo is predicted
by PyTorch and by each file in turn, so that all meet the same load of the machine. Prints the
median time of the whole prediction (with CRF), then of the network alone on the same photo again
(flip included; also of the processors, which other work beside it hardly lengthens). The first
includes what PyTorch prepares for each new size of a photo, the second does not. In brackets:
PyTorch's time divided by it, the median over photos. At last how far the masks agree: pixels, and
the objects' intersection over union.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np
import torch

import tag2mask
from tag2mask.export.onnx_network import OnnxNetwork
from tag2mask.export.runs import export_run
from tag2mask.formats.pictures import pictures_below
from tag2mask.photos.images import open_image
from tag2mask.photos.resize import reduced
from tag2mask.processes import cores
from tag2mask.segmenter.predict import predict, probabilities


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run folder")
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("count", type=int, nargs="?", default=60, help="how many of them")
    options = parser.parse_args()
    run = tag2mask.load(options.run)
    files = sorted(pictures_below(options.photos))
    files = files[:: max(1, len(files) // options.count)][: options.count]
    torch.set_num_threads(cores())
    with TemporaryDirectory() as made:
        networks = {"PyTorch": run.segmenter}
        for name, dynamic in (("fixed", False), ("dynamic", True)):
            export_run(run, Path(made) / f"{name}.onnx", dynamic)
            networks[name] = OnnxNetwork(Path(made) / f"{name}.onnx")
        alone, whole, used, masks = (defaultdict(list) for _ in range(4))
        for file in files:
            image = open_image(file)
            small = reduced(image, run.settings.image_size)
            for name, network in networks.items():
                start = perf_counter()
                masks[name].append(predict(network, image, run.settings).mask)
                middle, used_before = perf_counter(), process_time()
                probabilities(network, small, run.settings)
                whole[name].append(middle - start)
                alone[name].append(perf_counter() - middle)
                used[name].append(process_time() - used_before)
    print(f"{len(files)} photos, {cores()} cores, longer side at most {run.settings.image_size}")
    for name in networks:
        faster, less, all_faster = (
            median(p / t for p, t in zip(times["PyTorch"], times[name], strict=True))
            for times in (alone, used, whole)
        )
        pairs = list(zip(masks["PyTorch"], masks[name], strict=True))
        same = np.mean([(a == b).mean() for a, b in pairs])
        both = sum(((a == b) & (a > 0)).sum() for a, b in pairs)
        either = sum(((a > 0) | (b > 0)).sum() for a, b in pairs)
        print(
            f"{name:8} whole {1000 * median(whole[name]):4.0f} ms ({all_faster:.2f} x), "
            f"network {1000 * median(alone[name]):4.0f} ms ({faster:.2f} x), "
            f"of processors {1000 * median(used[name]):4.0f} ms ({less:.2f} x), "
            f"same pixels {100 * same:.3f} %, objects' IoU {100 * both / max(1, either):.2f} %"
        )


if __name__ == "__main__":
    main()
