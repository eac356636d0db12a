"""Which photos the page shows, and each of them as a strip: the photo, then what was found on it."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.photos.colors import label_places, mask_layer
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import IGNORE, Photo
from tag2mask.progress import track
from tag2mask.report.draw import heatmap

MOST_COMPARED = (
    1000  # photos whose masks are compared with the truth to find the best and the worst
)
MOST_HEATMAPS = 4  # of one photo
PIXELS = 12e6  # of all pictures of the page together: some 3 MB
WIDEST = 400

Truth = Callable[[Photo], np.ndarray | None]
Scores = Callable[[Photo], np.ndarray | None]


@dataclass(frozen=True)
class Shown:
    """A photo that was chosen, and the mean IoU of its mask where a true one exists."""

    photo: Photo
    iou: float | None = None


@dataclass(frozen=True)
class Panel:
    """What lies over a photo: a picture (data URI), names of classes with their places in percent."""

    kind: str  # "heat" or "mask"
    caption: str
    picture: str
    labels: list[tuple[int, float, float]] = field(default_factory=list)
    number: int = 0  # the class of a heatmap


@dataclass(frozen=True)
class Strip:
    """One photo and its panels."""

    name: str
    numbers: list[int]  # classes of its tags
    photo: str
    ratio: float  # width / height
    iou: float | None
    panels: list[Panel]


def mask_path(folder: Path, photo: Photo) -> Path:
    """Where the mask of a photo lies in a stage's folder."""
    return folder / f"{photo.name}.png"


def photo_iou(truth: np.ndarray, mask: np.ndarray) -> float | None:
    """Mean IoU over the classes of one photo (background included), true 255 skipped; (H, W) uint8 each. None where all is 255.

    Of a photo of more than a megapixel every second, third ... row and column counts.
    """
    step = 1 + int((mask.size / 1e6) ** 0.5)
    truth, mask = truth[::step, ::step], mask[::step, ::step]
    valid = truth != IGNORE
    pairs = np.bincount(truth[valid].astype(np.int64) * 256 + mask[valid], minlength=65536).reshape(
        256, 256
    )
    both = np.diag(pairs)
    either = pairs.sum(0) + pairs.sum(1) - both
    either[IGNORE] = 0
    present = either > 0
    return float((both[present] / either[present]).mean()) if present.any() else None


def spread(items: Sequence[Photo], count: int) -> list[Photo]:
    """`count` photos at even distances."""
    return [
        items[i]
        for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))
    ]


def choose(
    photos: Sequence[Photo], masks: Path, truth: Truth, count: int, what: str
) -> list[tuple[str, list[Shown]]]:
    """Photos to (heading, photos): best, middle and worst by the IoU of their masks where at least three have a true one, else a spread."""
    done = [photo for photo in photos if mask_path(masks, photo).exists()]
    ranked = []
    for photo in track(spread(done, MOST_COMPARED), f"comparing {what}"):
        if (true := truth(photo)) is not None and (
            iou := photo_iou(true, read_mask(mask_path(masks, photo)))
        ) is not None:
            ranked.append(Shown(photo, iou))
    if len(ranked) < 3:
        return [("", [Shown(photo) for photo in spread(done or photos, count)])]
    ranked.sort(key=lambda shown: -(shown.iou or 0))
    if len(ranked) <= count:
        return [("All, best first", ranked)]
    size = max(count // 3, 1)
    best = _varied(ranked, size)
    worst = _varied([shown for shown in reversed(ranked) if shown not in best], size)
    middle = sorted(
        (s for s in ranked if s not in best and s not in worst),
        key=lambda s: abs((s.iou or 0) - (ranked[len(ranked) // 2].iou or 0)),
    )
    return [("Best", best), ("Around the median", _varied(middle, size)), ("Worst", worst)]


def _varied(ranked: Sequence[Shown], count: int) -> list[Shown]:
    """The first `count`, passing over photos whose tags were taken already as long as others remain."""
    tags: set[tuple[str, ...]] = set()
    first: list[Shown] = []
    rest: list[Shown] = []
    for shown in ranked:
        (rest if shown.photo.tags in tags else first).append(shown)
        tags.add(shown.photo.tags)
    return (first + rest)[:count]


def picture_width(panels: int) -> int:
    """Width of every picture [pixels], so that a page with `panels` of them stays small."""
    return int(min(WIDEST, (PIXELS / max(panels, 1) * 4 / 3) ** 0.5))


def count_panels(photo: Photo) -> int:
    """Pictures of a photo's strip that take space; masks take little."""
    return 1 + min(len(photo.tags), MOST_HEATMAPS)


def make_strip(
    shown: Shown,
    classes: Sequence[str],
    width: int,
    caption: str,
    folder: Path,
    scores: Scores | None,
    truth: Truth,
) -> Strip:
    """A photo to its strip: heatmaps of its tags where there are `scores`, its mask in `folder` under `caption`, the true one."""
    photo = shown.photo
    picture = photo.open(at_least=width)
    ratio = picture.width / picture.height
    tall = min(
        1.0, 4 * ratio
    )  # a strip of a screenshot a hundred screens long is no picture that WebP could hold
    picture = picture.resize(
        (max(1, round(width * tall)), max(1, round(width * tall / ratio))), Image.Resampling.LANCZOS
    )
    numbers = [classes.index(tag) for tag in photo.tags]
    panels = []
    if scores and (found := scores(photo)) is not None:
        for number in numbers[:MOST_HEATMAPS]:
            heat = heatmap(picture, found[number])
            panels.append(Panel("heat", classes[number], _data_uri(heat, quality=72), [], number))
    path = mask_path(folder, photo)
    for title, mask in (
        (caption, read_mask(path) if path.exists() else None),
        ("true mask", truth(photo)),
    ):
        if mask is not None:
            layer = _data_uri(mask_layer(mask, picture.size), lossless=True)
            panels.append(
                Panel(
                    "mask",
                    title,
                    layer,
                    [(number, 100 * x, 100 * y) for number, x, y in label_places(mask)],
                )
            )
    return Strip(photo.name, numbers, _data_uri(picture, quality=80), ratio, shown.iou, panels)


def _data_uri(picture: Image.Image, **options: bool | int) -> str:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
