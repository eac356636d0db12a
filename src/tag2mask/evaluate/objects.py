"""Objects by their size, and whether the evidence for a tag is highest on its object.

An object is all pixels of one class in the true mask of one photo.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tag2mask.evaluate.finds import Maps
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo
from tag2mask.processes import cores, parallel_map

SIZES = {"< 0.5 %": 0.005, "0.5 to 2 %": 0.02, "2 to 10 %": 0.1, "> 10 %": np.inf}  # of the photo
NEAR = 16  # pixels: a peak as near as this to the object is on it


def object_scores(pixels: np.ndarray) -> np.ndarray:
    """Pixels of one photo per pair of numbers (256 true, 256 predicted), as `count_pixels` returns
    them, to its objects: (N, 3), their share of the photo, recall, and IoU, all in 0-1."""
    true, predicted, hits = pixels.sum(1), pixels[:IGNORE].sum(0), pixels.diagonal()
    numbers = np.flatnonzero(true[:IGNORE])
    numbers = numbers[numbers != BACKGROUND]
    hits, true = hits[numbers], true[numbers]
    union = true + predicted[numbers] - hits
    return np.stack([true / pixels.sum(), hits / true, hits / union], 1)


def by_size(objects: np.ndarray) -> dict[str, dict[str, float]]:
    """Objects (N, 3) to their number, mean recall and mean IoU (0-1) for each size. Sizes without
    objects are left out."""
    size, rows = np.digitize(objects[:, 0], list(SIZES.values())), {}
    for i, name in enumerate(SIZES):
        if len(some := objects[size == i]):
            recall, iou = some[:, 1:].mean(0).tolist()
            rows[name] = {"objects": len(some), "recall": recall, "iou": iou}
    return rows


def count_peaks(
    photos: Iterable[Photo],
    classes: Sequence[str],
    maps: Maps,
    truth: Callable[[Photo], np.ndarray],
) -> dict[str, dict[str, int]]:
    """Photos with score maps and true masks: of how many photos that show a tag ("photos") the
    largest evidence for it lies on the object or within 16 pixels of it ("on_object").

    Where a patch has a side of more than 32 pixels of the photo, half of it in place of 16 pixels:
    the evidence says no more than which patch.
    """

    def look(photo: Photo) -> dict[str, bool]:
        numbers, scores = maps(photo)
        mask = truth(photo)
        tags = {classes[n]: (n, np.asarray(s)) for n, s in zip(numbers, scores, strict=True)}
        return {
            tag: peak_on_object(patches, mask == number)
            for tag, (number, patches) in tags.items()
            if tag in photo.tags and (mask == number).any()
        }

    counts: dict[str, dict[str, int]] = {}
    for peaks in parallel_map(look, photos, cores()):
        for tag, on_object in peaks.items():
            row = counts.setdefault(tag, {"photos": 0, "on_object": 0})
            row["photos"] += 1
            row["on_object"] += on_object
    return {tag: counts[tag] for tag in classes if tag in counts}


def peak_on_object(patches: np.ndarray, is_object: np.ndarray) -> bool:
    """Evidence (h, w) and an object (H, W) bool to whether the evidence is largest near it."""
    cell = np.array(is_object.shape) / patches.shape
    place = (np.array(np.unravel_index(patches.argmax(), patches.shape)) + 0.5) * cell
    reach = max(NEAR, float(cell.max()) / 2)
    rows, columns = np.nonzero(is_object)
    return bool((np.hypot(rows + 0.5 - place[0], columns + 0.5 - place[1]) <= reach).any())


def peaks_text(peaks: dict[str, Any]) -> str:
    """What `count_peaks` returns in a sentence."""
    found, photos = (sum(row[key] for row in peaks.values()) for key in ("on_object", "photos"))
    each = ", ".join(f"{tag} {row['on_object']} of {row['photos']}" for tag, row in peaks.items())
    return f"the largest evidence lies on the object in {found} of {photos} cases ({each})"
