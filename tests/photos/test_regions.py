"""Regions of photos, in the forms that tools write: each gives the same pixels."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from tag2mask.errors import DataError
from tag2mask.files import Facts
from tag2mask.photos.regions import Regions, run_lengths
from tag2mask.photos.table import Photo, Table

WIDTH, HEIGHT = 50, 30
LABELS = np.zeros((HEIGHT, WIDTH), np.uint8)
LABELS[2:20, 3:17], LABELS[10:28, 30:49] = 7, 3
MASKS = [LABELS == 3, LABELS == 7]


@pytest.fixture
def photos(tmp_path):
    """A table of three photos in two folders; two of them have the same name."""
    names = ("in/a", "in/b", "out/a")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{name}.jpg")
    return Table(("cat",), tuple(Photo(n, tmp_path / f"{n}.jpg", ("cat",)) for n in names))


def code(mask):
    """What Segment Anything writes of a mask: COCO's compressed run lengths."""
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def plain(mask):
    """Run lengths as numbers, column by column, first those of 0."""
    flat = mask.ravel(order="F")
    ends = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    return {"size": [*mask.shape], "counts": [0] * bool(flat[0]) + np.diff(ends).tolist()}


def write(kind, place):
    """The same two regions in a form; `place` has no ending."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind.startswith("labels"):
        pixels = LABELS.astype(np.uint16) * 100 if kind == "labels16" else LABELS
        picture = Image.fromarray(pixels)
        if kind == "labelsP":
            picture.putpalette([0, 90, 200] * 256)
        picture.save(f"{place}.png")
    elif kind == "folder":  # segment-anything's amg.py
        place.mkdir()
        for number, mask in enumerate(MASKS):
            Image.fromarray(mask.astype(np.uint8) * 255).save(place / f"{number}.png")
        (place / "metadata.csv").write_text("id,area\n")
    else:
        stored = [{"segmentation": code(mask), "area": int(mask.sum())} for mask in MASKS]
        if kind == "SA-1B":
            stored = {"image": {"width": WIDTH, "height": HEIGHT}, "annotations": stored}
        elif kind == "plain":
            stored = [plain(mask) for mask in MASKS]
        place.with_name(f"{place.name}.json").write_text(json.dumps(stored))


KINDS = ("labels", "labels16", "labelsP", "folder", "list", "plain", "SA-1B")


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_gives_the_same_pixels(photos, tmp_path, kind):
    write(kind, tmp_path / "regions" / "in" / "a")
    regions = Regions(tmp_path / "regions", photos)
    regions.check(Facts())
    first, second, third = photos.photos
    got = {tuple(region) for region in regions.of(first, (WIDTH, HEIGHT))}
    assert got == {tuple(np.flatnonzero(mask)) for mask in MASKS}
    assert regions.of(second, (9, 9)) == [] == regions.of(third, (9, 9))
    for size in ((25, 15), (17, 31)):
        small = {
            tuple(np.flatnonzero(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)))
            for mask in MASKS
        }
        assert {tuple(region) for region in regions.of(first, size)} == small


def test_a_name_alone_is_enough_if_only_one_photo_has_it(photos, tmp_path):
    for name in ("a", "b"):
        write("labels", tmp_path / "regions" / name)
    assert list(Regions(tmp_path / "regions", photos).paths) == ["in/b"]


def test_a_photo_called_like_a_file_has_its_folder(tmp_path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "x.png.jpg")
    table = Table(("cat",), (Photo("x.png", tmp_path / "x.png.jpg", ("cat",)),))
    write("labels", tmp_path / "regions" / "x")
    assert not Regions(tmp_path / "regions", table).paths
    write("folder", tmp_path / "folders" / "x.png")
    assert len(Regions(tmp_path / "folders", table).of(table.photos[0], (WIDTH, HEIGHT))) == 2


def test_all_faults_are_told_at_once(photos, tmp_path):
    folder = tmp_path / "regions" / "in"
    write("labels", folder / "a")
    Image.fromarray(LABELS[:20]).save(folder / "a.png")
    (folder / "b.json").write_text('[{"segmentation": [[1, 2, 3, 4, 5, 6]]}]')
    (tmp_path / "regions" / "out").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "regions" / "out" / "a.png")
    with pytest.raises(DataError) as error:
        Regions(tmp_path / "regions", photos).check(Facts())
    size, polygon, color = error.value.problems
    assert str(folder / "a.png") in size and "50 x 20, but the photo is 50 x 30" in size
    assert str(folder / "b.json") in polygon and "run-length code" in polygon
    assert "a.png" in color and "not RGB" in color


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        '{"images": []}',
        '["abc"]',
        '[{"counts": "abc"}]',
        '[{"size": [30, 50], "counts": null}]',
        '[{"size": [30, 50], "counts": [1, 2]}]',
        '[{"size": [30, 50], "counts": [-5, 1505]}]',
        '[{"size": [30, 50], "counts": [750.5, 749.5]}]',
        '[{"size": [30, 50], "counts": [1099511627776, 2]}]',
        '[{"size": [1000000, 1000000], "counts": [1000000000000]}]',
        '[{"size": [-30, -50], "counts": [1500]}]',
        '[{"size": [Infinity, 50], "counts": [1500]}]',
        '[{"size": [30, 50], "counts": ""}]',
        '[{"size": [30, 50], "counts": "55"}]',
        '[{"size": [30, 50], "counts": "~~~~~~~~~~~~~~~~"}]',
        '[{"size": [30, 50], "counts": "oooooooooooooooo"}]',
        '[{"size": [30, 50], "counts": "ö5"}]',
    ],
)
def test_what_is_no_run_length_code_of_the_photo_is_named(photos, tmp_path, text):
    """pycocotools crashes on some of these, and makes regions of unwritten memory of others."""
    (tmp_path / "regions" / "in").mkdir(parents=True)
    (tmp_path / "regions" / "in" / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json: not a list of masks in run-length code"):
        Regions(tmp_path / "regions", photos).check(Facts())


@pytest.mark.parametrize("seed", range(20))
def test_compressed_run_lengths_are_those_of_coco(seed):
    rng = np.random.default_rng(seed)
    small = rng.random(rng.integers(1, 12, 2)) < rng.random()
    mask = np.kron(small, np.ones(rng.integers(1, 90, 2))).astype(bool)
    assert run_lengths(code(mask)["counts"]) == plain(mask)["counts"]


def test_a_folder_of_other_photos_is_not_the_regions_of_one(tmp_path):
    """Frames of a clip beside its first picture."""
    names = ("clip", "clip/1", "clip/2")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{name}.jpg")
    table = Table(("cat",), tuple(Photo(n, tmp_path / f"{n}.jpg", ("cat",)) for n in names))
    for name in names[1:]:
        write("labels", tmp_path / "regions" / name)
    assert list(Regions(tmp_path / "regions", table).paths) == ["clip/1", "clip/2"]


def test_a_folder_has_only_its_own_pngs_and_a_jpeg_is_none(photos, tmp_path):
    place = tmp_path / "regions" / "in" / "a"
    write("folder", place)
    (place / "._0.png").write_bytes(b"of a Mac")
    (place / "1.png").rename(place / "1.PNG")
    regions = Regions(tmp_path / "regions", photos)
    regions.check(Facts())
    assert len(regions.of(photos.photos[0], (WIDTH, HEIGHT))) == 2
    Image.fromarray(LABELS).save(place / "2.png", "JPEG")
    with pytest.raises(DataError, match=r"2\.png: regions must be a PNG, not JPEG"):
        Regions(tmp_path / "regions", photos).check(Facts())


def test_photos_with_empty_regions_have_none(photos, tmp_path, caplog):
    write("labels", tmp_path / "regions" / "in" / "a")
    (tmp_path / "regions" / "in" / "b.json").write_text("[]")
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "regions" / "out.png")
    with caplog.at_level("INFO", "tag2mask"):
        Regions(tmp_path / "regions", photos).check(Facts())
    assert "regions of 1 of 3 photos" in caplog.text


def test_a_folder_without_any_regions_says_what_it_should_have(photos, tmp_path):
    (tmp_path / "regions").mkdir()
    with pytest.raises(DataError, match=r"any of the 3 photos; the first one needs in/a\.json or"):
        Regions(tmp_path / "regions", photos).check(Facts())
    nowhere = Regions(tmp_path / "nowhere", photos)
    for use in (lambda: nowhere.check(Facts()), lambda: nowhere.of(photos.photos[0], (9, 9))):
        with pytest.raises(DataError, match="no such folder of regions"):
            use()


@pytest.mark.parametrize("kind", ["list", "folder"])
def test_files_that_were_checked_are_not_read_again(photos, tmp_path, monkeypatch, kind):
    write(kind, tmp_path / "regions" / "in" / "a")
    facts = Facts(tmp_path / "facts.jsonl")
    Regions(tmp_path / "regions", photos).check(facts)
    monkeypatch.setattr("tag2mask.photos.regions._parts", lambda *_: pytest.fail("read again"))
    Regions(tmp_path / "regions", photos).check(facts)


def test_a_photo_that_has_changed_since_is_checked_again(photos, tmp_path):
    write("labels", tmp_path / "regions" / "in" / "a")
    facts = Facts(tmp_path / "facts.jsonl")
    Regions(tmp_path / "regions", photos).check(facts)
    Image.new("RGB", (WIDTH, 2 * HEIGHT)).save(photos.photos[0].path)
    with pytest.raises(DataError, match="50 x 30, but the photo is 50 x 60"):
        Regions(tmp_path / "regions", photos).check(facts)
