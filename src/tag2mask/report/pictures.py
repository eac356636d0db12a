"""Which photos the page shows, and the strip of each: the photo, its score maps and its masks."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.photos.colors import label_places, mask_layer
from tag2mask.photos.masks import count_pixels, read_mask
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, evenly_spaced
from tag2mask.progress import track
from tag2mask.report.draw import heatmap

MOST_COMPARED = 1000  # photos whose masks are compared with the true masks to rank them
MOST_HEATMAPS = 4  # of one photo
MOST_NOTHING = 2  # photos of nothing
PIXELS = 12e6  # of all pictures of the page together: about 3 MB
WIDEST = 400

# Photos to look at, by the keys of "look_at" in the finds, and their headings.
LOOK_AT = {
    "missed": "A tag of the photo is not in the mask",
    "covered": "One class covers more than 90 % of the photo",
}

Truth = Callable[[Photo], np.ndarray | None]
Scores = Callable[[Photo], np.ndarray | None]


@dataclass(frozen=True)
class Choice:
    """A photo for the page, and the IoU of its mask if it has a true mask or shows nothing: then
    it is 1 for an empty mask, else 0."""

    photo: Photo
    iou: float | None = None


@dataclass(frozen=True)
class Panel:
    """What is drawn over a photo: a picture (data URI), and class names at x, y [percent]."""

    kind: str  # "heat" or "mask"
    caption: str
    picture: str
    labels: list[tuple[int, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Strip:
    """One photo and its panels."""

    name: str
    numbers: list[int]  # classes of its tags
    photo: str  # data URI
    ratio: float  # width / height
    iou: float | None
    panels: list[Panel]


def mask_path(folder: Path, photo: Photo) -> Path:
    """The mask of a photo in a stage's folder."""
    return folder / f"{photo.name}.png"


def photo_iou(truth: np.ndarray, mask: np.ndarray) -> float | None:
    """True mask and mask of one photo, (H, W) uint8 each, to the mean IoU of its objects in 0-1.

    The mean is over the classes in either mask. Background counts only if there is no other class,
    so that a missed object counts 0. Pixels that are 255 in the true mask are skipped; None if all
    are. For photos of more than a megapixel, only every second, third ... row and column is used.
    """
    step = 1 + int((mask.size / 1e6) ** 0.5)
    counts = count_pixels(mask[::step, ::step], truth[::step, ::step])[:IGNORE]
    hits = counts.diagonal()
    union = counts.sum(0)[:IGNORE] + counts.sum(1) - hits
    occurs = union > 0
    if occurs[BACKGROUND + 1 :].any():
        occurs[BACKGROUND] = False
    return float((hits[occurs] / union[occurs]).mean()) if occurs.any() else None


def choose(
    photos: Sequence[Photo],
    masks: Path,
    truth: Truth,
    count: int,
    what: str,
    look_at: Mapping[str, Sequence[str]] | None = None,
) -> list[tuple[str, list[Choice]]]:
    """Photos to groups for the page: (heading, choices).

    The best, the middle and the worst by `photo_iou`. If fewer than three have true masks: those
    in `look_at` (names by the keys of LOOK_AT), then others, evenly spaced. Last, at most two
    photos of nothing, first those with a mark. `what` names the masks in the progress bar.
    """
    with_mask = [photo for photo in photos if mask_path(masks, photo).exists()]
    others = [photo for photo in with_mask if not photo.of_nothing]
    nothing = [photo for photo in with_mask if photo.of_nothing] if others else []
    others = others or with_mask
    ranked = _ranked(others, masks, truth, what)
    if len(ranked) >= 3:
        groups = _best_to_worst(ranked, count)
    elif others and look_at:
        groups = _notable(others, look_at, count)
    else:
        groups = [("", [Choice(photo) for photo in evenly_spaced(others or photos, count)])]
    some = evenly_spaced(nothing, MOST_COMPARED)
    marked = [photo for photo in some if read_mask(mask_path(masks, photo)).any()]
    rest = [photo for photo in some if photo not in marked]
    shown = [Choice(photo, float(photo not in marked)) for photo in (marked + rest)[:MOST_NOTHING]]
    return [*groups, ("Photos of nothing", shown)] if shown else groups


