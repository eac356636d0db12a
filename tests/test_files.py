"""The run folder's writer: whole or not at all."""

import errno
import hashlib
import os

import pytest

from tag2mask.errors import DataError, RunError
from tag2mask.files import Facts, fingerprint, read_json, write_json, writing
from tag2mask.processes import cores


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a" / "x.json", {"ä": 1})
    assert read_json(tmp_path / "a" / "x.json") == {"ä": 1}
    with pytest.raises(KeyError), writing(tmp_path / "a" / "x.json") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert read_json(tmp_path / "a" / "x.json") == {"ä": 1}
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.json"]


def test_a_folder_replaces_the_one_before(tmp_path):
    for content in ("old", "new"):
        with writing(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["new"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_explained(tmp_path, error):
    with (
        pytest.raises(RunError, match=r"no space left to write .*x\.json"),
        writing(tmp_path / "x.json"),
    ):
        raise error
    assert not list(tmp_path.iterdir())


def test_cores_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert cores() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert cores() == 2


def test_a_long_list_of_problems_is_shortened():
    error = DataError([f"problem {i}" for i in range(1000)])
    assert (
        len(error.problems) == 1000
        and len(str(error).splitlines()) == 52
        and "and 950 more" in str(error)
    )


def test_missing_and_broken_json_are_explained(tmp_path):
    with pytest.raises(RunError, match="missing"):
        read_json(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RunError, match="line 1"):
        read_json(tmp_path / "bad.json")


def test_fingerprint_sees_names_and_contents_and_passes_over_hidden_files(tmp_path):
    (tmp_path / "a").write_text("1")
    first = fingerprint(tmp_path)
    (tmp_path / ".hidden").write_text("1")
    assert fingerprint(tmp_path) == first
    (tmp_path / "a").write_text("2")
    second = fingerprint(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, fingerprint(tmp_path)}) == 3


def test_the_fingerprint_of_a_folder_is_that_of_version_0_1(tmp_path):
    """Else every stage of an old run would start again. Links to folders are not followed."""
    names = ("a/b.png", "a/b/c.png", "a-b.png", "a.png", "B.png", ".a.png", "a/.x/y.png", "a.npz")
    for name in names:
        file = tmp_path / "masks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "masks" / "z").symlink_to(tmp_path / "masks" / "a")
    (tmp_path / "masks" / "lost.png").symlink_to(tmp_path / "none")
    (tmp_path / "masks" / "found.png").symlink_to(tmp_path / "masks" / "a.npz")
    folder, digest = tmp_path / "masks", hashlib.sha256()
    files = [path for path in folder.rglob("*.png") if not path.name.startswith(".")]
    for path in sorted(path for path in files if path.is_file()):
        digest.update(os.fsencode(path.relative_to(folder).as_posix()))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    assert fingerprint(folder, "*.png") == digest.hexdigest()[:16]
    assert fingerprint(folder, "*.png", Facts(tmp_path / "facts")) == digest.hexdigest()[:16]
