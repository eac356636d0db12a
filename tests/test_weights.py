"""Weights from a hub: the real client against a server of this test's own, there and not there."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from tag2mask.config import SegmenterSettings
from tag2mask.config_files import load_recipe
from tag2mask.segmenter.deeplab import DeepLabV2
from tag2mask.segmenter.heads import load_segmenter
from tag2mask.weights import WHEELS, create_backbone, save_network

CODE = """
import sys
from tag2mask.errors import WeightsError
from tag2mask.weights import create_backbone
try:
    model, used = create_backbone("test_vit.r160_in1k", "hub")
    print(used, float(model.norm.weight[0]))
except WeightsError as error:
    print("WeightsError", error)
"""


@pytest.fixture
def hub():
    """A hub that holds one file, the weights of timm's smallest ViT with a mark in them."""
    model, _ = create_backbone("test_vit", "none")
    model.norm.weight.data[0] = 42
    content = save(model.state_dict())
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            exists = (
                self.path.endswith("/resolve/main/model.safetensors")
                or "/resolve/" + "c" * 40 in self.path
            )
            self.send_response(200 if exists else 404)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("Content-Length", str(len(content)) if exists else "0")
            self.end_headers()
            if exists and self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def fetch(endpoint, home):
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def network():
    settings = SegmenterSettings(
        backbone="test_efficientnet", weights="none", head="deeplab_v2", output_stride=16
    )
    return DeepLabV2(settings, ("background", "chat noir")).eval()


def test_equal_networks_make_equal_files(network, tmp_path):
    """A repeated training must not make later stages run again. safetensors alone writes metadata
    in
    another order each time."""
    about = {"classes": ["chat noir", "日", '"', "\u0001"], **{name: name for name in "abcdefgh"}}
    for number in range(8):
        save_network(network, tmp_path / f"{number}.safetensors", **about)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert json.loads(file.metadata()["tag2mask"])["classes"] == about["classes"]
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, file.get_tensor(name))


def test_others_may_read_the_file(network, tmp_path):
    """safetensors alone writes files that only their owner may read."""
    umask = os.umask(0o022)
    try:
        save_network(network, tmp_path / "m.safetensors")
    finally:
        os.umask(umask)
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_segmenter_of_version_0_1_still_loads(network, tmp_path):
    """It had other names, the shift in pixels, and no `head`: it was a DeepLabV2."""
    network.backbone.shifts = [0.75]
    meta = {
        "settings": network.settings.model_dump_json(exclude={"head", "width"}),
        "classes": json.dumps(network.classes),
        "weights_used": "test_efficientnet, random weights",
        "shift": "12",
    }
    tensors = {
        name.removeprefix("backbone."): tensor for name, tensor in network.state_dict().items()
    }
    save_file(tensors, tmp_path / "m.safetensors", meta)
    photo = torch.rand(1, 3, 65, 65)
    assert torch.equal(load_segmenter(tmp_path / "m.safetensors")(photo), network(photo))


def test_the_default_recipes_weights_come_with_the_package():
    """`pip install .` alone must run offline: no extra, no hub."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    dependencies = {re.split("[<>=]", line)[0] for line in project["dependencies"]}
    for recipe in ("photos", "best", "demo"):
        config = load_recipe(recipe)
        for stage in (config.classifier, config.segmenter):
            assert stage.weights == "auto" and WHEELS[stage.backbone][0] in dependencies


@pytest.mark.slow
def test_weights_come_from_the_hub_and_then_from_its_cache(hub, tmp_path):
    endpoint, asked = hub
    answer = fetch(endpoint, tmp_path)
    assert answer.stdout == "test_vit, hub weights r160_in1k 42.0\n", answer.stderr
    assert any("timm/test_vit.r160_in1k" in path for path in asked)


@pytest.mark.slow
def test_a_hub_out_of_reach_is_explained(tmp_path):
    answer = fetch("http://127.0.0.1:9", tmp_path)
    assert answer.stdout.startswith(
        "WeightsError could not download the weights of test_vit.r160_in1k ("
    ), answer.stderr
    assert (
        "--classifier.weights FILE" in answer.stdout
        and "or use tf_efficientnet_lite0: its" in answer.stdout
    )
