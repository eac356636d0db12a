"""What handlers of the server answer with: JSON, masks, numbers of an address, facts of a photo."""

import io
import json
import zlib
from typing import Any

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tag2mask.photos.resize import reduced_mask
from tag2mask.photos.table import BACKGROUND
from tag2mask.report.pictures import photo_iou
from tag2mask.view.gallery import LARGEST, Gallery, Shown, stamp
from tag2mask.view.session import Session

FRESH = {"Cache-Control": "no-store"}


def facts_of(session: Session, shown: Shown) -> dict[str, Any]:
    """What is known of one photo."""
    gallery, photo = session.gallery, session.gallery.photo(shown)
    kinds = [kind for kind in ("pseudo", "first") if gallery.mask_file(shown, kind)]
    if gallery.score_folder(shown):
        kinds.append("before")
    if gallery.model or gallery.mask_file(shown, "segmenter"):
        kinds.append("segmenter")
    if shown.id in gallery.truth:
        kinds.append("truth")
    stored = gallery.scores(shown)
    tags, unknown = numbers_of(gallery, shown)
    return {
        "id": shown.id,
        "split": shown.split,
        "name": shown.photo.name,
        "file": str(shown.photo.path),
        "size": gallery.size(shown),
        "tags": photo.tags,
        "unknown": photo.unknown,
        "numbers": tags,
        "unsure": unknown,
        "masks": kinds,
        "mask": mask_time(gallery, shown),
        "heats": [gallery.classes.index(tag) for tag in stored[0].tags] if stored else [],
        "threshold": gallery.threshold(shown),
        "facts": session.worker.facts.get(shown.id, {}),
        "corrected": corrected(gallery, shown),
    }


def numbers_of(gallery: Gallery, shown: Shown) -> tuple[list[int], list[int]]:
    """The class numbers of a photo's present and of its unknown tags."""
    photo, classes = gallery.photo(shown), gallery.classes
    known = {tag: number for number, tag in enumerate(classes)}
    present, unknown = (
        [known[tag] for tag in tags if tag in known] for tags in (photo.tags, photo.unknown)
    )
    return present, unknown


def mask_time(gallery: Gallery, shown: Shown) -> str:
    """When the mask that stands for a photo changed, as text for an address; "" without one."""
    path = gallery.mask_file(shown, gallery.main_kind(shown))
    return base36(stamp(path) if path else 0)


def corrected(gallery: Gallery, shown: Shown) -> dict[str, Any]:
    """The corrections of a photo, and whether it can have some."""
    own, mark = gallery.corrected(shown), mark_of(gallery, shown)
    name, command = shown.photo.name, gallery.run.files.command("run").strip("`")
    alive = gallery.run.files.corrections.in_force if mark else []
    return {
        "possible": shown.split == "train",
        "tags": dict(own.tags),
        "mask": own.mask,
        "keeps": own.keeps_mask,
        "count": sum(line.photo == name for line in alive),
        "mark": mark,
        "says": says_of(gallery, shown),
        "run": command if mark and gallery.unlearned else None,
    }


def mark_of(gallery: Gallery, shown: Shown) -> str | None:
    """The sign of a photo's corrections in the grid: its mask's, or "tags", or None."""
    own = gallery.corrected(shown)
    return own.mask if own.mask != "computed" else "tags" if own.tags else None


def says_of(gallery: Gallery, shown: Shown) -> str:
    """The corrections of a photo in words."""
    own = gallery.corrected(shown)
    words = {"right": "mask right", "wrong": "mask wrong", "mended": "mask mended"}
    said = [words[own.mask]] if own.mask in words else []
    values = {"present": "{}", "absent": "no {}", "unknown": "perhaps {}"}
    return ", ".join([*said, *(values[value].format(tag) for tag, value in own.tags.items())])


def packed_mask(session: Session, request: Request, shown: Shown, values: np.ndarray) -> Response:
    """A mask (H, W) as the page reads it, with its IoU if there is a true mask."""
    true = session.gallery.truth.get(shown.id)
    whole = values.shape[::-1] == session.gallery.size(shown)
    iou = photo_iou(true(), values) if true and whole else None
    small = reduced_mask(values, LARGEST)
    headers = {
        **FRESH,
        "X-Size": f"{small.shape[1]} {small.shape[0]}",
        "X-Objects": f"{float((values != BACKGROUND).mean()):.4f}",
        "X-IoU": "" if iou is None else f"{iou:.4f}",
    }
    return compressed(request, small.tobytes(), "application/octet-stream", headers)


def number_of(request: Request, name: str, default: float, least: float, most: float) -> float:
    """A number of the address. Raises HTTPException."""
    text = request.query_params.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise HTTPException(400, f"{name} should be a number from {least:g} to {most:g}.")
    return value


def jpeg(image: Image.Image) -> bytes:
    """A picture to the bytes of a JPEG file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def packed(request: Request, value: Any) -> Response:
    """A value as JSON."""
    # A browser cannot read NaN and Infinity.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    body = text.encode("utf-8", "backslashreplace")
    return compressed(request, body, "application/json", FRESH)


def compressed(request: Request, body: bytes, kind: str, headers: dict[str, str]) -> Response:
    """An answer, compressed quickly if the browser reads that."""
    if "gzip" in request.headers.get("accept-encoding", "") and len(body) > 1000:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        body = packer.compress(body) + packer.flush()
        headers = {**headers, "Content-Encoding": "gzip"}
    return Response(body, media_type=kind, headers=headers)


def base36(number: int) -> str:
    """A time as short text for an address; "" for none."""
    return f"{number:x}" if number else ""
