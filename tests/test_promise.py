"""The promise on which the metrics rest: training opens no true mask.

No process does, while the stages clusters, classifier, masks and segmenter run.
"""

import ctypes
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tag2mask.demo.scenes import make_scenes

READERS = 4  # processes that read photos, whatever the number of cores
# Without the check of the data before them, which may look at true masks and keeps nothing of them.
SCRIPT = """
import multiprocessing, os, sys
from pathlib import Path
photos = sys.argv[1] + "/photos/"
log = os.open(sys.argv[3] + ".opened", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def heard(event, arguments):
    is_reader = multiprocessing.parent_process()
    if event == "open" and is_reader and str(arguments[0]).startswith(photos):
        os.write(log, f"{os.environ['STAGE']} {os.getpid()}\\n".encode())
sys.addaudithook(heard)

if __name__ == "__main__":
    from tag2mask.config_files import load_recipe, make_config, merged, with_whole_paths
    from tag2mask.runs.pipeline import run_stages
    from tag2mask.segmenter.train import BackgroundGuard
    from tag2mask.runs.run import Run
    BackgroundGuard.check = lambda guard, model: None  # after so few steps all may be background
    from tag2mask.runs import judge
    judge.refusal = lambda finds, config: ""
    scenes, out = Path(sys.argv[1]), Path(sys.argv[3])
    settings = merged(load_recipe("photos").model_dump(), {
        "data": scenes / "tags.csv", "val": scenes / "val.csv", "val_masks": scenes / "masks",
        "out": out,
        "photos": {"workers": int(sys.argv[2])},
        "clusters": {"source": "demo"},
        "classifier": {"backbone": "test_vit", "weights": "none", "image_size": 64,
                       "token_width": 16, "epochs": 2, "batch_size": 8},
        "masks": {"image_size": 64, "crf": {"iterations": 2}},
        "segmenter": {"crop_size": 65, "batch_size": 4, "steps": 20, "rounds": 2, "balanced": True,
                      "lr": 1e-3, "image_size": 65,
                      "crf": {"iterations": 1}},
    })
    for stage in ("clusters", "classifier", "masks", "segmenter"):
        os.environ["STAGE"] = stage
        run_stages(Run(out, with_whole_paths(make_config(settings))), [stage])
"""
IN_ACCESS, IN_CLOSE, IN_OPEN = 0x01, 0x18, 0x20


@contextmanager
def watched(folder: Path):
    """Yield a function that names the files of a folder that any process has opened since."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_NONBLOCK)
    assert (
        queue >= 0
        and libc.inotify_add_watch(queue, os.fsencode(folder), IN_ACCESS | IN_CLOSE | IN_OPEN) >= 0
    ), ctypes.get_errno()

    def opened() -> set[str]:
        names, events = set(), b""
        while True:
            try:
                events = os.read(queue, 1 << 16)
            except BlockingIOError:
                return names
            while events:
                length = int.from_bytes(
                    events[12:16], sys.byteorder
                )  # struct inotify_event: wd, mask, cookie, len, name
                names.add(os.fsdecode(events[16 : 16 + length].rstrip(b"\0")) or ".")
                events = events[16 + length :]

    try:
        yield opened
    finally:
        os.close(queue)


def run(scenes: Path, out: Path) -> None:
    (out.parent / "stages.py").write_text(SCRIPT)
    command = [sys.executable, out.parent / "stages.py", scenes, str(READERS), out]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    readers = set(Path(f"{out}.opened").read_text().splitlines())
    for stage in ("classifier", "segmenter"):
        assert len([line for line in readers if line.startswith(stage)]) >= READERS, (
            f"{stage} read photos in {readers}"
        )


def spoil(masks: Path) -> None:
    """Make true masks unreadable, for root too, each in one of four ways."""
    for number, path in enumerate(sorted(masks.iterdir())):
        whole = path.read_bytes()
        path.unlink()
        if number % 4 == 0:
            path.write_bytes(whole[: len(whole) // 2])
        elif number % 4 == 1:
            path.mkdir()
        elif number % 4 == 2:
            path.symlink_to("nowhere.png")
        else:
            Image.new("L", (2, 2), 7).save(path)  # can be read, and is wrong


def written(run: Path) -> dict[str, object]:
    """All that the four stages wrote, times left out."""
    contents: dict[str, object] = {}
    for path in (
        path
        for stage in ("clusters", "classifier", "masks", "segmenter")
        for path in (run / stage).rglob("*")
        if path.is_file()
    ):
        name = path.relative_to(run).as_posix()
        contents[name] = path.read_bytes()
        if path.name in ("started.json", "done.json"):
            contents[name] = {**json.loads(path.read_text()), "seconds": None}
        elif path.name == "metrics.jsonl":
            contents[name] = [
                {**json.loads(line), "seconds_per_step": None}
                for line in path.read_text().splitlines()
            ]
    return contents


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells which files any process opens"
)
def test_no_process_opens_a_true_mask_before_evaluation(tmp_path):
    """With true masks and with unreadable ones: nothing opens one, and both write equal bytes."""
    scenes = tmp_path / "scenes"
    make_scenes(scenes, num_train=20, num_val=4, size=96, seed=0)
    with watched(scenes / "masks") as opened:
        run(scenes, tmp_path / "readable")
        assert not opened()
        subprocess.run(
            [sys.executable, "-c", f"open({str(scenes / 'masks/0001.png')!r}).close()"], check=True
        )
        assert opened() == {"0001.png"}, "the watch itself does not work"
        spoil(scenes / "masks")
        opened()
        run(scenes, tmp_path / "unreadable")
        assert not opened()
    readable, unreadable = written(tmp_path / "readable"), written(tmp_path / "unreadable")
    assert {
        "clusters/clusters.json",
        "masks/0001.png",
        "segmenter/round-1/masks/0001.png",
        "segmenter/model.safetensors",
    } <= readable.keys()
    assert [
        name for name in readable | unreadable if readable.get(name) != unreadable.get(name)
    ] == []
