"""Training examples of the segmenter: a random crop of a photo and of its mask."""

import math
from pathlib import Path

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

from torchvision import tv_tensors  # isort: skip  behind transforms, which imports torchvision safely


class PseudoMasked:
    """Photos and their masks in `folder` (NAME.png): [index, key] -> (3, S, S) RGB in 0-1, (S, S) class numbers, uint8; S is `side`.

    A photo whose longer side is over `image_size` is reduced to that, as at test time; then random scale, random place, mirror and
    light colour changes. Outside the photo lie `mean` (3 numbers in 0-1, the backbone's mean colour) and 255.
    Raises DataError for photos without a mask, and when a mask that comes up has another size or a number that is no class.
    """

    def __init__(
        self, table: Table, folder: Path, settings: SegmenterSettings, side: int, mean: Tensor
    ):
        self.table, self.folder, self.settings, self.side = table, folder, settings, side
        self.mean = mean.reshape(3, 1, 1)
        missing = [photo.name for photo in table.photos if not self.mask_path(photo).is_file()]
        if missing:
            some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise DataError(
                f"{folder}: no mask for {len(missing)} of {len(table)} photos: {some}; run `tag2mask masks` first"
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

    def mask_path(self, photo: Photo) -> Path:
        """Where the mask of a photo lies."""
        return self.folder / f"{photo.name}.png"

    def read_mask(self, photo: Photo) -> np.ndarray:
        """The mask of a photo: (H, W) uint8. Raises DataError if it does not fit the photo or the classes."""
        path = self.mask_path(photo)
        mask = read_mask(path)
        width, height = image_size(photo.path)
        if mask.shape != (height, width):
            raise DataError(
                f"{path}: {mask.shape[1]} x {mask.shape[0]}, but {photo.path} is {width} x {height} (width x height)"
            )
        largest = int(mask.max(initial=0, where=mask != IGNORE))
        if largest >= self.table.num_classes:
            raise DataError(
                f"{path}: holds class {largest}, but the classes are 0 to {self.table.num_classes - 1}, and 255"
            )
        return mask

    def share_of_objects(self, photos: int) -> tuple[float, int, int]:
        """Share of object pixels in up to `photos` masks, evenly spread; how many of these masks have any; and how many were read."""
        chosen = self.table.photos[:: math.ceil(len(self) / photos)]
        shares = [
            float(((mask != BACKGROUND) & (mask != IGNORE)).mean())
            for mask in map(self.read_mask, chosen)
        ]
        return float(np.mean(shares)), int(np.count_nonzero(shares)), len(shares)

    def _cut(self, photo: Photo, mask: np.ndarray) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The part of the photo at a random scale that a crop at a random place holds, and where in the crop it lies (left, top)."""
        height, width = mask.shape
        low, high = self.settings.scale_range
        scale = min(1.0, self.settings.image_size / max(width, height)) * (
            low + (high - low) * float(torch.rand(()))
        )
        scaled = [max(1, round(side * scale)) for side in (width, height)]
        # Where the crop begins on the scaled photo: inside where the photo is larger, before it where the crop is.
        starts = [
            int(torch.randint(min(0, side - self.side), max(0, side - self.side) + 1, ()))
            for side in scaled
        ]
        first = [max(0, start) for start in starts]
        last = [min(side, start + self.side) for side, start in zip(scaled, starts, strict=True)]
        size = (last[0] - first[0], last[1] - first[1])
        image = photo.open(at_least=min(scaled))
        box = [
            edge / side for edge, side in zip(first + last, scaled * 2, strict=True)
        ]  # left, top, right, bottom, as shares

        def cut(whole: Image.Image, how: Image.Resampling) -> Image.Image:
            edges = [share * side for share, side in zip(box, whole.size * 2, strict=True)]
            return whole.resize(size, how, box=(edges[0], edges[1], edges[2], edges[3]))

        numbers = torch.from_numpy(np.array(cut(Image.fromarray(mask), Image.Resampling.NEAREST)))
        return (
            to_tensor(cut(image, Image.Resampling.BILINEAR)),
            numbers,
            (first[0] - starts[0], first[1] - starts[1]),
        )
