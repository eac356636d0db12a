"""Pseudo masks: patch scores of photos to palette PNGs, photo by photo."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tag2mask.config import MaskSettings
from tag2mask.crf import dense_crf
from tag2mask.crf.params import narrow
from tag2mask.files import writing
from tag2mask.masks.contrast import LEAST_NOTHING, Contrast, Features, Usual, fit_all
from tag2mask.masks.regions import vote
from tag2mask.masks.scores import Scorer, mean_scores, otsu, relative, tag_scores, to_pixels
from tag2mask.masks.small import Closer, covered, small_tags, with_close
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import write_mask
from tag2mask.photos.regions import Regions
from tag2mask.photos.resize import likeliest, reduced
from tag2mask.photos.table import BACKGROUND, Photo, Table, evenly_spaced
from tag2mask.photos.tensors import to_square
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import track

READERS = 4  # threads that read photos for a GPU
MOST_NETWORKS = 16  # batches that are computed at a time on a CPU: each takes 0.3 GB
MEASURED = 64  # number of photos for the common background threshold, and of each tag for contrast
USUAL = 256  # number of photos of nothing that tags are compared with
SIZED = 16  # number of photos of each tag from which the size of its things is computed

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class MaskMaker:
    """Photos with tags to masks.

    score: the patch classifier. grid: a side [pixels] to the nearest side that the backbone
    accepts. overall: the background threshold over many photos, which `measure` returns; it is
    averaged with the threshold of each photo. None: only the threshold of each photo. closer: where
    a tag's score comes from, if the network can say so. small: the classes whose things are small,
    which `measure` finds. regions: those of the photos, if they vote. features: of patches, to
    compare with photos of nothing. contrast: what `measure` finds when it compares them.
    """

    overall: float | None = None
    small: frozenset[int] = frozenset()
    contrast: Contrast | None = None

    def __init__(
        self,
        score: Scorer,
        grid: Callable[[float], int],
        tags: Sequence[str],
        settings: MaskSettings,
        closer: Closer | None = None,
        regions: Regions | None = None,
        features: Features | None = None,
    ):
        self.score, self.grid, self.settings = score, grid, settings
        self.closer = closer if settings.small_things and settings.scores == "logits" else None
        self.features = features if settings.contrast and settings.scores == "logits" else None
        self.tags = tuple(tags)
        self.regions = regions
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
        settings do not use it. `make_masks` does not score these photos again.

        Before, it finds the tags with small things (`small`) and how tags differ from photos of
        nothing (`contrast`), if the settings use them.
        """
        nothing = [photo for photo in photos if photo.of_nothing]
        photos = [replace(photo, unknown=()) for photo in photos if photo.tags]
        self.small, self.contrast = frozenset(), None
        if self.features and len(nothing) >= LEAST_NOTHING and photos:
            self.contrast, self.small = self._find_contrast(photos, nothing)
        self.small |= self._find_small(photos)
        if self.settings.scores != "logits" or self.settings.threshold != "otsu" or not photos:
            return None
        some = photos[:: math.ceil(len(photos) / MEASURED)]
        self._measured = dict(
            track(self.all_score_maps(some), "background threshold", total=len(some))
        )
        values = [
            relative(maps[self._large(photo)]).flatten() for photo, maps in self._measured.items()
        ]
        return otsu(torch.cat(values)) if sum(map(len, values)) else None

    def _find_small(self, photos: Sequence[Photo]) -> frozenset[int]:
        """The classes without a contrast whose things are small, by up to SIZED photos of each."""
        if self.closer is None:
            return frozenset()
        jobs: list[tuple[Photo, int]] = []
        for number, tag in enumerate(self.tags, 1):
            own = [photo for photo in photos if tag in photo.tags and not self._knows(number)]
            jobs += [(photo, number) for photo in own[:: math.ceil(len(own) / SIZED) or 1]]
        batches = list(self.batches(jobs))

        def read(batch: Sequence[tuple[Photo, int]]) -> Tensor:
            return self.read([photo for photo, _ in batch])[0]

        close = self._side_by_side(read, self._close, batches)
        shares: list[tuple[int, float]] = []
        for batch, values in track(close, "sizes of things", total=len(batches)):
            shares += zip((number for _, number in batch), covered(values).tolist(), strict=True)
        return small_tags(shares)

    def _knows(self, number: int) -> bool:
        return self.contrast is not None and self.contrast.knows(number)

    def _find_contrast(
        self, photos: Sequence[Photo], nothing: Sequence[Photo]
    ) -> tuple[Contrast, frozenset[int]]:
        """How the things of each tag differ from photos of nothing, and the classes whose things
        are small: from up to USUAL photos of nothing and MEASURED of each tag."""

        def both(batch: Sequence[Photo], images: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            return self._features(images), self._evidence(batch, images)

        def looks(number: int) -> list[tuple[Tensor, Tensor]]:
            own = [photo for photo in photos if self.tags[number - 1] in photo.tags]
            alone = [photo for photo in own if len(photo.tags) == 1]  # of the tag without doubt
            some = evenly_spaced(alone if len(alone) >= SIZED else own, MEASURED)
            return [
                (x.half(), maps[self.present(photo).index(number)])
                for batch, pairs in self._side_by_side(self.read, both, self.batches(some))
                for photo, x, maps in zip(batch, *pairs, strict=True)
            ]

        some = evenly_spaced(nothing, USUAL)
        batches = self._side_by_side(
            self.read, lambda _, images: self._features(images), self.batches(some)
        )
        features = track((x for _, batch in batches for x in batch), "photos of nothing", len(some))
        numbers = track(range(1, len(self.tags) + 1), "contrast of tags")
        return fit_all(Usual.of(features), map(looks, numbers), self.settings.small_things)

    @torch.inference_mode()
    def _features(self, images: Sequence[Tensor]) -> Tensor:
        """Photos as `read` returns them to features of their patches: (B, D, h, w)."""
        assert self.features is not None
        return self.features(images[0]).cpu()

    def _close(self, jobs: Sequence[tuple[Photo, int]], images: Tensor) -> Tensor:
        """Photos with one class number each, and their pictures (B, 3, S, S), to where its score
        comes from: (B, h, w)."""
        assert self.closer is not None
        labels = torch.from_numpy(Table(self.tags, tuple(p for p, _ in jobs)).multi_hot)
        return self.closer(images, labels, torch.tensor([number for _, number in jobs])).cpu()

    def _small(self, present: Sequence[int]) -> list[int]:
        """The rows of a photo's score maps that are of small things."""
        return [row for row, number in enumerate(present) if number in self.small]

    def _large(self, photo: Photo) -> list[int]:
        present = self.present(photo)
        return [row for row in range(1, len(present)) if present[row] not in self.small]

    def batches(self, photos: Sequence[A]) -> Iterator[Sequence[A]]:
        """The photos, divided into batches for one forward pass each."""
        for i in range(0, len(photos), self.settings.batch_size):
            yield photos[i : i + self.settings.batch_size]

    def all_score_maps(self, photos: Sequence[Photo]) -> Iterator[tuple[Photo, Tensor]]:
        """Each photo with its score maps (`score_maps`)."""
        yield from ((photo, self._measured[photo]) for photo in photos if photo in self._measured)
        batches = self.batches([photo for photo in photos if photo not in self._measured])
        for batch, maps in self._side_by_side(self.read, self.score_maps, batches):
            yield from zip(batch, maps, strict=True)

    def _side_by_side(
        self, read: Callable[[A], B], compute: Callable[[A, B], C], batches: Iterable[A]
    ) -> Iterator[tuple[A, C]]:
        """Each batch with `compute(batch, read(batch))`, in order. On a CPU, each core works at a
        batch of its own: it waits for no other. For a GPU, threads read ahead."""
        self.grid(0)  # loads the network here, before several threads do at once
        if torch.cuda.is_available():
            for batch, images in parallel_map(lambda b: (b, read(b)), batches, READERS):
                yield batch, compute(batch, images)
        else:
            threads = min(cores(), MOST_NETWORKS)
            yield from parallel_map(lambda b: (b, compute(b, read(b))), batches, threads)

    def read(self, photos: Sequence[Photo]) -> list[Tensor]:
        """Photos as squares at every scale: (B, 3, S, S) each."""
        sizes = [self.settings.image_size * scale for scale in self.settings.scales]
        images = [photo.open(at_least=int(max(sizes))) for photo in photos]
        return [
            torch.stack([to_square(image, side) for image in images])
            for side in map(self.grid, sizes)
        ]

    def score_maps(
        self, photos: Sequence[Photo], images: list[Tensor] | None = None
    ) -> list[Tensor]:
        """Each photo's score maps, of background and its tags: (len(present), h, w) each.

        images: what `read` returned for these photos, if they have been read.
        """
        images = images or self.read(photos)
        maps = self._evidence(photos, images)
        if self.contrast is None:
            return maps
        return [
            self.contrast.sharpen(z, features, self.present(photo), self.small)
            for photo, z, features in zip(photos, maps, self._features(images), strict=True)
        ]

    def _evidence(self, photos: Sequence[Photo], images: Sequence[Tensor]) -> list[Tensor]:
        """Each photo's score maps by the classifier alone, (len(present), h, w) each."""
        labels = torch.from_numpy(Table(self.tags, tuple(photos)).multi_hot)
        scores = mean_scores(self.score, images, labels, self.settings)
        maps = [z[self.present(photo)].float() for z, photo in zip(scores, photos, strict=True)]
        places = [
            (i, row)
            for i, present in enumerate(map(self.present, photos))
            for row in self._small(present)
            if self.closer and not self._knows(present[row])
        ]
        if not places:
            return maps
        jobs = [(photos[i], self.present(photos[i])[row]) for i, row in places]
        close = self._close(jobs, images[0][[i for i, _ in places]])
        rows: list[dict[int, Tensor]] = [{} for _ in photos]
        for (i, row), values in zip(places, close, strict=True):
            rows[i][row] = values
        return [with_close(own, close) for own, close in zip(maps, rows, strict=True)]

    def scores(self, maps: Tensor, present: Sequence[int]) -> Tensor:
        """Score maps (K, h, w) of the K classes `present` in one photo to scores of the same shape
        that sum to 1. See `tag_scores`."""
        return tag_scores(maps, self.settings, self.overall, self._small(present))

    def of_segmenter(self) -> "MaskMaker":
        """This maker for the score maps of both networks (`both_score_maps`): each tag has its
        threshold in the photo alone. They have the size of the thing, so no closer look is needed.
        """
        settings = self.settings.model_copy(update={"scores": "logits"})
        maker = MaskMaker(self.score, self.grid, self.tags, settings, regions=self.regions)
        maker.small = self.small
        return maker

    def mask(self, photo: Photo, scores: Tensor) -> np.ndarray:
        """Scores (K, h, w) of the photo's classes to its pseudo mask (H, W) uint8: interpolation,
        CRF or the vote of the photo's regions, argmax."""
        image = reduced(photo.open(at_least=self.settings.mask_size), self.settings.mask_size)
        present = np.array(self.present(photo), np.uint8)
        probs = to_pixels(scores, image.height, image.width)
        voted = self.voted(photo, probs)
        if voted is not None:
            probs = voted
        elif self.settings.crf.iterations and len(present) > 1:
            settings = self.settings.crf
            settings = narrow(settings) if self._small(self.present(photo)) else settings
            probs = dense_crf(np.asarray(image), probs, settings)
        return present[likeliest(probs, image_size(photo.path))]

    def voted(self, photo: Photo, probs: np.ndarray) -> np.ndarray | None:
        """Probabilities (K, H, W) of a photo, of any size, to those after the vote of its regions;
        None if it has none."""
        voters = self.regions.of(photo, probs.shape[:0:-1]) if self.regions else []
        return vote(probs, voters) if voters else None


def make_masks(
    table: Table,
    maker: MaskMaker,
    folder: Path,
    workers: int,
    maps_of: Callable[[Sequence[Photo]], Iterable[tuple[Photo, Tensor]]] | None = None,
) -> int:
    """Write `folder`/NAME.png for every photo without one; returns the number of photos. The CRF
    runs in threads, in parallel with the network.

    maps_of: photos to each of them with its score maps; None: those of the maker's classifier.

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
            scores = maker.scores(maps, present)
            write_mask(folder / f"{photo.name}.png", maker.mask(photo, scores))

    progress = track(todo, "pseudo masks", total=len(table), done=len(table) - len(todo))
    work = chain((maps_of or maker.all_score_maps)(scored), nothing)
    for _ in parallel_map(finish, work, workers, 4 * workers):
        next(progress)
    next(progress, None)
    return len(table)


def write_nothing(folder: Path, photo: Photo) -> None:
    """Write the mask of a photo of nothing, `folder`/NAME.png: background alone."""
    width, height = image_size(photo.path)
    write_mask(folder / f"{photo.name}.png", np.full((height, width), BACKGROUND, np.uint8))


def read_score_maps(folder: Path, photo: Photo) -> tuple[list[int], Tensor]:
    """What `make_masks` stored for a photo: class numbers (K) and score maps (K, h, w) float32."""
    with np.load(folder / f"{photo.name}.npz", allow_pickle=False) as stored:
        return stored["classes"].tolist(), torch.from_numpy(stored["scores"].astype(np.float32))
