"""Masks and tags to what the masks find and what they mark wrongly: no true mask is needed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Table, evenly_spaced
from tag2mask.processes import cores, parallel_map

LEAST = 20  # pixels: fewer of a class are no find
COVERED = 0.9  # of a photo: a mask with more of one class covers the photo
SAMPLE, SAMPLE_OF_NOTHING = 75, 25  # training photos on which a segmenter is tried, at most
MOST_NAMED = 20  # tags in a sentence
LISTED = 24  # photos of each kind that "look_at" names, at most

Maps = Callable[[Photo], tuple[Sequence[int], Any]]  # class numbers (K) and score maps (K, h, w)


def sample_photos(table: Table) -> Table:
    """At most 100 photos: a quarter of them of nothing, the others with all combinations of tags
    evenly."""
    tagged = sorted((photo for photo in table.photos if photo.tags), key=lambda p: (p.tags, p.name))
    nothing = [table.photos[index] for index in table.nothing]
    chosen = [*evenly_spaced(tagged, SAMPLE), *evenly_spaced(nothing, SAMPLE_OF_NOTHING)]
    return Table(table.tags, tuple(chosen), table.source)


def mask_areas(classes: Sequence[str], path: Path) -> dict[str, float]:
    """A mask file to the objects that it shows (more than 20 pixels): {tag: share in 0-1}."""
    mask = read_mask(path)
    pixels = np.bincount(mask.ravel(), minlength=256)
    pixels[[BACKGROUND, IGNORE]] = 0
    shown = np.flatnonzero(pixels > LEAST).tolist()
    return {classes[number]: float(pixels[number] / mask.size) for number in shown}


def count_finds(table: Table, folder: Path, maps: Maps | None = None) -> dict[str, Any] | None:
    """Photos with tags and their masks, `folder`/NAME.png, to the entry "finds" of metrics.json.
    None if no photo has a tag.

    "tags": see `_count_tag`. "nothing": on how many photos of nothing a mask shows something.
    "tagged": how many masks of photos with tags show nothing. "look_at": names of some photos of
    which a tag is not found, of nothing with a mark, and covered by one class. A mask shows a class
    if it has more than 20 pixels of it. `maps`: the score maps that the masks were made from, see
    `_evidence`.
    """
    if not any(photo.tags for photo in table.photos):
        return None  # nobody said what is in them

    def look(photo: Photo) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
        areas = mask_areas(table.classes, folder / f"{photo.name}.png")
        return areas, _evidence(table, photo, areas, maps) if maps else {}

    looks = list(parallel_map(look, table.photos, cores()))
    shown = [(photo, areas) for photo, (areas, _) in zip(table.photos, looks, strict=True)]
    look_at = {
        "missed": [photo for photo, areas in shown if set(photo.tags) - areas.keys()],
        "marked": [photo for photo, areas in shown if photo.of_nothing and areas],
        "covered": [photo for photo, areas in shown if max(areas.values(), default=0) > COVERED],
    }
    marked = [bool(areas) for photo, areas in shown if photo.of_nothing]
    empty = [not areas for photo, areas in shown if photo.tags]
    tags = {tag: _count_tag(tag, shown) for tag in table.tags}
    tags = {tag: numbers for tag, numbers in tags.items() if numbers["photos"]}
    for tag, numbers in tags.items():
        if rows := [evidence[tag] for _, evidence in looks if tag in evidence]:
            numbers["below_patch"] = int(sum(0 < row[0] < row[1] for row in rows))
            medians = np.median(rows, 0).tolist()[1:]
            numbers |= dict(zip(("patch", "middle"), medians, strict=True))
    return {
        "images": len(table),
        "least_pixels": LEAST,
        "tags": tags,
        "nothing": {"photos": len(marked), "marked": sum(marked)},
        "tagged": {"photos": len(empty), "empty": sum(empty)},
        "look_at": {
            what: [photo.name for photo in evenly_spaced(photos, LISTED)]
            for what, photos in look_at.items()
        },
    }


def _count_tag(tag: str, shown: Sequence[tuple[Photo, dict[str, float]]]) -> dict[str, Any]:
    """In how many photos with a tag the mask shows it ("found"), in how many that surely lack it
    ("marked" of "others"), and how many of both it covers (more than 90 % of the photo).

    "area": its smallest, median and largest share of the photos in which it is found, in 0-1.
    "area_others": its median share of all photos that lack it. None where there are none.
    """
    own = [areas.get(tag, 0.0) for photo, areas in shown if tag in photo.tags]
    lacks = [areas for photo, areas in shown if tag not in photo.tags + photo.unknown]
    others = [areas.get(tag, 0.0) for areas in lacks]
    found = [area for area in own if area]
    area = [float(np.quantile(found, q)) for q in (0, 0.5, 1)] if found else None
    return {
        "photos": len(own),
        "found": len(found),
        "area": area,
        "covered": sum(area > COVERED for area in own),
        "others": len(others),
        "marked": sum(area > 0 for area in others),
        "covered_others": sum(area > COVERED for area in others),
        "area_others": float(np.median(others)) if others else None,
    }


def _evidence(
    table: Table, photo: Photo, areas: dict[str, float], maps: Maps
) -> dict[str, tuple[float, ...]]:
    """For each tag of a photo, as shares of the photo: its mask and one patch. And the median of
    its evidence over the patches, divided by the largest."""
    numbers, scores = maps(photo) if photo.tags else ((), ())
    rows: dict[str, tuple[float, ...]] = {}
    for number, patches in zip(numbers, np.asarray(scores), strict=True):
        tag = table.classes[number]
        if number == BACKGROUND or tag not in photo.tags:
            continue
        relative = patches / max(float(patches.max()), 1e-6)
        rows[tag] = (areas.get(tag, 0.0), 1 / patches.size, float(np.median(relative)))
    return rows


def finds_text(finds: dict[str, Any]) -> str:
    """The entry "finds" of metrics.json in a sentence without its subject."""
    parts = []
    if tags := finds["tags"]:
        found, photos = (
            sum(numbers[key] for numbers in tags.values()) for key in ("found", "photos")
        )
        few = tags.items()
        if len(tags) > MOST_NAMED:
            few = sorted(few, key=lambda item: item[1]["found"] / item[1]["photos"])[:MOST_NAMED]
        each = ", ".join(f"{tag} {n['found']} of {n['photos']}" for tag, n in few)
        most = "" if len(few) == len(tags) else f"the {len(few)} least found: "
        parts.append(f"finds {found} of {photos} tags ({most}{each})")
    if photos := finds["nothing"]["photos"]:
        marked = finds["nothing"]["marked"]
        share = f"{100 * marked / photos:.1f} %"
        parts.append(f"marks something on {marked} of {photos} photos of nothing ({share})")
    return " and ".join(parts)
