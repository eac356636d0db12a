"""Masks to the forms of other tools, and back after correction there."""

import importlib.util
import io
import json
import weakref
from base64 import b64encode
from pathlib import Path

import layouts
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layouts import picture, submit
from PIL import Image

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats import load_table
from tag2mask.formats.brush import decode_brush, encode_brush
from tag2mask.formats.convert import convert
from tag2mask.formats.json_files import load_json
from tag2mask.formats.mask_writers import MASK_WRITERS, write_outlines
from tag2mask.formats.xml_files import read_xml
from tag2mask.photos.images import image_size
from tag2mask.photos.masks import read_mask, write_class_names, write_mask
from tag2mask.photos.table import Photo, Table

EXACT = ("coco", "cvat", "label-studio")  # run lengths; the others have polygons
TAGS = ("Kätzchen, groß", "dog/hound & <co>", '猫 "x"')
FILES = ("a b/ü,1.jpg", "a b/2&'.jpg", "1.jpg", "x/1.png", "x/1.jpg", "x/#?%41+.png", "x__1.png")


def photos_with(folder: Path, masks: dict[str, np.ndarray], tags=TAGS) -> tuple[list[Photo], Path]:
    """Photos of these names, and a folder of their masks."""
    photos = []
    for i, (file, mask) in enumerate(masks.items()):
        picture(folder / "in" / file, seed=i, size=mask.shape[::-1])
        photos.append(Photo(file, folder / "in" / file, ()))
        write_mask(folder / "masks" / f"{file}.png", mask)
    write_class_names(folder / "masks", ("background", *tags))
    return photos, folder / "masks"


def files_in(folder: Path) -> dict[str, Path]:
    """Photo name -> its mask."""
    files = folder.rglob("*.png")
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def there_and_back(
    folder: Path, to: str, masks: dict[str, np.ndarray], tags=TAGS
) -> dict[str, np.ndarray]:
    """The masks that come back, in the same numbers: file name -> mask."""
    photos, masks_folder = photos_with(folder, masks, tags)
    classes = ("background", *tags)
    there = write_outlines(to, photos, files_in(masks_folder), classes, folder / to)
    there = submit(there) if to == "label-studio" else there
    back = convert(there, "masks", folder / f"{to} back")
    names = json.loads((back / "masks.json").read_text())["classes"]
    numbers = np.array([classes.index(name) for name in names], np.uint8)
    return {
        path.relative_to(back).as_posix(): numbers[read_mask(path)] for path in back.rglob("*.png")
    }


@pytest.mark.parametrize("to", MASK_WRITERS)
def test_names_and_photos_of_nothing_come_back(tmp_path, to):
    masks = {}
    for i, file in enumerate(FILES):
        mask = np.zeros((30 + i, 40), np.uint8)
        if i != 2:  # a photo of nothing
            mask[2:9, 3 : 10 + i] = 1 + i % 3
            mask[12:20, 5:30] = 1 + (i + 1) % 3
        masks[file] = mask
    back = there_and_back(tmp_path, to, masks)
    if to in EXACT:
        names = {"x/1.png": "x/1.png.png", "x/1.jpg": "x/1.jpg.png"}  # two photos of one name
        want = {names.get(f, f"{f.rpartition('.')[0]}.png"): mask for f, mask in masks.items()}
    else:  # without folders, and unique without extension
        flat = {"x/1.jpg": "x__1-4", "x__1.png": "x__1-6"}
        want = {
            f"{flat.get(f, f.rpartition('.')[0].replace('/', '__'))}.png": mask
            for f, mask in masks.items()
        }
    assert sorted(back) == sorted(want)
    assert all(np.array_equal(back[file], mask) for file, mask in want.items())


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mask=hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)
    )
)
@pytest.mark.parametrize("to", EXACT)
def test_run_lengths_come_back_pixel_by_pixel(tmp_path_factory, to, mask):
    mask.flat[0] = 1  # without any object there are no outlines
    folder = tmp_path_factory.mktemp("trip")
    back = there_and_back(folder, to, {"a.png": mask})
    assert np.array_equal(back["a.png"], mask)


def test_brushes_are_those_of_label_studio_byte_by_byte():
    region = np.zeros((5, 7), bool)
    region[1:4, 2:6] = True
    region[2, 3] = False
    region[4, 6] = True
    code = [
        0,
        0,
        0,
        140,
        57,
        27,
        254,
        35,
        0,
        191,
        255,
        108,
        2,
        63,
        248,
        192,
        39,
        255,
        182,
        1,
        127,
        255,
        13,
        128,
        71,
        254,
    ]  # label_studio_sdk 2.1.2: converter.brush.mask2rle
    assert encode_brush(region) == code
    assert np.array_equal(decode_brush(bytes(code), 5, 7), region)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 30))), st.integers(1, 40))
