"""Time of each stage of a run on a CPU, and of the classifier's training beside a bare timm loop.

python benchmarks/speed.py stages DATA [--before PYTHON] [--photos 48] [--rounds 2]
python benchmarks/speed.py bare DATA [--photos 48] [--rounds 2]

DATA holds train.csv, val.csv and masks/. PYTHON has another version of tag2mask: both run each
stage on the same photos and the same earlier results, in turns, and their results are compared.
Seconds are those of the clock and, in brackets, of all cores together; the smallest of the rounds
counts. Imports are not in them. Both write their table of speed.md.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tables import machine, put, rule

from tag2mask.config_files import base_config, changed_config, write_config
from tag2mask.photos.masks import read_mask

PAGE = Path(__file__).with_name("speed.md")
BARE = Path(__file__).with_name("bare_loop.py")
STAGES = {
    "check, clusters": ["check", "clusters"],
    **{name: [name] for name in ("classifier", "masks", "segmenter", "evaluate", "report")},
}
STAGE = """
import json, resource, sys, time
from pathlib import Path
from tag2mask.api import run_config
from tag2mask.runs.run import Run
import accelerate, tag2mask.loop, tag2mask.runs.stages, tag2mask.weights

def cpu():
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in both)

config = Run(Path(sys.argv[1])).config.model_copy(update={"out": Path(sys.argv[1])})
wall, before = time.perf_counter(), cpu()
run_config(config, sys.argv[2:])
print(json.dumps([time.perf_counter() - wall, cpu() - before]))
"""
Seconds = tuple[float, float]  # of the clock, and of all cores together


def child(*command: str | Path) -> Seconds:
    """Run a command, whose last line of output says how long it took."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu


def stages(options: argparse.Namespace, folder: Path) -> list[str]:
    """The table of all stages."""
    pythons = {"before": options.before, "now": sys.executable}
    pythons = {name: python for name, python in pythons.items() if python}
    start = new_run(options, folder / "start")
    lines = []
    total = {name: np.zeros(2) for name in pythons}
    for stage, names in STAGES.items():
        best: dict[str, Seconds] = {}
        for _ in range(options.rounds):
            for name, python in pythons.items():
                place = folder / name
                shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(start, place)
                seconds = child(python, "-c", STAGE, place, *names)
                best[name] = min(seconds, best.get(name, seconds), key=lambda pair: pair[1])
        for name, seconds in best.items():
            total[name] += seconds
        same = agreement(stage, folder / "before", folder / "now") if options.before else ""
        lines.append(row(stage, best, same))
        print(lines[-1], flush=True)
        shutil.rmtree(start)
        (folder / next(iter(pythons))).rename(start)
    lines.append(row("all", {name: tuple(both) for name, both in total.items()}, ""))
    title = f"recipe `{options.recipe}`, {options.photos} photos"
    heads = [f"{name} [s]" for name in pythons]
    heads += ["ratio", "ratio of the cores' seconds", "results"] if options.before else []
    return [*rule(title, *heads), *lines]


def row(stage: str, seconds: dict[str, Seconds], same: str) -> str:
    cells = [f"{wall:.1f} ({cpu:.1f})" for wall, cpu in seconds.values()]
    if len(seconds) == 2:
        then, now = seconds.values()
        cells += [f"{n / max(t, 1e-3):.2f}" for n, t in zip(now, then, strict=True)] + [same]
    return f"| {stage} | {' | '.join(cells)} |"


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """How long the difference of two arrays is, relative to the second."""
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12))


def agreement(stage: str, before: Path, now: Path) -> str:
    """What is the same in the results of both."""
    model = f"{stage}/model.safetensors"
    if (before / model).exists():
        then, weights = load_file(before / model), load_file(now / model)
        change = max(relative(weights[key], then[key]) for key in then)
        return f"each tensor of weights differs by at most {100 * change:.2g} %"
    pairs = [(path, now / path.relative_to(before)) for path in before.glob(f"{stage}/**/*.png")]
    if not pairs:
        return ""
    equal = sum(one.read_bytes() == other.read_bytes() for one, other in pairs)
    pixels = np.mean([(read_mask(one) == read_mask(other)).mean() for one, other in pairs])
    return f"{equal} of {len(pairs)} masks are the same, and {100 * pixels:.3f} % of the pixels"


def new_run(options: argparse.Namespace, folder: Path) -> Path:
    """A run folder with settings alone, of evenly spaced photos."""
    tables = {}
    for name, count in (("train", options.photos), ("val", max(1, options.photos // 5))):
        head, *lines = (options.data / f"{name}.csv").read_text().splitlines()
        some = [f"{options.data.resolve()}/{line}" for line in lines[:: len(lines) // count]]
        tables[name] = folder.with_name(f"{name}.csv")
        tables[name].write_text("\n".join([head, *some[:count]]) + "\n")
    changes = {
        "data": tables["train"],
        "val": tables["val"],
        "val_masks": options.data.resolve() / "masks",
        "out": folder,
    }
    changes["classifier"] = {"epochs": options.epochs}
    changes["segmenter"] = {"steps": options.steps}
    config = changed_config(base_config(folder, options.recipe), changes, "speed.py")
    folder.mkdir()
    write_config(config, folder / "config.toml")
    return folder


def bare(options: argparse.Namespace, folder: Path) -> list[str]:
    """The table of the classifier's stage beside a plain loop with the same network and steps."""
    start = new_run(options, folder / "start")
    child(sys.executable, "-c", STAGE, start, "check", "clusters")
    best: dict[str, Seconds] = {}
    for _ in range(options.rounds):
        place = folder / "now"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(start, place)
        for name, seconds in (
            ("bare", child(sys.executable, BARE, start)),
            ("now", child(sys.executable, "-c", STAGE, place, "classifier")),
        ):
            best[name] = min(seconds, best.get(name, seconds), key=lambda pair: pair[1])
    heads = ("bare loop [s]", "stage [s]", "ratio", "ratio of the cores' seconds")
    cells = row("classifier", best, "").removesuffix("|  |") + "|"
    return [*rule(f"{options.photos} photos", *heads), cells]


TABLES = {"stages": stages, "bare": bare}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("data", type=Path)
    parser.add_argument("--before", help="the Python of another version of tag2mask")
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=24, help="of the segmenter")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--recipe", default="photos")
    options = parser.parse_args()
    sizes = f"--photos {options.photos} --epochs {options.epochs} --steps {options.steps}"
    sizes += f" --rounds {options.rounds}"
    before = " --before PYTHON" if options.before else ""
    command = f"python benchmarks/speed.py {options.table} DATA{before} {sizes}"
    with tempfile.TemporaryDirectory() as folder:
        lines = [*TABLES[options.table](options, Path(folder)), "", machine()]
    print("\n".join(lines))
    text = put(PAGE.read_text(encoding="utf-8"), options.table, command, lines)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