def _notable(
    photos: Sequence[Photo], look_at: Mapping[str, Sequence[str]], count: int
) -> list[tuple[str, list[Choice]]]:
    """Of each kind at most a third of `count`, the rest are others."""
    left, groups = list(photos), []
    for kind, title in LOOK_AT.items():
        names = set(look_at.get(kind, ()))
        some = _varied([Choice(photo) for photo in left if photo.name in names], max(count // 3, 1))
        left = [photo for photo in left if Choice(photo) not in some]
        groups.append((title, some))
    rest = count - sum(len(group) for _, group in groups)
    groups.append(("Others", [Choice(photo) for photo in evenly_spaced(left, max(rest, 0))]))
    return [(title, group) for title, group in groups if group]


def _ranked(photos: Sequence[Photo], masks: Path, truth: Truth, what: str) -> list[Choice]:
    """Photos with true masks, the best first."""
    ranked = []
    for photo in track(evenly_spaced(photos, MOST_COMPARED), f"comparing {what}"):
        true = truth(photo)
        iou = None if true is None else photo_iou(true, read_mask(mask_path(masks, photo)))
        if iou is not None:
            ranked.append(Choice(photo, iou))
    return sorted(ranked, key=lambda choice: -(choice.iou or 0))


def _best_to_worst(ranked: Sequence[Choice], count: int) -> list[tuple[str, list[Choice]]]:
    if len(ranked) <= count:
        return [("All, best first", list(ranked))]
    size = max(count // 3, 1)
    median = ranked[len(ranked) // 2].iou or 0
    best = _varied([choice for choice in ranked if choice.iou] or ranked, size)
    worst = _varied([choice for choice in reversed(ranked) if choice not in best], size)
    rest = [choice for choice in ranked if choice not in best and choice not in worst]
    middle = _varied(sorted(rest, key=lambda choice: abs((choice.iou or 0) - median)), size)
    return [("Best", best), ("Around the median", middle), ("Worst", worst)]


def _varied(choices: Sequence[Choice], count: int) -> list[Choice]:
    """The first `count`; a photo with the same tags as an earlier one comes after all others."""
    tags: set[tuple[str, ...]] = set()
    first: list[Choice] = []
    rest: list[Choice] = []
    for choice in choices:
        (rest if choice.photo.tags in tags else first).append(choice)
        tags.add(choice.photo.tags)
    return (first + rest)[:count]


def picture_width(panels: int) -> int:
    """The width of each picture [pixels] that keeps a page with `panels` pictures small."""
    return int(min(WIDEST, (PIXELS / max(panels, 1) * 4 / 3) ** 0.5))


def count_panels(photo: Photo) -> int:
    """How many pictures in a photo's strip need much space in the file; masks need little."""
    return 1 + min(len(photo.tags), MOST_HEATMAPS)


def make_strip(
    choice: Choice,
    classes: Sequence[str],
    width: int,
    caption: str,
    folder: Path,
    scores: Scores | None,
    truth: Truth,
) -> Strip:
    """A photo to its strip: score maps of its tags, its mask in `folder`, its true mask.

    What does not exist is left out. `caption`: the caption of the mask.
    """
    photo = choice.photo
    picture = photo.open(at_least=width)
    ratio = picture.width / picture.height
    wide = width * min(1.0, 4 * ratio)  # WebP limits the height; some screenshots exceed it
    size = (max(1, round(wide)), max(1, round(wide / ratio)))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    numbers = [classes.index(tag) for tag in photo.tags]
    panels = []
    if scores and (score_maps := scores(photo)) is not None:
        for number in numbers[:MOST_HEATMAPS]:
            heat = _data_uri(heatmap(picture, score_maps[number]), quality=72)
            panels.append(Panel("heat", classes[number], heat))
    path = mask_path(folder, photo)
    mask = read_mask(path) if path.exists() else None
    for title, numbered in ((caption, mask), ("true mask", truth(photo))):
        if numbered is not None:
            layer = _data_uri(mask_layer(numbered, size), lossless=True)
            labels = [(number, 100 * x, 100 * y) for number, x, y in label_places(numbered)]
            panels.append(Panel("mask", title, layer, labels))
    return Strip(photo.name, numbers, _data_uri(picture, quality=80), ratio, choice.iou, panels)


def _data_uri(picture: Image.Image, **options: bool | int) -> str:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
