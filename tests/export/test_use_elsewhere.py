"""The example of docs/use-elsewhere.md runs, and finds what tag2mask finds."""

import re
from pathlib import Path

import numpy as np
from small_networks import CLASSES, network, picture

DOC = Path(__file__).parents[2] / "docs" / "use-elsewhere.md"


def test_plain_onnxruntime_gives_the_networks_mask(exported, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert "tag2mask" not in code
    lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 12
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").symlink_to(exported["fixed"][0])
    picture(96, 64).save(tmp_path / "photo.jpg", quality=100, subsampling=0)
    names = {}
    exec(code, names)
    made = network("fpn")
    pixels = np.asarray(names["photo"], np.float32).transpose(2, 0, 1)[None] / 255
    ours = made.run(pixels, (64, 96))[0].argmax(0)  # without the border: sides that it takes
    assert names["mask"].shape == (64, 96)
    assert (names["mask"][:32] == ours[:32]).mean() > 0.9  # far from the border
    assert all(name in CLASSES for name in re.findall(r"'(.*?)'", capsys.readouterr().out))
