"""Any photos to masks: several scales, mirrored, with the dense CRF if the settings have it.

The memory in use does not grow with the number of photos.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tag2mask.config import SegmenterSettings
from tag2mask.crf import dense_crf
from tag2mask.errors import DataError
from tag2mask.photos.colors import overlay
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import write_mask
from tag2mask.photos.table import BACKGROUND, Photo
from tag2mask.photos.tensors import enlarge, likeliest, reduced, to_tensor
from tag2mask.processes import cores, parallel_map
from tag2mask.segmenter.network import Segmenter

# Differs from DeepLab: classes that do not reach this probability in any pixel are left out of the
# CRF, because each class takes time
CRF_LEAST = 0.05


@dataclass(frozen=True)
class Prediction:
    """The segmenter's output for one photo.

    `probs`: the network's softmax, averaged over scales and mirror, at the size of its input.
    `decision`: `probs` after `object_first` and the CRF. Its values show only which class wins:
    `object_first` gives the total probability of all objects to one class, and the CRF moves every
    value close to 0 or 1.
    """

    probs: np.ndarray  # (C, h, w) float32 in 0-1, summing to 1
    decision: np.ndarray  # (C, h, w) float32 in 0-1, summing to 1: the mask is its argmax
    size: tuple[int, int]  # width, height of the photo [pixels]
    image: Image.Image  # the photo, perhaps reduced
    classes: tuple[str, ...]  # names by number, background first

    @property
    def pixel_probs(self) -> np.ndarray:
        """`probs` at every pixel of the photo: (C, H, W) float32. Large for large photos."""
        return enlarge(torch.from_numpy(self.probs), self.size).numpy()

    @cached_property
    def mask(self) -> np.ndarray:
        """The class of every pixel of the photo, the argmax of `decision`: (H, W) uint8."""
        return likeliest(torch.from_numpy(self.decision), self.size)

    @property
    def found(self) -> tuple[str, ...]:
        """Names of the classes in the mask, without background."""
        return tuple(self.classes[n] for n in np.unique(self.mask) if n != BACKGROUND)

    def overlay(self) -> Image.Image:
        """The photo with objects tinted, outlined and named in the color of their class: RGB."""
        image = self.image
        if image.size != self.size:
            image = image.resize(self.size, Image.Resampling.BILINEAR)
        return overlay(image, self.mask, self.classes)

    def save(self, path: Path | str) -> None:
        """Write the mask as an 8-bit palette PNG."""
        write_mask(Path(path), self.mask)


def predict(
    model: Segmenter, image: Image.Image, settings: SegmenterSettings | None = None
) -> Prediction:
    """An RGB photo to its Prediction. `settings` (sizes, scales, CRF); None: the model's."""
    settings = settings or model.settings
    small = reduced(image, settings.image_size)
    probs = _probabilities(model, small, settings)
    decision = _refine(small, _object_first(probs, settings), settings)
    return Prediction(probs, decision, image.size, image, model.classes)


def predict_photos(
    model: Segmenter,
    photos: Iterable[Photo],
    settings: SegmenterSettings | None = None,
    threads: int | None = None,
    on_error: Callable[[DataError], None] | None = None,
    decide: Callable[[Photo, np.ndarray], np.ndarray] | None = None,
) -> Iterator[tuple[Photo, Prediction]]:
    """Photos to their Predictions, in order. Threads read files and run the CRF.

    At most two predictions per thread are in memory. If a file is not a photo, `on_error` is called
    and the file is skipped; without `on_error`, DataError is raised. `decide`: a photo and its
    probabilities (C, h, w) to the input of the CRF, for photos with known tags; default:
    `object_first`.
    """
    settings = settings or model.settings
    threads = threads or cores()

    def read(photo: Photo) -> tuple[Photo, Image.Image] | None:
        try:
            return photo, photo.open(at_least=settings.image_size)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
            return None

    def finish(work: tuple[Photo, Image.Image, np.ndarray]) -> tuple[Photo, Prediction]:
        photo, small, probs = work
        decision = decide(photo, probs) if decide else _object_first(probs, settings)
        decision = _refine(small, decision, settings)
        prediction = Prediction(probs, decision, image_size(photo.path), small, model.classes)
        prediction.mask  # noqa: B018  computed here, in a thread
        return photo, prediction

    images = filter(None, parallel_map(read, photos, threads))
    small = ((photo, reduced(image, settings.image_size)) for photo, image in images)
    work = ((photo, image, _probabilities(model, image, settings)) for photo, image in small)
    yield from parallel_map(finish, work, threads)


@torch.inference_mode()
def _probabilities(model: Segmenter, image: Image.Image, settings: SegmenterSettings) -> np.ndarray:
    """Softmax averaged over scales and mirror: a photo of w x h to (C, h, w) float32."""
    device = next(model.parameters()).device
    model.eval()
    total = torch.zeros(
        (), device=device
    )  # Differs from DeepLab: the mean over scales, not the max
    for scale in settings.test_scales:
        width, height = (model.backbone.side(side * scale) for side in image.size)
        batch = to_tensor(image.resize((width, height), Image.Resampling.BILINEAR))[None].to(device)
        if settings.flip:
            batch = torch.cat([batch, batch.flip(-1)])
        probs = model.probabilities(batch, (image.height, image.width))
        total = total + (probs[0] + probs[1].flip(-1) if settings.flip else probs[0])
    mean: Tensor = total / (len(settings.test_scales) * (1 + settings.flip))
    return mean.cpu().numpy()


def _object_first(probs: np.ndarray, settings: SegmenterSettings) -> np.ndarray:
    """Probabilities (C, h, w) to a decision: in each pixel, the most likely object class gets the
    total probability of all object classes.

    So a pixel is background only if background is more likely than all objects together. A pixel
    that may be cow or sheep is not background.
    """
    if not settings.object_first:
        return probs
    first = np.zeros_like(probs)
    first[BACKGROUND] = probs[BACKGROUND]
    best = probs[BACKGROUND + 1 :].argmax(0)[None]
    np.put_along_axis(first[BACKGROUND + 1 :], best, probs[None, BACKGROUND + 1 :].sum(1), 0)
    return first


def _refine(image: Image.Image, decision: np.ndarray, settings: SegmenterSettings) -> np.ndarray:
    """The dense CRF on the classes that may be in the photo: (C, h, w) to the same."""
    if not settings.crf.iterations:
        return decision
    likely = [number for number, most in enumerate(decision.max((1, 2))) if most > CRF_LEAST]
    likely = likely or np.unique(decision.argmax(0)).tolist()  # if no class reaches it
    return dense_crf(np.array(image), decision, settings.crf, likely)
