"""`tag2mask predict` and `Run.predict`: the segmenter is not trained, but has opinions."""

import csv
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

import tag2mask
from tag2mask.cli import main
from tag2mask.config_files import load_recipe, write_config
from tag2mask.errors import ConfigError, DataError
from tag2mask.formats.mask_writers import MASK_WRITERS
from tag2mask.photos.masks import read_mask, write_mask
from tag2mask.photos.predictions import Prediction
from tag2mask.runs.pictures import photos_to_predict
from tag2mask.segmenter.deeplab import DeepLabV2
from tag2mask.segmenter.heads import save_segmenter

SEGMENTER = {
    "head": "deeplab_v2",
    "backbone": "test_efficientnet",
    "weights": "none",
    "image_size": 65,
    "flip": False,
    "crf": {"iterations": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of 40 x 30 pixel photos."""
    folder = tmp_path_factory.mktemp("run")
    recipe = load_recipe("photos")
    settings = type(recipe.segmenter)(**SEGMENTER)
    write_config(recipe.model_copy(update={"segmenter": settings}), folder / "config.toml")
    torch.manual_seed(0)
    model = DeepLabV2(settings, ("background", "cat", "dog"))
    for head in model.heads:
        torch.nn.init.normal_(head.weight, std=0.3)
    save_segmenter(model, folder / "segmenter" / "model.safetensors")
    write_mask(folder / "masks" / "a.png", np.zeros((30, 40), np.uint8))
    return folder


@pytest.fixture
def run(folder):
    return tag2mask.load(folder)


@pytest.fixture
def new(tmp_path):
    """Four photos, one of them in a folder within."""
    for i, name in enumerate(("c.png", "a.jpg", "b.png", "deep/a.png")):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(tmp_path / "new" / name)
    return tmp_path / "new"


def picture(seed, width=50, height=40):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


NAMES = ["a.jpg", "b.png", "c.png", "deep/a.png"]


def test_one_picture_gives_a_prediction(run, new):
    path = run.predict(new / "b.png")
    assert path.file == str(new / "b.png") and repr(path).startswith("Prediction(50 x 40, ")
    pixels = np.array(Image.open(new / "b.png"))
    for same in (str(new / "b.png"), Image.open(new / "b.png"), pixels, np.asfortranarray(pixels)):
        result = run.predict(same)
        assert isinstance(result, Prediction) and np.array_equal(result.mask, path.mask)
    assert run.predict(Image.open(new / "b.png")).file == path.file
    gray = run.predict(pixels[..., 0])
    assert np.array_equal(gray.mask, run.predict(np.dstack([pixels[..., 0]] * 3)).mask)


def test_several_pictures_give_predictions_in_order(run, new):
    masks = {name: run.predict(new / name).mask for name in NAMES}
    files = [new / name for name in NAMES]
    arrays = [np.array(Image.open(file)) for file in files]
    mixed = [str(files[0]), files[1], Image.open(files[2]), arrays[3]]
    several = (new, str(new), files, tuple(arrays), iter(arrays), (a for a in arrays), mixed)
    for pictures in several:
        for name, result in zip(NAMES, run.predict(pictures), strict=True):
            assert np.array_equal(result.mask, masks[name]), name
    pattern = [result.file for result in run.predict(str(new / "*.png"))]
    assert pattern == [str(new / "b.png"), str(new / "c.png")]
    assert list(run.predict([])) == []


def test_a_large_jpeg_alone_has_the_mask_that_it_has_among_others(run, tmp_path):
    """Of more than twice the size that the network sees, Pillow reads a half or less."""
    noise = np.random.default_rng(0).integers(0, 256, (450, 600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "p.jpg", quality=95)
    alone, (among,) = run.predict(tmp_path / "p.jpg"), run.predict([tmp_path / "p.jpg"])
    assert alone.mask.shape == (450, 600) and np.array_equal(alone.mask, among.mask)
    assert np.abs(alone.probs - among.probs).max() < 1e-5
    run.predict_to(tmp_path / "p.jpg", tmp_path / "out")
    assert np.array_equal(read_mask(tmp_path / "out/p.png"), alone.mask)


def test_several_pictures_are_read_when_they_are_needed(run):
    taken = 0

    def stream():
        nonlocal taken
        for i in range(100):
            taken += 1
            yield np.array(picture(i))

    predictions = run.predict(stream())
    assert taken == 0
    next(predictions)
    assert taken < 30
    predictions.close()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (3, "not a picture: int; give a path"),
        (None, "not a picture: NoneType"),
        (np.zeros((4, 4, 3)), "the array is float64; give uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), "for several, a list of them"),
        (np.zeros((3, 4, 4), np.uint8), r"give RGB \(H, W, 3\) or gray"),
        (np.zeros((0, 4, 3), np.uint8), r"give RGB \(H, W, 3\)"),
        ("no.jpg", "no.jpg: no such file"),
        (f"{'n' * 5000}.jpg", "n.jpg: not a readable picture"),
        (Image.new("RGB", (0, 4)), "the picture: has no pixels"),
    ],
)
def test_what_is_no_picture_is_an_error(run, wrong, says):
    with pytest.raises(DataError, match=says):
        run.predict(wrong)
    with pytest.raises(DataError, match=says):
        list(run.predict([np.array(picture(0)), wrong]))


def test_an_open_picture_that_is_cut_off_is_an_error(run, new):
    whole = (new / "a.jpg").read_bytes()
    (new / "a.jpg").write_bytes(whole[:-200])
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read"):
        run.predict(Image.open(new / "a.jpg"))


def test_a_run_says_what_it_is(run, folder, tmp_path):
    assert repr(run) == f"Run({str(folder)!r}, ready to predict)"
    assert run.classes == ("background", "cat", "dog")
    assert run.names == {0: "background", 1: "cat", 2: "dog"}
    write_config(load_recipe("photos"), tmp_path / "config.toml")
    (tmp_path / "check").mkdir()
    assert repr(tag2mask.load(tmp_path)).endswith(", done: check; no segmenter yet)")


def test_the_command_leaves_masks_and_a_table(run, folder, new, tmp_path, capfd):
    argv = ["predict", str(folder), str(new), "--out", str(tmp_path / "out"), "--overlay"]
    assert main(argv) == 0
    said = capfd.readouterr().out
    assert f"4 masks in {tmp_path / 'out'}" in said and "0 background, 1 cat, 2 dog" in said
    text = (tmp_path / "out/predictions.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert list(dict.fromkeys(row["file"] for row in rows)) == [f"{new}/{name}" for name in NAMES]
    for row in rows:
        mask = read_mask(tmp_path / "out" / row["mask"])
        number = run.classes.index(row["class"])
        assert int(row["pixels"]) == (mask == number).sum() > 0
    assert (tmp_path / "out/deep/a.overlay.jpg").is_file()
    assert main(argv) == 0 and (tmp_path / "out/predictions.csv").read_text() == text
    assert run.predict_to(new, tmp_path / "again")[0]["file"] == rows[0]["file"]
    assert capfd.readouterr().out.count("masks in") == 1, "Run.predict_to prints nothing"


def test_a_threshold_is_of_all_objects_together(run, folder, new, tmp_path, capfd):
    shares = []
    for threshold in ("0.05", "0.5", "0.95"):
        out = tmp_path / threshold
        argv = ["predict", str(folder), str(new), "--out", str(out), "--threshold", threshold]
        assert main(argv) == 0
        shares.append(np.mean([read_mask(file) > 0 for file in out.rglob("*.png")]))
        assert (run.predict(new / "b.png", float(threshold)).mask == read_mask(out / "b.png")).all()
    assert shares[0] > shares[1] > shares[2]
    capfd.readouterr()
    assert main([*argv[:-1], "1.5"]) == 2
    assert "threshold = 1.5: it should be between 0 and 1" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="threshold = 0"):
        run.predict(new / "b.png", 0)


def test_photos_that_cannot_be_read_do_not_stop_the_others(folder, new, tmp_path, capfd):
    (new / "a.jpg").write_bytes(b"no picture")
    for tile in ([], ["--tile", "64", "--overlap", "8"]):
        out = tmp_path / f"out{len(tile)}"
        assert main(["predict", str(folder), str(new), "--out", str(out), *tile]) == 2
        said = capfd.readouterr()
        assert "a.jpg: not a readable picture" in said.err and "3 masks in" in said.out
        assert {p.name for p in out.glob("*.png")} == {"b.png", "c.png"}
        assert "b.png" in (out / "predictions.csv").read_text()


def test_a_photo_whose_mask_cannot_be_written_does_not_stop_the_others(run, new, tmp_path):
    """A name that is not UTF-8, one that is too long, a folder in the way; a tile and none."""
    (new / os.fsdecode(b"\xff.png")).write_bytes((new / "b.png").read_bytes())
    picture(0).save(new / f"{'n' * 239}.png")
    for tile in (None, 64):
        out, errors = tmp_path / f"out{tile}", []
        out.mkdir()
        (out / "deep").touch()
        rows = run.predict_to(new, out, tile=tile, overlap=8, on_error=errors.append)
        said = "\n".join(map(str, errors))
        assert len(errors) == 3 and "not UTF-8; rename the file or its folder" in said
        assert "nnn.png: the name has 239 bytes" in said
        assert f"{new}/deep/a.png: its mask cannot be written" in said
        assert {row["mask"] for row in rows} == {"a.png", "b.png", "c.png"}
        assert "c.png" in (out / "predictions.csv").read_text()


def test_a_misnamed_tiff_is_predicted(run, tmp_path):
    picture(0).save(tmp_path / "p.ico")
    (tmp_path / "p.ico").rename(tmp_path / "p.tif")
    (row, *_) = run.predict_to(tmp_path / "p.tif", tmp_path / "out")
    assert row["mask"] == "p.png"


def test_a_photo_in_two_spellings_is_one(run, new, tmp_path):
    rows = run.predict_to([new / "b.png", new / "deep/../b.png", new], tmp_path / "out")
    assert {row["mask"] for row in rows} == {"a.png", "b.png", "c.png", "deep/a.png"}


def test_patterns_are_replaced_but_not_names_that_look_like_one(tmp_path):
    for name in ("b.jpg", "a.jpg", "c.png", "[1].jpg"):
        (tmp_path / name).touch()
    photos = photos_to_predict([str(tmp_path / name) for name in ("[ab].jpg", "[1].jpg")])
    assert [photo.path.name for photo in photos] == ["a.jpg", "b.jpg", "[1].jpg"]


def test_a_pattern_without_files_is_an_error(folder, tmp_path, capfd):
    argv = ["predict", str(folder), str(tmp_path / "*.jpg"), "--out", str(tmp_path / "out")]
    assert main(argv) == 2 and "no file matches" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_each_pattern_path_and_folder_that_gives_nothing_is_an_error(run, new, tmp_path):
    (tmp_path / "empty").mkdir()
    wrong = [tmp_path / "none", tmp_path / "*.gif", ""]
    with pytest.raises(DataError) as error:
        run.predict_to([new, *map(str, wrong), str(wrong[0])], tmp_path / "out")
    assert error.value.problems == [
        f"{wrong[0]}: no such photo or folder",
        f"no file matches {wrong[1]}",
        '"" is no path; give files or folders',
    ]
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=f"no photos in {tmp_path / 'empty'}"):
        run.predict_to([tmp_path / "empty", new], tmp_path / "out")
    assert len([*(tmp_path / "out").rglob("*.png")]) == 4, "the others are predicted"
    with pytest.raises(DataError, match="no photos in"):
        run.predict(tmp_path / "empty")


def test_no_folder_for_the_masks_is_not_the_current_one(folder, new, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(folder), str(new), "--out", ""]) == 2
    assert 'out = "": give a folder' in capfd.readouterr().err
    assert not (tmp_path / "classes.json").exists()


def test_what_is_left_out_of_a_folder_is_an_error_at_the_end(run, new, tmp_path, monkeypatch):
    (new / "gone.jpg").symlink_to("nowhere.jpg")
    (new / "self.png").symlink_to("self.png")
    unreadable(new / "deep", monkeypatch)
    with pytest.raises(DataError) as error:
        run.predict_to(new, tmp_path / "out")
    assert [problem.partition(": ")[0] for problem in error.value.problems] == [
        f"{new}/deep",
        f"{new}/gone.jpg",
        f"{new}/self.png",
    ]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"a.png", "b.png", "c.png"}
    with pytest.raises(DataError, match=r"gone\.jpg: no file"):
        run.predict(new)


def unreadable(folder, monkeypatch):
    """As `chmod 0`, which does not keep root out."""
    scandir = os.scandir

    def refuse(place):
        if str(place) == str(folder):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)


def test_a_picture_in_one_tile_is_not_reduced(run, tmp_path):
    picture(0, 150, 120).save(tmp_path / "p.png")
    run.predict_to(tmp_path / "p.png", tmp_path / "tile", tile=160, overlay=True)
    own = run.config.segmenter.model_copy(update={"image_size": 150})
    whole = run.config.model_copy(update={"segmenter": own})
    from tag2mask.segmenter.predict import predict

    expected = predict(run.segmenter, picture(0, 150, 120), whole.segmenter).mask
    assert np.array_equal(read_mask(tmp_path / "tile/p.png"), expected)
    reduced = run.predict(tmp_path / "p.png").mask
    assert not np.array_equal(reduced, expected)


def test_a_far_larger_picture_is_said_once(folder, tmp_path, capfd):
    for name, width in (("a", 320), ("b", 321), ("c", 400)):
        picture(0, width, 20).save(tmp_path / f"{name}.png")
    assert main(["predict", str(folder), str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    said = capfd.readouterr().err
    assert said.count("--tile 512") == 1
    assert "b.png is 321 x 20 pixels; the longest side of the training photos is 40" in said
    argv = [str(tmp_path), "--out", str(tmp_path / "tiles"), "--tile", "64", "--overlap", "16"]
    assert main(["predict", str(folder), *argv]) == 0 and "--tile" not in capfd.readouterr().err


def test_a_geotiff_keeps_its_place_without_tiles(run, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(5e5, 5.6e6, 0.1, 0.1)}
    bands = np.moveaxis(np.array(picture(0)), -1, 0)
    about = {"driver": "GTiff", "dtype": "uint8", "count": 3, **place}
    with rasterio.open(tmp_path / "p.tif", "w", width=50, height=40, **about) as data:
        data.write(bands)
    (row, *_) = run.predict_to(tmp_path / "p.tif", tmp_path / "out")
    with rasterio.open(tmp_path / "out" / row["mask"]) as mask:
        assert mask.crs == place["crs"] and mask.transform == place["transform"]
        assert np.array_equal(mask.read(1), run.predict(picture(0)).mask)
    with pytest.raises(DataError, match="the mask would overwrite this photo"):
        run.predict_to(tmp_path / "p.tif", tmp_path)
    run.predict_to(tmp_path / "p.tif", tmp_path / "out", form="labelme")
    shapes = json.loads((tmp_path / "out" / "labelme" / "p.json").read_text())["shapes"]
    assert {shape["label"] for shape in shapes} == {*run.predict(picture(0)).found}


@pytest.mark.parametrize("form", MASK_WRITERS)
def test_masks_for_other_tools(run, folder, new, tmp_path, capfd, form):
    (new / "broken.png").write_text("no picture")
    command = ["predict", str(folder), str(new), "--out", str(tmp_path / "m"), "--format", form]
    assert main(command) == 2  # broken.png; the others are written
    written = {path.name for path in (tmp_path / "m" / form).rglob("*")}
    names = {"a.jpg", "b.png", "c.png", "deep__a.png" if form in ("yolo", "labelme") else "deep"}
    assert names <= written and "broken.png" not in written
    assert "1 photo left out of" in capfd.readouterr().err
    assert main(command) == 2 and "nothing is overwritten" in capfd.readouterr().err


def test_files_that_predict_did_not_write_are_kept(run, new, tmp_path):
    (tmp_path / "m").mkdir()
    for file in ("m/a.png", "new/a.overlay.jpg"):
        picture(9).save(tmp_path / file)
    before = (tmp_path / "m/a.png").read_bytes()
    with pytest.raises(DataError, match=r"m/a\.png: not written by `tag2mask predict`"):
        run.predict_to([new / "a.jpg", new / "b.png"], tmp_path / "m")
    with pytest.raises(DataError, match=r"new/a\.overlay\.jpg: not written by"):
        run.predict_to(new / "a.jpg", new, overlay=True)
    assert (tmp_path / "m/a.png").read_bytes() == before
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["a.png"]


@pytest.mark.parametrize("inside", ["masks", "corrections", "corrections/deep"])
def test_the_masks_and_corrections_of_a_run_are_kept(run, folder, new, tmp_path, inside):
    (folder / "masks/done.json").touch()
    with pytest.raises(DataError, match=r"of the run .* would get other masks; give another --out"):
        run.predict_to(new, folder / inside)
    (tmp_path / "link").symlink_to(folder / inside)
    with pytest.raises(DataError, match="would get other masks"):
        run.predict_to(new, tmp_path / "link")
    assert not (folder / inside / "b.png").exists()
