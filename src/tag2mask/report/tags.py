"""What the tags say about the masks, for the page: rows of its table, and warnings."""

from collections.abc import Mapping, Sequence
from typing import Any

from tag2mask.photos.areas import area_text

Finds = Mapping[str, Any] | None  # an entry "finds"; those of earlier versions have fewer figures


def tag_rows(
    tags: Sequence[str], masks: Finds, segmenter: Finds, peaks: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """For each tag the figures of its pseudo masks ("masks"), of the segmenter ("segmenter") and
    how often the evidence is highest on the object ("peaks"), as texts; the least found first."""
    rows = []
    for tag in tags:
        ours, theirs = ((finds or {}).get("tags", {}).get(tag) for finds in (masks, segmenter))
        if not (ours or theirs):
            continue
        peak = (peaks or {}).get(tag)
        row = {
            "name": tag,
            "masks": ours and _figures(ours),
            "segmenter": theirs and _figures(theirs),
            "peaks": peak and f"{peak['on_object']} of {peak['photos']}",
        }
        rate = [n["found"] / n["photos"] for n in (theirs, ours) if n]
        rows.append((rate, row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def _figures(n: Mapping[str, Any]) -> dict[str, Any]:
    """The finds of a tag: "found", "share" (0-1), "marked", "area" and "covered"."""
    area = n.get("area")
    covered = n.get("covered", 0) + n.get("covered_others", 0)
    return {
        "found": f"{n['found']} of {n['photos']}",
        "share": n["found"] / n["photos"],
        "marked": f"{n['marked']} of {n['others']}" if n.get("others") else "",
        "area": area and area_text(area),
        "covered": covered or "",
    }


def total(finds: Finds) -> str:
    """How many of all tags are found: "203 of 225"; "" if nobody knows."""
    if not finds or not finds["tags"]:
        return ""
    found, photos = (sum(n[key] for n in finds["tags"].values()) for key in ("found", "photos"))
    return f"{found} of {photos}"


def found_text(finds: Finds) -> str:
    """What a segmenter finds, in a part of a sentence; "" if nobody knows."""
    if not (finds and total(finds)):
        return ""
    photos = "training photos" if finds.get("split") == "train" else "validation photos"
    text = f"{photos}, which it gets without them, it finds {total(finds)}"
    if count := finds["nothing"]["photos"]:
        text += (
            f", and marks something on {finds['nothing']['marked']} of {count} photos of nothing"
        )
    return text
