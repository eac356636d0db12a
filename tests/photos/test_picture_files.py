"""Which kinds of pictures are read, and what is said of the others."""

import subprocess
import sys
from pathlib import Path

import pytest
from formats.layouts import picture
from PIL import Image

from tag2mask.errors import DataError
from tag2mask.formats.pictures import pictures_below, unread_pictures
from tag2mask.formats.rows import photo_names
from tag2mask.photos.images import PICTURES, UNREAD, image_size, open_image

HEIC = Path(__file__).parents[1] / "formats" / "files" / "exiftool.heic"


KINDS = (
    "jpg jpeg jfif jpe png apng gif bmp dib tif tiff webp avif jp2 j2k mpo ppm pgm pnm tga ico pcx "
    "sgi qoi"
)


@pytest.mark.parametrize("kind", KINDS.split())
def test_what_pillow_opens_is_read(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    picture(tmp_path / "a.png", size=(40, 32))
    with Image.open(tmp_path / "a.png") as image:
        image = image.convert("L") if kind == "pgm" else image
        image.save(path, **({"append_images": [image], "save_all": True} if kind == "mpo" else {}))
    assert pictures_below(tmp_path) == sorted({tmp_path / "a.png", path})
    assert image_size(path) == (40, 32) or kind == "ico"
    assert open_image(path).mode == "RGB"


def test_heic_is_read_with_the_extra():
    pytest.importorskip("pi_heif")
    assert ".heic" in PICTURES and open_image(HEIC).size == (16, 12)


def test_without_the_extra_heic_is_named_with_what_to_install(tmp_path):
    """The extra cannot be missing here: another process pretends."""
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC.read_bytes())
    code = (
        "import sys; sys.modules['pi_heif'] = sys.modules['pillow_heif'] = None\n"
        "from pathlib import Path; from tag2mask.formats.pictures import unread_pictures\n"
        "from tag2mask.photos.images import open_image\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "print(*unread_pictures(folder))\n"
        "try: open_image(folder / 'IMG_1.HEIC')\n"
        "except Exception as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, error = out.stdout.splitlines()
    assert "pictures of kinds that are not read are left out: 1 .heic" in found
    assert all("pip install 'tag2mask[heic]'" in line for line in (found, error))


def test_kinds_that_are_not_read_are_counted_each_with_what_to_do(tmp_path):
    for name in ("a.NEF", "b.nef", "c.cr2", "d.jxl", "e.svg", "f.txt", "g.mov"):
        (tmp_path / name).write_bytes(b"x")
    assert {(finding.what.split(": ")[1], finding.do) for finding in unread_pictures(tmp_path)} == {
        ("1 .cr2, 2 .nef", "export camera raw as JPEG"),
        ("1 .jxl", "convert them to JPEG"),
        ("1 .svg", "export drawings as PNG"),
    }
    assert not PICTURES & UNREAD.keys() and not PICTURES & {".pdf", ".eps", ".mpg", ".h5", ".txt"}


def test_the_small_preview_in_a_raw_file_is_not_taken_for_the_photo(tmp_path):
    picture(tmp_path / "a.tif").rename(tmp_path / "a.NEF")
    with pytest.raises(DataError, match=r"a\.NEF: export camera raw as JPEG"):
        open_image(tmp_path / "a.NEF")


def test_a_drawing_with_the_name_of_a_photo_starts_no_other_program(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: started.append(1))
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "a.jpg").write_bytes(drawing)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "EPS"
    with pytest.raises(DataError, match="not a readable picture"):
        open_image(tmp_path / "a.jpg")
    assert not started


def test_names_keep_the_extension_only_where_they_need_it():
    files = [Path(name) for name in ("a.jpg", "a.heic", "b.heic", "c.NEF", "d.v2")]
    assert photo_names(files) == ["a.jpg", "a.heic", "b", "c", "d.v2"]
