"""The training loop: same numbers however often it is stopped, whoever reads the pictures; NaN is
explained."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tag2mask import loop
from tag2mask.errors import TrainingError


class Points:
    """Noisy examples whose noise is a function of the key."""

    def __len__(self):
        return 10

    def __getitem__(self, draw):
        index, key = draw
        noise = torch.randn(4, generator=torch.Generator().manual_seed(key))
        return torch.full((4,), float(index)) + noise, torch.tensor(float(index % 2))


class Stopped(Exception):  # noqa: N818
    pass


def train(folder, stop_at=None, workers=0, explode=False, precision="no", outputs=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    buffer = torch.cat(
        [parameter.detach().flatten() for parameter in model[3].parameters()]
    )  # as cuDNN keeps the weights of an LSTM
    model[3].weight.data, model[3].bias.data = buffer[:8].view(1, 8), buffer[8:]
    seen = []

    def loss(net, batch):
        seen.append(len(batch[0]))
        if stop_at is not None and len(seen) > stop_at:
            raise Stopped
        x, y = batch
        if outputs is not None:
            outputs.append(net(x).dtype)
        value = nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y)
        return {"loss": value * float("nan") if explode else value}

    phases = [
        loop.Phase(6, lambda: torch.optim.Adam(model[3].parameters(), lr=1e-2)),
        loop.Phase(
            14, lambda: torch.optim.Adam(model.parameters(), lr=1e-2), lambda step: 1 - step / 14
        ),
    ]
    loop.fit(
        model,
        loss,
        Points(),
        phases,
        folder,
        batch_size=4,
        seed=3,
        precision=precision,
        workers=workers,
        what="test",
    )
    return torch.cat([p.detach().flatten() for p in model.parameters()]), len(seen)


@pytest.mark.parametrize("stop_at", [1, 5, 6, 7, 13])
def test_resume_equals_uninterrupted(tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    whole, steps = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "cut", stop_at)
    resumed, rest = train(tmp_path / "cut")
    assert torch.equal(whole, resumed)
    assert steps == 14 and rest == 14 - stop_at
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    assert lines[0][-1]["step"] == lines[1][-1]["step"] == 14
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    assert {line["steps"] for line in lines[0]} == {14}  # of which `view` shows the share


def test_every_phase_gives_the_loss_full_precision(tmp_path):
    outputs = []
    train(tmp_path, precision="bf16", outputs=outputs)
    assert outputs == [torch.float32] * 14  # as after a resume


def test_a_finished_training_is_not_repeated(tmp_path):
    first, _ = train(tmp_path)
    again, steps = train(tmp_path)
    assert steps == 0 and torch.equal(first, again)


@pytest.mark.slow
def test_reading_processes_do_not_change_the_result(tmp_path):
    assert torch.equal(train(tmp_path / "a")[0], train(tmp_path / "b", workers=2)[0])


def test_half_written_checkpoint_and_line_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "cut", 5)
    (tmp_path / "cut" / "checkpoint" / ".00000009.123.tmp").mkdir()
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 6, "l')
    assert torch.equal(train(tmp_path / "cut")[0], whole)


def test_nan_stops_with_an_explanation(tmp_path):
    with pytest.raises(TrainingError, match=r"not a number near step 6 .*learning rate"):
        train(tmp_path, explode=True)
    assert not list((tmp_path / "checkpoint").glob("[0-9]*"))


def test_draws_cover_every_photo_once_an_epoch_and_split_over_ranks():
    whole = list(loop.Draws(10, 4, 0, 0, 5))
    assert sorted(i for batch in whole for i, _ in batch[:10])[:10] and len(whole) == 5
    flat = [draw for batch in whole for draw in batch]
    assert sorted(i for i, _ in flat[:10]) == list(range(10)) == sorted(i for i, _ in flat[10:20])
    assert len({key for _, key in flat}) == 20
    halves = [list(loop.Draws(10, 4, 0, 0, 5, rank, 2)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [
        sorted(batch) for batch in whole
    ]
    assert list(loop.Draws(10, 4, 0, 3, 5)) == whole[3:]
    assert [[i for i, _ in batch] for batch in loop.Draws(10, 4, 1, 0, 5)] != [
        [i for i, _ in batch] for batch in whole
    ], "another seed"


def test_two_trainings_of_different_precision_in_one_process(tmp_path):
    for precision in ("no", "bf16", "no"):
        model = nn.Linear(4, 1)
        phases = [loop.Phase(1, lambda model=model: torch.optim.SGD(model.parameters(), lr=0.1))]
        seen = []

        def loss(net, batch, seen=seen):
            seen.append(torch.is_autocast_enabled("cpu"))
            return {"loss": net(batch[0]).float().square().mean()}

        options = {"batch_size": 2, "seed": 0, "precision": precision, "workers": 0, "what": "test"}
        trained = loop.fit(
            model,
            loss,
            Points(),
            phases,
            tmp_path / precision / str(len(list(tmp_path.iterdir()))),
            **options,
        )
        x = torch.randn(3, 4)
        assert seen == [precision == "bf16"]
        assert torch.equal(trained(x), nn.functional.linear(x, model.weight, model.bias)), (
            "trained in bf16, used in float32"
        )


def linear(folder, batch_size):
    """Three steps of a linear model to its weights."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    phases = [loop.Phase(3, lambda: torch.optim.SGD(model.parameters(), lr=0.1))]

    def loss(net, batch):
        x, y = batch
        return {"loss": nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y)}

    loop.fit(
        model,
        loss,
        Points(),
        phases,
        folder,
        batch_size=batch_size,
        seed=3,
        precision="no",
        workers=0,
        what="test",
    )
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    """A batch of five is three and two: the gradient is that of the five. A batch of one is not
    enough for two."""
    script = tmp_path / "two.py"
    script.write_text(
        """
import sys, torch
from pathlib import Path
from tag2mask.errors import ConfigError
from test_loop import linear
folder = Path(sys.argv[1])
try:
    linear(folder / "few", 1)
except ConfigError as error:
    (folder / "error").write_text(str(error))
torch.save(linear(folder / "two", 5), folder / "weights.pt")
"""
    )
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
        str(tmp_path),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(launch, env=environment, check=True, capture_output=True, timeout=300)
    torch.testing.assert_close(torch.load(tmp_path / "weights.pt"), linear(tmp_path / "one", 5))
    assert (
        "batch_size = 1 is less than one for each of the 2 processes"
        in (tmp_path / "error").read_text()
    )


