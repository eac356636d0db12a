"""Contrast: what patches of a tag's things have that photos of nothing do not.

D features of a patch, h x w patches.

# Differs from CPC, which knows no photos of nothing. The classifier's scores are coarse, and they
rise with anything that often comes with the tag. Photos of nothing show what is usual; the
strongest evidence shows what is not. The line between them (Fisher's linear discriminant, with the
covariance of the photos of nothing alone) says of every patch of a shallow map how far it is from
usual, in the tag's direction.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from tag2mask.files import writing
from tag2mask.masks.small import covered

# Photos (B, 3, S, S) to features of their patches (B, D, h, w), of a network that knows no tag.
Features = Callable[[Tensor], Tensor]

CONTRAST = "contrast.safetensors"
LEAST_NOTHING = 20  # photos of nothing without which nobody knows what is usual
RIDGE = 0.01  # added to the covariance, as a share of the mean variance of a feature
TINY = 1e-12  # the least variance
# The share of a photo's patches that are taken to show the thing.
SMALL, LARGE = 0.01, 0.1
ROUNDS = 16  # after fewer, the direction still depends on where the evidence was
NOISE = 2.0  # standard deviations of photos of nothing; a small thing has more
# How much stronger the contrast of a tag's photos must be than that of photos of nothing, in the
# strongest patches of each (SMALL) [standard deviations]. Other tags keep their evidence. Magnetic
# tiles: 4.0 to 10, uneven tiles 3.2. Animals, to which other animals are nothing: 1.7 to 3.1.
LEAST_CONTRAST = 3.6
ASIDE = 4  # every fourth photo of nothing is kept for that
# A small thing's contrast covers less of a photo than this. Magnetic tiles: up to 0.04 for defects
# of up to 2 % of the photo, 0.05 and more for those of 15 %.
COVERED = 0.044
# The least score of a patch of a large thing, as a share of its highest. Otsu's threshold of a tag
# with small things leaves out what is 0.
LEAST = 1e-3


class Usual(NamedTuple):
    """The patches of photos of nothing: their mean (D,) and their covariance (D, D), float64; and
    those of some photos, (D, n) float16 each."""

    mean: Tensor
    covariance: Tensor
    some: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, photos: Iterable[Tensor]) -> "Usual":
        """Features (D, h, w) of photos of nothing."""
        count, total, products, some = 0, torch.zeros(()), torch.zeros(()), list[Tensor]()
        for number, features in enumerate(photos):
            x = features.flatten(1).double()
            some += [x.half()] if number % ASIDE == 0 else []
            count, total, products = count + x.shape[1], total + x.sum(1), products + x @ x.T
        mean = total / count
        return cls(mean, products / count - mean.outer(mean), tuple(some))

    def direction(self, things: Tensor) -> Tensor:
        """The mean features of things (D,) to the direction (D,) in which they differ most from
        photos of nothing, of which the projections have a standard deviation of 1."""
        variance = self.covariance.diagonal().mean().clamp(min=TINY)  # 0: pictures of one color
        ridge = RIDGE * variance * torch.eye(len(things))
        way = torch.linalg.solve(self.covariance + ridge, things - self.mean)
        return way / (way @ self.covariance @ way).clamp(min=TINY).sqrt()

    def along(self, way: Tensor, patches: Sequence[Tensor]) -> list[Tensor]:
        """Photos' patches (D, n) to how far they are from the mean in a direction: (n,) each."""
        middle = self.mean.float()[:, None]
        return [way.float() @ (x.float() - middle) for x in patches]


