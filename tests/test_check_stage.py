"""The stage check: each picture is opened once, and again only when it has changed."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_pipeline import SETTINGS, copy_of, finished, log_of, scenes  # noqa: F401  fixtures

import tag2mask.formats.check
from tag2mask.api import run_config
from tag2mask.config_files import load_recipe, make_config, merged
from tag2mask.errors import DataError
from tag2mask.files import Facts, fingerprint
from tag2mask.formats.findings import Finding

# Python tells audit hooks of every file that it opens. All processes started here have the hook.
WATCH = """
import os, sys
log = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def hook(event, args):
    if event == "open" and str(args[0]).endswith((".jpg", ".png")):
        os.write(log, f"{args[0]}\\n".encode())
sys.addaudithook(hook)
"""
opened: list[str] | None = None


def _hook(event, args):
    if event == "open" and opened is not None and str(args[0]).endswith((".jpg", ".png")):
        opened.append(str(args[0]))


sys.addaudithook(_hook)  # it stays for good, and costs nothing while nobody watches


@contextlib.contextmanager
def watched():
    """The names of the pictures that are opened inside the block."""
    global opened
    opened = names = []
    try:
        yield names
    finally:
        names[:] = [Path(name).relative_to(Path(name).parents[1]).as_posix() for name in names]
        opened = None


@pytest.fixture
def own(scenes, tmp_path):  # noqa: F811
    """A data set of the test's own: it may change."""
    shutil.copytree(scenes, tmp_path / "scenes")
    return tmp_path / "scenes"


def check(own, **changes):
    paths = {
        "data": own / "tags.csv",
        "val": own / "val.csv",
        "val_masks": own / "masks",
        "out": own.parent / "run",
        **changes,
    }
    return run_config(
        make_config(merged({**load_recipe("photos").model_dump(), **paths}, SETTINGS)), ["check"]
    )


def every_file(own):
    return sorted(
        path.relative_to(own).as_posix()
        for kind in ("photos", "masks")
        for path in (own / kind).iterdir()
    )


def add(own, name, like="0001.jpg"):
    shutil.copyfile(own / "photos" / like, own / "photos" / name)
    with (own / "tags.csv").open("a") as table:
        table.write(
            next(
                line for line in (own / "tags.csv").read_text().splitlines() if like in line
            ).replace(like, name)
            + "\n"
        )


def test_each_picture_is_opened_once_and_again_only_when_it_has_changed(own):
    with watched() as first:
        run = check(own)
    assert sorted(first) == every_file(own)
    with watched() as again:
        check(own)
    assert again == [] and "check: done already" in log_of(run)
    add(own, "9998.jpg")
    add(own, "9999.jpg")
    with watched() as new:
        check(own)
    assert sorted(new) == [
        "photos/9998.jpg",
        "photos/9999.jpg",
    ] and "check: starts again, because data changed" in log_of(run)
    os.utime(own / "photos" / "0003.jpg")
    with watched() as touched:
        check(own)
    assert touched == ["photos/0003.jpg"]
    found = [
        Finding(**one) for one in json.loads((run.folder / "check" / "findings.json").read_text())
    ]
    assert {finding.kind for finding in found} >= {"duplicate", "missing mask"}
    assert "warnings, see" in log_of(run) or "0 errors" in log_of(run)


def test_an_error_stops_the_run_is_kept_and_looked_at_again(own):
    """Why it cannot be read may lie outside it, such as the right to: that alone is tried again."""
    run = check(own)
    before = (run.folder / "config.toml").read_text()
    (own / "photos" / "0002.jpg").write_bytes(b"no picture")
    for _ in range(2):
        with (
            watched() as tried,
            pytest.raises(DataError, match=r"0002\.jpg.*: not a readable picture"),
        ):
            check(own, seed=7)
        assert set(tried) == {"photos/0002.jpg"}
    findings = run.folder / ".check.part" / "findings.json"
    assert "not a readable picture" in findings.read_text() and f"see {findings}" in log_of(run)
    assert (run.folder / "config.toml").read_text() == before
    shutil.copyfile(own / "photos" / "0001.jpg", own / "photos" / "0002.jpg")
    with watched() as mended:
        check(own)
    assert set(mended) == {"photos/0002.jpg"}


def test_a_check_that_was_cut_short_goes_on(own, monkeypatch):
    look, looked = tag2mask.formats.check._look, []

    def stopped(path):
        if len(looked) == 7:
            raise KeyboardInterrupt
        looked.append(f"photos/{path.name}")
        return look(path)

    monkeypatch.setattr(tag2mask.formats.check, "_look", stopped)
    with pytest.raises(KeyboardInterrupt):
        check(own)
    monkeypatch.setattr(tag2mask.formats.check, "_look", look)
    with (own.parent / "run" / ".facts.jsonl").open("a") as half:
        half.write('"picture half a li')
    with watched() as rest:
        run = check(own)
    assert sorted([*looked, *rest]) == every_file(own)
    assert "check: done in" in log_of(run)


def test_a_second_start_opens_no_picture_in_any_process(finished, tmp_path):  # noqa: F811
    """Neither photos, nor true masks, nor the masks of the run, on which later stages depend."""
    folder = copy_of(finished, tmp_path)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WATCH)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(tmp_path / "hook"),
        "OPENED": str(tmp_path / "opened"),
    }
    command = [
        sys.executable,
        "-m",
        "tag2mask",
        "run",
        "--out",
        str(folder),
        "--photos.workers",
        "2",
    ]
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert (folder / "log.txt").read_text().count("done already") >= 7 and (
        tmp_path / "opened"
    ).read_text() == ""
    mask = next((folder / "masks").glob("*.png"))
    mask.write_bytes(mask.read_bytes())
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert (tmp_path / "opened").read_text().split() == [str(mask)], (
        "the hook works, and what is written anew with equal content changes nothing"
    )
    assert (folder / "log.txt").read_text().count("done already") >= 14


def test_facts_hold_while_a_file_is_unchanged(tmp_path):
    def size(path):
        asked.append(path.name)
        return len(path.read_bytes())

    asked = []
    file = tmp_path / 'a "b\n ü'
    file.write_text("1")
    for _ in range(2):
        assert Facts(tmp_path / ".facts").of(file, "size", size) == 1
    assert len(asked) == 1
    facts = Facts(tmp_path / ".facts")
    assert facts.of(file, "other", lambda path: [1, "x"]) == [1, "x"]
    os.utime(file, ns=(1, 1))
    assert facts.of(file, "size", size) == 1 and len(asked) == 2, "another time of change"
    file.write_text("123")
    os.utime(file, ns=(1, 1))
    assert facts.of(file, "size", size) == 3 and len(asked) == 3, "another size"
    assert fingerprint(tmp_path, facts=facts) == fingerprint(tmp_path)
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name} moved")
    assert (
        Facts(tmp_path.parent / f"{tmp_path.name} moved" / ".facts").of(
            tmp_path.parent / f"{tmp_path.name} moved" / file.name, "size", size
        )
        == 3
        and len(asked) == 3
    ), "the whole folder may move"
