"""The addresses of the server: the page's files, lists of photos as JSON, pictures and masks.

What a browser sends selects something that is known here, an id, a class, a kind of mask: it is
never part of a path.
"""

import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tag2mask.errors import Tag2MaskError
from tag2mask.files import writing
from tag2mask.photos.colors import color, mask_layer
from tag2mask.photos.resize import fitted
from tag2mask.progress import log
from tag2mask.report.draw import heatmap
from tag2mask.view import progress
from tag2mask.view.answers import (
    FRESH,
    base36,
    facts_of,
    jpeg,
    mark_of,
    mask_time,
    number_of,
    numbers_of,
    packed,
    packed_mask,
    says_of,
)
from tag2mask.view.correct import CORRECTIONS
from tag2mask.view.gallery import stamp
from tag2mask.view.guard import LOOPBACK, Guard
from tag2mask.view.session import Session

THUMB = 360  # longer side of the pictures in the grid [pixels]
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
LONG = {"Cache-Control": "private, max-age=31536000, immutable"}
THRESHOLDS = 0.01, 0.99


def make_app(folder: Path, host: str | None, port: int, token: str) -> Starlette:
    """The server of a run's page. `host` and `token` as in `serve`. Raises RunError, DataError."""
    session = Session(folder)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        session.worker.start()
        yield
        await run_in_threadpool(session.worker.stop, 10)

    def route(path: str, answer: Callable[..., Response], method: str = "GET") -> Route:
        return Route(path, partial(_answer, session, answer), methods=[method])

    own = (host or LOOPBACK[0]).lower()
    names = None if own in ("0.0.0.0", "::") else {*LOOPBACK, own, f"[{own}]"}
    photo = "/api/photos/{id}"
    return Starlette(
        routes=[
            route("/", page),
            route("/page/{name}", page),
            route("/api/run", run_state),
            route("/api/photos", photos),
            route("/api/facts", facts),
            route(photo, about),
            route(f"{photo}/thumb", thumb),
            route(f"{photo}/layer", layer),
            route(f"{photo}/picture", picture),
            route(f"{photo}/heat", heat),
            route(f"{photo}/mask", mask),
            *(route(f"{photo}/{name}", answer, "POST") for name, answer in CORRECTIONS.items()),
        ],
        middleware=[Middleware(Guard, names, token, f"tag2mask-{port}")],
        exception_handlers=dict.fromkeys((HTTPException, Tag2MaskError, OSError), _failed),
        lifespan=lifespan,
    )


async def _answer(session: Session, answer: Callable[..., Response], request: Request) -> Response:
    body = [await request.body()] if request.method == "POST" else []
    try:
        return await run_in_threadpool(answer, session, request, *body)
    except (HTTPException, Tag2MaskError, OSError):
        raise
    except Exception as error:  # a fault of tag2mask: the page says it, the terminal shows where
        log.error(f"view: {request.url.path}\n{traceback.format_exc()}")
        return JSONResponse({"error": f"A fault of tag2mask: {error!r}"}, 500, headers=FRESH)


def _failed(request: Request, error: Exception) -> Response:
    text, status = str(error), 409
    if isinstance(error, HTTPException):
        text, status = error.detail, error.status_code
    return JSONResponse({"error": text}, status, headers=FRESH)


# ---- the page and its lists ----------------------------------------------------------------------


@cache
def page_files() -> dict[str, bytes]:
    """The files of the page by name."""
    folder = files("tag2mask.view") / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def page(session: Session, request: Request) -> Response:
    """A file of the page."""
    name = request.path_params.get("name", "index.html")
    if name not in page_files():
        raise HTTPException(404, "There is no such file.")
    kind = TYPES.get(name.rpartition(".")[2], "application/octet-stream")
    return Response(page_files()[name], media_type=kind, headers={"Cache-Control": "no-cache"})


def run_state(session: Session, request: Request) -> Response:
    """The run: its classes, stages and losses, and how far the facts are."""
    session.refresh()
    gallery, worker = session.gallery, session.worker
    files, train = gallery.run.files, len(gallery.run.table)
    settings = gallery.run.config.segmenter
    total = len(gallery.photos)
    value = {
        "name": gallery.run.folder.name,
        "folder": str(gallery.run.folder),
        "version": gallery.version,
        "fault": session.fault,
        "classes": gallery.classes,
        "colors": [color(number) for number in range(len(gallery.classes))],
        "photos": {"train": train, "val": total - train},
        "truth": bool(gallery.truth),
        "segmenter": bool(gallery.model),
        "corrected": len(gallery.corrections),
        "command": files.command("run").strip("`") if gallery.unlearned else None,
        "stages": progress.stages(files, settings, train, total - train),
        "curves": progress.curves(files),
        "facts": {"looked": len(worker.facts), "predicted": worker.predicted, "of": total},
    }
    return packed(request, value)


