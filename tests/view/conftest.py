"""A small finished run of real networks, and servers over copies of it."""

import contextlib
import http.client
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
import uvicorn

import tag2mask
from tag2mask.demo.scenes import make_scenes
from tag2mask.view.app import make_app
from tag2mask.vision import torchvision  # noqa: F401  before timm

SMALL = {"backbone": "test_efficientnet", "weights": "none"}
SETTINGS = {
    "clusters": {"source": "demo"},
    "classifier": {**SMALL, "image_size": 128, "epochs": 2, "batch_size": 7},
    "masks": {"image_size": 192, "flip": False},
    "segmenter": {
        **SMALL,
        "crop_size": 97,
        "batch_size": 4,
        "steps": 5,
        "image_size": 161,
        "flip": False,
    },
    "report": {"photos_per_split": 2},
}


def train(folder: Path, out: Path):
    """All stages on the scenes in `folder`, a few steps each."""
    given = {"data": folder / "tags.csv", "val": folder / "val.csv", "val_masks": folder / "masks"}
    with pytest.MonkeyPatch.context() as patch:  # a few steps may leave only background
        patch.setattr("tag2mask.segmenter.train.BackgroundGuard.check", lambda *_: None)
        patch.setattr("tag2mask.runs.judge.refusal", lambda *_: "")
        return tag2mask.run(out=out, **given, **SETTINGS)


@pytest.fixture(scope="session")
def run_again():
    """`train`, for a run folder that is there."""
    return train


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder with scenes/ and a finished run/; not to be changed."""
    folder = tmp_path_factory.mktemp("view")
    make_scenes(folder / "scenes", num_train=14, num_val=3, size=160, seed=3)
    train(folder / "scenes", folder / "run")
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


class Served:
    """A server in a thread, and requests to it that no client library tidies up."""

    def __init__(self, folder: Path, host: str | None = None, token: str = ""):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        app = make_app(folder, host, self.port, token)
        config = uvicorn.Config(app, log_level="critical", lifespan="on", access_log=False)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.thread.start()
        deadline = time.monotonic() + 20
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()

    def ask(self, path, method="GET", body=None, headers=None, plain=False):
        """(status, headers, body); `plain`: without the headers that a page of the server sends."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        own = {"Host": f"127.0.0.1:{self.port}"}
        own |= {} if plain or method == "GET" else {"X-Tag2mask": "1"}
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            given = {**own, **(headers or {})}
            if body is not None:
                given.setdefault("Content-Length", str(len(body)))
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()


@pytest.fixture
def serve():
    """A function that serves a run: (folder, host, token) -> Served."""
    servers = []

    def start(*arguments, **options):
        servers.append(Served(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