def test_brushes_come_back(region, times):
    region = np.tile(region, (times, times // 3 + 1))  # runs of all lengths, over 65,536 too
    assert np.array_equal(decode_brush(bytes(encode_brush(region)), *region.shape), region)


def test_lists_of_values_in_a_brush(tmp_path):
    """Codes that repeat nothing, in lists that begin at any of the four channels."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (7, 9, 4))
    values = pixels.ravel().tolist()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    while values:
        own, values = values[: (length := int(rng.integers(1, 9)))], values[length:]
        bits += f"000{len(own) - 1:03b}" + "".join(f"{value:08b}" for value in own)
    data = int(bits + "0" * (-len(bits) % 8), 2).to_bytes((len(bits) + 7) // 8)
    assert np.array_equal(decode_brush(data, 7, 9), pixels[..., 3] >= 128)


def test_a_brush_that_the_browser_wrote(tmp_path):
    """A mask of tag2mask, of which a person erased a line with half transparent edges."""
    export = Path(__file__).parent / "files" / "label-studio-brush.json"
    picture(tmp_path / "2007_000063.jpg", size=(500, 375))
    photos = DataSettings(images=tmp_path)
    mask = read_mask(
        convert(export, "masks", tmp_path / "out", settings=photos) / "2007_000063.png"
    )
    assert (mask == 1).sum() == 27003  # so many have alpha >= 128 in label_studio_sdk's decoder
    assert mask[201, 250:310].tolist() == [0] * 60, "the line"


def brush_of_the_sdk():
    """The module that reads brushes in Label Studio's own SDK. Its package pins many others."""
    package = importlib.util.find_spec("label_studio_sdk")
    if package is None:
        pytest.skip("needs label-studio-sdk (pip install --no-deps label-studio-sdk)")
    file = Path(package.origin).parent / "converter" / "brush.py"
    spec = importlib.util.spec_from_file_location("brush_of_the_sdk", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@settings(max_examples=50)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(4))))
def test_brushes_against_the_sdk(picture):
    sdk = brush_of_the_sdk()
    region = picture[..., 3] > 127
    assert encode_brush(region) == sdk.mask2rle(region.astype(np.uint8) * 255)
    code = sdk.encode_rle(picture.ravel())  # half transparent pixels, as from the browser
    assert np.array_equal(decode_brush(bytes(code), *region.shape), region)


def test_cvat_reads_the_masks(tmp_path):
    """Against CVAT's own SDK."""
    masks = pytest.importorskip("cvat_sdk.masks")
    region = np.random.default_rng(0).random((20, 30)) < 0.3
    photos, folder = photos_with(tmp_path, {"a.png": region.astype(np.uint8)})
    path = write_outlines("cvat", photos, files_in(folder), ("background", *TAGS), tmp_path / "out")
    (mask,) = read_xml(path).iter("mask")
    left, top, width, height = (int(mask.get(key)) for key in ("left", "top", "width", "height"))
    runs = list(map(int, mask.get("rle").split(",")))
    assert [*runs, left, top, left + width - 1, top + height - 1] == masks.encode_mask(region)


def test_datumaro_reads_the_masks_of_cvat(tmp_path):
    dm = pytest.importorskip("datumaro")
    mask = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(np.uint8)
    photos, folder = photos_with(tmp_path, {"ü b/a.png": mask, "b.png": mask * 0})
    write_outlines("cvat", photos, files_in(folder), ("background", *TAGS), tmp_path / "out")
    items = {item.id: item for item in dm.Dataset.import_from(str(tmp_path / "out"), "cvat")}
    drawn = np.zeros_like(mask)
    for note in items["ü b/a"].annotations:
        drawn[note.image > 0] = note.label + 1
    assert np.array_equal(drawn, mask) and items["b"].annotations == []


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max(1, (a | b).sum())


@pytest.mark.parametrize("to", ["yolo", "labelme"])
def test_what_polygons_lose(tmp_path, to):
    """Nothing of small things: regions, holes, islands in them, single pixels, corners."""
    mask = np.zeros((60, 80), np.uint8)
    mask[2:40, 2:40] = 1
    mask[8:30, 8:30] = 0
    mask[12:20, 12:20] = 2
    mask[14, 14] = 1
    mask[50, 5] = mask[51, 6] = 3
    mask[45:58, 40:75] = 3
    mask[0, 79] = mask[59, 0] = 2
    back = there_and_back(tmp_path, to, {"a.png": mask})
    assert np.array_equal(back["a.png"], mask)


