"""What a person does with the page of a run, in a real browser, over the real command."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tag2mask.photos.masks import read_mask

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
needs_browser = pytest.mark.skipif(not BROWSER, reason=f"needs one of {', '.join(BROWSERS)}")


@pytest.fixture
def own(trained, tmp_path):
    """Scenes and a finished run of this test alone, where it can run again."""
    shutil.copytree(trained / "scenes", tmp_path / "scenes")
    shutil.copytree(trained / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace(str(trained), str(tmp_path)))
    return tmp_path


@pytest.fixture
def address(own):
    """The page's address, as the command prints it; Ctrl-C must end the command cleanly."""
    command = [sys.executable, "-m", "tag2mask", "view", str(own / "run"), "--no-browser"]
    command += ["--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=environment)  # fmt: skip
    line = process.stdout.readline()
    yield re.search(r"http://\S+", line)[0]
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, "", "")


@pytest.fixture
def page(address):
    """The open page. A message of the browser's console is an error."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: message.type == "error" and faults.append(message.text))
        page.goto(address)
        page.wait_for_selector("body.ready")
        yield page
        assert not faults
        browser.close()


def cells(page):
    return page.locator("#grid .cell")


def caption(page, text):
    page.locator("#stage .pane .caption").first.get_by_text(text, exact=False).first.wait_for()


def fill(page):
    """The pixels of the mask that the page has drawn, (H, W) bool."""
    pixels = page.evaluate(
        """() => {
          const canvas = document.querySelector("#stage .pane .fill");
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return [canvas.height, canvas.width, [...data].filter((_, i) => i % 4 === 3)];
        }"""
    )
    return np.array(pixels[2]).reshape(pixels[:2]) > 0


def until(true, what, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(what)


@pytest.mark.slow
@needs_browser
def test_what_a_person_does(page, own, run_again):
    run = own / "run"
    log = run / "corrections.jsonl"

    # Filters: a tag, then all again by the key.
    assert cells(page).count() == 17 and page.locator("#count").inner_text() == "17 photos"
    assert page.locator("#rows").inner_text() == ""  # no words under the pictures
    kinds = page.locator("#tag option").all_inner_texts()
    assert kinds[:2] == ["all", "something (17)"], "photos with and without a tag stand first"
    page.select_option("#tag", label="something (17)")
    until(lambda: cells(page).count() == 17, "photos with a tag are not shown")
    page.select_option("#tag", label="all")
    row = [line.split(",") for line in (own / "scenes/tags.csv").read_text().splitlines()[1:]]
    one_tag = [(a.rpartition("/")[2].removesuffix(".jpg"), b) for a, b in row if ";" not in b]
    masks = {photo: read_mask(run / "segmenter/masks" / f"{photo}.png") > 0 for photo, _ in one_tag}
    photo, tags = next((p, b) for p, b in one_tag if b and 0 < masks[p].mean() < 1)
    with_tag = sum(tags in b.split(";") for _, b in row)
    with_tag += sum(tags in line for line in (own / "scenes/val.csv").read_text().splitlines())
    page.select_option("#tag", tags)
    until(lambda: cells(page).count() == with_tag, "the filter did not filter")
    assert f"{with_tag} of 17" in page.locator("#count").inner_text()
    page.keyboard.press("Escape")
    until(lambda: cells(page).count() == 17, "Escape did not show all photos")
    page.keyboard.press("?")
    page.get_by_text("paint background").wait_for()
    page.keyboard.press("Escape")

    # Looks at one photo: before the CRF, side by side, the score map.
    page.fill("#search", photo)
    until(lambda: cells(page).count() == 1, "the search did not find the photo")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    caption(page, "Pseudo mask")
    stored = read_mask(run / "segmenter/masks" / f"{photo}.png")
    until(lambda: np.array_equal(fill(page), stored > 0), "the page shows another mask")
    page.keyboard.press("b")
    caption(page, "Before the CRF")
    until(lambda: not np.array_equal(fill(page), stored > 0), "before the CRF is the same")
    page.keyboard.press("b")
    page.keyboard.press("c")
    assert page.locator("#stage .pane:visible").count() == 2
    page.keyboard.press("c")
    page.keyboard.press("h")
    until(lambda: page.evaluate("document.querySelector('.heat').naturalWidth") > 0, "no heat map")
    page.keyboard.press("h")

    # Slides the threshold: another mask at once, nothing is written.
    until(lambda: np.array_equal(fill(page), stored > 0), "the pseudo mask is not back")
    page.locator("#threshold").fill("0.9")
    until(lambda: fill(page).sum() != (stored > 0).sum(), "the slider changed nothing")
    page.get_by_role("button", name="Reset").click()
    until(lambda: np.array_equal(fill(page), stored > 0), "reset did not reset")
    assert not log.exists()

    # Corrects a tag: it is written at once.
    other = next(tag for tag in ("cat", "cow", "bus") if tag != tags)
    page.select_option("#add", other)
    page.get_by_text(f"“{other}” is in the photo.").wait_for()
    line = json.loads(log.read_text().splitlines()[-1])
    assert (line["photo"], line["tag"], line["value"]) == (photo, other, "present")

    # A button that is pressed while the answer to another click arrives counts, too.
    def change(tag, value):
        page.get_by_role("button", name=f"{tag}: {value}", exact=True).hover()
        page.mouse.down()

    def last(tag, value):
        line = json.loads(log.read_text().splitlines()[-1])
        return (line.get("tag"), line.get("value")) == (tag, value)

    page.evaluate(
        """() => {
          const send = window.fetch;
          window.fetch = async (...request) => {
            const response = await send(...request);
            if (request[0].endsWith("/tag")) await new Promise(end => setTimeout(end, 700));
            return response;
          };
        }"""
    )
    change(tags, "not sure")
    page.mouse.up()
    change(other, "not in the photo")
    until(lambda: last(tags, "unknown"), "the first click was lost")
    page.wait_for_timeout(1000)
    page.mouse.up()
    until(lambda: last(other, "absent"), "the second click was lost")
    for _ in range(2):
        page.keyboard.press("z")
    page.get_by_role("button", name=f"{other}: in the photo", pressed=True).wait_for()
    page.get_by_role("button", name=f"{tags}: in the photo", pressed=True).wait_for()

    # Strokes: the mask changes there and is kept.
    page.keyboard.press("x")
    box = page.locator("#stage .pane").first.bounding_box()
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    page.keyboard.press("p")
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1] + 40, steps=4)
    page.mouse.up()
    caption(page, "Corrected mask")
    mended = read_mask(run / "corrections" / f"{photo}.png")
    at = [side // 2 for side in mended.shape]
    assert mended[at[0], at[1]] and not np.array_equal(mended, stored)
    until(lambda: np.array_equal(fill(page), mended > 0), "the page shows another mask")
    measured = page.evaluate("performance.getEntriesByName('stroke to mask')[0].duration")
    assert measured < 5000

    # Undoes it, does it again; a reload finds photo and mask.
    page.keyboard.press("Escape")  # no brush
    page.keyboard.press("z")
    caption(page, "Pseudo mask")
    until(lambda: not (run / "corrections" / f"{photo}.png").exists(), "undo left the mask")
    page.keyboard.press("y")
    caption(page, "Corrected mask")
    page.reload()
    page.wait_for_selector("body.ready")
    caption(page, "Corrected mask")
    until(lambda: np.array_equal(fill(page), mended > 0), "the reload lost the mask")
    assert (
        page.get_by_role("button", name=f"{other}: in the photo").get_attribute("aria-pressed")
        == "true"
    )

    # The run takes the corrections in; the page says so.
    page.keyboard.press("Escape")
    until(lambda: page.locator("#run").inner_text() == "Corrections to learn", "not announced")
    run_again(own / "scenes", run)
    said = "corrections: 1 tag corrected in 1 photo; 1 mask mended"
    assert said in (run / "log.txt").read_text()
    until(lambda: page.locator("#run").inner_text() == "Finished", "the end was not seen", 20)
    page.keyboard.press("Enter")
    page.get_by_text("The run has learned from this correction.").wait_for()
    until(lambda: np.array_equal(fill(page), mended > 0), "the kept mask is not shown")
