"""Strokes of a user and the stored score maps of a photo to a new mask; the classifier never runs.

A stroke is certain where it was painted. The dense CRF alone hardly carries it further: its
messages are means over all similar pixels, of which few are painted. So a stroke also counts, with
less and less weight, where a path leads from it without crossing edges of the photo or of the mask
as it was (geodesic distances, as in Bai and Sapiro, ICCV 2007).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from tag2mask.config import CRFSettings, MaskSettings
from tag2mask.config_files import stored_settings
from tag2mask.crf import dense_crf
from tag2mask.crf.params import narrow
from tag2mask.errors import RunError
from tag2mask.files import read_json
from tag2mask.masks.make import read_score_maps
from tag2mask.masks.regions import vote
from tag2mask.masks.scores import tag_scores, to_pixels
from tag2mask.photos.correction_log import Stroke
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import CLASSES_FILE
from tag2mask.photos.regions import Regions
from tag2mask.photos.resize import likeliest, reduced
from tag2mask.photos.table import IGNORE, Photo

GRID = 160  # longer side of the picture on which paths are measured [pixels]
# What a path costs: this for the length of the longer side, for each change of color (all of
# 0-255), for each border of the mask as it was.
STEP, COLOR, BORDER = 1.0, 2.0, 0.3
REACH, SOFT = 0.5, 0.1  # a stroke weighs 1/2 at this cost; how fast its weight falls there
SWEEPS = 8
FAR = 1e6


def mend(
    folder: Path,
    photo: Photo,
    tags: Sequence[str],
    strokes: Sequence[Stroke] = (),
    threshold: float | None = None,
    regions: Regions | None = None,
) -> np.ndarray:
    """A photo, its score maps in `folder` (of the stage masks) and strokes to its mask, (H, W)
    uint8: class numbers of `tags`.

    The mask can show background, the photo's tags, also unknown ones, and what was painted. Without
    strokes and threshold it is the pseudo mask. threshold: that of background, in 0-1, instead of
    the one that made the masks. Strokes of tags that are not in `tags` are ignored. regions: of the
    photos, if they made the masks. Raises RunError if the folder is not complete.
    """
    about = read_json(folder / CLASSES_FILE)
    if not {"settings", "threshold", "classes"} <= about.keys():
        raise RunError(f"{folder}: made by an older tag2mask; run `tag2mask masks` again")
    settings = stored_settings(MaskSettings, json.dumps(about["settings"]), folder / CLASSES_FILE)
    if threshold is not None:
        settings = settings.model_copy(update={"threshold": threshold})
    classes, size = ("background", *tags), image_size(photo.path)
    image = reduced(photo.open(at_least=settings.mask_size), settings.mask_size)
    pixels, stored = np.asarray(image), _stored(folder, photo, about["classes"], classes)
    possible = set(
        classes if settings.scores == "softmax" else (classes[0], *photo.tags, *photo.unknown)
    )
    present = [number for number in sorted(stored) if classes[number] in possible]
    maps = torch.stack([stored[number] for number in present])
    painted = paint(strokes, classes, size, image.size)
    labels = np.array(sorted({*present, *np.unique(painted).tolist()} - {IGNORE}))
    probs = np.zeros((len(labels), image.height, image.width), np.float32)
    small = [row for row, n in enumerate(present) if classes[n] in about.get("small", ())]
    crf = narrow(settings.crf) if small else settings.crf
    scores = tag_scores(maps, settings, about["threshold"], small)
    probs[np.searchsorted(labels, present)] = to_pixels(scores, image.height, image.width)
    if strokes:
        before = probs.argmax(0)
        probs = _with_strokes(pixels, probs, before, labels, painted)
    voters = regions.of(photo, image.size) if regions else []
    probs = vote(probs, voters) if voters else _refined(pixels, probs, crf)
    mask = labels.astype(np.uint8)[likeliest(probs, size)]
    exact = paint(strokes, classes, size, size)
    mended: np.ndarray = np.where(exact == IGNORE, mask, exact)
    return mended


def _stored(
    folder: Path, photo: Photo, names: Sequence[str], classes: Sequence[str]
) -> dict[int, torch.Tensor]:
    """The stored score maps of a photo (h, w), by their numbers in `classes`; `names` has the
    classes when they were stored. Raises RunError."""
    if not (folder / f"{photo.name}.npz").exists():
        raise RunError(f"{folder} has no score maps of {photo.name}; run `tag2mask masks` first")
    maps = zip(*read_score_maps(folder, photo), strict=True)
    return {classes.index(names[n]): scores for n, scores in maps if names[n] in classes}


def _refined(pixels: np.ndarray, probs: np.ndarray, settings: CRFSettings) -> np.ndarray:
    return dense_crf(pixels, probs, settings) if settings.iterations and len(probs) > 1 else probs


def paint(
    strokes: Sequence[Stroke], classes: Sequence[str], size: tuple[int, int], at: tuple[int, int]
) -> np.ndarray:
    """Strokes on a photo of `size` (W, H) to class numbers (h, w) uint8, `at` being (w, h); 255
    where nothing was painted. Later strokes cover earlier ones."""
    picture = Image.new("L", at, IGNORE)
    draw = ImageDraw.Draw(picture)
    x_scale, y_scale = at[0] / size[0], at[1] / size[1]
    for stroke in strokes:
        if stroke.tag not in classes:
            continue
        number, radius = classes.index(stroke.tag), max(0.5, stroke.radius * x_scale)
        points = [(x * x_scale, y * y_scale) for x, y in stroke.points]
        draw.line(points, number, max(1, round(2 * radius)), joint="curve")
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), number)
    return np.asarray(picture)


def _with_strokes(
    pixels: np.ndarray,
    probs: np.ndarray,
    before: np.ndarray,
    labels: np.ndarray,
    painted: np.ndarray,
) -> np.ndarray:
    """Scores (K, H, W) of the classes `labels` (K) in a photo (H, W, 3) that strokes pull towards
    what was painted, most where it was. before: the mask without strokes, as indices of labels."""
    height, width = painted.shape
    factor = min(1.0, GRID / max(height, width))
    grid = (max(2, round(width * factor)), max(2, round(height * factor)))

    def small(values: np.ndarray, how: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(values).resize(grid, how))

    colors = small(pixels, Image.Resampling.BOX).astype(np.float32)
    borders = small(before.astype(np.uint8), Image.Resampling.NEAREST)
    near = np.stack([painted == number for number in labels])
    sources = np.stack(
        [small(mask.astype(np.uint8) * 255, Image.Resampling.BOX) > 0 for mask in near]
    )
    costs = _distances(colors, borders, sources)  # (K, h, w)
    nearest, cost = costs.argmin(0), costs.min(0)
    weight = 1 / (1 + np.exp(((cost - REACH) / SOFT).clip(-50, 50)))
    pulls = np.where(nearest == np.arange(len(labels))[:, None, None], weight, 0)
    pulled = to_pixels(torch.from_numpy(pulls.astype(np.float32)), height, width)
    mixed = (1 - pulled.sum(0)) * probs + pulled
    mixed[:, near.any(0)] = near[:, near.any(0)]
    return mixed.clip(0, 1).astype(np.float32)


def _distances(colors: np.ndarray, borders: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """The cost of the cheapest path from any of `sources` (K, h, w) bool to each pixel: (K, h, w).

    colors: (h, w, 3) in 0-255; borders: labels (h, w).
    """
    costs = np.where(sources, 0.0, FAR)
    steps = {}
    for axis in (0, 1):
        change = np.linalg.norm(np.diff(colors, axis=axis), axis=2) / 441
        crossing = np.diff(borders.astype(int), axis=axis) != 0
        step = STEP / max(borders.shape) + COLOR * change + BORDER * crossing
        first = np.zeros_like(step.take([0], axis))
        steps[axis] = np.cumsum(np.concatenate([first, step], axis), axis)
    for _ in range(SWEEPS):  # along all rows, then all columns, both ways
        for axis, along in steps.items():
            forth = np.minimum.accumulate(costs - along, axis + 1) + along
            back = np.flip(
                np.minimum.accumulate(np.flip(costs + along, axis + 1), axis + 1), axis + 1
            )
            costs = np.minimum(forth, back - along)
    return costs
