import json
from pathlib import Path

import numpy as np
import pytest
from small_networks import CLASSES, network, picture

from tag2mask.config import Config
from tag2mask.config_files import write_config
from tag2mask.export.network_file import export_network
from tag2mask.photos.masks import write_mask
from tag2mask.runs.run import Run
from tag2mask.segmenter.heads import save_segmenter


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run folder with a segmenter, and its photos beside it."""
    home = tmp_path_factory.mktemp("private-home")
    (home / "photos").mkdir()
    rows = ["file_name,tags"]
    for number, size in enumerate([(90, 60), (60, 90), (80, 80), (200, 120)]):
        picture(*size, number).save(home / "photos" / f"aunt-{number}.png")
        truth = np.eye(*size[::-1], dtype=np.uint8) * (1 + number % 2)
        write_mask(home / "truth" / f"aunt-{number}.png", truth)
        rows.append(f"photos/aunt-{number}.png,{CLASSES[1 + number % 2]}")
    (home / "tags.csv").write_text("\n".join(rows), encoding="utf-8")
    config = Config(
        data=home / "tags.csv",
        val=home / "tags.csv",
        val_masks=home / "truth",
        out=home / "run",
        classifier={"weights": str(home / "my-weights.pth")},
        segmenter=network("deeplab_v2").settings.model_copy(
            update={"weights": str(home / "my-weights.pth"), "output_stride": "auto"}
        ),
    )
    write_config(config, home / "run" / "config.toml")
    trained = network("deeplab_v2")
    stride = {"output_stride": trained.stride}  # what was chosen in training
    trained.settings = config.segmenter.model_copy(update=stride)
    save_segmenter(trained, home / "run" / "segmenter" / "model.safetensors")
    (home / "run" / "evaluate").mkdir()
    figures = {"miou": 0.4321, "iou": dict.fromkeys(CLASSES, 0.4321), "split": "val", "images": 4}
    figures |= {"labels": "none", "crf": True, "weights": "random", "seed": 0}
    (home / "run" / "evaluate" / "metrics.json").write_text(json.dumps({"segmenter": figures}))
    return Run(home / "run")


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Files of two networks: "fixed" (FPN) and "dynamic" (DeepLabV2); and what was compared."""
    folder = tmp_path_factory.mktemp("exported")
    files = {}
    for kind, head in (("fixed", "fpn"), ("dynamic", "deeplab_v2")):
        path, made = folder / f"{kind}.onnx", network(head)
        made.least = (0.0, 0.5, 0.75)
        compared = export_network(made, made.settings, path, kind == "dynamic", "cc-by-4.0")
        files[kind] = (Path(path), made, compared)
    return files
