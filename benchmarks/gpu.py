"""All measurements that need a GPU:

    python benchmarks/gpu.py --data tags.csv --val val.csv --val-masks masks --out FOLDER

Each measurement is a row of OUT/PART.json and of a Markdown table, OUT/gpu.md. If it fails, the
row has the error; if --budget leaves no time for it, the row says so. Without a GPU everything runs
in a small form, which only shows that it runs.

steps      one training step of each network, in float32 and bf16, compared with float32 on the CPU;
           the HV-BiLSTM under autocast
crf        the dense CRF in PyTorch and in C++: agreement and photos per second
vit        ViT-B/16 at 384 compared with a large product in bf16: arithmetic per second, and the
           gain by fused Adam and channels_last
compiled   the same with torch.compile
backbones  training steps of the other networks
data       photos per second from files to training examples
sizes      the first photo of each size, with cuDNN and as in predictions
small      a small run with and without the GPU; killed and resumed; two processes on one GPU
masks      photos per second of the small run's masks and predictions
runs       `tag2mask run` with --recipes and --seeds: minutes and mIoU
"""

import argparse
import functools
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_agreement
import gpu_photos
import gpu_runs
import gpu_speed
import torch
from gpu_networks import GPU, Row

from tag2mask.files import versions, write_json, write_text
from tag2mask.formats import load_table
from tag2mask.processes import cores


class Bench:
    """The photos to measure with, the rows measured so far, and the time that is left."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.end = options, time.monotonic() + options.budget
        self.table = load_table(options.data)
        self.val = load_table(options.val, tags=self.table.tags, untagged=True)
        self.rows: list[dict[str, Any]] = []
        self.ceiling = float("nan")  # TFLOP/s of a large product in bf16

    def row(self, part: str, what: str, measure: Callable[[], Row], seconds: float = 5) -> None:
        """Measure one row, which needs about `seconds`; an error becomes the text of the row."""
        start = time.monotonic()
        row: dict[str, Any] = {"part": part, "what": what, "measured": "", "aim": "", "met": None}
        if start + seconds > self.end:
            row["measured"] = "not measured: no time was left"
        else:
            try:
                row["measured"], row["aim"], row["met"] = measure()
            except Exception as error:
                first_line = str(error).strip().partition("\n")[0]
                row["measured"] = f"failed: {type(error).__name__}: {first_line}"[:300]
                row["met"], row["trace"] = False, traceback.format_exc()
            if GPU:
                torch.cuda.empty_cache()
        row["seconds"] = round(time.monotonic() - start, 1)
        self.rows.append(row)
        aim = f" (aim {row['aim']})" if row["aim"] else ""
        print(f"{part}: {what}: {row['measured']}{aim} [{row['seconds']} s]", flush=True)
        write_json(self.options.out / f"{part}.json", [r for r in self.rows if r["part"] == part])
        write_text(self.options.out / "gpu.md", table(self.rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown, with the machine, the date and the command."""
    device = torch.cuda.get_device_name() if GPU else "no GPU, small form: only shows that it runs"
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    machine = f"{cores()} cores ({platform.machine()}); CUDA {torch.version.cuda}; {packages}"
    met = {True: "yes", False: "**no**", None: ""}
    lines = [
        f"{time.strftime('%Y-%m-%d')}; {device}; {machine}.",
        f"\n    python benchmarks/gpu.py {' '.join(sys.argv[1:])}\n",
        "| part | what | measured | aim | met |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (row["part"], row["what"], row["measured"], row["aim"], met[row["met"]])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


PARTS: dict[str, Callable[[Any], None]] = {
    "steps": gpu_agreement.steps,
    "crf": gpu_agreement.crf,
    "vit": gpu_speed.vit,
    "backbones": gpu_speed.backbones,
    "data": gpu_photos.data,
    "sizes": gpu_photos.sizes,
    "small": gpu_runs.small,
    "compiled": gpu_speed.compiled,
    "masks": gpu_photos.masks,
    "runs": gpu_runs.runs,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="training photos and tags, as of `tag2mask run`"
    )
    parser.add_argument("--val", type=Path, required=True, help="validation photos")
    parser.add_argument(
        "--val-masks", type=Path, required=True, help="folder of ground-truth masks"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--parts", nargs="+", default=[name for name in PARTS if name != "runs"], choices=PARTS
    )
    parser.add_argument(
        "--budget", type=float, default=480, help="seconds after which no measurement starts"
    )
    parser.add_argument("--recipes", nargs="+", default=["photos", "best"], help="for `runs`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="for `runs`")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    for name in options.parts:
        try:
            PARTS[name](bench)
        except Exception as error:  # outside of its rows; the other parts continue
            failure: Row = (f"failed: {type(error).__name__}: {error}"[:300], "", False)
            bench.row(name, "the part as a whole", functools.partial(tuple, failure), 0)
            traceback.print_exc()
    print(table(bench.rows))
    return sum(row["met"] is False for row in bench.rows)


if __name__ == "__main__":
    main()
