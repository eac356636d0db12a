"""Training examples of the segmenter: a random crop of a photo and of its mask."""

import math
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


def is_object(mask: Mask) -> Mask:
    """Which pixels of a mask are neither background nor ignored."""
    return (mask != BACKGROUND) & (mask != IGNORE)


class PseudoMasked:
    """Photos and their masks in `folder` (NAME.png): [index, key] -> (3, S, S) RGB in 0-1 and
    (S, S) class numbers, uint8. S is `side`.

    A photo with a side longer than `image_size` is reduced to it, as in prediction. Then random
    scale, random place, mirror and light color changes. Pixels outside the photo get `mean` (3
    numbers in 0-1, the backbone's mean color), and 255 in the mask. Raises DataError for photos
    without a mask, and when a mask that is read has another size or an unknown class number.
    """

    def __init__(
        self, table: Table, folder: Path, settings: SegmenterSettings, side: int, mean: Tensor
    ):
        self.table, self.folder, self.settings, self.side = table, folder, settings, side
        self.mean = mean.reshape(3, 1, 1)
        missing = [name for name in table.names if not (folder / f"{name}.png").is_file()]
        if missing:
            some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise DataError(
                f"{folder}: no mask for {len(missing)} of {len(table)} photos: {some}; "
                "run `tag2mask masks` first"
            )

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        index, key = draw
        photo = self.table.photos[index]
        mask = self.read_mask(photo)
        with seeded(key):
            picture, numbers, (left, top) = self._cut(photo, mask)
            picture, numbers = LIGHT(tv_tensors.Image(picture), tv_tensors.Mask(numbers))
        image = self.mean.expand(3, self.side, self.side).clone()
        target = torch.full((self.side, self.side), IGNORE, dtype=torch.uint8)
        height, width = numbers.shape
        image[:, top : top + height, left : left + width] = picture
        target[top : top + height, left : left + width] = numbers
        return image, target

    def read_mask(self, photo: Photo) -> np.ndarray:
        """The mask of a photo: (H, W) uint8. Raises DataError if it does not fit."""
        path = self.folder / f"{photo.name}.png"
        mask, (width, height) = read_mask(path), image_size(photo.path)
        if mask.shape != (height, width):
            raise DataError(
                f"{path} is {mask.shape[1]} x {mask.shape[0]} pixels, "
                f"but {photo.path} is {width} x {height}"
            )
        largest = int(mask.max(initial=0, where=mask != IGNORE))
        if largest >= self.table.num_classes:
            raise DataError(
                f"{path} holds class {largest}, but the classes are "
                f"0 to {self.table.num_classes - 1}, and 255"
            )
        return mask

    def share_of_objects(self, photos: int) -> tuple[float, int, int]:
        """The share of object pixels in up to `photos` masks, evenly spaced; the number of masks
        with objects; the number of masks. Photos of nothing are left out."""
        others = self.table.not_nothing
        masks = map(self.read_mask, others[:: math.ceil(len(others) / photos)])
        shares = [float(is_object(mask).mean()) for mask in masks]
        return float(np.mean(shares)), int(np.count_nonzero(shares)), len(shares)

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
        starts = [int(torch.randint(min(0, r), max(0, r) + 1, ())) for r in room]
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
