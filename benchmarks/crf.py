"""Compare the dense CRF with pydensecrf: `python benchmarks/crf.py --photos FOLDER`.

Writes the tables of crf.md, and crf.svg. One process, one thread. The codes take turns on each
photo. The smallest CPU time of the thread counts, so other processes on the machine do not matter.
The gain by two threads is wall time. Beside it stands the gain on images that fit in the cache: on
shared cores, this bound is below 2.
"""

import argparse
import os
import platform
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_softmax

from tag2mask.crf import PRESETS, backend, dense_crf_many
from tag2mask.crf.inference import _infer

HERE = Path(__file__).parent
NAMES = ("vit_pcm", "toco", "irn")
COLORS = {
    "pydensecrf2": "#9aa0a6",
    "C++": "#1a73e8",
    "C++ portable": "#8ab4f8",
    "PyTorch": "#f9ab00",
}


def pydensecrf(image, probs, params):
    crf = DenseCRF2D(image.shape[1], image.shape[0], len(probs))
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probs)))
    crf.addPairwiseGaussian(sxy=params.gaussian_sxy, compat=params.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=params.bilateral_sxy,
        srgb=params.bilateral_srgb,
        rgbim=image,
        compat=params.bilateral_weight,
    )
    return np.array(crf.inference(params.iterations)).reshape(probs.shape)