@pytest.mark.real
@pytest.mark.parametrize("to", ["yolo", "labelme"])
def test_what_polygons_lose_of_real_masks(shared, tmp_path, to):
    masks, names = {}, sorted((shared / "voc-animals" / "masks").glob("*.png"))[:15]
    tags = tuple(f"class {i}" for i in range(1, 21))
    for path in names:
        mask = read_mask(path)
        masks[path.name] = np.where(mask == 255, 0, mask)
    back = there_and_back(tmp_path, to, masks, tags)
    scores = [
        iou(mask == number, back[name] == number)
        for name, mask in masks.items()
        for number in np.unique(mask)[1:]
    ]
    assert np.mean(scores) > 0.97 and min(scores) > 0.9


@pytest.mark.parametrize("to", MASK_WRITERS)
def test_pixels_that_are_not_scored_become_background_and_this_is_said(tmp_path, to, caplog):
    mask = np.zeros((20, 30), np.uint8)
    mask[2:9, 3:10] = 1
    mask[12:18, 3:10] = 255
    back = there_and_back(tmp_path, to, {"a.png": mask})
    assert np.array_equal(back["a.png"], mask * (mask == 1))
    assert "in 1 photo some pixels are not scored (255)" in caplog.text


@pytest.mark.parametrize("to", MASK_WRITERS)
def test_masks_are_in_the_pixels_of_the_upright_photo(tmp_path, to):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(noise).save(tmp_path / "in" / "a.jpg", exif=exif)
    mask = np.zeros((30, 20), np.uint8)
    mask[2:28, 3:6] = 1
    write_mask(tmp_path / "masks" / "a.png", mask)
    photo = Photo("a", tmp_path / "in" / "a.jpg", ())
    classes = ("background", "cat")
    masks = files_in(tmp_path / "masks")
    there = write_outlines(to, [photo], masks, classes, tmp_path / "out")
    there = submit(there) if to == "label-studio" else there
    assert np.array_equal(read_mask(convert(there, "masks", tmp_path / "back") / "a.png"), mask)
    copy = next((tmp_path / "out").rglob("a.jpg"))
    assert image_size(copy) == (20, 30)
    if to != "yolo":  # its corners are fractions
        Image.fromarray(noise).save(copy)  # a program that turned nothing
        with pytest.raises(DataError, match=r"a\.jpg.*for 20 x 30, but .* has 30 x 20 upright"):
            convert(there, "masks", tmp_path / "again")


def test_a_mask_of_another_size_is_not_written(tmp_path):
    photos, masks = photos_with(tmp_path, {"a.png": np.ones((20, 30), np.uint8)})
    write_mask(masks / "a.png.png", np.ones((30, 20), np.uint8))
    for to in MASK_WRITERS:
        with pytest.raises(DataError, match=r"a\.png: the mask is 20 x 30, the photo 30 x 20"):
            write_outlines(to, photos, files_in(masks), ("background", *TAGS), tmp_path / to)


@pytest.mark.parametrize("to", MASK_WRITERS)
def test_what_is_stopped_leaves_nothing_in_the_way(tmp_path, to, monkeypatch):
    photos, masks = photos_with(tmp_path, {f"{n}.png": np.ones((20, 30), np.uint8) for n in "ab"})

    def stop(path, read=read_mask):
        if path.name == "b.png.png":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr("tag2mask.formats.mask_writers.read_mask", stop)
    with pytest.raises(KeyboardInterrupt):
        write_outlines(to, photos, files_in(masks), ("background", *TAGS), tmp_path / to)
    assert not (tmp_path / to).exists()


class Mask(np.ndarray):
    """An array to which weak references are possible."""


@pytest.mark.parametrize("to", MASK_WRITERS)
def test_one_mask_at_a_time_is_in_memory(tmp_path, to):
    masks = []

    def read():
        assert sum(mask() is not None for mask in masks) <= 1  # the last one, which the loop holds
        mask = np.ones((8, 8), np.uint8).view(Mask)
        masks.append(weakref.ref(mask))
        return mask

    photos = tuple(
        Photo(f"{i}", picture(tmp_path / "in" / f"{i}.png", seed=i, size=(8, 8)), ())
        for i in range(5)
    )
    MASK_WRITERS[to](
        Table(("cat",), photos), {photo.name: read for photo in photos}, tmp_path / "out"
    )


