"""The one training loop: mixed precision, many devices, checkpoints, exact resume, by Accelerate.

Randomness is a function of (seed, step, rank) for the network and of (seed, epoch, photo) for the
photos, never of what ran before. So a training that was killed and resumed ends with the same
weights as one that was not, with any number of reading processes.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast, send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tag2mask.errors import ConfigError, TrainingError
from tag2mask.files import write_text, writing
from tag2mask.processes import cores, on_cpus, rank
from tag2mask.progress import console, log, track

CHECKPOINT_SECONDS = 60.0
LOG_SECONDS = 30.0
# Share of the steps that a training does if it starts from an earlier network: the last of them,
# with their low learning rates. With the high rates of the first steps, it got worse.
CONTINUED = 0.25
METRICS_STEPS = 10  # a line of metrics.jsonl is the mean over these steps

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Phase:
    """A part of a training with its own optimizer: up to step `end`."""

    end: int
    optimizer: Callable[[], torch.optim.Optimizer]  # also sets requires_grad
    lr_scale: Callable[[int], float] = lambda step: 1.0  # factor on all learning rates


class Examples(Protocol):
    """Training examples. What `examples[index, key]` draws at random is a function of `key`."""

    def __len__(self) -> int: ...
    def __getitem__(self, draw: tuple[int, int]) -> Any: ...


@dataclass(frozen=True)
class Draws:
    """The (index, key) pairs of this rank's part of each batch, for the steps first to last - 1.

    An epoch takes every example once. Of those in `nothing` (photos of nothing) it takes at most
    `ratio` for each other one, drawn anew each time, so that many of them do not drown the few.
    """

    size: int
    batch_size: int
    seed: int
    first: int
    last: int
    rank: int = 0
    ranks: int = 1
    nothing: Sequence[int] = ()
    ratio: float = 1.0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, np.int64)
        length = epoch_length(self.size, len(self.nothing), self.ratio)
        for step in range(self.first, self.last):
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // length != epoch:
                    epoch = position // length
                    order = self._order(epoch, length)
                index = int(order[position % length])
                batch.append((index, _key(self.seed, epoch, index)))
            yield batch[self.rank :: self.ranks]

    def _order(self, epoch: int, length: int) -> np.ndarray:
        """The examples of an epoch in their order: (length,) int."""
        random = np.random.default_rng((self.seed, epoch))
        if length == self.size:
            return random.permutation(length)
        others = np.setdiff1d(np.arange(self.size), self.nothing)
        few = random.choice(np.array(self.nothing), length - len(others), replace=False)
        return random.permutation(np.concatenate([others, few]))


def epoch_length(size: int, nothing: int, ratio: float) -> int:
    """The number of examples in an epoch of `size` examples, `nothing` of which show nothing."""
    others = size - nothing
    return others + min(nothing, math.ceil(ratio * others))


def _key(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def accelerator(precision: str) -> Accelerator:
    """auto, no, bf16 or fp16 to an Accelerator. auto: bf16 if the GPU supports it, else float32."""
    if precision == "auto":
        cuda = torch.cuda.is_available()
        bf16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if bf16 else "no"
    # the class token's part of a ViT may have no gradient
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    AcceleratorState._reset_state()  # it stores one precision, but each network has its own
    return Accelerator(mixed_precision=precision, cpu=on_cpus(), kwargs_handlers=[ddp])


def loader_workers(workers: int) -> int:
    """The number of processes that read examples, from the setting photos.workers."""
    return workers if workers >= 0 else (0 if cores() <= 2 else min(16, cores()))


def fit(
    model: N,
    loss: Callable[[nn.Module, Any], dict[str, Tensor]],
    examples: Examples,
    phases: list[Phase],
    folder: Path,
    *,
    batch_size: int,
    seed: int,
    precision: str,
    workers: int,
    what: str,
    nothing: Sequence[int] = (),
    ratio: float = 1.0,
) -> N:
    """Train `model` in place with what `loss(model, batch)` returns under "loss"; returns it.

    workers: processes that read examples, see `loader_workers`. nothing, ratio: the examples that
    show nothing and how many of them an epoch takes, see `Draws`. Writes `folder`/metrics.jsonl
    and checkpoints under `folder`/checkpoint, and resumes from the newest of these.

    Raises:
        ConfigError: more processes than examples in a batch.
        TrainingError: the loss is not finite.
    """
    acc = accelerator(precision)
    number, ranks = acc.process_index, acc.num_processes
    if batch_size < ranks:
        raise ConfigError(
            f"{what}: batch_size = {batch_size} is less than one for each of the {ranks} processes"
        )
    # gradients are averaged over the ranks as if all had equal parts of the batch
    share = len(range(number, batch_size, ranks)) * ranks / batch_size
    checkpoints, total = folder / "checkpoint", phases[-1].end
    first, start = 0, _newest(checkpoints)
    length = epoch_length(len(examples), len(nothing), ratio)
    metrics = _Metrics(folder / "metrics.jsonl", start, what, total, length / batch_size)
    if start < total:
        resumes = f"resumes at step {start}; " if start else ""
        photos = _photos(len(examples), len(nothing), length)
        log.info(
            f"{what}: {resumes}{photos}, {total} steps of {batch_size}, "
            f"on {torch.cuda.get_device_name() if acc.device.type == 'cuda' else 'CPU'}"
            f"{f' ({ranks} processes)' if ranks > 1 else ''}"
        )
    for phase in phases:
        if start >= phase.end and phase is not phases[-1]:
            first = phase.end
            continue
        optimizer = phase.optimizer()
        rates = [group["lr"] for group in optimizer.param_groups]
        wrapped, optimizer = acc.prepare(model, optimizer)
        checkpoint = checkpoints / f"{start:08d}"
        if start > first:
            acc.load_state(str(checkpoint))
        elif start and start == first:  # the optimizer is new
            acc.unwrap_model(wrapped).load_state_dict(_weights(checkpoint))
        first = max(start, first)
        batches: DataLoader[Any] = DataLoader(
            examples,  # type: ignore[arg-type]
            batch_sampler=Draws(
                len(examples), batch_size, seed, first, phase.end, number, ranks, nothing, ratio
            ),
            num_workers=loader_workers(workers),
            pin_memory=acc.device.type == "cuda",
        )
        saved = time.monotonic()
        wrapped.train()
        # a progress bar only in a terminal; the log shows the progress too
        bar = track(batches, what, total, done=first) if console.is_terminal else batches
        for step, batch in enumerate(bar, first):
            for group, lr in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr * phase.lr_scale(step)
            torch.manual_seed(_key(seed, step, number))
            with acc.autocast():
                parts = loss(wrapped, send_to_device(batch, acc.device, non_blocking=True))
            acc.backward(parts["loss"] * share)
            optimizer.step()
            wrapped.zero_grad()  # also of parameters that no optimizer has yet
            metrics.add(step, parts, optimizer.param_groups[0]["lr"])
            if step + 1 == phase.end or _agreed(acc, time.monotonic() - saved > CHECKPOINT_SECONDS):
                metrics.flush()
                _save(acc, checkpoints, step + 1)
                saved = time.monotonic()
        model = acc.unwrap_model(wrapped, keep_fp32_wrapper=False)
        # or the next phase's `prepare` leaves it as it is, with outputs in half precision
        vars(model).pop("_is_accelerate_prepared", None)
        acc.free_memory()
        first = phase.end
    return model


def _photos(number: int, nothing: int, epoch: int) -> str:
    text = f"{number} photos"
    if not nothing:
        return text
    text += f", {nothing} of nothing"
    few = epoch - (number - nothing)
    return text if few == nothing else f"{text} ({few} in each epoch)"


def _agreed(acc: Accelerator, here: bool) -> bool:
    """Rank 0's `here`, on all ranks: clocks differ, but all ranks must save at the same step."""
    if acc.num_processes == 1:
        return here
    return bool(broadcast(torch.tensor([here], dtype=torch.uint8, device=acc.device)).item())


