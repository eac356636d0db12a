"""Speed of the whole masks stage, CRF in C++ or in PyTorch: `python benchmarks/masks.py RUN 24`.

Both make the masks of the same photos of a finished run, in turns, twice; the smaller time counts.
Writes its table of results.md.
"""

import argparse
import tempfile
import time
from pathlib import Path

from tables import machine, rule, write

from tag2mask.crf import backend, inference
from tag2mask.masks import make_masks
from tag2mask.photos.table import Table
from tag2mask.processes import cores
from tag2mask.runs.run import Run
from tag2mask.runs.stages import mask_maker


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder with a trained classifier")
    parser.add_argument("photos", type=int, nargs="?", default=32)
    options = parser.parse_args()
    run, count = Run(options.run), options.photos
    step = max(1, len(run.table) // count)
    table = Table(run.table.tags, run.table.photos[::step][:count])
    maker = mask_maker(run)
    maker.overall = maker.measure(table.photos)
    compiled = inference._core
    best: dict[str, float] = {}
    for _ in range(2):
        for core in (compiled, None):
            inference._core = core
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                make_masks(table, maker, Path(folder), cores())
                seconds = time.perf_counter() - start
            best[backend()] = min(seconds, best.get(backend(), seconds))
    title = f"masks stage of recipe `{run.config.recipe}`, {len(table)} photos"
    rates = [f"| {name} | {len(table) / seconds:.2f} |" for name, seconds in best.items()]
    lines = [*rule(title, "photos a second"), *rates, "", machine()]
    write("masks", f"python benchmarks/masks.py RUN {count}", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