def cvat(folder: Path, things: str, size: str = 'width="30" height="20"') -> Path:
    picture(folder / "images" / "a.png", size=(30, 20))
    text = f'<annotations><image id="7" name="a.png" {size}>{things}</image></annotations>'
    return layouts.write(folder / "annotations.xml", text)


SQUARE = '<polygon label="{}" points="{x},2;{y},2;{y},8;{x},8" z_order="{z}"/>'


def test_of_objects_that_overlap_the_higher_then_the_smaller_is_on_top(tmp_path, caplog):
    big, small = SQUARE.format("big", x=2, y=12, z=0), SQUARE.format("small", x=8, y=14, z=0)
    for i, things in enumerate((big + small, small + big)):
        back = convert(cvat(tmp_path / f"{i}", things), "masks", tmp_path / f"back{i}")
        assert read_mask(back / "a.png")[4].tolist() == [0] * 2 + [1] * 6 + [2] * 6 + [0] * 16
    assert caplog.text.count("in 1 photo objects of two classes overlap") == 2
    higher = big.replace('z_order="0"', 'z_order="1"')
    back = convert(cvat(tmp_path / "2", higher + small), "masks", tmp_path / "back2")
    assert read_mask(back / "a.png")[4].tolist() == [0] * 2 + [1] * 10 + [2] * 2 + [0] * 16


def test_a_box_beside_outlines_is_said_to_be_missing_in_the_mask(tmp_path, caplog):
    box = '<box label="small" xtl="1" ytl="1" xbr="4" ybr="4"/>'
    path = cvat(tmp_path, SQUARE.format("big", x=2, y=12, z=0) + box)
    mask = read_mask(convert(path, "masks", tmp_path / "back") / "a.png")
    assert np.unique(mask).tolist() == [0, 1]
    assert "in 1 photo some tag has no outline" in caplog.text


def test_masks_that_labelme_makes_itself_are_read(tmp_path):
    region = np.random.default_rng(0).random((6, 9)) < 0.5
    data = io.BytesIO()
    Image.fromarray(region).save(data, "PNG")
    shape = {
        "label": "cat",
        "shape_type": "mask",
        "points": [[4.0, 5.0], [12.0, 10.0]],  # the last pixels belong to it
        "mask": b64encode(data.getvalue()).decode(),
    }
    picture(tmp_path / "in" / "a.png", size=(30, 20))
    value = {"imagePath": "a.png", "shapes": [shape], "imageHeight": 20, "imageWidth": 30}
    layouts.write(tmp_path / "in" / "a.json", value)
    want = np.zeros((20, 30), np.uint8)
    want[5:11, 4:13] = region
    assert np.array_equal(
        read_mask(convert(tmp_path / "in", "masks", tmp_path / "out") / "a.png"), want
    )


def tasks(folder: Path, *annotations: dict) -> Path:
    """Label Studio's export of one photo."""
    picture(folder / "a.png", size=(30, 20))
    task = {"id": 3, "data": {"image": "/data/upload/1/0123abcd-a.png"}}
    return layouts.write(folder / "export.json", [task | {"annotations": list(annotations)}])


def brushed(region: np.ndarray, label: str = "cat", **more: object) -> dict:
    value = {"format": "rle", "rle": encode_brush(region), "brushlabels": [label]}
    size = {"original_width": region.shape[1], "original_height": region.shape[0]}
    return {"type": "brushlabels", "from_name": "mask", "value": value, **size, **more}


def test_label_studio_polygons_and_the_newest_of_several_annotations(tmp_path, caplog):
    old = brushed(np.ones((20, 30), bool))
    points = [[10, 10], [50, 10], [50, 50], [10, 50]]  # percent
    new = brushed(np.ones((20, 30), bool)) | {"type": "polygonlabels"}
    new["value"] = {"points": points, "polygonlabels": ["cat"]}
    path = tasks(
        tmp_path,
        {"result": [new], "updated_at": "2026-02-02T00:00:00Z"},
        {"result": [old], "updated_at": "2026-02-01T00:00:00Z"},
    )
    caplog.set_level("INFO", "tag2mask")
    want = np.zeros((20, 30), np.uint8)
    want[2:10, 3:15] = 1
    assert np.array_equal(read_mask(convert(path, "masks", tmp_path / "b") / "a.png"), want)
    assert "1 photo with several annotations: the outlines are those of the newest" in caplog.text


