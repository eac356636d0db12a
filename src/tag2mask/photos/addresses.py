"""Addresses of object storage and archives (s3://bucket/photos, photos.zip) to local copies.

All that opens a photo needs a file. So the files at an address are copied once, and again when they
have changed there. fsspec, which PyTorch needs anyway, knows the addresses.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from tag2mask.errors import DataError, Tag2MaskError
from tag2mask.files import SCHEME, files_below, is_address, read_json, write_json, writing
from tag2mask.processes import parallel_map
from tag2mask.progress import log, track

TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
AT_ONCE = 16  # files that are copied at the same time
# What storage says of a file beside its size. All that is there is compared.
STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "CRC", "chksum")
MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "created", "date_time")


def address_of(path: Path) -> str | None:
    """The address that a path stands for, None if it is a file or folder: "s3:/bucket/a", which is
    what `Path` makes of it, to "s3://bucket/a", and "photos.zip" to "zip://::photos.zip"."""
    if is_address(path):
        return SCHEME.sub(r"\1\2://", path.as_posix())
    name = path.name.lower()
    kind = "zip" if name.endswith(".zip") else "tar" if name.endswith(TARS) else ""
    return f"{kind}://::{path.absolute()}" if kind and path.is_file() else None


def cache_folder() -> Path:
    """Where the copies are: the folder TAG2MASK_CACHE, else ~/.cache/tag2mask."""
    if own := os.environ.get("TAG2MASK_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tag2mask"


def local_copy(path: Path, beside: bool = False) -> Path:
    """What is at an address to its local copy; a path that is no address stays as it is.

    beside: of a file, copy all that is in its folder, too. Raises DataError.
    """
    if (address := address_of(path)) is None:
        return path
    with _storage(address) as (files, root):
        name = ""
        if root and not files.exists(root) and files.exists(f"./{root}"):
            root = f"./{root}"  # in an archive that `tar -cf photos.tar .` made
        if files.isfile(root):
            root, _, name = root.rpartition("/")
        only = name if name and not beside else ""
        kind, outer = address.partition(":")[0], address.partition("::")[2]
        digest = hashlib.sha256(f"{kind} {root} {outer} {only}".encode()).hexdigest()[:12]
        last = re.sub(r"[^\w.-]+", "-", (root or outer).rstrip("/").rpartition("/")[2])
        copy = cache_folder() / f"{last}-{digest}"
        copy.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{copy}.lock"):  # the processes of a run on this machine
            _copy(files, root, only, copy, address)
        return copy / name


def _copy(files: Any, root: str, only: str, copy: Path, address: str) -> None:
    """Make the folder `copy` what is below `root`, or the file `only` of it."""
    store = copy.with_name(f"{copy.name}.json")
    known = read_json(store) if store.exists() else {}
    place = f"{root}/{only}".strip("/") if only else root
    listing = {
        _inside(name, root, address): about
        for name, about in files.find(place, detail=True).items()
        if not name.rpartition("/")[2].startswith(".") and not name.endswith("/")
    }
    if not listing:
        raise DataError(f"{address}: nothing is there")
    now = {name: [about["size"], *_stamps(about)] for name, about in listing.items()}
    there = {name: entry.stat().st_size for name, entry in files_below(copy)}
    for name in there.keys() - now.keys():
        (copy / name).unlink()
    todo = [
        name
        for name, (size, *_) in now.items()
        if known.get(name) != now[name] or there.get(name) != size
    ]
    if not todo:
        return
    log.info(f"{address}: {len(todo)} of {len(now)} files are copied to {copy}")
    # Before: a stop must not leave an old file that counts as new.
    write_json(store, {name: value for name, value in known.items() if name not in {*todo}})
    get = partial(_get, files, copy, listing)
    threads = 1 if "::" in address else AT_ONCE  # an archive is read from its start to its end
    for _ in track(parallel_map(get, todo, threads), "copy", total=len(todo)):
        pass
    write_json(store, now)


def _get(files: Any, copy: Path, listing: Mapping[str, Any], name: str) -> None:
    with writing(copy / name) as temporary:
        files.get_file(listing[name]["name"], str(temporary))
        modified = _modified(listing[name])  # equal on all machines of a run
        os.utime(temporary, ns=(modified, modified))


def _inside(name: str, root: str, address: str) -> str:
    """The path of a file from `root`. Raises DataError if it leads out of it."""
    inner = name.removeprefix(root).lstrip("/").removeprefix("./")
    if not inner or ".." in inner.split("/") or "\\" in inner or Path(inner).is_absolute():
        raise DataError(f"{address}: the name {name!r} cannot be that of a file here")
    return inner


def _stamps(about: Mapping[str, Any]) -> list[str]:
    return [str(about[key]) for key in (*STAMPS, *MODIFIED) if about.get(key) is not None]


def _modified(about: Mapping[str, Any]) -> int:
    """When a file was changed [ns since 1970], 0 if that is not known."""
    value = next((about[key] for key in MODIFIED if about.get(key)), 0)
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, tuple):  # of a zip: year, month, day, hour, minute, second
            value = datetime(*value[:6]).replace(tzinfo=UTC)
    except ValueError:  # month 0, day 0: a zip without dates
        return 0
    return int((value.timestamp() if isinstance(value, datetime) else value) * 1e9)


@contextmanager
def _storage(address: str) -> Iterator[tuple[Any, str]]:
    """fsspec's file system of an address, and the path in it. Raises DataError for every error."""
    import fsspec

    kind = address.partition(":")[0]
    try:
        files, root = fsspec.url_to_fs(address)
        files.invalidate_cache()
        yield files, root
    except Tag2MaskError:
        raise
    except ImportError as error:
        extra = kind in ("s3", "gs")
        do = f"pip install 'tag2mask[{kind}]'" if extra else f"install what it needs ({error})"
        raise DataError(f"{address}: to read it, {do}") from None
    except FileNotFoundError:
        raise DataError(f"{address}: no such file or folder") from None
    except Exception as error:  # each storage has errors of its own
        raise DataError(f"{address}: cannot be read ({type(error).__name__}: {error})") from None
