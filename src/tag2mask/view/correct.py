"""Corrections made on the page: tags, judgements, strokes, undo. See photos/corrections.py."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tag2mask.config_files import faults
from tag2mask.photos.corrections import Stroke
from tag2mask.view.answers import facts_of, packed, packed_mask
from tag2mask.view.gallery import Shown
from tag2mask.view.session import Session

Threshold = Annotated[float, Field(gt=0, lt=1)] | None
MOST_STROKES, MOST_POINTS = 1000, 5000


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Tag(_Body):
    tag: str
    value: Literal["present", "absent", "unknown"]


class _Judgement(_Body):
    value: Literal["right", "wrong", "computed"]
    kind: Literal["", "pseudo", "mended", "first", "segmenter", "threshold"] = ""
    threshold: Threshold = None


class _Strokes(_Body):
    strokes: Annotated[list[Stroke], Field(min_length=1, max_length=MOST_STROKES)]
    threshold: Threshold = None


class _Undone(_Body):
    of: str | None = None


def _read(kind: Any, body: bytes) -> Any:
    """The body of a request as one of the kinds above. Raises HTTPException."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(400, f"Not understood: {'; '.join(faults(error))}") from None


def _training(session: Session, request: Request) -> Shown:
    shown = session.shown(request)
    if shown.split != "train":
        raise HTTPException(400, "Only training photos can be corrected.")
    return shown


def tag(session: Session, request: Request, body: bytes) -> Response:
    """Say whether a tag is in the photo."""
    shown, asked = _training(session, request), _read(_Tag, body)
    gallery = session.gallery
    if asked.tag not in gallery.table.tags:
        raise HTTPException(400, "There is no such tag in this run.")
    gallery.run.files.corrections.set_tag(shown.photo.name, asked.tag, asked.value)
    return packed(request, facts_of(session, shown))


def judge(session: Session, request: Request, body: bytes) -> Response:
    """Say that a mask is right or wrong, or take that or strokes back ("computed")."""
    shown, asked = _training(session, request), _read(_Judgement, body)
    gallery, name = session.gallery, shown.photo.name
    log = gallery.run.files.corrections
    if asked.value == "computed":
        log.take_back(name)
    elif asked.value == "wrong":
        log.judge_wrong(name)
    else:
        if asked.kind == "threshold":
            mask = gallery.mended(shown, (), asked.threshold)
        else:
            mask = gallery.mask(shown, asked.kind)
        if mask is None:
            raise HTTPException(400, "This photo has no such mask.")
        log.judge_right(name, mask, gallery.classes)
    return packed(request, facts_of(session, shown))


def strokes(session: Session, request: Request, body: bytes) -> Response:
    """Add strokes to those that the photo has; answers with its new mask."""
    shown, asked = _training(session, request), _read(_Strokes, body)
    gallery, name = session.gallery, shown.photo.name
    if sum(len(stroke.points) for stroke in asked.strokes) > MOST_POINTS:
        raise HTTPException(400, f"More than {MOST_POINTS} points.")
    if {stroke.tag for stroke in asked.strokes} - {*gallery.classes}:
        raise HTTPException(400, "There is no such tag in this run.")
    own = gallery.corrected(shown)
    every = [*(own.strokes if own.mask == "mended" else ()), *asked.strokes]
    mask = gallery.mended(shown, every, asked.threshold)
    if mask is None:
        raise HTTPException(409, "This photo has no score maps yet: wait for its pseudo mask.")
    gallery.run.files.corrections.mend(name, mask, gallery.classes, every)
    return packed_mask(session, request, shown, mask)


def undo(session: Session, request: Request, body: bytes) -> Response:
    """Take back the last correction of the photo, or the line `of`: an undo, to redo."""
    shown, asked = _training(session, request), _read(_Undone, body)
    log, name = session.gallery.run.files.corrections, shown.photo.name
    of = asked.of
    if of is None:
        of = next((line.id for line in reversed(log.in_force) if line.photo == name), None)
    else:
        line = next((line for line in log.lines if line.id == of), None)
        if log.photo_of(line) != name:
            raise HTTPException(400, "There is no such correction of this photo.")
    undone = log.undo(of) if of else None
    return packed(request, {"undone": undone, "about": facts_of(session, shown)})


CORRECTIONS = {"tag": tag, "judge": judge, "strokes": strokes, "undo": undo}
