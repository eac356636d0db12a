"""Training examples of the segmenter: a random crop of a photo and of its mask."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tag2mask.config import SegmenterSettings
from tag2mask.errors import DataError
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import read_mask
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Table
from tag2mask.photos.tensors import LIGHT, seeded, to_tensor

from torchvision import tv_tensors  # isort: skip  after tensors, which loads it safely


Mask = TypeVar("Mask", np.ndarray, Tensor)

# A class is small if its things cover less than this share of the photo, by the median of at least
# so many photos. Defects of 0.2 and 2 % are small; of animals, cows cover least: 12 %.
SMALL_AREA = 0.03
SMALL_PHOTOS = 10
# Share of the crops of a photo with small things that are aimed at one of them. A random crop shows
# few of their pixels.
AIMED = 0.5


def is_object(mask: Mask) -> Mask:
    """Which pixels of a mask are neither background nor ignored."""
    return (mask != BACKGROUND) & (mask != IGNORE)


class PseudoMasked:
    """Photos and their masks in `folder` (NAME.png): [index, key] -> (3, S, S) RGB in 0-1 and
    (S, S) class numbers, uint8. S is `side`.

    A photo with a side longer than `image_size` is reduced to it, as in prediction. Then random
    scale, random place, mirror and light color changes. Pixels outside the photo get `mean` (3
    numbers in 0-1, the backbone's mean color), and 255 in the mask. Half of the crops of a photo
    with a thing of a class in `small` show a pixel of such a thing. Raises DataError when a mask
    that is read has another size or an unknown class number.
    """

    def __init__(
        self, table: Table, folder: Path, settings: SegmenterSettings, side: int, mean: Tensor
    ):
        self.table, self.folder, self.settings, self.side = table, folder, settings, side
        self.mean = mean.reshape(3, 1, 1)
        self.small: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        index, key = draw
        photo = self.table.photos[index]
        mask = read_training_mask(self.table, self.folder, photo)
        with seeded(key):
            picture, numbers, (left, top) = self._cut(photo, mask)
            picture, numbers = LIGHT(tv_tensors.Image(picture), tv_tensors.Mask(numbers))
        image = self.mean.expand(3, self.side, self.side).clone()
        target = torch.full((self.side, self.side), IGNORE, dtype=torch.uint8)
        height, width = numbers.shape
        image[:, top : top + height, left : left + width] = picture
        target[top : top + height, left : left + width] = numbers
        return image, target

    def _cut(self, photo: Photo, mask: np.ndarray) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """A random part of the photo at a random scale, the same part of the mask, and its position
        in the crop (left, top)."""
        height, width = mask.shape
        low, high = self.settings.scale_range
        scale = min(1.0, self.settings.image_size / max(width, height))
        scale *= low + (high - low) * float(torch.rand(()))
        scaled = [max(1, round(side * scale)) for side in (width, height)]
        room = [side - self.side for side in scaled]
        # Where the crop begins on the scaled photo; negative if the photo is smaller than the crop.
        ranges = [(min(0, r), max(0, r)) for r in room]
        if aim := self._aim(mask):
            pixels = [int(share * side) for share, side in zip(aim, scaled, strict=True)]
            ranges = [
                (max(least, pixel + 1 - self.side), min(most, pixel))
                for (least, most), pixel in zip(ranges, pixels, strict=True)
            ]
        starts = [int(torch.randint(least, most + 1, ())) for least, most in ranges]
        first = [max(0, start) for start in starts]
        last = [min(side, start + self.side) for side, start in zip(scaled, starts, strict=True)]
        size = (last[0] - first[0], last[1] - first[1])
        # left, top, right, bottom, as shares
        box = [edge / side for edge, side in zip(first + last, scaled * 2, strict=True)]

        def cut(image: Image.Image, how: Image.Resampling) -> Image.Image:
            left, top, right, bottom = (
                share * side for share, side in zip(box, image.size * 2, strict=True)
            )
            return image.resize(size, how, box=(left, top, right, bottom))

        picture = to_tensor(cut(photo.open(at_least=min(scaled)), Image.Resampling.BILINEAR))
        numbers = np.array(cut(Image.fromarray(mask), Image.Resampling.NEAREST))
        place = (first[0] - starts[0], first[1] - starts[1])
        return picture, torch.from_numpy(numbers), place

    def _aim(self, mask: np.ndarray) -> tuple[float, float] | None:
        """A pixel of a small thing that should be in the crop: x and y as shares of the photo."""
        rows, columns = np.nonzero(np.isin(mask, self.small)) if self.small else ((), ())
        if not len(rows) or float(torch.rand(())) >= AIMED:
            return None
        drawn = int(torch.randint(len(rows), ()))
        height, width = mask.shape
        return (columns[drawn] + 0.5) / width, (rows[drawn] + 0.5) / height


def read_training_mask(table: Table, folder: Path, photo: Photo) -> np.ndarray:
    """The mask of a photo: (H, W) uint8. Raises DataError if it does not fit."""
    path = folder / f"{photo.name}.png"
    mask, (width, height) = read_mask(path), image_size(photo.path)
    if mask.shape != (height, width):
        raise DataError(
            f"{path} is {mask.shape[1]} x {mask.shape[0]} pixels, "
            f"but {photo.path} is {width} x {height}"
        )
    largest = int(mask.max(initial=0, where=mask != IGNORE))
    if largest >= table.num_classes:
        raise DataError(
            f"{path} holds class {largest}, "
            f"but the classes are 0 to {table.num_classes - 1}, and 255"
        )
    return mask


@dataclass(frozen=True)
class Survey:
    """What many masks show together."""

    masks: int
    with_objects: int  # masks
    share: float  # of object pixels
    small: tuple[int, ...]  # numbers of the classes whose things are small


def survey_masks(table: Table, folder: Path, photos: int) -> Survey:
    """What up to `photos` masks show, evenly spaced. Photos of nothing are left out.

    Raises DataError if a photo has no mask, and as `read_training_mask`.
    """
    missing = [name for name in table.names if not (folder / f"{name}.png").is_file()]
    if missing:
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{folder}: no mask for {len(missing)} of {len(table)} photos: {some}; "
            "run `tag2mask masks` first"
        )
    others = table.not_nothing
    shares: list[float] = []
    areas: dict[int, list[float]] = {}
    for photo in others[:: math.ceil(len(others) / photos)]:
        mask = read_training_mask(table, folder, photo)
        pixels = np.bincount(mask.ravel(), minlength=IGNORE + 1)[:IGNORE]
        pixels[BACKGROUND] = 0
        shares.append(float(pixels.sum()) / mask.size)
        for number in np.flatnonzero(pixels).tolist():
            areas.setdefault(number, []).append(float(pixels[number]) / mask.size)
    small = sorted(
        number
        for number, values in areas.items()
        if len(values) >= SMALL_PHOTOS and np.median(values) < SMALL_AREA
    )
    with_objects = int(np.count_nonzero(shares))
    return Survey(len(shares), with_objects, float(np.mean(shares)), tuple(small))
