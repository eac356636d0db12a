"""Pseudo masks: patch scores of every photo to palette PNGs, photo by photo, memory flat in their number."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tag2mask.config import MaskSettings
from tag2mask.crf import dense_crf
from tag2mask.files import writing
from tag2mask.masks.scores import Scorer, otsu, patch_scores, relative, tag_scores, to_pixels
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import write_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.photos.tensors import likeliest, reduced, to_square
from tag2mask.processes import parallel_map
from tag2mask.progress import track

READERS = 4  # threads that read photos for the network
MEASURED = 64  # photos over which the common threshold of background is taken


class MaskMaker:
    """Photos with tags to masks: knows the classifier (as a Scorer), the settings and the tags.

    overall: background's threshold over many photos, as `measure` finds it; without it each photo's own is used.
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
        self.index = {tag: i for i, tag in enumerate(tags)}
        self.crf = settings.crf

    def present(self, photo: Photo) -> list[int]:
        """The classes that may appear in the mask: background and the photo's tags; with `plain` all."""
        # Differs from CPC: it writes an argmax over all classes; ViT-PCM's code sets those that the photo does not have to 0.
        if self.settings.scores == "softmax":
            return list(range(len(self.index) + 1))
        return [0, *sorted(self.index[tag] + 1 for tag in photo.tags)]

    def measure(self, photos: Sequence[Photo]) -> float | None:
        """Otsu's threshold over the evidence of all tags of these photos together; None where no threshold is looked for."""
        if self.settings.scores != "logits" or self.settings.threshold != "otsu":
            return None
        some = photos[:: math.ceil(len(photos) / MEASURED)]
        progress = track(some, "background's threshold")
        found = []
        for _, maps in self.all_maps(some):
            next(progress)
            found.append(relative(maps[1:]).flatten())
        next(progress, None)
        return otsu(torch.cat(found))

    def batches(self, photos: Sequence[Photo]) -> Iterator[Sequence[Photo]]:
        """Photos of one forward pass each."""
        for i in range(0, len(photos), self.settings.batch_size):
            yield photos[i : i + self.settings.batch_size]

    @cached_property
    def sides(self) -> set[int]:
        """Sides of the squares that photos are scored as [pixels]."""
        return {self.grid(self.settings.image_size * scale) for scale in self.settings.scales}

    def all_maps(self, photos: Sequence[Photo]) -> Iterator[tuple[Photo, Tensor]]:
        """Each photo with its `maps`; photos are read in threads ahead of the network."""
        self.sides  # noqa: B018  asks the network here, before several threads do at once
        for batch, pictures in parallel_map(
            lambda batch: (batch, self.read(batch)), self.batches(photos), READERS
        ):
            yield from zip(batch, self.maps(batch, pictures), strict=True)

    def read(self, photos: Sequence[Photo]) -> dict[int, Tensor]:
        """Photos as the network takes them at every scale: the side of the square [pixels] to (B, 3, side, side)."""
        largest = int(self.settings.image_size * max(self.settings.scales))
        pictures = [photo.open(at_least=largest) for photo in photos]
        return {
            side: torch.stack([to_square(picture, side) for picture in pictures])
            for side in self.sides
        }

    def maps(
        self, photos: Sequence[Photo], pictures: dict[int, Tensor] | None = None
    ) -> list[Tensor]:
        """The classifier's patch scores of each photo's background and tags, as they are: (len(present), h, w) each.

        pictures: these photos as `read` gives them, if they have been read.
        """
        load = (pictures or self.read(photos)).__getitem__
        labels = torch.zeros(len(photos), len(self.index))
        for row, photo in zip(labels, photos, strict=True):
            row[[self.index[tag] for tag in photo.tags]] = 1
        found = patch_scores(self.score, load, labels, self.settings, self.grid)
        return [z[self.present(photo)].float() for z, photo in zip(found, photos, strict=True)]

    def scores(self, maps: Tensor) -> Tensor:
        """`maps` of one photo to scores that sum to 1: (K, h, w) to the same, see `tag_scores`."""
        return tag_scores(maps, self.settings, self.overall)

    def with_segmenter(self, photo: Photo, maps: Tensor, probs: np.ndarray) -> np.ndarray:
        """`maps` of a photo and the segmenter's probabilities (C, h, w) to what the two think together: (C, h, w), 0 for other tags.

        Both are evidence: of each tag the mean of the two, each over its largest in the photo, and background where no tag reaches its
        threshold, as in the pseudo masks. The segmenter is not asked about background, which it knows from masks that miss parts of
        objects: it would miss more.
        """
        present = self.present(photo)
        theirs = relative(torch.from_numpy(probs[present]))
        both = (theirs + torch.from_numpy(to_pixels(relative(maps), *theirs.shape[1:]))) / 2
        whole = np.zeros_like(probs)
        whole[present] = tag_scores(
            both, self.settings.model_copy(update={"scores": "logits"}), self.overall
        )
        return whole

    def mask(self, photo: Photo, scores: Tensor) -> np.ndarray:
        """Scores (K, h, w) of the photo's classes to its pseudo mask (H, W) uint8: interpolation, CRF, argmax."""
        picture = reduced(photo.open(at_least=self.settings.mask_size), self.settings.mask_size)
        present = np.array(self.present(photo), np.uint8)
        probs = to_pixels(scores, picture.height, picture.width)
        if self.crf.iterations and len(present) > 1:
            probs = dense_crf(np.asarray(picture), probs, self.crf)
        return present[likeliest(torch.from_numpy(probs), image_size(photo.path))]


def make_masks(table: Table, maker: MaskMaker, folder: Path, workers: int) -> int:
    """Write `folder`/NAME.png for every photo that has none yet; returns how many are there. CRF runs in threads beside the network.

    Beside each lies NAME.npz: `scores`, the `maps` of the photo (K, h, w) float16, and `classes`, their numbers (K,).
    """
    todo = [
        photo
        for photo in table.photos
        if not all((folder / f"{photo.name}{kind}").exists() for kind in (".npz", ".png"))
    ]

    def finish(work: tuple[Photo, Tensor]) -> None:
        photo, maps = work
        _write_maps(folder / f"{photo.name}.npz", maps, maker.present(photo))
        write_mask(folder / f"{photo.name}.png", maker.mask(photo, maker.scores(maps)))

    progress = track(todo, "pseudo masks", total=len(table), done=len(table) - len(todo))
    for _ in parallel_map(finish, maker.all_maps(todo), workers, 4 * workers):
        next(progress)
    next(progress, None)
    return len(table)


def _write_maps(path: Path, maps: Tensor, present: list[int]) -> None:
    with writing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream, scores=maps.numpy().astype(np.float16), classes=np.array(present, np.uint8)
        )


def read_maps(folder: Path, photo: Photo) -> Tensor:
    """The `maps` that `make_masks` has left of a photo: (K, h, w) float32."""
    with np.load(folder / f"{photo.name}.npz", allow_pickle=False) as stored:
        return torch.from_numpy(stored["scores"].astype(np.float32))
