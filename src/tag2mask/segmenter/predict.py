"""Any photos to masks: several scales, mirrored, with the dense CRF if the settings have it.

The memory in use does not grow with the number of photos.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from tag2mask.config import SegmenterSettings
from tag2mask.crf.decide import THRESHOLD, decide
from tag2mask.errors import DataError
from tag2mask.photos.predictions import Prediction
from tag2mask.photos.resize import reduced
from tag2mask.photos.tiles import Tiles
from tag2mask.processes import cores, parallel_map


class Network(Protocol):
    """What predicts: a `Segmenter`, or one that was exported. So PyTorch is not imported here."""

    @property
    def settings(self) -> SegmenterSettings: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def small(self) -> tuple[int, ...]: ...  # the classes whose things are small

    @property
    def least(self) -> float | Sequence[float]: ...  # see `before_crf`

    @property
    def in_threads(self) -> bool:
        """Whether several threads should call `run` at once, with one core each."""

    def to(self, device: Any) -> Any:
        """Compute on this device from now on."""

    def side(self, pixels: float) -> int:
        """The nearest side of a photo that `run` takes [pixels]."""

    def run(self, batch: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Photos (B, 3, H, W) float32, RGB in 0-1, to the probabilities of the classes, (B, C,
        *size) float32, `size` being (height, width) [pixels]."""


class Picture(Protocol):
    """What is predicted: a `Photo`, or a picture in memory."""

    @property
    def file(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def open(self, at_least: int | None = None) -> Image.Image: ...


P = TypeVar("P", bound=Picture)


def predict(
    model: Network,
    image: Image.Image,
    settings: SegmenterSettings | None = None,
    threshold: float = THRESHOLD,
) -> Prediction:
    """An RGB photo to its Prediction. `settings` (sizes, scales, CRF); None: the model's."""
    settings = settings or model.settings
    small = reduced(image, settings.image_size)
    probs = probabilities(model, small, settings)
    decision = decide(small, probs, settings, threshold, model.small, model.least)
    return Prediction(probs, decision, image.size, image, model.classes)


def predict_photos(
    model: Network,
    photos: Iterable[P],
    settings: SegmenterSettings | None = None,
    threads: int | None = None,
    on_error: Callable[[DataError], None] | None = None,
    threshold: float = THRESHOLD,
) -> Iterator[tuple[P, Prediction]]:
    """Photos to their Predictions, in order. Threads read files and run the CRF, and on a CPU
    the network.

    At most two predictions per thread are in memory. If a file is not a photo, `on_error` is called
    and the file is skipped; without `on_error`, DataError is raised.
    """
    settings = settings or model.settings
    threads = threads or cores()

    def finish(work: tuple[P, Image.Image, np.ndarray]) -> tuple[P, Prediction]:
        photo, small, probs = work
        decision = decide(small, probs, settings, threshold, model.small, model.least)
        prediction = Prediction(probs, decision, photo.size, small, model.classes, photo.file)
        prediction.mask  # noqa: B018  computed here, in a thread
        return photo, prediction

    work = all_probabilities(model, photos, settings, threads, on_error)
    yield from parallel_map(finish, work, threads)


def all_probabilities(
    model: Network,
    photos: Iterable[P],
    settings: SegmenterSettings,
    threads: int,
    on_error: Callable[[DataError], None] | None = None,
) -> Iterator[tuple[P, Image.Image, np.ndarray]]:
    """Photos to what the network sees of each and its `probabilities`, in order. Threads read the
    files, and on a CPU run the network. on_error: as in `predict_photos`."""

    def read(photo: P) -> tuple[P, Image.Image, np.ndarray | None] | None:
        try:
            image = photo.open(at_least=settings.image_size)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
            return None
        small = reduced(image, settings.image_size)
        return photo, small, probabilities(model, small, settings) if model.in_threads else None

    for photo, small, probs in filter(None, parallel_map(read, photos, threads)):
        yield photo, small, probabilities(model, small, settings) if probs is None else probs


def make_tiles(
    model: Network,
    size: int,
    overlap: int,
    settings: SegmenterSettings | None = None,
    threshold: float = THRESHOLD,
) -> Tiles:
    """How this network predicts a large picture: see `Tiles`. Raises ConfigError."""
    settings = settings or model.settings
    return Tiles(
        size,
        overlap,
        lambda image: probabilities(model, image, settings),
        lambda image, probs: decide(image, probs, settings, threshold, model.small, model.least),
    )


def probabilities(model: Network, image: Image.Image, settings: SegmenterSettings) -> np.ndarray:
    """Softmax averaged over scales and mirror: a photo of w x h to (C, h, w) float32."""
    means = []  # Differs from DeepLab: the mean over scales, not the max
    for scale in settings.test_scales:
        width, height = (model.side(side * scale) for side in image.size)
        scaled = image.resize((width, height), Image.Resampling.BILINEAR)
        batch = np.asarray(scaled, np.float32).transpose(2, 0, 1)[None] / 255
        if settings.flip:
            batch = np.concatenate([batch, batch[..., ::-1]])
        probs = model.run(batch, (image.height, image.width))
        means.append((probs[0] + probs[1, ..., ::-1]) / 2 if settings.flip else probs[0])
    return np.mean(means, 0) if len(means) > 1 else np.ascontiguousarray(means[0])
