"""The run that the page shows, read again when it has new settings or results."""

import time
from pathlib import Path
from threading import RLock

from starlette.exceptions import HTTPException
from starlette.requests import Request

from tag2mask.errors import Tag2MaskError
from tag2mask.view import progress
from tag2mask.view.facts import Worker
from tag2mask.view.gallery import Gallery, Shown


class Session:
    """A gallery and the thread that computes its facts. Raises RunError, DataError."""

    def __init__(self, folder: Path):
        self.gallery = Gallery(folder)
        self.fault = ""  # why the run could not be read again
        self._state, self._looked, self._lock = self.gallery.state(), time.monotonic(), RLock()
        self.worker = Worker(self.gallery, self.busy)

    def busy(self) -> bool:
        """Whether a command works in the run folder."""
        return progress.running(self.gallery.run.files)

    def refresh(self) -> None:
        """Read the run again if it has changed, at most once a second."""
        self.worker.seen = time.monotonic()
        with self._lock:
            if time.monotonic() - self._looked < 1:
                return
            self._looked = time.monotonic()
            if (state := self.gallery.state()) == self._state:
                return
            try:
                gallery = Gallery(self.gallery.run.folder, self.gallery.facts)
            except Tag2MaskError as error:  # the table is being written
                self.fault = str(error)
                return
            self.worker.stop()
            self.gallery, self._state, self.fault = gallery, state, ""
            self.worker = Worker(gallery, self.busy)
            self.worker.start()

    def shown(self, request: Request) -> Shown:
        """The photo of a request. Raises HTTPException."""
        self.worker.seen = time.monotonic()
        if shown := self.gallery.photos.get(request.path_params["id"]):
            return shown
        raise HTTPException(404, "There is no such photo in this run.")
