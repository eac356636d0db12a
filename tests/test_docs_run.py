"""Run the commands of README.md and of the recipes' headers word for word, on small folders."""

import hashlib
import io
import json
import re
import shlex
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from formats.layouts import ANIMALS, make_coco, make_voc
from PIL import Image
from test_docs import ROOT, blocks, comments, is_command, spans, written_out
from test_pipeline import SETTINGS, scenes  # noqa: F401  a fixture

from tag2mask.cli import main
from tag2mask.config import STAGE_NAMES
from tag2mask.config_files import load_recipe, make_config, merged
from tag2mask.formats import download as downloads
from tag2mask.formats.download import Archive
from tag2mask.photos.masks import read_mask

README = (ROOT / "README.md").read_text(encoding="utf-8")


SMALL = {
    section: values for section, values in SETTINGS.items() if section != "clusters"
}  # whose source is what a recipe is about
SMALL["segmenter"] = {
    **{name: value for name, value in SETTINGS["segmenter"].items() if name != "rounds"},
    "steps": 2,
}


@pytest.fixture
def small(monkeypatch, few_steps):
    """Every recipe at a size for tests: small networks and pictures, few steps. test_recipes_run
    has the networks of `photos`."""

    def small_recipe(name):
        return make_config(merged(load_recipe(name).model_dump(), SMALL))

    monkeypatch.setattr("tag2mask.config_files.load_recipe", small_recipe)


@pytest.mark.slow
def test_the_python_example_runs(scenes, small, tmp_path, monkeypatch):  # noqa: F811
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(scenes)
    (tmp_path / "x.jpg").symlink_to(next((scenes / "photos").glob("*.jpg")))
    names: dict = {"__name__": "__main__"}
    exec(code, names)
    assert names["mask"].shape == (96, 96) and names["run"].report.exists()


# ---- README.md, from its first step to its last command

# Words that stand for a file or folder of the reader's, and what they are here.
PLACES = {
    "D": "tags.csv",
    "R": "runs/mine",
    "M": "found",
    "T": "truth",
    "C": "as-coco",
    "photos...": "folder",
    "image.jpg": "new.jpg",
}
ELSEWHERE = {  # what is not run here, and where or why not
    "make": "builds an environment",
    "pip": "builds an environment",
    "source": "of the shell",
    "torchrun": "tests/test_run_layouts.py",
    "tag2mask demo": "the recipe demo at its full size",
    "tag2mask download": "test_recipes_do_what_their_headers_say",
    "tag2mask run --recipe": "test_recipes_do_what_their_headers_say",
    "tag2mask view": "tests/view",
    "tag2mask export": "tests/export",
    "tag2mask predict model.onnx": "tests/export",
    "tag2mask push": "tests/export",
    "tag2mask correct": "tests/formats/test_tool_masks.py",
    "tag2mask run --help": "parsed in tests/test_docs.py",
}


def readme_commands():
    """The README's commands in their order."""
    lines = [
        part
        for line in README.splitlines()
        for part in (blocks(f"{line}\n") if line.startswith("    ") else spans(line))
    ]
    return [one for line in lines if is_command(line.strip()) for one in written_out(line.strip())]


def typed(command):
    """A command of the README as its reader would type it."""
    return [PLACES.get(word, word) for word in shlex.split(command, comments=True)][1:]


def listed(table):
    """The names of pictures in a CSV of ours."""
    return [line.split(",")[0] for line in Path(table).read_text().splitlines()[1:]]


