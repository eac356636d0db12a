"""Fixtures for all tests: real photos, no network, one thread."""

import socket
import sys
from pathlib import Path

import hypothesis
import pytest

# The same examples in each run. Others: pytest --hypothesis-profile default
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile("same")

SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(config, items):
    """Files with long tests first, where processes share the files: else one process still works at
    the longest when all others are done."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def shared() -> Path:
    """The folder with real photos and weights, next to the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real photos and weights in {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Tests can only connect to this machine."""
    connect = socket.socket.connect

    def local(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)


@pytest.fixture(autouse=True)
def one_thread():
    """Tests share few cores: one thread each is fastest."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="module")
def few_steps():
    """Accept a segmenter that is of no use, as after a few steps: no error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tag2mask.segmenter.train.BackgroundGuard.check", lambda guard, model: None)
        patch.setattr("tag2mask.runs.judge.refusal", lambda finds, config: "")
        yield
