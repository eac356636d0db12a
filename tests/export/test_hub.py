"""A run goes to a hub and comes back, through huggingface_hub's own client."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hub_server import TOKEN, Hub
from small_networks import CLASSES, picture

from tag2mask.photos.masks import read_mask


@pytest.fixture(scope="module")
def hub():
    server = Hub()
    yield server
    server.shutdown()


def command(hub, home, code, **environment):
    """Python with the hub's address, in a process of its own: the client reads it when imported."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=kept | settings | environment,
    )


def cli(hub, home, *words, **environment):
    code = f"import sys; from tag2mask.cli import main; sys.exit(main({list(map(str, words))!r}))"
    return command(hub, home, code, **environment)


PUSH = """
import shutil, sys
from tag2mask.export import network_file
# The ONNX file of the same network has been made: making it takes half of a minute.
network_file.export_network = lambda network, settings, out, **_: shutil.copy({onnx!r}, out)
from tag2mask.cli import main
sys.exit(main({words!r}))
"""


@pytest.fixture(scope="module")
def pushed(hub, run, exported, tmp_path_factory):
    """What a hub holds after `tag2mask push`, and what was said."""
    words = ["push", str(run.folder), "me/discs", "--license", "cc-by-4.0"]
    words += ["--data-license", "my own photos", "--private"]
    code = PUSH.format(onnx=str(exported["dynamic"][0]), words=words)
    home = tmp_path_factory.mktemp("hf-write")
    out = command(hub, home, code, HF_TOKEN=TOKEN)
    assert out.returncode == 0, out.stderr
    return hub.repos["me/discs"], out.stdout


def test_the_hub_has_the_network_its_settings_and_a_card(pushed, hub):
    repo, said = pushed
    assert 'tag2mask.load("hf://me/discs")' in said and repo["private"]
    names = {"model.safetensors", "model.onnx", "config.json", "classes.json", "README.md"}
    assert repo["files"].keys() - {".gitattributes"} == names
    about = json.loads(repo["files"]["config.json"])
    assert about["classes"] == list(CLASSES) and about["weights_license"] == "cc-by-4.0"
    card = repo["files"]["README.md"].decode()
    for part in (
        "license: cc-by-4.0\n",
        "mIoU 43.2 %",
        "no tags given",
        "The training photos: my own photos",
        'tag2mask.load("hf://me/discs")',
        "tag2mask predict hf://me/discs picture.jpg",
    ):
        assert part in card
    assert any(line.startswith("PUT /upload/") for line in hub.requests)


def test_nothing_private_is_on_the_hub(pushed, run):
    """No path, no photo, no name of one, in any file."""
    home = run.folder.parent
    for name, content in pushed[0]["files"].items():
        for secret in (str(home), home.name, "aunt", "my-weights", "tags.csv", str(home.parent)):
            assert secret.encode() not in content, (name, secret)
        assert content[:2] != b"PK" and b"pickle" not in content


LOAD = """
import sys, tag2mask, numpy as np
from PIL import Image
model = tag2mask.load("hf://me/discs")
print(repr(model), model.names)
np.save(sys.argv[1] if sys.argv[1:] else {out!r}, model.predict(Image.open({photo!r})).mask)
"""


def test_a_network_comes_back_from_the_hub_and_predicts(pushed, hub, run, tmp_path):
    """Online, then offline from the cache; without PyTorch by its ONNX file."""
    image = picture(70, 50)
    image.save(tmp_path / "a.png")
    expected = run.predict(image).mask
    code = LOAD.format(out=str(tmp_path / "m.npy"), photo=str(tmp_path / "a.png"))
    out = command(hub, tmp_path / "home", code, HF_TOKEN=TOKEN)
    assert out.returncode == 0, out.stderr
    assert "Model('hf://me/discs', 2 classes) {0: 'background'" in out.stdout
    assert np.array_equal(np.load(tmp_path / "m.npy"), expected)
    asked = len(hub.requests)
    words = ("predict", "hf://me/discs", tmp_path / "a.png", "--out", tmp_path / "p")
    out = cli(hub, tmp_path / "home", *words, HF_HUB_OFFLINE="1")
    assert out.returncode == 0 and len(hub.requests) == asked, out.stderr
    assert np.array_equal(read_mask(tmp_path / "p" / "a.png"), expected)


def test_a_network_of_the_hub_needs_no_pytorch(pushed, hub, run, tmp_path):
    image = picture(70, 50)
    image.save(tmp_path / "a.png")
    block = "import sys, importlib.util as u; sys.modules['torch'] = None\n"
    block += (
        "find = u.find_spec\nu.find_spec = lambda n, *a: None if n == 'torch' else find(n, *a)\n"
    )
    code = block + LOAD.format(out=str(tmp_path / "m.npy"), photo=str(tmp_path / "a.png"))
    out = command(hub, tmp_path / "home", code, HF_TOKEN=TOKEN)
    assert out.returncode == 0, out.stderr
    assert (np.load(tmp_path / "m.npy") == run.predict(image).mask).mean() > 0.99


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["push", "RUN", "me/x"], {}, "no token for the hub"),
        (["push", "RUN", "me/x"], {"HF_HUB_OFFLINE": "1", "HF_TOKEN": TOKEN}, "HF_HUB_OFFLINE"),
        (["push", "RUN", "a/b/c"], {"HF_TOKEN": TOKEN}, "name a repository as USER/NAME"),
        (["predict", "hf://me/none", "P", "--out", "O"], {}, "no such repository"),
        (["predict", "hf://me/discs", "P", "--out", "O"], {}, "private: give HF_TOKEN"),
        (
            ["predict", "hf://me/discs", "P", "--out", "O"],
            {"HF_HUB_OFFLINE": "1"},
            "HF_HUB_OFFLINE is set, and this was not downloaded before",
        ),
        (
            ["predict", "hf://me/discs@v9", "P", "--out", "O"],
            {"HF_TOKEN": TOKEN},
            "no such repository or revision",
        ),
        (
            ["predict", "hf://me/discs", "P", "--out", "O"],
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "the hub cannot be reached",
        ),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(
    pushed, hub, run, tmp_path, words, environment, message
):
    places = {"RUN": run.folder, "P": run.folder.parent / "photos", "O": tmp_path / "o"}
    out = cli(hub, tmp_path, *(places.get(word, word) for word in words), **environment)
    assert out.returncode == 2 and message in out.stderr and "Traceback" not in out.stderr
    assert out.stderr.startswith("tag2mask: ")


def test_a_token_that_may_not_write_is_a_sentence(hub, run, tmp_path):
    out = cli(hub, tmp_path, "push", run.folder, "stranger/x", HF_TOKEN=TOKEN)
    assert out.returncode == 2 and "does not accept the token for this" in out.stderr
