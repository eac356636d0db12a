"""How quickly the page of `tag2mask view` answers, measured in a real browser.

    python benchmarks/view.py --data voc-animals/train.csv

- Press to new mask: a stroke on a photo of about 500 pixels, from its end to the new mask on the
  screen; and a step of the background threshold. The server has one core.
- Scrolling: the time between two frames, in a run of several thousand photos.

The networks are trained for a few steps only: their quality does not change the times.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import tag2mask
from tag2mask.formats import read_rows
from tag2mask.formats.rows import to_table
from tag2mask.photos.images import image_size
from tag2mask.runs import judge
from tag2mask.segmenter.train import BackgroundGuard
from tag2mask.vision import torchvision  # noqa: F401  before timm

STROKES, STEPS, SCROLLED = 30, 30, 12
SETTINGS = {
    "classifier": {"image_size": 128, "epochs": 1},
    "segmenter": {"steps": 2, "crop_size": 65, "image_size": 129},
}
SCROLL = """async seconds => {
  const grid = document.querySelector("#grid"), gaps = [];
  let last = performance.now(), most = 0;
  const end = last + 1000 * seconds;
  while (last < end) {
    grid.scrollTop += 40;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    gaps.push(now - last);
    last = now;
    most = Math.max(most, document.querySelectorAll(".cell").length);
  }
  return [gaps, most];
}"""


def small_run(data: Path, folder: Path) -> Path:
    """A finished run of 24 photos of about 500 pixels."""
    table = to_table(read_rows(data))
    photos = [p for p in table.photos if p.tags and max(image_size(p.path)) == 500][:24]
    rows = [{"file_name": str(p.path), "tags": ";".join(p.tags)} for p in photos]
    # A few steps may leave a segmenter that predicts only background.
    BackgroundGuard.check = lambda guard, model: None  # type: ignore[method-assign]
    judge.refusal = lambda finds, config: ""  # type: ignore[assignment]
    tag2mask.run(data=rows, out=folder / "run", **SETTINGS)
    return folder / "run"


def many_photos(run: Path, folder: Path, count: int) -> Path:
    """A run that has the photos and masks of `run` again and again, `count` in all."""
    table, large = tag2mask.load(run).table, folder / "large"
    (large / "masks").mkdir(parents=True)
    (folder / "photos").mkdir()
    lines = ["file_name,tags"]
    for i in range(count):
        photo = table.photos[i % len(table)]
        (folder / "photos" / f"{i:05}{photo.path.suffix}").hardlink_to(photo.path) if (
            photo.path.stat().st_dev == folder.stat().st_dev
        ) else shutil.copy(photo.path, folder / "photos" / f"{i:05}{photo.path.suffix}")
        for kind in (".png", ".npz"):
            (large / "masks" / f"{i:05}{kind}").hardlink_to(run / "masks" / f"{photo.name}{kind}")
        lines.append(f"photos/{i:05}{photo.path.suffix},{';'.join(photo.tags)}")
    (folder / "large.csv").write_text("\n".join(lines))
    shutil.copy(run / "masks" / "masks.json", large / "masks")
    config = re.sub(
        "(?m)^data = .*", f'data = "{folder / "large.csv"}"', (run / "config.toml").read_text()
    )
    (large / "config.toml").write_text(re.sub("(?m)^images = .*\n", "", config))
    return large


class Server:
    """`tag2mask view` on one core."""

    def __init__(self, run: Path):
        command = [
            sys.executable,
            "-m",
            "tag2mask",
            "view",
            str(run),
            "--no-browser",
            "--port",
            "0",
        ]
        core = min(os.sched_getaffinity(0))
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "500"},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        self.address = re.search(r"http://\S+", self.process.stdout.readline())[0]

    def busy(self) -> float:
        """Seconds of processor time so far."""
        times = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> str:
        return self.address

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def until(page: Page, true: str) -> None:
    """Wait until an expression is true in the page, which forbids Playwright's own way to wait."""
    while not page.evaluate(true):
        page.wait_for_timeout(20)


def measure(page: Page, name: str) -> list[float]:
    return page.evaluate(f"performance.getEntriesByName('{name}').map(entry => entry.duration)")


def strokes(page: Page, server: Server) -> tuple[list[float], list[float]]:
    """Milliseconds of strokes and of threshold steps, on one photo after the other."""
    used = server.busy()
    page.keyboard.press("Enter")
    for i in range(STROKES):
        page.wait_for_selector("#photo[data-ready]")
        page.keyboard.press("p" if i % 2 else "x")
        box = page.locator("#stage .pane").first.bounding_box()
        x, y = box["x"] + box["width"] * 0.45, box["y"] + box["height"] * (0.4 + 0.01 * (i % 20))
        before = len(measure(page, "stroke to mask"))
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 90, y + 30, steps=8)
        page.mouse.up()
        until(page, f"performance.getEntriesByName('stroke to mask').length > {before}")
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight" if i < 20 else "ArrowLeft")
    page.wait_for_selector("#photo[data-ready]")
    print(f"processor time of the server for each photo, opened and painted: "
          f"{1000 * (server.busy() - used) / STROKES:.0f} ms")  # fmt: skip
    used = server.busy()
    for i in range(STEPS):
        before = len(measure(page, "threshold to mask"))
        page.locator("#threshold").fill(f"{0.2 + 0.02 * (i % 30):.2f}")
        until(page, f"performance.getEntriesByName('threshold to mask').length > {before}")
    print(f"and for each step of the threshold: {1000 * (server.busy() - used) / STEPS:.0f} ms")
    return measure(page, "stroke to mask"), measure(page, "threshold to mask")


def row(name: str, values: list[float]) -> None:
    ordered = sorted(values)
    p95 = ordered[int(0.95 * (len(ordered) - 1))]
    print(f"{name}: median {statistics.median(values):.0f} ms, 95 % below {p95:.0f} ms, "
          f"longest {ordered[-1]:.0f} ms ({len(values)} times)", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="photos of 500 pixels and tags")
    parser.add_argument("--photos", type=int, default=5000, help="photos to scroll in; 0: none")
    parser.add_argument("--browser", default=shutil.which("chromium"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        run = small_run(options.data, folder)
        browser = playwright.chromium.launch(executable_path=options.browser, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        server = Server(run)
        with server as address:
            page.goto(address)
            page.wait_for_selector("body.ready")
            until(page, "fetch('/api/run').then(a => a.json()).then(r => r.facts.predicted >= 24)")
            stroke, threshold = strokes(page, server)
        row("stroke to new mask, photos of 500 pixels", stroke)
        row("threshold to new mask", threshold)
        if not options.photos:
            return
        large = many_photos(run, folder, options.photos)
        with Server(large) as address:
            start = time.monotonic()
            page.goto(address)
            page.wait_for_selector("body.ready")
            print(f"{options.photos} photos: first shown after {time.monotonic() - start:.1f} s")
            for what in ("first time, thumbnails are made", "second time"):
                page.evaluate("document.querySelector('#grid').scrollTop = 0")
                gaps, most = page.evaluate(SCROLL, SCROLLED)
                row(f"scrolling 40 pixels a frame, {what}: time between frames", gaps)
                late = sum(gap > 50 for gap in gaps) / len(gaps)
                print(
                    f"  longer than 50 ms: {late:.1%} of frames; at most {most} photos in the page"
                )
        browser.close()


if __name__ == "__main__":
    main()
