"""The processes that share a run, the cores each may use, and threads that work ahead."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

A = TypeVar("A")


B = TypeVar("B")


@contextmanager
def helpers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that work beside a network, each alone: PyTorch would give each of them as many threads again as there are cores."""
    import torch

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            max(1, count), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)  # it is also what threads begin with that do not say


def ahead(
    pool: Executor, function: Callable[[A], B], items: Iterable[A], depth: int
) -> Iterator[B]:
    """`map` in order, with up to `depth` results being worked on while the caller uses one; items are drawn as they are needed."""
    pending: deque[Future[B]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def cores() -> int:
    """Processor cores that this process may use: its share where several processes of this run are on the machine."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, free // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def rank() -> int:
    """Number of this process among those that torchrun or accelerate started; 0 is the one that writes."""
    return int(os.environ.get("RANK", 0))


def ranks() -> int:
    """How many processes share this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def barrier() -> None:
    """Wait for the other processes of this run."""
    if ranks() > 1:
        from accelerate import PartialState

        # The first call sets the time after which the others give up rank 0, which checks the data or asks a language model alone.
        PartialState(cpu=on_cpus(), timeout=timedelta(days=7)).wait_for_everyone()


def on_cpus() -> bool:
    """Whether several processes share this run without a GPU: Accelerate has to be told."""
    import torch

    return ranks() > 1 and not torch.cuda.is_available()
