"""The official archives of VOC 2012, SBD and COCO: fetched on, checked, unpacked. No other part of data/ uses the network."""

import errno
import hashlib
import http.client
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tag2mask.errors import DataError
from tag2mask.files import read_list, write_text
from tag2mask.progress import log, track

CHUNK = 1 << 20  # bytes
TRIES = 5  # in a row without a byte
PAUSE = 2.0  # seconds before the next try, longer each time
TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class Archive:
    """One official file."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rsplit("/", 1)[1]


COCO_URL = "http://images.cocodataset.org"
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "voc12": (
        Archive(
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        ),
        Archive(
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
            "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
        ),
    ),
    "coco14": (
        Archive(
            f"{COCO_URL}/zips/train2014.zip",
            "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        ),
        Archive(
            f"{COCO_URL}/zips/val2014.zip",
            "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        ),
        Archive(
            f"{COCO_URL}/annotations/annotations_trainval2014.zip",
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        ),
    ),
    "coco17": (
        Archive(
            f"{COCO_URL}/zips/train2017.zip",
            "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        ),
        Archive(
            f"{COCO_URL}/zips/val2017.zip",
            "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        ),
        Archive(
            f"{COCO_URL}/annotations/annotations_trainval2017.zip",
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        ),
    ),
}


def download(name: str, out: Path) -> Path:
    """A data set's official archives to the folder `out`, unpacked; returns what `--data` can name from then on.

    Given again it goes on where it was cut off, and does nothing twice. Archives that lie in OUT/archives are used as they are.
    Raises DataError that says what to fetch by hand and where to put it, if a server fails or sends something else.
    """
    if name not in ARCHIVES:
        raise DataError(f'no download is called "{name}"; there are {", ".join(ARCHIVES)}')
    for archive in ARCHIVES[name]:
        done = out / f".{archive.name}.unpacked"
        if not done.exists():
            file = fetch(archive, out / "archives", by_hand(name, out))
            unpack(file, out)
            write_text(done, archive.sha256)
    log.info(f"{out / 'archives'} can be deleted: all is unpacked")
    if name != "voc12":
        return out
    write_train_aug(out / "VOCdevkit" / "VOC2012", out / "benchmark_RELEASE" / "dataset")
    return out / "VOCdevkit" / "VOC2012"


def by_hand(name: str, out: Path) -> str:
    """What to fetch with a browser, how to check it, and where to put it."""
    files = "\n".join(f"  {archive.url}\n    sha256 {archive.sha256}" for archive in ARCHIVES[name])
    return f"By hand: put these files into {out / 'archives'} and give the same command again:\n{files}"


def fetch(archive: Archive, folder: Path, instructions: str) -> Path:
    """One archive to FOLDER/NAME, from where a .part file ends; its sha256 is checked. Raises DataError."""
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        failures = 0
        while (
            not (complete := _fetch_some(archive, part, before := _size(part), instructions))
            and failures < TRIES
        ):
            failures = 0 if _size(part) > before else failures + 1
            time.sleep(PAUSE * failures)
        if not complete:
            raise DataError(
                f"{archive.url}: the connection breaks again and again; give the same command later, it goes on.\n{instructions}"
            )
    kept = path if path.exists() else part
    log.info(f"check {kept.name}")
    with kept.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        if kept == path:  # somebody's own, perhaps still on its way
            ways = f"let it be finished, or delete it, or call it {part.name} to go on from its end"
            raise DataError(
                f"{path}: not, or not yet, the official file (sha256 {found}); {ways}.\n{instructions}"
            )
        part.unlink()
        raise DataError(
            f"{archive.url}: another file than the official one (sha256 {found}); it was deleted.\n{instructions}"
        )
    kept.replace(path)
    return path


def _fetch_some(archive: Archive, part: Path, have: int, instructions: str) -> bool:
    """Bytes from one connection onto the end of `part`; true if the file is complete. Raises DataError if the server refuses."""
    request = urllib.request.Request(
        archive.url, headers={"Range": f"bytes={have}-"} if have else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if answer.status != 206:
                have = 0  # a server that cannot go on begins again
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            with part.open("ab" if have else "wb") as file:
                megabytes = None if total is None else -(-total // CHUNK)
                for chunk in track(
                    _chunks(answer), f"{archive.name} [MB]", megabytes, have // CHUNK
                ):
                    file.write(chunk)
        return total is None or _size(part) >= total
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send
            return True
        raise DataError(
            f"{archive.url}: the server answers {error.code} {error.reason}.\n{instructions}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"no space left to write {part}; free some and give the same command again: it goes on from here"
            ) from None
        log.info(f"{archive.name}: {error}")
        return False


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := answer.read(CHUNK):
        yield chunk


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def unpack(archive: Path, out: Path) -> None:
    """A tar or zip archive into `out`; a folder appears there when it is whole, and one that is there stays."""
    log.info(f"unpack {archive.name}")
    temporary = out / f".{archive.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            file.extractall(temporary)
    else:
        with tarfile.open(archive) as file:
            file.extractall(temporary, filter="data")  # nothing outside, no devices
    for entry in temporary.iterdir():
        if not (out / entry.name).exists():
            entry.rename(out / entry.name)
        elif entry.is_dir():  # annotations/ of COCO 2014 and 2017
            for below in entry.iterdir():
                if not (out / entry.name / below.name).exists():
                    below.rename(out / entry.name / below.name)
    shutil.rmtree(temporary)


def write_train_aug(voc: Path, sbd: Path) -> None:
    """The field's list of 10,582: VOC's train and all of SBD, without VOC's val; made from the official lists, sorted."""
    lists = voc / "ImageSets" / "Segmentation"
    names = {
        *read_list(lists / "train.txt"),
        *read_list(sbd / "train.txt"),
        *read_list(sbd / "val.txt"),
    }
    names -= set(read_list(lists / "val.txt"))
    write_text(lists / "train_aug.txt", "".join(f"{name}\n" for name in sorted(names)))
