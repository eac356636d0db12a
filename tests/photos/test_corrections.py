"""What a user corrected: never lost, never mixed, always to be undone."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tag2mask.errors import DataError, RunError
from tag2mask.photos.corrections import Corrected, Corrections, Stroke, corrected_table
from tag2mask.photos.masks import read_mask, write_mask
from tag2mask.photos.table import Photo, Table

CLASSES = ("background", "cat", "dog")
STROKE = Stroke(tag="cat", points=((1, 2), (3.5, 4)), radius=5)


@pytest.fixture
def log(tmp_path):
    return Corrections(tmp_path / "corrections.jsonl", tmp_path / "corrections")


def again(log):
    """The corrections as another process sees them."""
    return Corrections(log.folder.parent / "corrections.jsonl", log.folder)


def file_of(log):
    return log.folder.parent / "corrections.jsonl"


def mask(number, rows=1):
    values = np.zeros((4, 5), np.uint8)
    values[:rows] = number
    return values


def test_a_correction_is_a_line_that_a_person_can_read(log):
    log.set_tag("a", "cat", "absent")
    log.mend("b/c", mask(1), CLASSES, [STROKE])
    lines = [json.loads(line) for line in file_of(log).read_text().splitlines()]
    assert [line["photo"] for line in lines] == ["a", "b/c"]
    assert (lines[0]["what"], lines[0]["tag"], lines[0]["value"]) == ("tag", "cat", "absent")
    assert lines[1]["strokes"] == [{"tag": "cat", "points": [[1.0, 2.0], [3.5, 4.0]], "radius": 5}]
    assert lines[0]["when"].startswith("20") and lines[0]["id"] != lines[1]["id"]
    assert np.array_equal(read_mask(log.folder / "b" / "c.png"), mask(1))


def test_the_last_correction_counts_and_all_is_there_again_after_a_restart(log):
    log.set_tag("a", "cat", "absent")
    log.set_tag("a", "dog", "present")
    log.set_tag("a", "cat", "unknown")
    log.judge_wrong("b")
    log.judge_right("b", mask(2), CLASSES)
    log.judge_wrong("c")
    for seen in (log, again(log)):
        assert seen.of("a").tags == {"cat": "unknown", "dog": "present"}
        assert (seen.of("b").mask, seen.of("c").mask) == ("right", "wrong")
        assert np.array_equal(seen.read_mask(seen.of("b"), CLASSES), mask(2))
        assert seen.of("nobody") == Corrected()


def test_each_step_can_be_undone_and_redone_with_its_mask(log):
    first = log.mend("a", mask(1, 1), CLASSES, [STROKE])
    second = log.mend("a", mask(1, 2), CLASSES, [STROKE, STROKE])
    log.set_tag("a", "cat", "absent")

    def shown():
        path = log.folder / "a.png"
        return int(read_mask(path).sum()) if path.exists() else None

    assert shown() == 10
    undone = [log.undo(), log.undo()]
    assert (shown(), log.of("a").tags, log.of("a").strokes) == (5, {}, (STROKE,))
    log.undo()
    assert (shown(), log.of("a").mask, log.undo()) == (None, "computed", None)
    assert log.undo(of=second) and shown() is None  # twice undone is undone
    log.undo(of=undone[1])
    assert shown() is None, "the mask is still undone by the other line"
    assert len(log.lines) == 8, "nothing is ever deleted"
    assert {line.id for line in log.in_force} == set() != {first}
    with pytest.raises(DataError, match="no correction nothing"):
        log.undo("nothing")


def test_redo_is_the_undo_of_an_undo(log):
    log.mend("a", mask(1), CLASSES, [STROKE])
    log.take_back("a")
    assert log.of("a").mask == "computed" and not (log.folder / "a.png").exists()
    undone = log.undo()
    assert log.of("a").mask == "mended" and (log.folder / "a.png").exists()
    log.undo(undone)
    assert log.of("a").mask == "computed" and not (log.folder / "a.png").exists()


def test_ten_threads_and_two_logs_lose_nothing(log):
    logs = [log, again(log)]

    def correct(number):
        one = logs[number % 2]
        one.set_tag(f"p{number % 7}", "cat", "present")
        one.mend(f"p{number % 7}", mask(1, 1 + number % 3), CLASSES, [STROKE] * (number % 5))
        return len(one.state())

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(correct, range(100)))
    assert len(log.lines) == len(again(log).lines) == 200 and not again(log).faults
    for photo, one in log.state().items():
        log.show()
        kept = read_mask(log.folder / f"{photo}.png")
        assert np.array_equal(kept, log.read_mask(one, CLASSES))


WRITE = """
import sys, numpy as np
from pathlib import Path
from tag2mask.photos.corrections import Corrections, Stroke
folder = Path(sys.argv[1])
log = Corrections(folder / "corrections.jsonl", folder / "corrections")
stroke = Stroke(tag="cat", points=[(i, i) for i in range(200)], radius=3)
number = 0
while True:
    mask = np.full((40, 50), number % 3, np.uint8)
    mask[0, :8] = [number >> bit & 1 for bit in range(8)]
    log.mend("a", mask, ("background", "cat", "dog"), [stroke])
    number += 1
    print(number, flush=True)  # the correction was promised
