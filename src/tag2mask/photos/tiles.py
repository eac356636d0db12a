"""Large pictures to masks, tile by tile; the tiles overlap and are blended.

A tile is cut from the picture at its own pixels: it is not reduced. In memory are a strip of the
picture, some tiles, and what the next row of tiles blends with.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.errors import ConfigError
from tag2mask.photos.areas import Areas
from tag2mask.photos.colors import overlay
from tag2mask.photos.predictions import PredictionFolder
from tag2mask.photos.rasters import Strips, mask_writer, open_strips
from tag2mask.photos.resize import enlarged
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import track

LARGEST_OVERLAY = 4096  # longer side of the overlay of a large picture [pixels]


@dataclass(frozen=True)
class Tiles:
    """How a picture is predicted tile by tile.

    `size`: side of a tile [pixels]; `overlap`: pixels that neighbors share, in which the weight of
    one goes down as that of the other goes up. `probabilities`: an RGB picture of w x h pixels to
    (C, h, w) float32, summing to 1; it is called in the order of the tiles. `decide`: the picture
    and these to a decision of the same shape, whose argmax is the mask; it is called on threads.
    Raises ConfigError.
    """

    size: int
    overlap: int
    probabilities: Callable[[Image.Image], np.ndarray]
    decide: Callable[[Image.Image, np.ndarray], np.ndarray]

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ConfigError(f"tile = {self.size}: it should be at least 32 pixels")
        if not 0 <= 2 * self.overlap <= self.size:
            raise ConfigError(
                f"overlap = {self.overlap}: it should be between 0 and half of the tile, "
                f"{self.size // 2} pixels"
            )


@dataclass(frozen=True)
class Band:
    """Finished rows of a picture, over its whole width."""

    pixels: np.ndarray  # (h, W, 3) uint8
    mask: np.ndarray  # (h, W) uint8
    probs: np.ndarray  # (h, W) float32: the network's probability of the class in the mask


@dataclass(frozen=True)
class Span:
    """A tile along one axis [pixels]: it is cut at `origin`; its part from `start` to `end` counts,
    with these `weights`. The first `rises` pixels of the part are shared with the tile before, the
    last `falls` with the next."""

    origin: int
    start: int
    end: int
    rises: int
    falls: int
    weights: np.ndarray  # (end - start,) float32


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """The tiles along an axis. All have the same size: the last one is moved back, and counts only
    where the one before ends. The weights of all tiles sum to 1 in every pixel."""
    rise = (np.arange(overlap, dtype=np.float32) + 0.5) / max(1, overlap)
    along: list[Span] = []
    end = 0
    while end < length:
        start = end - overlap if along else 0
        origin = max(0, min(start, length - tile))
        rises, end = start and overlap, min(origin + tile, length)
        falls = overlap if end < length else 0
        weights = np.ones(end - start, np.float32)
        weights[:rises] = rise[:rises]
        weights[len(weights) - falls :] = rise[::-1][:falls]
        along.append(Span(origin, start, end, rises, falls, weights))
    return along


def predict_bands(picture: Strips, tiles: Tiles) -> Iterator[Band]:
    """A picture to its bands, from the top: one for each row of tiles."""
    width, height = picture.size
    columns, rows = (spans(side, tiles.size, tiles.overlap) for side in (width, height))

    def look() -> Iterator[tuple[np.ndarray, Image.Image, np.ndarray]]:
        for row, strip in zip(rows, _strips(picture, rows, tiles.size), strict=True):
            for column in columns:
                pixels = strip[:, column.origin : column.origin + tiles.size]
                image = Image.fromarray(pixels)
                probs = enlarged(tiles.probabilities(image), image.size)
                yield strip[row.start - row.origin :], image, probs

    def finish(
        work: tuple[np.ndarray, Image.Image, np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray]:
        strip, image, probs = work
        return strip, np.concatenate([tiles.decide(image, probs), probs])

    done = parallel_map(finish, look(), cores())
    below = np.zeros(0, np.float16)  # what the rows before add to the shared rows: (2C, rises, W)
    for row in rows:
        high = row.end - row.start - row.falls
        mask, probs = np.zeros((high, width), np.uint8), np.zeros((high, width), np.float32)
        beside = np.zeros(0, np.float32)  # what the column before adds: (2C, h, rises)
        for column in columns:
            strip, values = next(done)
            block = values[:, row.start - row.origin :, column.start - column.origin :]
            block = block * (row.weights[:, None] * column.weights)
            if column.rises:
                block[:, :, : column.rises] += beside
            wide = block.shape[2] - column.falls
            beside, block = block[:, :, wide:], block[:, :, :wide]
            here = slice(column.start, column.start + wide)
            if row.rises:
                block[:, : row.rises] += below[:, :, here]
            if row.falls:
                if not below.size:
                    below = np.zeros((len(block), row.falls, width), np.float16)
                below[:, :, here] = block[:, high:]
            _decide(block[:, :high], mask[:, here], probs[:, here])
        yield Band(strip[:high], mask, probs)


def _decide(block: np.ndarray, mask: np.ndarray, probs: np.ndarray) -> None:
    """Blended decisions and probabilities (2C, h, w) to the mask, and to the probability of the
    class in it."""
    decision, network = np.split(block, 2)
    best = decision.argmax(0)
    mask[:] = best
    probs[:] = np.take_along_axis(network, best[None], 0)[0]


def _strips(picture: Strips, rows: list[Span], tile: int) -> Iterator[np.ndarray]:
    """The rows of the picture under each row of tiles; none is read twice."""
    width, height = picture.size
    strip, top = np.zeros((0, width, 3), np.uint8), 0
    for row in rows:
        kept = strip[row.origin - top :]
        new = picture.read(row.origin + len(kept), min(row.origin + tile, height))
        strip, top = np.concatenate([kept, new]), row.origin
        yield strip


def predict_large(path: Path, name: str, folder: PredictionFolder, tiles: Tiles) -> None:
    """A picture file to its mask in `folder`, NAME.png, or NAME.tif for a GeoTIFF, and to its rows
    there. An overlay is reduced. Raises DataError."""
    with open_strips(path) as picture:
        mask_file = f"{name}.tif" if picture.profile else f"{name}.png"
        areas = Areas(folder.classes)
        step = -(-max(picture.size) // LARGEST_OVERLAY)
        small: list[tuple[np.ndarray, np.ndarray]] = []
        height = 0
        with mask_writer(folder.path / mask_file, picture.size, picture.profile) as write:
            count = len(spans(picture.size[1], tiles.size, tiles.overlap))
            for band in track(predict_bands(picture, tiles), f"{path.name}, rows of tiles", count):
                write(band.mask)
                areas.add(band.mask, band.probs)
                if folder.overlay:
                    some = slice(-height % step, None, step)
                    small.append((band.pixels[some, ::step], band.mask[some, ::step]))
                height += len(band.mask)
        folder.rows += areas.rows(path.as_posix(), mask_file)
    if folder.overlay:
        pixels, mask = (np.concatenate(parts) for parts in zip(*small, strict=True))
        folder.save_overlay(name, overlay(Image.fromarray(pixels), mask, folder.classes))
