import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tag2mask.errors import DataError
from tag2mask.formats import download as module
from tag2mask.formats.download import Archive, download


class Server(BaseHTTPRequestHandler):
    """Serves `files`; cuts each answer after `cut` bytes; understands ranges if `ranges`."""

    files: dict[str, bytes]
    cut: int | None
    ranges: bool
    requests: list[tuple[str, str | None]]

    def do_GET(self):
        name, part = self.path[1:], self.headers.get("Range")
        self.requests.append((name, part))
        if name not in self.files:
            return self.send_error(404, "Gone Fishing")
        body = self.files[name]
        start = int(part.removeprefix("bytes=").rstrip("-")) if part and self.ranges else 0
        if start >= len(body) and start:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:][: self.cut])  # and hangs up

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server on this machine, whose archives are the data set "tiny"."""
    Server.files, Server.cut, Server.ranges, Server.requests = {}, None, True, []
    running = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(module, "PAUSE", 0)

    def offer(name: str, body: bytes, dataset: str = "tiny", sha256: str | None = None):
        Server.files[name] = body
        archive = Archive(
            f"http://127.0.0.1:{running.server_port}/{name}",
            sha256 or hashlib.sha256(body).hexdigest(),
        )
        monkeypatch.setitem(module.ARCHIVES, dataset, (*module.ARCHIVES.get(dataset, ()), archive))

    yield offer
    running.shutdown()
    running.server_close()


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in files.items():
            archive.writestr(name.replace("__", "/"), body)
    return stream.getvalue()


NOISE = np.random.default_rng(0).bytes(3 << 20)


def test_archives_are_fetched_checked_and_unpacked_once(server, tmp_path):
    server("a.zip", zipped(pictures__a=NOISE, annotations__one=b"1"))
    server("b.zip", zipped(annotations__two=b"2"))
    assert download("tiny", tmp_path) == tmp_path
    assert (tmp_path / "pictures" / "a").read_bytes() == NOISE
    assert sorted(path.name for path in (tmp_path / "annotations").iterdir()) == ["one", "two"]
    shutil.rmtree(tmp_path / "archives")
    download("tiny", tmp_path)
    assert len(Server.requests) == 2
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_broken_connection_is_resumed(server, tmp_path):
    server("a.zip", zipped(x=NOISE))
    Server.cut = 700_000
    download("tiny", tmp_path)
    assert (tmp_path / "x").read_bytes() == NOISE
    assert [part for _, part in Server.requests] == [
        None,
        *(f"bytes={700_000 * i}-" for i in range(1, 5)),
    ]


def test_a_killed_download_is_resumed(server, tmp_path):
    body = zipped(x=NOISE)
    server("a.zip", body)
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "a.zip.part").write_bytes(body[:1_000_000])
    download("tiny", tmp_path)
    assert (
        Server.requests == [("a.zip", "bytes=1000000-")] and (tmp_path / "x").read_bytes() == NOISE
    )


def test_killed_after_the_last_byte(server, tmp_path):
    body = zipped(x=NOISE)
    server("a.zip", body)
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "a.zip.part").write_bytes(body)
    download("tiny", tmp_path)
    assert (tmp_path / "x").read_bytes() == NOISE


def test_a_server_without_ranges_starts_again(server, tmp_path):
    body = zipped(x=NOISE)
    server("a.zip", body)
    Server.ranges = False
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "a.zip.part").write_bytes(b"old" * 1000)
    download("tiny", tmp_path)
    assert (tmp_path / "x").read_bytes() == NOISE


def test_a_server_that_always_fails_is_an_error(server, tmp_path):
    server("a.zip", zipped(x=NOISE))
    Server.cut = 0
    with pytest.raises(
        DataError,
        match=r"fails repeatedly; run it again later to resume(.|\n)*"
        r"By hand: put these files into .*archives(.|\n)*sha256",
    ):
        download("tiny", tmp_path)
    assert len(Server.requests) == module.TRIES + 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_not_the_servers_fault(server, tmp_path):
    server("a.zip", zipped(x=NOISE))
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"no space left to write .*a\.zip\.part"):
        download("tiny", tmp_path)
    assert len(Server.requests) == 1


def test_a_wrong_file_is_deleted_and_never_unpacked(server, tmp_path):
    server("a.zip", zipped(x=b"evil"), sha256="0" * 64)
    with pytest.raises(
        DataError,
        match=r"not the official file \(sha256 [0-9a-f]{64}\); it was deleted(.|\n)*0000",
    ):
        download("tiny", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["archives"]


def test_a_file_put_there_by_hand_is_used_and_checked(server, tmp_path):
    body = zipped(x=NOISE)
    server("a.zip", body)
    Server.files.clear()
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "a.zip").write_bytes(body)
    download("tiny", tmp_path)
    assert Server.requests == [] and (tmp_path / "x").read_bytes() == NOISE


def test_half_a_file_put_there_by_hand_stays(server, tmp_path):
    server("a.zip", zipped(x=NOISE))
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "a.zip").write_bytes(b"half")
    with pytest.raises(
        DataError,
        match=r"a\.zip: not the official file \(sha.*or rename it to a\.zip\.part(.|\n)*By hand",
    ):
        download("tiny", tmp_path)
    assert Server.requests == [] and (tmp_path / "archives" / "a.zip").read_bytes() == b"half"


def test_what_the_server_refuses(server, tmp_path):
    server("a.zip", zipped(x=b""))
    Server.files.clear()
    with pytest.raises(DataError, match=r"the server answers 404 Gone Fishing(.|\n)*By hand"):
        download("tiny", tmp_path)
    with pytest.raises(DataError, match='unknown data set "voc"; use one of voc12, coco14, coco17'):
        download("voc", tmp_path)


def test_archives_cannot_write_outside_the_folder(server, tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("../evil")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    server("a.tar", stream.getvalue())
    with pytest.raises(tarfile.FilterError):
        download("tiny", tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_voc_gets_the_augmented_list(server, tmp_path, monkeypatch):
    monkeypatch.setitem(module.ARCHIVES, "voc12", ())
    lists = "VOCdevkit/VOC2012/ImageSets/Segmentation/"
    server(
        "voc.zip", zipped(**{lists + "train.txt": b"b\na\n", lists + "val.txt": b"v\nw\n"}), "voc12"
    )
    sbd = "benchmark_RELEASE/dataset/"
    server(
        "sbd.zip", zipped(**{sbd + "train.txt": b"c\nv\n", sbd + "val.txt": b"a\nd\nw\n"}), "voc12"
    )
    root = download("voc12", tmp_path)
    assert (root / "ImageSets" / "Segmentation" / "train_aug.txt").read_text() == "a\nb\nc\nd\n"