def _newest(folder: Path) -> int:
    """Step of the newest complete checkpoint, 0 if there is none."""
    return max((int(p.name) for p in folder.glob("*") if p.name.isdigit()), default=0)


def _save(acc: Accelerator, folder: Path, step: int) -> None:
    # Not as safetensors: for these, Accelerate saves only one of the tensors that share memory, and
    # on a GPU all weights of an LSTM do.
    if acc.num_processes > 1:  # each rank adds its random state, then rank 0 renames
        temporary = folder / f".{step:08d}.tmp"
        acc.save_state(str(temporary), safe_serialization=False)
        acc.wait_for_everyone()
        if acc.is_main_process:
            temporary.rename(folder / f"{step:08d}")
        acc.wait_for_everyone()
    else:
        with writing(folder / f"{step:08d}") as temporary:
            acc.save_state(str(temporary), safe_serialization=False)
    if acc.is_main_process:
        for old in folder.iterdir():
            if not old.name.isdigit() or int(old.name) < step:
                shutil.rmtree(old, ignore_errors=True)


def _weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "pytorch_model.bin"
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


class _Metrics:
    """Writes the mean loss and its parts: a line of metrics.jsonl for ten steps, and the log."""

    def __init__(self, path: Path, start: int, what: str, total: int, steps_per_epoch: float):
        self.path, self.what, self.total = path, what, total
        self.steps_per_epoch = steps_per_epoch
        self.pending: list[dict[str, Tensor]] = []
        self.step, self.lr = start, 0.0
        self.clock = self.logged = time.monotonic()
        if rank() == 0:
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            lines = [line for line in lines if line.endswith("\n")]  # the last may be cut off
            lines = [line for line in lines if json.loads(line)["step"] <= start]
            write_text(path, "".join(lines))

    def add(self, step: int, parts: dict[str, Tensor], lr: float) -> None:
        self.pending.append({k: v.detach() for k, v in parts.items()})
        self.step, self.lr = step + 1, lr
        if len(self.pending) == METRICS_STEPS:
            self.flush()

    def flush(self) -> None:
        if not self.pending:
            return
        values = {k: torch.stack([p[k].float() for p in self.pending]) for k in self.pending[0]}
        means = {k: float(v.mean()) for k, v in values.items()}
        if not all(math.isfinite(v) for v in means.values()):
            raise TrainingError(
                f"the loss is not a number near step {self.step} (learning rate {self.lr:g}): "
                f"{means}. Lower the learning rate, or use --classifier.precision no / "
                "--segmenter.precision no"
            )
        now = time.monotonic()
        seconds = (now - self.clock) / len(self.pending)
        line = {"step": self.step, "steps": self.total, "lr": self.lr}
        line["seconds_per_step"] = round(seconds, 4)
        if rank() == 0:
            with self.path.open("a") as stream:
                line |= {k: round(v, 6) for k, v in means.items()}
                stream.write(json.dumps(line) + "\n")
        if now - self.logged > LOG_SECONDS or self.step == self.total:
            self.logged, left = now, seconds * (self.total - self.step)
            log.info(
                f"{self.what}: step {self.step} of {self.total}, "
                f"epoch {self.step / self.steps_per_epoch:.1f}, "
                f"loss {means['loss']:.3g}, learning rate {self.lr:.2g}"
                f"{f', {timedelta(seconds=round(left))} left' if left else ''}"
            )
        self.pending, self.clock = [], now
