"""Masks and tags to what the masks find and what they mark wrongly: no true mask is needed."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Table
from tag2mask.processes import cores, parallel_map

LEAST = 20  # pixels: fewer of a class are no find


def count_finds(table: Table, folder: Path) -> dict[str, Any] | None:
    """Photos with tags and their masks, `folder`/NAME.png, to the entry "finds" of metrics.json: in
    how many photos with a tag the mask shows that tag (more than 20 pixels), and on how many photos
    of nothing it shows anything. None if no photo has a tag.
    """
    if not any(photo.tags for photo in table.photos):
        return None  # nobody said what is in them
    tags = {tag: {"photos": 0, "found": 0} for tag in table.tags}
    nothing = {"photos": 0, "marked": 0}
    shown = parallel_map(partial(_shown, table.classes, folder), table.photos, cores())
    for photo, classes in zip(table.photos, shown, strict=True):
        if photo.of_nothing:
            nothing["photos"] += 1
            nothing["marked"] += bool(classes)
        for tag in photo.tags:
            tags[tag]["photos"] += 1
            tags[tag]["found"] += tag in classes
    tags = {tag: numbers for tag, numbers in tags.items() if numbers["photos"]}
    return {"least_pixels": LEAST, "tags": tags, "nothing": nothing}


def _shown(classes: Sequence[str], folder: Path, photo: Photo) -> set[str]:
    """The objects that a photo's mask shows."""
    pixels = np.bincount(read_mask(folder / f"{photo.name}.png").ravel(), minlength=256)
    shown = np.flatnonzero(pixels > LEAST).tolist()
    return {classes[number] for number in shown if number not in (BACKGROUND, IGNORE)}


def finds_text(finds: dict[str, Any]) -> str:
    """The entry "finds" of metrics.json in a sentence without its subject."""
    parts = []
    if tags := finds["tags"]:
        found, photos = (
            sum(numbers[key] for numbers in tags.values()) for key in ("found", "photos")
        )
        each = ", ".join(f"{tag} {n['found']} of {n['photos']}" for tag, n in tags.items())
        parts.append(f"finds {found} of {photos} tags ({each})")
    if photos := finds["nothing"]["photos"]:
        marked = finds["nothing"]["marked"]
        share = f"{100 * marked / photos:.1f} %"
        parts.append(f"marks something on {marked} of {photos} photos of nothing ({share})")
    return " and ".join(parts)