@pytest.fixture
def photos(scenes, tmp_path, monkeypatch):  # noqa: F811
    """A folder as the README's reader has one, and the working folder."""
    shutil.copytree(scenes, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names = [Path(name) for name in listed("val.csv")]
    for folder in ("folder", "truth"):
        Path(folder).mkdir()
    for name in names:
        shutil.copy(name, "folder")
        shutil.copy(f"masks/{name.stem}.png", "truth")
    shutil.copy(names[0], "new.jpg")
    true = read_mask(Path(f"masks/{names[0].stem}.png"))
    np.save(
        "scores.npy",
        np.stack([np.where(true == 0, 0.7, 0.3), np.where(true == 0, 0.3, 0.7)]).astype(np.float32),
    )
    return tmp_path


@pytest.mark.slow
def test_the_readme_from_its_first_step_to_its_last_command(photos, small, capfd):
    commands = [
        command
        for command in readme_commands()
        if not any(command.startswith(f"{start} ") for start in ELSEWHERE)
    ]
    commands = [
        command
        for command in commands
        if command not in ELSEWHERE and len(shlex.split(command)) > 1
    ]
    said = {}
    for command in commands:
        assert main(typed(command)) == 0, command
        said[command.split()[1]] = capfd.readouterr().out
    stages = STAGE_NAMES[1:]
    assert list(said) == ["tags", "check", "run", "predict", *stages, "convert", "crf"]
    (options,) = (span for span in spans(README) if span.startswith("--val "))
    assert main([*typed(commands[2]), *shlex.split(options)]) == 0

    run = Path("runs/mine")
    assert (
        f"Open `{run}/report/index.html`" in README
        and (run / "report/index.html").stat().st_size > 10_000
    )
    assert {file.stem for file in (run / "masks").glob("*.png")} == {
        Path(name).stem for name in listed("tags.csv")
    }
    names = {file.stem for file in Path("folder").iterdir()}
    masks = {file.stem: read_mask(file) for file in Path("new-masks").glob("*.png")}
    assert masks.keys() == names | {"new"} and {mask.shape for mask in masks.values()} == {(96, 96)}
    assert {file.stem for file in Path("found").glob("*.png")} == names
    assert (
        "0 errors" in said["check"]
        and "mIoU" in said["evaluate"]
        and "4 images" in said["evaluate"]
    )
    assert Image.open("mask.png").size == (96, 96) and set(
        np.unique(read_mask(Path("mask.png")))
    ) <= {0, 1}
    assert main(["check", "--data", "as-coco"]) == 0
    metrics = json.loads((run / "evaluate/metrics.json").read_text())
    assert metrics["segmenter"]["images"] == 4 and len(metrics["segmenter"]["iou"]) > 2


# ---- recipes


def packed(folder, name):
    """The entries of a folder as an archive of this name."""
    stream = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(stream, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(fileobj=stream, mode="w:gz" if name.endswith("gz") else "w") as archive:
            for entry in sorted(folder.iterdir()):
                archive.add(entry, entry.name)
    return stream.getvalue()


@pytest.fixture
def archives(tmp_path_factory, monkeypatch):
    """Small archives in place of the official ones, with the folders that are in these."""
    folder = tmp_path_factory.mktemp("archives")
    train = ANIMALS
    val = {f"2009_00000{i}": tags for i, tags in enumerate(ANIMALS.values())}
    make_voc(folder / "VOCtrainval_11-May-2012.tar", val, "val")
    make_voc(folder / "VOCtrainval_11-May-2012.tar", train)
    sbd = folder / "benchmark.tgz" / "benchmark_RELEASE" / "dataset"
    sbd.mkdir(parents=True)
    (sbd / "train.txt").write_text("2007_000001\n")
    (sbd / "val.txt").write_text("2009_000000\n")
    coco = [
        {
            name: tuple("couch" if tag == "sofa" else tag for tag in tags)
            for name, tags in photos.items()
        }
        for photos in (train, val)
    ]
    for split, photos in zip(("train2014", "val2014"), coco, strict=True):
        renamed = {f"COCO_{split}_{name}": tags for name, tags in photos.items()}
        made = make_coco(folder / f"{split}.zip", renamed, split)
        (folder / "annotations_trainval2014.zip" / "annotations").mkdir(parents=True, exist_ok=True)
        made.rename(folder / "annotations_trainval2014.zip" / "annotations" / made.name)
        made.parent.rmdir()
    bodies = {entry.name: packed(entry, entry.name) for entry in folder.iterdir()}
    for data_set in ("voc12", "coco14"):
        own = [
            Archive(archive.url, hashlib.sha256(bodies[archive.name]).hexdigest())
            for archive in downloads.ARCHIVES[data_set]
        ]
        monkeypatch.setitem(downloads.ARCHIVES, data_set, tuple(own))
    return bodies


def put_by_hand(name, out, archives):
    """What `tag2mask download NAME --by-hand` asks for, done."""
    folder = Path(out) / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    for archive in downloads.ARCHIVES[name]:
        (folder / archive.name).write_bytes(archives[archive.name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [file.stem for file in sorted((ROOT / "src/tag2mask/recipes").glob("*.toml"))]
)
def test_recipes_do_what_their_headers_say(name, scenes, small, archives, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(scenes)
    commands = [
        line.strip()
        for line in comments(ROOT / f"src/tag2mask/recipes/{name}.toml")
        if is_command(line.strip())
    ]
    assert commands, "a header says how its recipe is used"
    for command in commands:
        _, verb, *words = shlex.split(command)
        if verb == "demo":
            continue
        if verb == "download":
            put_by_hand(words[0], words[words.index("--out") + 1], archives)
        assert main([verb, *words]) == 0, command
    if commands[-1].startswith("tag2mask run"):
        run = Path(shlex.split(commands[-1])[-1])
        assert (run / "report/index.html").exists()
        if "--val-masks" in commands[-1]:
            metrics = json.loads((run / "evaluate/metrics.json").read_text())
            assert metrics["segmenter"]["images"] == 6 and bool(metrics["pseudo"]) == (
                "--photos.pseudo-list" in commands[-1]
            )
