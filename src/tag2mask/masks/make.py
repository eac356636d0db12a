"""Pseudo masks: patch scores of photos to palette PNGs, photo by photo."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tag2mask.config import MaskSettings
from tag2mask.crf import dense_crf
from tag2mask.files import writing
from tag2mask.masks.scores import Scorer, mean_scores, otsu, relative, tag_scores, to_pixels
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import write_mask
from tag2mask.photos.resize import likeliest, reduced
from tag2mask.photos.table import BACKGROUND, Photo, Table
from tag2mask.photos.tensors import to_square
from tag2mask.processes import parallel_map
from tag2mask.progress import track

READERS = 4  # threads that read photos for the network
MEASURED = 64  # number of photos from which the common background threshold is computed


class MaskMaker:
    """Photos with tags to masks.

    score: the patch classifier. grid: a side [pixels] to the nearest side that the backbone
    accepts. overall: the background threshold over many photos, which `measure` returns; it is
    averaged with the threshold of each photo. None: only the threshold of each photo.
    """

    overall: float | None = None

    def __init__(
        self,
        score: Scorer,
        grid: Callable[[float], int],
        tags: Sequence[str],
        settings: MaskSettings,
    ):
        self.score, self.grid, self.settings = score, grid, settings
        self.tags = tuple(tags)
        self._measured: dict[Photo, Tensor] = {}

    def present(self, photo: Photo) -> list[int]:
        """The classes that may appear in the mask: background and the tags that are present or
        unknown; with scores = softmax, all classes."""
        # Differs from CPC, which writes an argmax over all classes. ViT-PCM's code sets the scores
        # of absent classes to 0.
        if self.settings.scores == "softmax":
            return list(range(len(self.tags) + 1))
        return [0, *sorted(self.tags.index(tag) + 1 for tag in photo.tags + photo.unknown)]

    def measure(self, photos: Sequence[Photo]) -> float | None:
        """Otsu's threshold over the logits of all tags of some of these photos; None if the
        settings do not use it. `make_masks` does not score these photos again."""
        photos = [replace(photo, unknown=()) for photo in photos if photo.tags]
        if self.settings.scores != "logits" or self.settings.threshold != "otsu" or not photos:
            return None
        some = photos[:: math.ceil(len(photos) / MEASURED)]
        self._measured = dict(track(self.all_maps(some), "background threshold", total=len(some)))
        return otsu(torch.cat([relative(maps[1:]).flatten() for maps in self._measured.values()]))

    def batches(self, photos: Sequence[Photo]) -> Iterator[Sequence[Photo]]:
        """The photos, divided into batches for one forward pass each."""
        for i in range(0, len(photos), self.settings.batch_size):
            yield photos[i : i + self.settings.batch_size]

    def all_maps(self, photos: Sequence[Photo]) -> Iterator[tuple[Photo, Tensor]]:
        """Each photo with its score maps (`maps`); threads read photos ahead of the network."""
        yield from ((photo, self._measured[photo]) for photo in photos if photo in self._measured)
        batches = self.batches([photo for photo in photos if photo not in self._measured])
        self.grid(0)  # loads the network here, before several threads do at once
        for batch, images in parallel_map(
            lambda batch: (batch, self.read(batch)), batches, READERS
        ):
            yield from zip(batch, self.maps(batch, images), strict=True)

    def read(self, photos: Sequence[Photo]) -> list[Tensor]:
        """Photos as squares at every scale: (B, 3, S, S) each."""
        sizes = [self.settings.image_size * scale for scale in self.settings.scales]
        images = [photo.open(at_least=int(max(sizes))) for photo in photos]
        return [
            torch.stack([to_square(image, side) for image in images])
            for side in map(self.grid, sizes)
        ]

    def maps(self, photos: Sequence[Photo], images: list[Tensor] | None = None) -> list[Tensor]:
        """Each photo's score maps, of background and its tags: (len(present), h, w) each.

        images: what `read` returned for these photos, if they have been read.
        """
        labels = torch.from_numpy(Table(self.tags, tuple(photos)).multi_hot)
        scores = mean_scores(self.score, images or self.read(photos), labels, self.settings)
        return [z[self.present(photo)].float() for z, photo in zip(scores, photos, strict=True)]

    def scores(self, maps: Tensor) -> Tensor:
        """Score maps of one photo to scores that sum to 1: (K, h, w) both. See `tag_scores`."""
        return tag_scores(maps, self.settings, self.overall)

    def with_segmenter(self, present: Sequence[int], maps: Tensor, probs: np.ndarray) -> np.ndarray:
        """Score maps of the classes that may be in a photo and the segmenter's probabilities
        (C, h, w) to combined scores: (C, h, w), 0 for other classes.

        Both are divided by their largest value in the photo, for each tag, and averaged. Background
        is where no tag reaches its threshold, as in the pseudo masks. The segmenter's background is
        not used: it was trained on masks that miss parts of objects, and would remove more.
        """
        segmenter = relative(torch.from_numpy(probs[present]))
        both = segmenter + torch.from_numpy(to_pixels(relative(maps), *segmenter.shape[1:]))
        logits = self.settings.model_copy(update={"scores": "logits"})
        scores = np.zeros_like(probs)
        scores[present] = tag_scores(both / 2, logits, self.overall)
        return scores

    def mask(self, photo: Photo, scores: Tensor) -> np.ndarray:
        """Scores (K, h, w) of the photo's classes to its pseudo mask (H, W) uint8: interpolation,
        CRF, argmax."""
        image = reduced(photo.open(at_least=self.settings.mask_size), self.settings.mask_size)
        present = np.array(self.present(photo), np.uint8)
        probs = to_pixels(scores, image.height, image.width)
        if self.settings.crf.iterations and len(present) > 1:
            probs = dense_crf(np.asarray(image), probs, self.settings.crf)
        return present[likeliest(probs, image_size(photo.path))]


def make_masks(table: Table, maker: MaskMaker, folder: Path, workers: int) -> int:
    """Write `folder`/NAME.png for every photo without one; returns the number of photos. The CRF
    runs in threads, in parallel with the network.

    Also writes NAME.npz: `scores`, the photo's score maps (K, h, w) float16, and `classes`, their
    class numbers (K,). Photos of nothing are not scored: all of the mask is background.
    """
    todo = [
        photo
        for photo in table.photos
        if not all((folder / f"{photo.name}{kind}").exists() for kind in (".npz", ".png"))
    ]

    scored = [photo for photo in todo if not photo.of_nothing]
    nothing = ((photo, torch.zeros(1, 1, 1)) for photo in todo if photo.of_nothing)

    def finish(work: tuple[Photo, Tensor]) -> None:
        photo, maps = work
        maps = maps.half().float()  # as they are stored: the mask can be made again from the file
        present = [BACKGROUND] if photo.of_nothing else maker.present(photo)
        values, classes = maps.numpy().astype(np.float16), np.array(present, np.uint8)
        with writing(folder / f"{photo.name}.npz") as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, scores=values, classes=classes)
        if photo.of_nothing:
            write_nothing(folder, photo)
        else:
            write_mask(folder / f"{photo.name}.png", maker.mask(photo, maker.scores(maps)))

    progress = track(todo, "pseudo masks", total=len(table), done=len(table) - len(todo))
    work = chain(maker.all_maps(scored), nothing)
    for _ in parallel_map(finish, work, workers, 4 * workers):
        next(progress)
    next(progress, None)
    return len(table)


def write_nothing(folder: Path, photo: Photo) -> None:
    """Write the mask of a photo of nothing, `folder`/NAME.png: background alone."""
    width, height = image_size(photo.path)
    write_mask(folder / f"{photo.name}.png", np.full((height, width), BACKGROUND, np.uint8))


def read_maps(folder: Path, photo: Photo) -> tuple[list[int], Tensor]:
    """What `make_masks` stored for a photo: class numbers (K) and score maps (K, h, w) float32."""
    with np.load(folder / f"{photo.name}.npz", allow_pickle=False) as stored:
        return stored["classes"].tolist(), torch.from_numpy(stored["scores"].astype(np.float32))