class Contrast(NamedTuple):
    """How patches of C classes differ from photos of nothing: weight (C, D) and bias (C,). In
    standard deviations of their patches; 0 is their mean. Classes that do not differ have the
    weight 0."""

    weight: Tensor
    bias: Tensor

    def knows(self, number: int) -> bool:
        """Whether a class differs from photos of nothing."""
        return bool(self.weight[number].any())

    def of(self, features: Tensor, number: int) -> Tensor:
        """Features (D, h, w) to the contrast of a class, not negative: (h, w)."""
        values = self.weight[number] @ features.float().flatten(1) + self.bias[number]
        return values.relu().view(features.shape[1:])

    def sharpen(
        self, maps: Tensor, features: Tensor, present: Sequence[int], small: Collection[int]
    ) -> Tensor:
        """A photo's score maps (K, h, w) of the classes `present`, background first, and its
        features (D, h', w') to (K, h', w'): of small things the contrast alone, without noise; of
        others the geometric mean of score and contrast. A class in `small` may have a large thing
        in this photo. Maps of classes that it does not know are only made finer."""
        fine = F.interpolate(maps[None], features.shape[1:], mode="bilinear")[0]
        for row, number in enumerate(present):
            if not self.knows(number):
                continue
            values = self.of(features, number)
            alone = (values - NOISE).relu()
            if number in small and covered(alone[None]) < COVERED:
                fine[row] = alone
            else:
                both = (fine[row] * values).sqrt()
                fine[row] = both.clamp(min=LEAST * float(both.max()))
        return fine

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        with writing(path) as temporary:
            save_file(self._asdict(), temporary)

    @classmethod
    def load(cls, path: Path) -> "Contrast":
        """What `save` wrote."""
        return cls(**load_file(path))


# Photos of a tag, each as features (D, h, w) and evidence (h', w').
Looks = Sequence[tuple[Tensor, Tensor]]


def fit_all(
    usual: Usual, tags: Iterable[Looks], small_things: bool
) -> tuple[Contrast, frozenset[int]]:
    """The photos of each tag to the contrast, and those classes it knows whose things are small."""
    weights, biases, small = [torch.zeros(len(usual.mean))], [0.0], set[int]()
    for number, photos in enumerate(tags, 1):
        weight, bias, is_small = fit(usual, photos, small_things)
        weights.append(weight)
        biases.append(bias)
        small |= {number} if is_small else set()
    return Contrast(torch.stack(weights), torch.tensor(biases)), frozenset(small)


def fit(usual: Usual, photos: Looks, small_things: bool) -> tuple[Tensor, float, bool]:
    """A tag's photos to the weight (D,) and the bias of its contrast, and whether its things are
    small.

    The direction is that of the patches of the strongest evidence. Beside a small thing evidence
    is strong, too: there, it is then that of the fewer patches of the strongest contrast, found
    again ROUNDS times; by the median over the photos, so that what few of them show does not draw
    it away.
    small_things: False if no tag counts as small. Zeros without photos, or if the tag hardly
    differs from photos of nothing.
    """
    unknown = torch.zeros(len(usual.mean)), 0.0, False
    if not photos:
        return unknown
    patches = [features.flatten(1) for features, _ in photos]
    evidence = [
        F.interpolate(evidence[None, None], features.shape[1:], mode="bilinear").flatten()
        for features, evidence in photos
    ]
    way = usual.direction(_tops(patches, evidence, LARGE).mean(0))
    values = usual.along(way, patches)
    small = small_things and _covers(values) < COVERED
    for _ in range(ROUNDS if small else 0):
        way = usual.direction(_tops(patches, values, SMALL).quantile(0.5, 0))
        values = usual.along(way, patches)
    if _strongest(values) - _strongest(usual.along(way, usual.some)) < LEAST_CONTRAST:
        return unknown
    return way.float(), -float(way @ usual.mean), small


def _covers(values: Sequence[Tensor]) -> float:
    """Contrasts of a tag's photos [standard deviations], (n,) each, to the share of a photo that is
    far from usual: the geometric mean of `covered`."""
    shares = torch.cat([covered((value - NOISE).relu()[None]) for value in values])
    return float(shares.log().mean().exp())


def _strongest(values: Sequence[Tensor]) -> float:
    """Contrasts of photos, (n,) each, to the mean of the strongest patches of each."""
    tops = [value.topk(math.ceil(SMALL * len(value))).values.mean() for value in values]
    return float(torch.stack(tops).mean())


def _tops(patches: Sequence[Tensor], values: Sequence[Tensor], share: float) -> Tensor:
    """Photos' patches (D, n) and values (n,) to the mean of each photo's patches with the highest
    values: (photos, D), float64."""
    best = [value.topk(math.ceil(share * len(value))).indices for value in values]
    return torch.stack([x[:, i].double().mean(1) for x, i in zip(patches, best, strict=True)])
