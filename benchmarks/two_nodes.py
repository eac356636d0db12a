"""A run on two machines: two network namespaces of Linux, which share a folder and no more.

    sudo python benchmarks/two_nodes.py [--out /tmp/two-nodes]

Each machine has one process, over gloo. One run is left alone. In the other, the process of the
second machine is killed in each stage, and both are started again. Then all files of both runs are
compared, byte by byte. It needs the rights to make namespaces (root).
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tag2mask.config import STAGE_NAMES
from tag2mask.demo.scenes import make_scenes

WAIT = 1.0  # seconds from the start of a stage to the kill
NODES = {"t2m-node-0": "10.77.0.1", "t2m-node-1": "10.77.0.2"}
# Not compared: they hold times, or the name of the run folder.
OWN = {"log.txt", "done.json", ".lock", ".facts.jsonl", "config.toml", "index.html", "README.md"}
SETTINGS = {
    "clusters": "demo",
    "classifier.backbone": "test_vit",
    "classifier.weights": "none",
    "classifier.image-size": 64,
    "classifier.token-width": 16,
    "classifier.epochs": 4,
    "classifier.batch-size": 8,
    "masks.image-size": 64,
    "masks.crf.iterations": 2,
    "segmenter.crop-size": 65,
    "segmenter.batch-size": 4,
    "segmenter.steps": 20,
    "segmenter.image-size": 65,
    "segmenter.crf.iterations": 1,
    "photos.workers": 0,
}


@contextmanager
def two_networks() -> Iterator[None]:
    """Two namespaces, joined by a cable."""

    def ip(words: str) -> None:
        subprocess.run(["ip", *words.split()], check=True)

    first, second = NODES
    try:
        for node in NODES:
            ip(f"netns add {node}")
        ip(f"link add t2m-0 netns {first} type veth peer name t2m-1 netns {second}")
        for i, (node, address) in enumerate(NODES.items()):
            ip(f"-n {node} addr add {address}/24 dev t2m-{i}")
            ip(f"-n {node} link set t2m-{i} up")
            ip(f"-n {node} link set lo up")
        yield
    finally:
        for node in NODES:
            subprocess.run(["ip", "netns", "del", node], check=False)


def start(rank: int, scenes: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command of one machine, as the page on clusters has it."""
    node = list(NODES)[rank]
    first = next(iter(NODES.values()))
    command = f"""ip netns exec {node} {sys.executable} -m torch.distributed.run
        --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-id 1 --local-addr {NODES[node]}
        --rdzv-endpoint {first}:29511 --rdzv-conf is_host={1 - rank} {__file__} --worker run
        --data {scenes}/tags.csv --val {scenes}/val.csv --val-masks {scenes}/masks
        --out {out}""".split()
    command += [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
    log = out.with_name(f"{out.name}-{rank}.log").open("ab")
    return subprocess.Popen(
        command,
        stdout=log,
        stderr=log,
        env={**os.environ, "GLOO_SOCKET_IFNAME": f"t2m-{rank}", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def switch_off(rank: int) -> None:
    """Kill all processes of a machine at once."""
    command = ["ip", "netns", "pids", list(NODES)[rank]]
    for pid in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def read_log(out: Path) -> str:
    """log.txt, which says when a stage starts or resumes."""
    return (out / "log.txt").read_text() if (out / "log.txt").exists() else ""


def run_both(scenes: Path, out: Path, kill_in: str = "") -> bool:
    """Start both machines; switch the second off in a stage. Whether the run was completed."""
    before = len(read_log(out))
    nodes = [start(rank, scenes, out) for rank in range(2)]
    killed = False
    while any(node.poll() is None for node in nodes):
        if kill_in and not killed and f"{kill_in}: " in read_log(out)[before:]:
            time.sleep(WAIT if kill_in != "clusters" else 0)
            switch_off(1)
            killed = True
        if killed or any(node.poll() for node in nodes):  # one has failed: as Slurm, end the others
            end = time.monotonic() + 20
            while nodes[0].poll() is None and time.monotonic() < end:
                time.sleep(0.1)
            for rank in range(2):
                switch_off(rank)
        time.sleep(0.01)
    return all(node.wait() == 0 for node in nodes)


def files_of(out: Path) -> dict[str, bytes]:
    """The contents of all files; of the figures of a training, without their times."""
    files = (file for file in out.rglob("*") if file.is_file() and file.name not in OWN)
    found = {file.relative_to(out).as_posix(): file.read_bytes() for file in files}
    time = rb'"seconds_per_step": [^,]*, '
    return {
        name: re.sub(time, b"", value) if name.endswith("metrics.jsonl") else value
        for name, value in found.items()
    }


def worker(argv: list[str]) -> int:
    """`tag2mask` with these words; a segmenter that learned little in its few steps is accepted."""
    from tag2mask.cli import main
    from tag2mask.runs import judge
    from tag2mask.segmenter.train import BackgroundGuard

    BackgroundGuard.check = lambda guard, model: None  # type: ignore[method-assign]
    judge.refusal = lambda finds, config: ""  # type: ignore[assignment]
    return main(argv)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("/tmp/two-nodes"))
    parser.add_argument("--stages", nargs="+", choices=STAGE_NAMES, default=list(STAGE_NAMES))
    options = parser.parse_args()
    scenes = options.out / "scenes"
    make_scenes(scenes, num_train=40, num_val=8, size=96, seed=0)
    with two_networks():
        whole, killed = options.out / "whole", options.out / "killed"
        assert (whole / "report").exists() or run_both(scenes, whole), (
            f"see {options.out}/whole-0.log"
        )
        for stage in options.stages:
            done = run_both(scenes, killed, kill_in=stage)
            print(f"{stage}: {'was too fast to kill' if done else 'killed, both stopped'}")
        assert run_both(scenes, killed), f"see {options.out}/killed-0.log"
    a, b = files_of(whole), files_of(killed)
    others = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    print(f"{len(a)} files of the run left alone; not equal in the killed one: {others or 'none'}")
    return len(others)


if __name__ == "__main__":
    sys.exit(worker(sys.argv[2:]) if sys.argv[1:2] == ["--worker"] else main())