def photos(session: Session, request: Request) -> Response:
    """All photos: rows of id, split, name, present and unknown tags, ratio of the sides, times of
    change of photo and mask, corrections as a mark and in words."""
    gallery = session.gallery
    rows = []
    for shown in gallery:
        width, height = gallery.size(shown)
        times = [base36(stamp(shown.photo.path)), mask_time(gallery, shown)]
        more = [mark_of(gallery, shown), says_of(gallery, shown)]
        ratio = round(width / height, 4)
        tags, unknown = numbers_of(gallery, shown)
        rows.append([shown.id, shown.split, shown.photo.name, tags, unknown, ratio, *times, *more])
    return packed(request, {"version": gallery.version, "rows": rows})


def facts(session: Session, request: Request) -> Response:
    """The facts of the photos whose facts are new since the number `since`, and all doubts."""
    worker = session.worker
    since = int(number_of(request, "since", 0, 0, 1e12))
    count = len(worker.changed)
    ids = dict.fromkeys(worker.changed[since:count])
    new = {i: worker.facts[i] | {"mask": base36(worker.facts[i].get("mask", 0))} for i in ids}
    doubts = worker.doubts() if ids else {}
    rounded = {i: round(value, 4) for i, value in doubts.items()}
    return packed(request, {"next": count, "facts": new, "doubts": rounded})


def about(session: Session, request: Request) -> Response:
    """What is known of one photo."""
    return packed(request, facts_of(session, session.shown(request)))


# ---- pictures and masks --------------------------------------------------------------------------


def thumb(session: Session, request: Request) -> Response:
    """The photo as a small picture."""
    gallery, shown = session.gallery, session.shown(request)
    path = gallery.cache / "thumbs" / shown.split / f"{shown.photo.name}.webp"
    with gallery.making(path):
        if stamp(path) <= stamp(shown.photo.path):
            small = gallery.picture(shown, THUMB)
            with writing(path) as temporary:
                small.save(temporary, "WEBP", quality=78, method=2)
        body = path.read_bytes()
    return Response(body, media_type="image/webp", headers=LONG)


def layer(session: Session, request: Request) -> Response:
    """The mask that stands for the photo, as a small picture to lay over it."""
    gallery, shown = session.gallery, session.shown(request)
    kind = gallery.main_kind(shown)
    source = gallery.mask_file(shown, kind)
    if not source:
        raise HTTPException(404, "This photo has no mask yet.")
    place = gallery.cache / "layers" / ("mended" if kind == "mended" else shown.split)
    path = place / f"{shown.photo.name}.webp"
    with gallery.making(path):
        if stamp(path) <= stamp(source):
            values = gallery.mask(shown, kind)
            assert values is not None, "its file was there"
            drawn = mask_layer(values, fitted(values.shape[::-1], THUMB))
            with writing(path) as temporary:
                drawn.save(temporary, "WEBP", lossless=True, method=2)
        body = path.read_bytes()
    return Response(body, media_type="image/webp", headers=LONG)


def picture(session: Session, request: Request) -> Response:
    """The photo, large."""
    image = session.gallery.picture(session.shown(request))
    return Response(jpeg(image), media_type="image/jpeg", headers=LONG)


def heat(session: Session, request: Request) -> Response:
    """The score map of a class, drawn on the photo as in the report."""
    gallery, shown = session.gallery, session.shown(request)
    number = int(number_of(request, "class", 0, 0, 255))
    if (scores := gallery.heat(shown, number)) is None:
        raise HTTPException(404, "This photo has no score map of this class.")
    drawn = heatmap(gallery.picture(shown), scores)
    return Response(jpeg(drawn), media_type="image/jpeg", headers=FRESH)


def mask(session: Session, request: Request) -> Response:
    """A mask of the photo: a byte for each pixel of the picture, rows from the top.

    With `threshold`, the pseudo mask at this background threshold.
    """
    gallery, shown = session.gallery, session.shown(request)
    if "threshold" in request.query_params:
        values = gallery.mended(shown, (), number_of(request, "threshold", 0.5, *THRESHOLDS))
    else:
        values = gallery.mask(shown, request.query_params.get("kind", ""))
    if values is None:
        raise HTTPException(404, "This photo has no such mask.")
    return packed_mask(session, request, shown, values)
