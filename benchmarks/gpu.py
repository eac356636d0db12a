"""All that needs a GPU, in one command: `python benchmarks/gpu.py --data tags.csv --val val.csv --val-masks masks --out FOLDER`.

Each measurement is a row of OUT/PART.json and of a Markdown table, OUT/gpu.md; one that fails is a row with its error, and one for which
--budget leaves no time says so. Without a GPU everything runs in a small form, which shows that it runs and nothing else.

steps      one training step of each network, in float32 and bf16, against the CPU's in float32; the HV-BiLSTM under autocast
crf        the dense CRF in PyTorch against the compiled one, and how many photos a second each makes
vit        ViT-B/16 at 384 against a large product in bf16: arithmetic achieved, and what fused Adam and channels_last bring
compiled   the same by torch.compile
backbones  training steps of the other networks
data       photos a second from files to training examples
small      a small run here against the same without the GPU; killed and resumed; two processes on one GPU
masks      photos a second of the small run's masks and predictions
runs       `tag2mask run` with --recipes and --seeds: minutes and mIoU
"""

import argparse
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_networks
import gpu_runs
import torch
from gpu_networks import GPU, Row

from tag2mask.files import versions, write_json, write_text
from tag2mask.formats import load_table
from tag2mask.processes import cores


class Bench:
    """The rows measured so far, the time that is left, and the sizes to measure at."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.end = options, time.monotonic() + options.budget
        self.table = load_table(options.data)
        self.val = load_table(options.val, tags=self.table.tags, untagged=True)
        self.rows: list[dict[str, Any]] = []
        self.ceiling = float("nan")  # TFLOP/s of a large product in bf16

    def row(self, part: str, what: str, measure: Callable[[], Row], seconds: float = 5) -> None:
        """Take one measurement, which needs about `seconds`; whatever it raises becomes its row."""
        start = time.monotonic()
        row: dict[str, Any] = {"part": part, "what": what, "measured": "", "aim": "", "met": None}
        if start + seconds > self.end:
            row["measured"] = "not measured: no time was left"
        else:
            try:
                row["measured"], row["aim"], row["met"] = measure()
            except Exception as error:
                row["measured"] = (
                    f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[
                        :300
                    ]
                )
                row["met"], row["trace"] = False, traceback.format_exc()
            if GPU:
                torch.cuda.empty_cache()
        row["seconds"] = round(time.monotonic() - start, 1)
        self.rows.append(row)
        print(
            f"{part}: {what}: {row['measured']} {row['aim'] and '(aim ' + row['aim'] + ')'} [{row['seconds']} s]",
            flush=True,
        )
        write_json(self.options.out / f"{part}.json", [r for r in self.rows if r["part"] == part])
        write_text(self.options.out / "gpu.md", table(self.rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Rows to Markdown: what was measured on which machine, when, by which command."""
    machine = (
        f"{torch.cuda.get_device_name()}, "
        if GPU
        else "no GPU, small form: these figures say nothing but that it runs; "
    )
    named = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        f"{time.strftime('%Y-%m-%d')}; {machine}{cores()} cores ({platform.machine()}); CUDA {torch.version.cuda}; {named}.",
        f"\n    python benchmarks/gpu.py {' '.join(sys.argv[1:])}\n",
        "| part | what | measured | aim | met |",
        "|---|---|---|---|---|",
    ]
    met = {True: "yes", False: "**no**", None: ""}
    return (
        "\n".join(
            [
                *lines,
                *(
                    f"| {r['part']} | {r['what']} | {r['measured']} | {r['aim']} | {met[r['met']]} |"
                    for r in rows
                ),
            ]
        )
        + "\n"
    )


PARTS: dict[str, Callable[[Any], None]] = {
    "steps": gpu_networks.steps,
    "crf": gpu_networks.crf,
    "vit": gpu_networks.vit,
    "backbones": gpu_networks.backbones,
    "data": gpu_runs.data,
    "small": gpu_runs.small,
    "compiled": gpu_networks.compiled,
    "masks": gpu_runs.masks,
    "runs": gpu_runs.runs,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="training photos and tags, as of `tag2mask run`"
    )
    parser.add_argument("--val", type=Path, required=True, help="test photos")
    parser.add_argument("--val-masks", type=Path, required=True, help="folder of true masks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--parts", nargs="+", default=[name for name in PARTS if name != "runs"], choices=PARTS
    )
    parser.add_argument(
        "--budget", type=float, default=480, help="seconds after which nothing is begun any more"
    )
    parser.add_argument("--recipes", nargs="+", default=["photos", "best"], help="for `runs`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="for `runs`")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    for name in options.parts:
        try:
            PARTS[name](bench)
        except Exception as error:  # what a part shares between its rows; the other parts go on
            said = f"{type(error).__name__}: {error}"
            bench.row(
                name,
                "the part as a whole",
                lambda said=said: (f"failed: {said}"[:300], "", False),
                0,
            )  # type: ignore[misc]
            traceback.print_exc()
    print(table(bench.rows))
    return sum(row["met"] is False for row in bench.rows)


if __name__ == "__main__":
    main()
