import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tag2mask.config_files import make_config
from tag2mask.photos.table import Photo, Table

TAGS = ("<script>alert(1)</script>", "猫", "🐕 dog", "a\"b'c & d")


def true_mask(photo: Photo) -> np.ndarray:
    """A disc for each tag of the photo, 96 x 128, with a rim of 255."""
    y, x = np.mgrid[:96, :128]
    mask = np.zeros((96, 128), np.uint8)
    for i, tag in enumerate(photo.tags):
        distance = np.hypot(y - 48, x - 32 - 64 * i)
        mask[distance < 26] = 255
        mask[distance < 24] = TAGS.index(tag) + 1
    return mask


def scores(photo: Photo) -> np.ndarray:
    """(C, 12, 16), high where the true mask is."""
    mask = true_mask(photo)[4::8, 4::8]
    return (mask == np.arange(len(TAGS) + 1)[:, None, None]).astype(np.float32) * 0.8


def make_table(folder: Path, names: list[str]) -> Table:
    """Photos of smooth color with one or two tags each."""
    photos = []
    for i, name in enumerate(names):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, columns = np.mgrid[:96, :128]
        Image.fromarray(
            np.stack([rows * 2, columns, 0 * rows + 40 * (i % 6)], 2).astype(np.uint8)
        ).save(path)
        photos.append(
            Photo(
                name, path, (TAGS[i % 4], TAGS[i % 4 + 1])[: 1 + i % 2] if i % 4 < 3 else (TAGS[3],)
            )
        )
    return Table(TAGS, tuple(photos), str(folder))


NAMES = [
    "plain",
    "in/a folder/x",
    "100% #1?",
    "<b>bold</b>",
    "名前",
    "quo'te\"s",
    "a;b&amp;c",
    "z{{ 7*7 }}",
    "dots..",
    "-dash",
    "ünï",
    "last",
]


@pytest.fixture
def run(tmp_path):
    """A complete run folder as the stages leave it, and the arguments of `write_report`."""
    folder = tmp_path / "runs" / "a <i>run"
    train, val = (
        make_table(tmp_path / "train", NAMES),
        make_table(tmp_path / "val", [f"v/{name}" for name in NAMES]),
    )
    for table, masks in ((train, "masks"), (val, "evaluate/predictions")):
        for i, photo in enumerate(table.photos):
            mask = true_mask(photo)
            mask[mask == 255] = 0
            mask[: 20 + 3 * i] = 0  # the later, the worse
            path = folder / masks / f"{photo.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
    iou = dict.fromkeys(train.classes, 0.5)
    stated = {
        "miou": 0.6523,
        "iou": iou,
        "images": 12,
        "split": "train",
        "labels": "given",
        "crf": True,
        "weights": "<u>w</u>",
        "seed": 7,
    }
    write(
        folder / "evaluate/metrics.json",
        {"pseudo": stated, "segmenter": {**stated, "miou": 0.4321, "labels": "none"}},
    )
    write(
        folder / "clusters/clusters.json",
        {"clusters": {"<em>all": list(TAGS)}, "source": "by <hand>"},
    )
    for stage in ("classifier", "segmenter"):
        lines = [
            json.dumps({"step": s, "lr": 1e-3, "seconds_per_step": 0.25, "loss": 2 / s})
            for s in range(10, 200, 10)
        ]
        (folder / stage).mkdir(parents=True, exist_ok=True)
        (folder / stage / "metrics.jsonl").write_text("\n".join(lines))
    for stage in ("clusters", "classifier", "masks", "segmenter", "evaluate"):
        write(folder / stage / "done.json", {"seconds": 61.0, "versions": {"tag2mask": "0.1.0"}})
    config = make_config(
        {"out": str(folder), "classifier": {"epochs": 77}, "report": {"photos_per_split": 6}}
    )
    return SimpleNamespace(
        folder=folder, config=config, train=train, val=val, scores=scores, truth=true_mask
    )


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