def indices(size, nothing, epochs, seed=0):
    """The examples of each epoch, in batches of 4 that do not end with an epoch."""
    length = loop.epoch_length(size, len(nothing), 1)
    draws = loop.Draws(size, 4, seed, 0, -(-epochs * length // 4), nothing=nothing)
    flat = [index for batch in draws for index, _ in batch]
    return [flat[i * length : (i + 1) * length] for i in range(epochs)]


def test_many_examples_of_nothing_do_not_drown_the_few():
    """3 examples show something, 30 nothing: an epoch has all 3 and as many others, each time new
    ones."""
    nothing = [i for i in range(33) if i % 11]
    epochs = indices(33, nothing, 40)
    for epoch in epochs:
        assert len(set(epoch)) == 6 and set(epoch) - set(nothing) == {0, 11, 22}
    assert {i for epoch in epochs for i in epoch} == set(range(33)), "some are never drawn"
    assert len({frozenset(epoch) for epoch in epochs}) > 30
    assert epochs == indices(33, nothing, 40) != indices(33, nothing, 40, seed=1)


@pytest.mark.parametrize("nothing", [(), (1, 4), (0, 2, 5, 7, 9)])
def test_few_examples_of_nothing_change_no_draw(nothing):
    """Nor does the order differ from that of trainings before there were any."""
    for i, epoch in enumerate(indices(10, nothing, 3)):
        assert epoch == np.random.default_rng((0, i)).permutation(10).tolist()


def test_draws_of_nothing_resume_where_they_were():
    whole = list(loop.Draws(33, 4, 0, 0, 12, nothing=range(5, 33)))
    assert [list(loop.Draws(33, 4, 0, i, 12, nothing=range(5, 33))) for i in (3, 7)] == [
        whole[3:],
        whole[7:],
    ]
    halves = [list(loop.Draws(33, 4, 0, 0, 12, rank, 2, range(5, 33))) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(b) for b in whole]