def probabilities(labels, height, width, seed):
    """Smooth random probabilities; lattice and time depend only on the photo, which is real."""
    shape = (labels, height // 40 + 2, width // 40 + 2)
    grid = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    planes = [Image.fromarray(g).resize((width, height), Image.Resampling.BICUBIC) for g in grid]
    scores = 3 * np.stack([np.asarray(plane) for plane in planes])
    scores = np.exp(scores - scores.max(0))
    return (scores / scores.sum(0)).astype(np.float32)


def load(folder, count):
    files = sorted(folder.glob("*.jpg"))
    files = files[:: max(1, len(files) // count)][:count]
    images = [np.array(Image.open(file).convert("RGB")) for file in files]
    return [(image, probabilities(21, *image.shape[:2], seed)) for seed, image in enumerate(images)]


def fastest(codes, repeat):
    """Smallest CPU seconds of each code, taking turns, and their results."""
    seconds, results = [float("inf")] * len(codes), [None] * len(codes)
    for _ in range(repeat):
        for i, code in enumerate(codes):
            start = time.thread_time()
            results[i] = code()
            seconds[i] = min(seconds[i], time.thread_time() - start)
    return seconds, results


def speed(photos, repeat):
    """Lines of a table of medians over photos; rows (name, {code: milliseconds}) for the chart."""
    lines = [
        "| parameters | labels | pydensecrf2 | C++ AVX2 | C++ portable | PyTorch | AVX2 | portable "
        "| PyTorch | same argmax | mean, 99.99 % of \\|dQ\\| |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows, present = [], {}
    for name in NAMES:
        for labels in (21, 4):
            times, same, mean, tail = [], [], [], []
            for image, probs in photos:
                inputs = image, np.ascontiguousarray(probs[:labels] / probs[:labels].sum(0))
                codes = [partial(pydensecrf, *inputs, PRESETS[name])]
                for code in ("avx2", "portable", "torch"):
                    codes.append(partial(_infer, *inputs, PRESETS[name], code))
                seconds, results = fastest(codes[:2], repeat)
                slow, others = fastest(codes[2:], 1)
                times.append(seconds + slow)
                difference = np.abs(results[0] - results[1])
                same.append((results[0].argmax(0) == results[1].argmax(0)).mean())
                mean.append(difference.mean())
                tail.append(np.quantile(difference, 0.9999))
                assert all(np.abs(other - results[0]).mean() < 1e-6 for other in others)
            present[name, labels] = times
            ms = [1e3 * median(column) for column in zip(*times, strict=True)]
            ratio = [median(t[0] / t[k] for t in times) for k in (1, 2, 3)]
            cells = [name, str(labels), *(f"{value:.0f} ms" for value in ms)]
            cells += [f"**{ratio[0]:.1f}x**", f"{ratio[1]:.1f}x", f"{ratio[2]:.2f}x"]
            cells += [f"{min(same):.5f}", f"{max(mean):.0e}, {max(tail):.0e}"]
            lines.append(f"| {' | '.join(cells)} |")
            rows.append((f"{name}, {labels} labels", dict(zip(COLORS, ms, strict=True))))
    lines += ["", "| parameters | 4 labels, C++ AVX2, against 21 in pydensecrf2 |", "|---|---|"]
    for name in NAMES:
        pairs = zip(present[name, 21], present[name, 4], strict=True)
        ratio = median(all_labels[0] / few[1] for all_labels, few in pairs)
        lines.append(f"| {name} | **{ratio:.1f}x** |")
    return lines, rows


def threads(photos, rounds):
    """Lines of a table: the gain by two workers, by two threads in the cache, and its CPU time."""
    lines = [
        "| parameters | labels | two threads: median, best | in cache: median, best "
        "| CPU time of two to one, median |",
        "|---|---|---|---|---|",
    ]
    small = photos[0][0][:64, :64].copy()
    for name in ("vit_pcm", "irn"):
        for labels in (21, 4):
            # Three times, so that one thread waits for the other only for a small part of the time.
            pairs = 3 * [(image, np.ascontiguousarray(probs[:labels])) for image, probs in photos]
            tile = probabilities(labels, 64, 64, 0)
            measured = []
            for _ in range(rounds):
                (small_one, _), (small_two, _) = (
                    wall(partial(in_cache, small, tile, name, workers)) for workers in (1, 2)
                )
                (one, one_cpu), (two, two_cpu) = (
                    wall(partial(in_order, pairs, name, workers)) for workers in (1, 2)
                )
                measured.append((one / two, small_one / small_two, two_cpu / one_cpu))
            gains, bounds, cost = zip(*measured, strict=True)
            cells = [name, str(labels), f"**{median(gains):.2f}x**, {max(gains):.2f}x"]
            cells += [f"{median(bounds):.2f}x, {max(bounds):.2f}x", f"{median(cost):.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def in_order(pairs, name, workers):
    for _ in dense_crf_many(pairs, PRESETS[name], workers=workers):
        pass


def in_cache(image, probs, name, workers):
    """A fixed amount of work of the core that needs little memory."""

    def work():
        for _ in range(32 // workers):
            _infer(image, probs, PRESETS[name])

    jobs = [threading.Thread(target=work) for _ in range(workers)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()


def wall(work):
    """Wall seconds and CPU seconds of the process."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


PEAK = """
import ctypes, sys
sys.path.insert(0, {here!r})
import numpy as np
from pathlib import Path
import crf
image, probs = crf.load(Path({photos!r}), 1)[0]
image = image[:375, :500].copy()
probs = np.ascontiguousarray(probs[:, :375, :500])
def work(image, probs, params):
    if {code!r} == "pydensecrf2":
        return crf.pydensecrf(image, probs, params)
    return crf._infer(image, probs, params, {code!r})

work(image[:8, :8].copy(), probs[:, :8, :8].copy(), crf.PRESETS[{name!r}])
def kilobytes(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")  # reset the peak
before = kilobytes("VmRSS")
work(image, probs, crf.PRESETS[{name!r}])
print(kilobytes("VmHWM") - before)
"""


def memory(folder):
    lines = ["| parameters | pydensecrf2 | C++ AVX2 | PyTorch |", "|---|---|---|---|"]
    for name in NAMES:
        row = []
        for code in ("pydensecrf2", "avx2", "torch"):
            script = PEAK.format(here=str(HERE), photos=str(folder), code=code, name=name)
            command = [sys.executable, "-c", script]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            row.append(f"{int(output) * 1.024e-3:.0f} MB")
        lines.append(f"| {name} | {' | '.join(row)} |")
    return lines


def chart(rows):
    """A bar chart of milliseconds, as SVG."""
    scale = 560 / max(max(ms.values()) for _, ms in rows)
    parts, y = [], 44
    for k, (name, color) in enumerate(COLORS.items()):
        parts.append(f'<rect x="{150 + 140 * k}" y="12" width="12" height="12" fill="{color}"/>')
        parts.append(f'<text x="{168 + 140 * k}" y="22">{name}</text>')
    for label, ms in rows:
        parts.append(f'<text x="140" y="{y + 32}" text-anchor="end">{label}</text>')
        for name, value in ms.items():
            width = value * scale
            size = f'width="{width:.1f}" height="11"'
            parts.append(f'<rect x="150" y="{y}" {size} fill="{COLORS[name]}"/>')
            parts.append(f'<text x="{156 + width:.1f}" y="{y + 10}">{value:.0f} ms</text>')
            y += 13
        y += 12
    parts.insert(0, "<style>text { font: 11px sans-serif; fill: #888 }</style>")
    size = f'width="790" height="{y}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>\n'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--photos", type=Path, required=True, help="a folder of .jpg photos of about 500 x 375"
    )
    parser.add_argument(
        "--count", type=int, default=5, help="how many of them, spread over the folder"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of two threads against one")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    photos = load(options.photos, options.count)
    table, rows = speed(photos, options.repeat)
    sizes = ", ".join(sorted({f"{i.shape[1]}x{i.shape[0]}" for i, _ in photos}))
    command = f"python benchmarks/crf.py --photos PHOTOS --count {options.count}"
    measured = [
        f"`{command} --repeat {options.repeat}`: "
        f"{len(photos)} VOC photos ({sizes}), 10 iterations, "
        f"{platform.machine()}, {processor()}; `backend()` is {backend()}.",
        "",
        *table,
        "",
        f"Two threads, {options.rounds} rounds of all photos, load average of the machine before "
        f"it {os.getloadavg()[0]:.1f}:",
        "",
        *threads(photos, options.rounds),
        "",
        "Peak memory above the inputs, result counted, 21 labels, first photo cut to 500x375:",
        "",
        *memory(options.photos),
    ]
    page = HERE / "crf.md"
    before, _, rest = page.read_text().partition("<!-- measured -->")
    after = rest.partition("<!-- end -->")[2]
    page.write_text(before + "<!-- measured -->\n" + "\n".join(measured) + "\n<!-- end -->" + after)
    (HERE / "crf.svg").write_text(chart(rows))
    print("\n".join(measured))


def processor():
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
