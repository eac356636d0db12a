"""Photos in object storage and in archives: a real S3 server, a real zip and tar."""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats import load_table
from tag2mask.formats.check import checked_state
from tag2mask.photos.addresses import local_copy
from tag2mask.runs.pictures import photos_to_predict


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAG2MASK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """A folder with a table and three photos."""
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    for i, name in enumerate(("a/1.jpg", "a/2.jpg", "3.png")):
        random = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(random).save(folder / name)
    (folder / "tags.csv").write_text("file_name,tags\na/1.jpg,cat\na/2.jpg,dog\n3.png,\n")
    return folder


def same(table, photos):
    assert [photo.name for photo in table.photos] == ["a/1", "a/2", "3"]
    assert [photo.tags for photo in table.photos] == [("cat",), ("dog",), ()]
    for photo in table.photos:
        original = photos / f"{photo.name}{photo.path.suffix}"
        assert photo.path.read_bytes() == original.read_bytes() and photo.path != original


def copied(folder):
    return {file: file.stat().st_ino for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture
def bucket(server, photos, monkeypatch):
    """The photos in a bucket of a real server."""
    s3fs = pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage = s3fs.S3FileSystem()
    if storage.exists("mine"):
        storage.rm("mine", recursive=True)
    storage.mkdir("mine")
    storage.put(f"{photos}/", "mine/photos", recursive=True)
    return storage


def test_a_table_in_a_bucket_with_its_photos(bucket, photos, tmp_path):
    table = load_table("s3://mine/photos/tags.csv")
    same(table, photos)
    before = copied(tmp_path / "cache")
    state = checked_state(Path("s3://mine/photos/tags.csv"))
    assert copied(tmp_path / "cache") == before, "nothing is copied again"
    Image.new("RGB", (50, 40), "red").save(photos / "a" / "1.jpg")
    bucket.put(str(photos / "a" / "1.jpg"), "mine/photos/a/1.jpg")
    bucket.rm("mine/photos/a/2.jpg")
    (photos / "tags.csv").write_text("file_name,tags\na/1.jpg,cat\n3.png,\n")
    bucket.put(str(photos / "tags.csv"), "mine/photos/tags.csv")
    table = load_table("s3://mine/photos/tags.csv")
    assert table.photos[0].path.read_bytes() == (photos / "a" / "1.jpg").read_bytes()
    after = copied(tmp_path / "cache")
    kept = {file.name for file in before if before[file] == after.get(file)}
    assert "3.png" in kept and not {"1.jpg", "2.jpg", "tags.csv"} & kept
    assert checked_state(Path("s3://mine/photos/tags.csv")) != state


def test_photos_in_a_bucket_of_a_table_here(bucket, photos, tmp_path):
    shutil.copy(photos / "tags.csv", tmp_path / "tags.csv")
    settings = DataSettings(images="s3://mine/photos")
    same(load_table(tmp_path / "tags.csv", settings=settings), photos)
    assert len(photos_to_predict(["s3://mine/photos/a"])) == 2
    with pytest.raises(DataError, match=r"s3://mine/none: no"):
        load_table("s3://mine/none")


def test_a_zip_whose_files_have_no_date_is_read(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted(photos.rglob("*.*")):
            name = file.relative_to(photos).as_posix()
            archive.writestr(zipfile.ZipInfo(name, (1980, 0, 0, 0, 0, 0)), file.read_bytes())
    same(load_table(Path(f"zip://tags.csv::{tmp_path / 'photos.zip'}")), photos)


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
def test_an_archive(name, photos, tmp_path):
    file = tmp_path / name
    if name.endswith("zip"):
        with zipfile.ZipFile(file, "w") as archive:
            for path in sorted(photos.rglob("*.*")):
                archive.write(path, path.relative_to(photos))
        inner = Path(f"zip://tags.csv::{file}")
    else:
        with tarfile.open(file, f"w:{name[11:]}") as archive:
            archive.add(photos, ".")
        inner = Path(f"tar://tags.csv::{file}")
    same(load_table(inner), photos)
    before = copied(tmp_path / "cache")
    same(load_table(photos / "tags.csv", settings=DataSettings(images=file)), photos)
    same(load_table(inner), photos)
    assert before.items() <= copied(tmp_path / "cache").items()
    next(path for path in before if path.name == "3.png").unlink()
    same(load_table(inner), photos)


def test_a_copy_that_was_cut_short_goes_on(photos, tmp_path, monkeypatch):
    shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    replace, count = Path.replace, []

    def stopped(self, target):
        if Path(target).suffix in (".jpg", ".png"):
            count.append(target)
            if len(count) == 2:
                raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        local_copy(tmp_path / "photos.zip")
    monkeypatch.undo()
    os.environ["TAG2MASK_CACHE"] = str(tmp_path / "cache")
    same(load_table(Path(f"zip://tags.csv::{tmp_path / 'photos.zip'}")), photos)


def test_what_cannot_be_read_is_a_sentence(tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"broken\.zip: cannot be read"):
        load_table(tmp_path / "broken.zip")
    with pytest.raises(DataError, match=r"to read it, pip install 'tag2mask\[gs\]'"):
        load_table("gs://bucket/photos")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../outside.jpg", b"x")
    with pytest.raises(DataError, match="cannot be that of a file here"):
        load_table(tmp_path / "bad.zip")
    assert not list(tmp_path.rglob("outside.jpg"))