REGION = np.eye(20, 30, dtype=bool)
LONGER = encode_brush(np.ones((20, 31), bool))  # 20 x 30 x 4 are 9 x 256 + 96
LIES = {
    "another size": (brushed(np.ones((4, 4), bool)), "task 3.* for 4 x 4, but .* has 30 x 20"),
    "a code of another size": (
        brushed(np.ones((4, 4), bool)) | {"original_width": 30, "original_height": 20},
        "its code is for 16 pixels",
    ),
    "cut": (
        brushed(REGION) | {"value": {"rle": encode_brush(REGION)[:40], "brushlabels": ["cat"]}},
        "its code ends too early",
    ),
    "longer than it says": (
        brushed(REGION) | {"value": {"rle": [0, 0, 9, 96, *LONGER[4:]], "brushlabels": ["cat"]}},
        "is longer than the picture",
    ),
    "nothing": (brushed(REGION) | {"value": {"rle": [], "brushlabels": ["cat"]}}, "no beginning"),
    "no bytes": (
        brushed(REGION) | {"value": {"rle": [0, 300], "brushlabels": ["cat"]}},
        "task 3.*not a task.*range",
    ),
    "a number": (brushed(REGION) | {"value": {"rle": 1 << 40, "brushlabels": ["cat"]}}, "no code"),
    "turned": (brushed(REGION, image_rotation=90), "task 3.*turn it back in Label Studio"),
    "a corner that is no number": (
        brushed(REGION)
        | {"type": "polygonlabels"}
        | {"value": {"points": [[1, None], [2, 3], [5, 5]], "polygonlabels": ["cat"]}},
        "a corner is not a number",
    ),
    "outside": (
        brushed(REGION)
        | {"type": "polygonlabels"}
        | {"value": {"points": [[101, 9], [140, 3], [150, 5]], "polygonlabels": ["cat"]}},
        "task 3.*outside of the picture",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_of_label_studio(tmp_path, lie):
    result, message = LIES[lie]
    path = tasks(tmp_path, {"result": [result]})
    with pytest.raises(DataError, match=f"export.json.*{message}"):
        convert(path, "masks", tmp_path / "out")
    assert load_table(path).tags == ("cat",)  # its tags can be used
    assert "'rle': [" not in str(load_json(path)), "for tags, no code stays in memory"


MASK = '<mask label="cat" rle="{}" left="{}" top="2" width="4" height="3"/>'


@pytest.mark.parametrize(
    ("things", "message"),
    [
        (MASK.format("0, 13", 2), "a mask that does not fill its box"),
        (MASK.format("0, 99999999999999999999, 1", 2), "a mask that does not fill its box"),
        (MASK.format("-1, 13", 2), "a mask that does not fill its box"),
        (MASK.format("nan, 12", 2), "a mask that does not fill its box"),
        (MASK.format("0, 12", 27), r"its box \(27, 2, 4, 3\) does not fit the picture"),
        (MASK.format("0, 12", -1), r"its box \(-1, 2, 4, 3\) does not fit the picture"),
        (MASK.replace('"4"', '"-4"').replace('"3"', '"-3"').format("0, 12", 9), "does not fit"),
        (SQUARE.format("cat", x="nan", y=5, z=0), "a corner is not a number"),
        (SQUARE.format("cat", x=31, y=50, z=0), "it is outside of the picture"),
        (SQUARE.format("cat", x=-9, y=-1, z=0), "it is outside of the picture"),
    ],
)
def test_lies_of_cvat(tmp_path, things, message):
    with pytest.raises(DataError, match=rf"image 7 \(a.png\).*{message}"):
        convert(cvat(tmp_path, things), "masks", tmp_path / "out")


def test_a_picture_of_another_size_is_an_error_with_file_and_row(tmp_path):
    path = cvat(tmp_path, MASK.format("0, 12", 2), 'width="300" height="200"')
    with pytest.raises(DataError, match=r"annotations.xml: image 7 .*for 300 x 200, but .*30 x 20"):
        convert(path, "masks", tmp_path / "out")


@pytest.mark.parametrize("data", ["", "no base64", "iVBORw0KGgo="])
def test_lies_of_labelme(tmp_path, data):
    shape = {"label": "cat", "shape_type": "mask", "points": [[4, 5], [12, 10]], "mask": data}
    picture(tmp_path / "in" / "a.png", size=(30, 20))
    layouts.write(tmp_path / "in" / "a.json", {"imagePath": "a.png", "shapes": [shape]})
    with pytest.raises(DataError, match=r"a\.json .*its mask is no PNG"):
        convert(tmp_path / "in", "masks", tmp_path / "out")
