"""Any pictures to masks: multi-scale, mirrored, refined by the dense CRF on request, as a stream of bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
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
from tag2mask.segmenter.deeplab import DeepLabV2

CRF_LEAST = 0.05  # Differs from DeepLab: classes that nowhere reach this probability stay out of the CRF, which costs time per class


@dataclass(frozen=True)
class Prediction:
    """What the segmenter sees in one picture.

    `probs` are the network's softmax, the mean over scales and mirror, at the size it worked at: they sum to 1 over the classes, and
    neither `object_first` nor the CRF has touched them. `decision` is what these two make of them. Its values say only which class
    wins: `object_first` gives all that is not background to one class, and the CRF drives every pixel towards 0 or 1.
    """

    probs: np.ndarray  # (C, h, w) float32 in 0-1: the network's softmax
    decision: np.ndarray  # (C, h, w) float32 in 0-1, summing to 1: the mask is its argmax
    size: tuple[int, int]  # width, height of the picture [pixels]
    image: Image.Image  # the picture, perhaps reduced
    classes: tuple[str, ...]  # names by number, background first

    @property
    def pixel_probs(self) -> np.ndarray:
        """`probs` at every pixel of the picture: (C, H, W) float32 in 0-1, summing to 1. Large for large pictures."""
        return enlarge(torch.from_numpy(self.probs), self.size).numpy()

    @cached_property
    def mask(self) -> np.ndarray:
        """The class of every pixel of the picture, the argmax of `decision`: (H, W) uint8."""
        return likeliest(torch.from_numpy(self.decision), self.size)

    @property
    def found(self) -> tuple[str, ...]:
        """Names of the classes in the mask, background left out."""
        return tuple(
            self.classes[number] for number in np.unique(self.mask) if number != BACKGROUND
        )

    def overlay(self) -> Image.Image:
        """The picture with every object tinted, outlined and named in its class's color: RGB, the picture's size."""
        picture = (
            self.image.resize(self.size, Image.Resampling.BILINEAR)
            if self.image.size != self.size
            else self.image
        )
        return overlay(picture, self.mask, self.classes)

    def save(self, path: Path | str) -> None:
        """Write the mask as an 8-bit palette PNG."""
        write_mask(Path(path), self.mask)


def predict(
    model: DeepLabV2, image: Image.Image, settings: SegmenterSettings | None = None
) -> Prediction:
    """An RGB picture to its Prediction; `settings` (sizes, scales, mirror, CRF) are the model's own unless given."""
    settings = settings or model.settings
    small = reduced(image, settings.image_size)
    probs = _probabilities(model, small, settings)
    decision = _refine(small, _object_first(probs, settings), settings)
    return Prediction(probs, decision, image.size, image, model.classes)


def predict_photos(
    model: DeepLabV2,
    photos: Iterable[Photo],
    settings: SegmenterSettings | None = None,
    threads: int | None = None,
    on_error: Callable[[DataError], None] | None = None,
    decide: Callable[[Photo, np.ndarray], np.ndarray] | None = None,
) -> Iterator[tuple[Photo, Prediction]]:
    """Photos to their Predictions, one at a time and in order; files are read and the CRF runs in threads beside the network.

    At most two predictions a thread are under way: memory does not grow with the number of photos. A file that is no
    picture goes to `on_error` and is passed over; without `on_error` it raises DataError when it comes up. `decide`:
    a photo and its probabilities (C, h, w) to what the CRF gets, for photos whose tags are known; without it, see `object_first`.
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
        prediction = Prediction(
            probs, _refine(small, decision, settings), image_size(photo.path), small, model.classes
        )
        prediction.mask  # noqa: B018  enlarged here, in a thread
        return photo, prediction

    def network(
        pictures: Iterable[tuple[Photo, Image.Image] | None],
    ) -> Iterator[tuple[Photo, Image.Image, np.ndarray]]:
        for photo, image in filter(None, pictures):
            small = reduced(image, settings.image_size)
            yield photo, small, _probabilities(model, small, settings)

    yield from parallel_map(finish, network(parallel_map(read, photos, threads)), threads)


@torch.inference_mode()
def _probabilities(model: DeepLabV2, image: Image.Image, settings: SegmenterSettings) -> np.ndarray:
    """Softmax averaged over scales and mirror: a picture of w x h to (C, h, w) float32."""
    device = next(model.parameters()).device
    model.eval()
    total: Tensor | float = 0.0  # Differs from DeepLab: the mean over scales, not the maximum
    for scale in settings.test_scales:
        sides = (model.side(image.width * scale), model.side(image.height * scale))
        batch = to_tensor(image.resize(sides, Image.Resampling.BILINEAR))[None].to(device)
        if settings.flip:
            batch = torch.cat([batch, batch.flip(-1)])
        logits = F.interpolate(
            model(batch).float(), (image.height, image.width), mode="bilinear", align_corners=True
        )
        probs = logits.softmax(1)
        total = total + (probs[0] + probs[1].flip(-1) if settings.flip else probs[0])
    return (total / (len(settings.test_scales) * (1 + settings.flip))).cpu().numpy()  # type: ignore[union-attr]


def _object_first(probs: np.ndarray, settings: SegmenterSettings) -> np.ndarray:
    """Probabilities (C, h, w) to a decision: all that is not background goes to the likeliest other class of each pixel.

    So a pixel is background only where an object is less likely, not wherever several classes share the object: cow or sheep, but
    surely no background.
    """
    if not settings.object_first:
        return probs
    first = np.zeros_like(probs)
    first[BACKGROUND] = probs[BACKGROUND]
    likeliest = probs[BACKGROUND + 1 :].argmax(0)[None]
    np.put_along_axis(first[BACKGROUND + 1 :], likeliest, probs[None, BACKGROUND + 1 :].sum(1), 0)
    return first


def _refine(image: Image.Image, decision: np.ndarray, settings: SegmenterSettings) -> np.ndarray:
    """The dense CRF on the classes that may be in the picture: (C, h, w) to the same."""
    if not settings.crf.iterations:
        return decision
    likely = [number for number, most in enumerate(decision.max((1, 2))) if most > CRF_LEAST]
    likely = (
        likely or np.unique(decision.argmax(0)).tolist()
    )  # where a network is unsure between many classes, none reaches it
    return dense_crf(np.array(image), decision, settings.crf, likely)
