"""Every recipe trains as it is written, only smaller; the README's first command and the next."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image, ImageFilter

import tag2mask
from tag2mask.cli import main
from tag2mask.config_files import load_recipe, recipes
from tag2mask.demo import scenes
from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.evaluate.folders import list_hash
from tag2mask.formats import load_table
from tag2mask.photos.masks import Truth

# Sizes, steps and networks; everything else stays as the recipe has it.
SMALL = """--classifier.image-size 64 --masks.image-size 64 --masks.crf.iterations 1
           --segmenter.crop-size 65 --segmenter.image-size 65 --segmenter.steps 2
           --segmenter.crf.iterations 1 --report.photos_per_split 1"""
SMALL_VIT = """--classifier.backbone test_vit --classifier.weights none
               --segmenter.backbone test_resnet --segmenter.weights none"""


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Sixteen scenes of eight tags that VOC and COCO have too."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            scenes, "SCENE_TAGS", ("bicycle", "bird", "bus", "car", "cat", "dog", "sheep", "train")
        )
        scenes.make_scenes(folder, num_train=16, num_val=2, size=64, seed=0)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_runs(recipe, few, tmp_path, few_steps):
    written = load_recipe(recipe)
    vit = "vit" in written.classifier.backbone
    frozen = written.classifier.frozen_epochs
    paths = f"--data {few}/tags.csv --val {few}/val.csv --val-masks {few}/masks --out {tmp_path}/r"
    small = f"{SMALL} {SMALL_VIT if vit else ''} --classifier.epochs {frozen + 1}"
    assert main(["run", *shlex.split(f"--recipe {recipe} {paths} {small}")]) == 0
    run = tag2mask.load(tmp_path / "r")
    changed = {"backbone", "weights", "image_size", "epochs"}
    assert run.config.classifier.model_dump(exclude=changed) == written.classifier.model_dump(
        exclude=changed
    )
    assert run.config.clusters == written.clusters
    for training in (
        "classifier",
        *(f"segmenter/round-{i}" for i in range(1, written.segmenter.rounds)),
        "segmenter",
    ):
        lines = [
            json.loads(line)
            for line in (run.folder / training / "metrics.jsonl").read_text().splitlines()
        ]
        assert lines and all(np.isfinite(line["loss"]) for line in lines), training
    assert (
        run.metrics["pseudo"]["images"] == 16
        and run.metrics["segmenter"]["images"] == 2
        and run.report.exists()
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """`tag2mask demo --out runs/demo` on few scenes."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tag2mask.api.DEMO_SCENES", {"num_train": 20, "num_val": 4, "size": 96})
        assert (
            main(["demo", "--out", str(out), *shlex.split(SMALL.replace("steps 2", "steps 60"))])
            == 0
        )
    return tag2mask.load(out)


@pytest.mark.slow
def test_the_demo_ends_with_a_report(demo):
    assert demo.config.recipe == "demo" and demo.config.clusters.source == "demo"
    page = demo.report.read_text()
    assert "pizza" in page and f"{100 * demo.metrics['segmenter']['miou']:.1f}" in page
    assert (demo.metrics["pseudo"]["images"], demo.metrics["segmenter"]["images"]) == (20, 4)


@pytest.mark.slow
def test_overlays_are_the_picture_with_each_object_in_its_color(demo, tmp_path):
    photos = demo.folder / "scenes" / "photos"
    assert (
        main(["predict", str(demo.folder), str(photos), "--out", str(tmp_path), "--overlay"]) == 0
    )
    looked: dict[int, int] = {}
    for photo in sorted(photos.iterdir()):
        file = Image.open(tmp_path / f"{photo.stem}.png")
        mask, colors = np.array(file), np.array(file.getpalette()).reshape(-1, 3)
        overlay = Image.open(tmp_path / f"{photo.stem}.overlay.jpg")
        assert overlay.mode == "RGB" and overlay.size == file.size
        picture = np.asarray(Image.open(photo).convert("RGB"), float)
        tint = 120 / 255
        expected = np.where(
            mask[..., None] == 0, picture, (1 - tint) * picture + tint * colors[mask]
        )
        off = np.asarray(overlay, float) - expected
        for number in np.unique(mask):
            inside = np.array(
                Image.fromarray(np.uint8(mask == number)).filter(ImageFilter.MinFilter(7)), bool
            )
            if inside.sum() > 2500:  # far more than the class's name covers; JPEG blurs colors
                assert np.abs(np.median(off[inside], 0)).max() < 8, f"{photo.name}: class {number}"
                looked[number] = looked.get(number, 0) + 1
    assert looked.pop(0) and looked, "no object was found, so none was looked at"


@pytest.mark.slow
def test_pseudo_list_names_the_photos_whose_masks_are_scored(demo, tmp_path):
    table = load_table(demo.config.data)
    wanted = [photo.name for photo in table.photos[3:12:2]]
    (tmp_path / "some.txt").write_text(
        "\n".join([*wanted, "0022", "absent"])
    )  # 0022 is a test photo
    before = demo.metrics
    assert (
        main(
            [
                "evaluate",
                "--out",
                str(demo.folder),
                "--photos.pseudo-list",
                str(tmp_path / "some.txt"),
            ]
        )
        == 0
    )
    figures, truth = demo.metrics["pseudo"], Truth(demo.config.val_masks, table)
    pairs = [
        (demo.folder / f"segmenter/masks/{photo.name}.png", truth.read(photo))
        for photo in table.photos
        if photo.name in wanted
    ]
    assert (figures["images"], figures["split"], figures["list_hash"]) == (
        5,
        "some",
        list_hash(wanted),
    )
    assert figures["miou"] == evaluate_masks(pairs, table.classes).miou != before["pseudo"]["miou"]
    assert demo.metrics["segmenter"] == before["segmenter"]
