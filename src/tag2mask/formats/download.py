"""The official archives of VOC 2012, SBD and COCO: fetched, checked, unpacked.

No other part of `formats` uses the network.
"""

import errno
import http.client
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tag2mask.errors import DataError
from tag2mask.files import read_list, sha256, write_text
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


VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012"
SBD = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
COCO = "http://images.cocodataset.org"
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "voc12": (
        Archive(f"{VOC}/VOCtrainval_11-May-2012.tar",
                "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"),
        Archive(f"{SBD}/benchmark.tgz",
                "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53"),
    ),
    "coco14": (
        Archive(f"{COCO}/zips/train2014.zip",
                "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"),
        Archive(f"{COCO}/zips/val2014.zip",
                "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
        Archive(f"{COCO}/annotations/annotations_trainval2014.zip",
                "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"),
    ),
    "coco17": (
        Archive(f"{COCO}/zips/train2017.zip",
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"),
        Archive(f"{COCO}/zips/val2017.zip",
                "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
        Archive(f"{COCO}/annotations/annotations_trainval2017.zip",
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"),
    ),
}  # fmt: skip


def download(name: str, out: Path) -> Path:
    """The archives of a data set, unpacked in the folder `out`; returns what `--data` can name.

    Called again it resumes, and does nothing twice. Archives in OUT/archives are used as they are.
    Raises DataError that says what to fetch by hand and where to put it, if a server fails or
    sends another file.
    """
    if name not in ARCHIVES:
        raise DataError(f'unknown data set "{name}"; use one of {", ".join(ARCHIVES)}')
    for archive in ARCHIVES[name]:
        done = out / f".{archive.name}.unpacked"
        if not done.exists():
            unpack(fetch(archive, out / "archives", by_hand(name, out)), out)
            write_text(done, archive.sha256)
    log.info(f"all archives are unpacked; {out / 'archives'} can be deleted")
    if name != "voc12":
        return out
    write_train_aug(out / "VOCdevkit" / "VOC2012", out / "benchmark_RELEASE" / "dataset")
    return out / "VOCdevkit" / "VOC2012"


def by_hand(name: str, out: Path) -> str:
    """What to fetch with a browser, how to check it, and where to put it."""
    files = "\n".join(f"  {archive.url}\n    sha256 {archive.sha256}" for archive in ARCHIVES[name])
    return f"By hand: put these files into {out / 'archives'} and run it again:\n{files}"


def fetch(archive: Archive, folder: Path, instructions: str) -> Path:
    """One archive to FOLDER/NAME, its sha256 checked; resumes a .part file. Raises DataError."""
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _fetch_part(archive, part, instructions)
    file = path if path.exists() else part
    log.info(f"check {file.name}")
    if (digest := sha256(file)) == archive.sha256:
        return file.replace(path)
    source, do = archive.url, "it was deleted"
    if file == path:  # put there by hand, perhaps not complete yet
        source = str(path)
        do = f"wait until it is complete, delete it, or rename it to {part.name} to resume it"
    else:
        part.unlink()
    what = f"not the official file (sha256 {digest})"
    raise DataError(f"{source}: {what}; {do}.\n{instructions}")


def _fetch_part(archive: Archive, part: Path, instructions: str) -> None:
    """The whole archive to `part`, in as many connections as it takes. Raises DataError."""
    what = "the connection fails repeatedly; run it again later to resume"
    failures = 0
    while failures <= TRIES:
        time.sleep(PAUSE * failures)
        before = _size(part)
        try:
            if _fetch_rest(archive, part, before):
                return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is left to send
                return
            what = f"the server answers {error.code} {error.reason}"
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                do = "free some space and run it again to resume"
                raise DataError(f"no space left to write {part}; {do}") from None
            log.info(f"{archive.name}: {error}")
        failures = 0 if _size(part) > before else failures + 1
    raise DataError(f"{archive.url}: {what}.\n{instructions}")


def _fetch_rest(archive: Archive, part: Path, size: int) -> bool:
    """Append the bytes of one connection to `part`, which has `size`; true if it is complete."""
    headers = {"Range": f"bytes={size}-"} if size else {}
    request = urllib.request.Request(archive.url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:
            size = 0  # the server cannot resume: it sends all again
        length = answer.headers.get("Content-Length")
        total = size + int(length) if length else None
        megabytes = None if total is None else -(-total // CHUNK)
        chunks = iter(partial(answer.read, CHUNK), b"")
        with part.open("ab" if size else "wb") as file:
            for chunk in track(chunks, f"{archive.name} [MB]", megabytes, size // CHUNK):
                file.write(chunk)
    return total is None or _size(part) >= total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def unpack(archive: Path, out: Path) -> None:
    """A tar or zip archive into `out`: a folder appears when it is complete, none is replaced."""
    log.info(f"unpack {archive.name}")
    temporary = out / f".{archive.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    # Nothing is written outside the folder: "data" is for tar, for zip it is always so.
    shutil.unpack_archive(archive, temporary, filter=None if archive.suffix == ".zip" else "data")
    for entry in temporary.iterdir():
        # annotations/ is in the archives of COCO 2014 and 2017
        same = (out / entry.name).exists() and entry.is_dir()
        for source in entry.iterdir() if same else [entry]:
            target = out / source.relative_to(temporary)
            if not target.exists():
                source.rename(target)
    shutil.rmtree(temporary)


def write_train_aug(voc: Path, sbd: Path) -> None:
    """The field's list of 10,582: VOC's train and all of SBD, without VOC's val, sorted."""
    lists = voc / "ImageSets" / "Segmentation"
    train = (lists / "train.txt", sbd / "train.txt", sbd / "val.txt")
    names = {name for file in train for name in read_list(file)}
    names -= set(read_list(lists / "val.txt"))
    write_text(lists / "train_aug.txt", "".join(f"{name}\n" for name in sorted(names)))
