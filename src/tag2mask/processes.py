"""The processes that share a run, the cores of each, and work on threads."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def parallel_map(
    function: Callable[[A], B], items: Iterable[A], threads: int, depth: int | None = None
) -> Iterator[B]:
    """`map` on threads, in order. Items are drawn as they are needed, so memory stays bounded.

    Up to `depth` results (as many as threads, unless given) are worked on while the caller uses
    one. An error of `function` is raised when the turn of its item comes. In each thread PyTorch
    works alone; left to itself it would start as many threads again as there are cores.
    """
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    pending: deque[Future[B]] = deque()
    pool = ThreadPoolExecutor(max(1, threads), initializer=_one_thread)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > (threads if depth is None else depth):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        if torch:
            torch.set_num_threads(before)  # new threads begin with what was last set in any


def _one_thread() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def cores() -> int:
    """Processor cores for this process: its share where several on this machine share a run."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, free // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def rank() -> int:
    """Number of this process among those of torchrun or accelerate; 0 is the one that writes."""
    return int(os.environ.get("RANK", 0))


def ranks() -> int:
    """How many processes share this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def barrier() -> None:
    """Wait for the other processes of this run."""
    if ranks() > 1:
        from accelerate import PartialState

        # The first call sets how long the others wait for rank 0, which checks the data alone.
        PartialState(cpu=on_cpus(), timeout=timedelta(days=7)).wait_for_everyone()


def on_cpus() -> bool:
    """Whether several processes share this run without a GPU, which Accelerate must be told."""
    import torch

    return ranks() > 1 and not torch.cuda.is_available()
