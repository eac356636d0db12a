import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.config import Config, SegmenterSettings
from tag2mask.config_files import write_config
from tag2mask.export.files import export_network
from tag2mask.photos.masks import write_mask
from tag2mask.runs.run import Run
from tag2mask.segmenter.heads import create_segmenter, save_segmenter

CLASSES = ("background", "disc", "日 box")
SETTINGS = {
    "deeplab_v2": {"output_stride": 16, "image_size": 97, "test_scales": (1.0, 1.5)},
    "fpn": {"output_stride": 8, "image_size": 96},
}


def network(head):
    """A small network with opinions that differ from pixel to pixel."""
    common = {"backbone": "test_efficientnet", "weights": "none", "crf": {"iterations": 2}}
    torch.manual_seed(0)
    made = create_segmenter(SegmenterSettings(**common, head=head, **SETTINGS[head]), CLASSES)
    for head_layer in made.heads if head == "deeplab_v2" else [made.classify]:
        torch.nn.init.normal_(head_layer.weight, std=0.5)
    return made.eval()


def picture(width, height, seed=0):
    """A picture with structure, PIL."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


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
            update={"weights": str(home / "my-weights.pth")}
        ),
    )
    write_config(config, home / "run" / "config.toml")
    trained = network("deeplab_v2")
    trained.settings = config.segmenter
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
        compared = export_network(made, made.settings, path, kind == "dynamic", "cc-by-4.0")
        files[kind] = (Path(path), made, compared)
    return files
