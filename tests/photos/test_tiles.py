"""Large pictures in tiles: the same as the whole where the network sees only its pixels, in little
memory; and GeoTIFF."""

import logging
import tracemalloc

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tag2mask.errors import ConfigError, DataError
from tag2mask.photos import images, rasters
from tag2mask.photos.colors import PALETTE
from tag2mask.photos.masks import read_mask
from tag2mask.photos.predictions import PredictionFolder
from tag2mask.photos.rasters import Strips, mask_writer, open_strips
from tag2mask.photos.tiles import Tiles, predict_bands, predict_large, spans

CLASSES = ("background", "red", "green")


def of_color(image):
    """A network that sees one pixel: the shares of its colors."""
    colors = np.moveaxis(np.asarray(image, np.float32) + 1, -1, 0)
    return colors / colors.sum(0)


def by_color(size, overlap):
    return Tiles(size, overlap, of_color, lambda image, probs: probs)


def pixels_of(height, width, seed=0):
    """Colors that change slowly, as in a photo, with noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return (smooth + rng.integers(-9, 10, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def rasterio():
    return pytest.importorskip("rasterio")


@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64, 100, 511, 512, 961])
@pytest.mark.parametrize(("tile", "overlap"), [(32, 0), (32, 16), (33, 5), (512, 64)])
def test_the_weights_of_the_tiles_sum_to_1(length, tile, overlap):
    total = np.zeros(length)
    for span in spans(length, tile, overlap):
        assert 0 <= span.origin <= span.start < span.end <= span.origin + tile
        assert min(tile, length) == min(span.origin + tile, length) - span.origin, "all are equal"
        total[span.start : span.end] += span.weights
    assert np.allclose(total, 1)


@pytest.mark.parametrize(("height", "width"), [(50, 70), (200, 131), (97, 300), (33, 32), (48, 48)])
@pytest.mark.parametrize("overlap", [0, 10, 24])
def test_tiles_of_a_network_that_sees_one_pixel_are_the_whole(height, width, overlap):
    pixels = pixels_of(height, width)
    read = []

    def strip(top, bottom):
        read.extend(range(top, bottom))
        return pixels[top:bottom]

    bands = list(predict_bands(Strips((width, height), strip), by_color(48, overlap)))
    mask, probs = (np.concatenate([getattr(band, part) for band in bands]) for part in PARTS)
    whole = of_color(pixels)
    assert read == list(range(height)), "from top to bottom, no row twice"
    assert np.array_equal(np.concatenate([band.pixels for band in bands]), pixels)
    sure = np.diff(np.sort(whole, 0), axis=0)[-1] > 0.01
    assert np.array_equal(mask[sure], whole.argmax(0)[sure]) and sure.mean() > 0.9
    assert np.abs(probs - np.take_along_axis(whole, mask[None].astype(int), 0)[0]).max() < 2e-3


PARTS = ("mask", "probs")


def test_neighbors_are_blended_where_they_overlap():
    """Two tiles with opposite opinions: from one to the other in a straight line."""
    calls = iter((0.9, 0.1))

    def opinion(image):
        share = next(calls)
        return np.stack([np.full((32, 32), v, np.float32) for v in (1 - share, share)])

    strips = Strips((48, 32), lambda a, b: np.zeros((b - a, 48, 3), np.uint8))
    (band,) = predict_bands(strips, Tiles(32, 16, opinion, lambda image, probs: probs))
    assert band.mask[0].tolist() == [1] * 24 + [0] * 24
    slope = np.where(band.mask == 1, band.probs, 1 - band.probs)[5]
    assert np.allclose(np.diff(slope[16:32]), -0.8 / 16, atol=1e-3)
    assert np.allclose(slope[:16], 0.9) and np.allclose(slope[32:], 0.1)


def test_memory_does_not_grow_with_the_picture():
    """1,000 x 6,000 pixels are 18 MB, the probabilities of three classes 72 MB."""
    row = np.tile(pixels_of(1, 20)[0], (50, 1))
    strips = Strips((1000, 6000), lambda a, b: np.broadcast_to(row, (b - a, 1000, 3)))
    tracemalloc.start()
    try:
        pixels = sum(band.mask.size for band in predict_bands(strips, by_color(128, 16)))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pixels == 6_000_000 and most < 9e6, most


@pytest.mark.parametrize(("size", "overlap"), [(31, 0), (512, 257), (512, -1)])
def test_wrong_tiles_are_an_error(size, overlap):
    with pytest.raises(ConfigError, match=r"= -?\d+: it should be"):
        by_color(size, overlap)


def test_a_mask_that_is_written_in_rows_is_read_as_it_was(tmp_path):
    mask = np.random.default_rng(0).integers(0, 256, (300, 101), np.uint8)
    with mask_writer(tmp_path / "m.png", (101, 300), {}) as write:
        for top in range(0, 300, 70):
            write(mask[top : top + 70])
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)
    assert bytes(Image.open(tmp_path / "m.png").getpalette()) == PALETTE.tobytes()


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.tif", "p.webp"])
def test_a_file_becomes_mask_row_and_overlay(tmp_path, name, rasterio):
    pixels = pixels_of(130, 200)
    Image.fromarray(pixels).save(tmp_path / name, **({"lossless": True} if "w" in name else {}))
    folder = PredictionFolder(tmp_path / "out", CLASSES, overlay=True)
    with folder.opened():
        predict_large(tmp_path / name, "p", folder, by_color(64, 16))
    mask = read_mask(tmp_path / "out/p.png")
    whole = of_color(np.asarray(Image.open(tmp_path / name)))
    assert (mask == whole.argmax(0)).mean() > 0.999
    assert {r["class"]: r["pixels"] for r in folder.rows} == {
        CLASSES[n]: (mask == n).sum() for n in (1, 2)
    }
    assert folder.rows[0]["largest_probability"] == pytest.approx(whole[1].max(), abs=2e-3)
    assert Image.open(tmp_path / "out/p.overlay.jpg").size == (200, 130)


def write_tiff(rasterio, path, bands, **more):
    """Bands (n, H, W) to a GeoTIFF in UTM 32 North, 0.1 m a pixel."""
    place = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(5e5, 5.6e6, 0.1, 0.1)}
    count, height, width = bands.shape
    about = {"driver": "GTiff", "dtype": bands.dtype, "count": count, **place, **more}
    with rasterio.open(path, "w", width=width, height=height, **about) as data:
        data.write(bands)
    return place


def test_a_geotiff_keeps_its_place(tmp_path, rasterio):
    pixels = pixels_of(400, 300)
    place = write_tiff(rasterio, tmp_path / "p.tif", np.moveaxis(pixels, -1, 0))
    folder = PredictionFolder(tmp_path / "out", CLASSES)
    with folder.opened():
        predict_large(tmp_path / "p.tif", "p", folder, by_color(128, 16))
    with rasterio.open(tmp_path / "out/p.tif") as mask:
        assert mask.crs == place["crs"] and mask.transform == place["transform"]
        assert mask.shape == (400, 300) and mask.dtypes == ("uint8",)
        assert (mask.read(1) == of_color(pixels).argmax(0)).mean() > 0.999
        assert [mask.colormap(1)[n][:3] for n in range(256)] == [*map(tuple, PALETTE.tolist())]
    assert folder.rows[0]["mask"] == "p.tif" and not (tmp_path / "out/p.png").exists()


def test_more_than_three_bands_are_said(tmp_path, rasterio, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("tag2mask"), "propagate", True)
    bands = np.random.default_rng(0).integers(0, 256, (5, 40, 50), np.uint8)
    write_tiff(rasterio, tmp_path / "p.tif", bands, photometric="minisblack")
    with open_strips(tmp_path / "p.tif") as strips, caplog.at_level("INFO", "tag2mask"):
        assert np.array_equal(strips.read(3, 20), np.moveaxis(bands[:3, 3:20], 0, -1))
    with caplog.at_level("INFO", "tag2mask"), open_strips(tmp_path / "p.tif"):
        pass
    assert "has 5 bands; used as red, green and blue: 1, 2, 3" in caplog.text


def test_gray_palette_and_transparent_pictures_are_read_as_pillow_reads_them(tmp_path, rasterio):
    rng = np.random.default_rng(0)
    gray, color = rng.integers(0, 256, (40, 50), np.uint8), pixels_of(40, 50)
    Image.fromarray(gray).save(tmp_path / "gray.tif")
    Image.fromarray(gray.astype(np.uint16) * 100).save(tmp_path / "sixteen.tif")
    Image.fromarray(color).quantize(50).save(tmp_path / "palette.tif")
    Image.fromarray(np.dstack([color, gray])).save(tmp_path / "clear.tif")
    for path in sorted(tmp_path.glob("*.tif")):
        with open_strips(path) as strips:
            ours = strips.read(0, 40).astype(int)
        theirs = np.asarray(rasters.open_image(path), int)
        assert np.abs(ours - theirs).max() <= 1, path.name


@pytest.mark.parametrize("in_strips", [True, False])
def test_decimal_values_fill_the_range_and_nan_is_black_and_said_once(
    tmp_path, rasterio, caplog, monkeypatch, in_strips
):
    monkeypatch.setattr(logging.getLogger("tag2mask"), "propagate", True)
    monkeypatch.setattr(images, "_warned", set())
    if not in_strips:
        monkeypatch.setattr(rasters, "_rasterio", lambda: None)
    values = np.linspace(0, 0.5, 2000, dtype=np.float32).reshape(200, 10)
    expected = (values * 510).astype(np.uint8)
    for _ in range(2):
        Image.fromarray(values).save(tmp_path / "p.tif")
        with caplog.at_level("WARNING", "tag2mask"), open_strips(tmp_path / "p.tif") as picture:
            assert np.abs(picture.read(0, 200)[..., 1].astype(int) - expected).max() <= 1
        assert not caplog.records or np.isnan(values).any()
        values[150, :3], expected[150, :3] = (np.nan, np.inf, -np.inf), (0, 255, 0)
    rasters.open_image(tmp_path / "p.tif")
    # An earlier test may have left a second handler, which gets the same record again.
    (said,) = {record.getMessage() for record in caplog.records}
    assert "p.tif has pixels that are no numbers" in said


def test_color_of_16_bits_is_an_error_that_says_what_to_do(tmp_path, rasterio):
    write_tiff(rasterio, tmp_path / "p.tif", np.full((3, 20, 20), 4000, np.uint16))
    with (
        pytest.raises(DataError, match=r"p\.tif: its bands are uint16, not 8-bit.*gdal_translate"),
        open_strips(tmp_path / "p.tif"),
    ):
        pass


def test_a_broken_tiff_is_an_error(tmp_path, rasterio):
    place = pixels_of(300, 300)
    write_tiff(rasterio, tmp_path / "p.tif", np.moveaxis(place, -1, 0))
    whole = (tmp_path / "p.tif").read_bytes()
    folder = PredictionFolder(tmp_path / "out", CLASSES)
    for part in (whole[: len(whole) // 2], b"no picture"):
        (tmp_path / "p.tif").write_bytes(part)
        with pytest.raises(DataError, match=r"p\.tif: not a readable picture"):
            predict_large(tmp_path / "p.tif", "p", folder, by_color(64, 8))
    assert not list((tmp_path / "out").glob("*.tif")) and not folder.rows


def test_without_rasterio_a_lost_place_is_said_once(tmp_path, rasterio, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("tag2mask"), "propagate", True)
    pixels = pixels_of(60, 50)
    for name in "pq":
        write_tiff(rasterio, tmp_path / f"{name}.tif", np.moveaxis(pixels, -1, 0))
    monkeypatch.setattr(rasters, "_rasterio", lambda: None)
    monkeypatch.setattr(rasters, "_warned", set())
    folder = PredictionFolder(tmp_path / "out", CLASSES)
    for name in "pq":
        predict_large(tmp_path / f"{name}.tif", name, folder, by_color(32, 8))
    # An earlier test may have left a second handler, which gets the same record again.
    said = [r for r in caplog.records if "pip install 'tag2mask[geo]'" in r.getMessage()]
    assert len({id(record) for record in said}) == 1
    assert (read_mask(tmp_path / "out/q.png") == of_color(pixels).argmax(0)).mean() > 0.999


def test_a_turned_jpeg_is_read_upright(tmp_path, rasterio, monkeypatch):
    """GDAL does not turn it; Pillow reads it."""
    monkeypatch.setattr(rasters, "SMALL", 0)
    image = Image.fromarray(pixels_of(40, 60))
    image.getexif()[0x0112] = 6
    image.save(tmp_path / "p.jpg", exif=image.getexif())
    image.save(tmp_path / "q.jpg")
    with open_strips(tmp_path / "p.jpg") as turned, open_strips(tmp_path / "q.jpg") as plain:
        assert turned.size == (40, 60) and plain.size == (60, 40)
        theirs = np.asarray(Image.open(tmp_path / "q.jpg"))
        assert np.abs(plain.read(0, 40).astype(int) - theirs).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_is_read_upright(tmp_path, rasterio, orientation):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = orientation
    Image.fromarray(pixels_of(40, 60)).save(tmp_path / "p.tif", tiffinfo=tags)
    theirs = np.asarray(rasters.open_image(tmp_path / "p.tif"))
    with open_strips(tmp_path / "p.tif") as strips:
        assert strips.size == theirs.shape[1::-1]
        assert np.array_equal(strips.read(0, len(theirs)), theirs)


def test_another_picture_with_the_name_of_a_tiff_is_read(tmp_path, rasterio):
    pixels = pixels_of(40, 40)
    Image.fromarray(pixels).save(tmp_path / "p.tga")
    (tmp_path / "p.tga").rename(tmp_path / "p.tif")
    with open_strips(tmp_path / "p.tif") as strips:
        assert np.array_equal(strips.read(0, 40), pixels)


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.tif"])
def test_what_pillow_finds_too_large_is_read_in_strips(tmp_path, rasterio, monkeypatch, name):
    pixels = pixels_of(100, 70)
    Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(DataError, match=r"--tile 512.*pip install 'tag2mask\[geo\]'"):
        rasters.open_image(tmp_path / name)
    folder = PredictionFolder(tmp_path / "out", CLASSES)
    predict_large(tmp_path / name, "p", folder, by_color(64, 8))
    monkeypatch.undo()
    assert (read_mask(tmp_path / "out/p.png") == of_color(pixels).argmax(0)).mean() > 0.9
