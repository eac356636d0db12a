"""Processes that share a run, the cores of each process, and threads."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from tag2mask.errors import RunError

A = TypeVar("A")
B = TypeVar("B")


def parallel_map(
    function: Callable[[A], B], items: Iterable[A], threads: int, depth: int | None = None
) -> Iterator[B]:
    """`map` on threads, in order. Items are read when they are needed, so memory use is limited.

    Up to `depth` results (default: the number of threads) are computed while the caller uses one.
    An error of `function` is raised in place of the result of its item. PyTorch uses one core in
    each of these threads; by default it would use all cores in each.
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
            torch.set_num_threads(before)  # new threads inherit the last number set in any


def _one_thread() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def cores() -> int:
    """Processor cores for this process: its share if other processes of the run are here too."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, free // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def rank() -> int:
    """Rank of this process under torchrun or accelerate; rank 0 writes the results."""
    return int(os.environ.get("RANK", 0))


def ranks() -> int:
    """How many processes share this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def barrier() -> None:
    """Wait for the other processes of this run. Raises RunError if one of them has ended."""
    if ranks() > 1:
        from accelerate import PartialState

        # The first call sets how long the others wait for rank 0; only rank 0 checks the data.
        state = PartialState(cpu=on_cpus(), timeout=timedelta(days=7))
        try:
            state.wait_for_everyone()
        except RuntimeError as error:  # its connection is closed
            raise RunError("another process of this run has ended; its message says why") from error


def from_first(value: A) -> A:
    """What rank 0 gave, in all processes of this run."""
    if ranks() > 1:
        from accelerate.utils import broadcast_object_list

        barrier()
        value = broadcast_object_list([value])[0]
    return value


def on_cpus() -> bool:
    """Whether several processes share this run without a GPU; Accelerate needs to know this."""
    import torch

    return ranks() > 1 and not torch.cuda.is_available()