"""


@pytest.mark.parametrize("wait", [0.03, 0.11])
def test_a_kill_loses_no_correction_that_was_made(log, wait):
    """Killed while it writes: what was said to be done is there, and the next line is whole."""
    args = [sys.executable, "-c", WRITE, str(log.folder.parent)]
    with subprocess.Popen(args, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        promised = 1 + len(writer.stdout.read().splitlines())
    assert promised <= len(log.lines) <= promised + 1
    log.show()
    kept = read_mask(log.folder / "a.png")
    assert np.array_equal(kept, log.read_mask(log.of("a"), CLASSES))
    log.judge_wrong("a")
    assert again(log).of("a").mask == "wrong"


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_half_a_line_is_skipped_said_and_does_not_spoil_the_next(log, cut):
    log.set_tag("a", "cat", "absent")
    log.set_tag("b", "cat", "absent")
    whole = file_of(log).read_bytes()
    file_of(log).write_bytes(whole[:-cut])
    seen = again(log)
    assert list(seen.state()) == ["a"] and "line 2 is cut off" in seen.faults[0]
    seen.set_tag("c", "cat", "absent")
    last = again(log)
    if cut == 1:  # only the line break was missing
        assert list(last.state()) == ["a", "b", "c"] and not last.faults
    else:
        assert list(last.state()) == ["a", "c"] and len(last.faults) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"what": "tag", "id": "1", "when": "", "photo": "a", "tag": "cat", "value": "perhaps"}',
        b'{"what": "mask", "id": "1", "when": "", "photo": "a", "value": "wrong", "sha256": "../"}',
        b'{"what": "other"}',
        b'{"what": "undo", "id": "1", "when": ""}',
    ],
)
def test_a_broken_line_is_skipped_and_said(log, line):
    log.set_tag("a", "cat", "absent")
    with file_of(log).open("ab") as stream:
        stream.write(line + b"\n")
    log.set_tag("b", "dog", "present")
    for seen in (log, again(log)):
        assert list(seen.state()) == ["a", "b"]
        assert len(seen.faults) == 1 and "line 2 is cut off or not a correction" in seen.faults[0]


def test_an_undo_of_a_line_that_is_lost_does_no_harm(log):
    log.set_tag("a", "cat", "absent")
    with file_of(log).open("ab") as stream:
        stream.write(b'{"what": "undo", "id": "u", "when": "", "of": "lost"}\n')
    log.undo("u")
    assert list(again(log).state()) == ["a"]


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "", "a\0"])
def test_a_name_that_leads_out_of_the_folder_is_refused(log, name):
    for correct in (
        lambda: log.mend(name, mask(1), CLASSES, []),
        lambda: log.judge_wrong(name),
        lambda: log.set_tag(name, "cat", "absent"),
    ):
        with pytest.raises(DataError, match="not the name of a photo"):
            correct()
    assert not log.folder.exists() and not file_of(log).exists()


def test_a_mask_keeps_its_meaning_when_the_classes_change(log):
    log.mend("a", np.array([[0, 1, 2, 255]], np.uint8), CLASSES, [])
    one = log.of("a")
    assert log.read_mask(one, ("background", "bird", "Cat", "dog")).tolist() == [[0, 2, 3, 255]]
    assert log.read_mask(one, ("background", "dog")).tolist() == [[0, 255, 1, 255]]


def test_files_changed_in_the_folder_by_hand_are_kept(log):
    log.mend("a", mask(1, 1), CLASSES, [STROKE])
    path = log.folder / "a.png"
    assert not log.keep_file("a", path, CLASSES), "nothing was changed"
    write_mask(path, mask(2, 3))
    log.show()
    assert np.array_equal(read_mask(path), mask(2, 3)), "not overwritten"
    log.mend("a", mask(1, 2), CLASSES, [STROKE, STROKE])  # first keeps the other
    log.undo()
    assert log.of("a").last.by_hand and np.array_equal(read_mask(path), mask(2, 3))
    log.undo()
    assert np.array_equal(read_mask(path), mask(1, 1))


def test_a_full_disk_is_said_and_nothing_is_half_done(log, monkeypatch):
    log.set_tag("a", "cat", "absent")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="free some space"):
        log.mend("a", mask(1), CLASSES, [STROKE])
    monkeypatch.undo()
    assert log.of("a").mask == "computed"
    log.mend("a", mask(1), CLASSES, [STROKE])
    assert log.of("a").mask == "mended" and not list(log.folder.rglob("*.tmp"))


def test_tags_in_the_table():
    path = Path(__file__)
    photos = (
        Photo("a", path, ("cat",)),
        Photo("b", path, ("dog",), ("cat",)),
        Photo("c", path, ("cat",)),
    )
    state = {
        "a": Corrected({"cat": "absent"}),
        "b": Corrected({"Cat": "present", "dog": "unknown", "cow": "present"}),
        "gone": Corrected({"cat": "absent"}),
    }
    table = corrected_table(Table(("cat", "dog"), photos), state)
    assert [(p.tags, p.unknown) for p in table.photos] == [
        ((), ()),
        (("cat",), ("dog",)),
        (("cat",), ()),
    ]
    assert table.photos[0].of_nothing and table.photos[2] == photos[2]
