"""Data sets in the forms in which people have tags mean what they should, by the command `tags`."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tag2mask.cli import main

FORMS = [
    *("roboflow", "roboflow-folder", "planet", "chestxray", "label-studio-json"),
    *("label-studio-csv", "camera-traps", "xmp", "excel-semicolon", "open-images"),
    *("image-folder-split", "nothing", "extra-columns", "comma-list", "fiftyone", "ambiguous"),
]
FOLDERS = ("images", "rename")  # options whose value is a path


@pytest.fixture
def case(request, shared):
    """A data set, the arguments that read it, and what it means."""
    folder = shared / "tag-formats"
    expected = json.loads((folder / "expected.json").read_text())[request.param]
    args = list(expected["args"])
    for i, (option, value) in enumerate(pairwise(args)):
        if option.removeprefix("--photos.") in FOLDERS:
            args[i + 1] = str(folder / value)
    return ["--data", str(folder / expected["data"]), *args], expected


def understood(argv, capfd):
    """What `tags --json` prints of each training photo: name -> present and unknown tags."""
    assert main(["tags", "--json", *argv]) == 0
    photos = json.loads(capfd.readouterr().out)["photos"]
    return {
        Path(photo["file_name"]).name: {
            name: sorted(photo[name]) for name in ("present", "unknown")
        }
        for photo in photos
    }


@pytest.mark.real
@pytest.mark.parametrize("case", FORMS, indirect=True)
def test_each_form_means_what_it_should(case, capfd):
    argv, expected = case
    if expected["error"]:
        assert main(["tags", "--json", *argv]) == 2
        out, err = capfd.readouterr()
        assert not out and "--photos." in err
        return
    assert understood(argv, capfd) == expected["photos"]


@pytest.mark.real
@pytest.mark.parametrize("to", ["csv", "jsonl"])
@pytest.mark.parametrize("case", FORMS[:-1], indirect=True)
def test_each_form_comes_back_from_a_table(case, to, tmp_path, capfd):
    argv, expected = case
    assert main(["convert", "--to", to, "--out", str(tmp_path / "new"), *argv]) == 0
    capfd.readouterr()
    photos = understood(["--data", str(tmp_path / "new" / f"tags.{to}")], capfd)
    assert photos == expected["photos"]


@pytest.mark.real
def test_all_forms_are_in_the_list(shared):
    assert set(json.loads((shared / "tag-formats" / "expected.json").read_text())) == set(FORMS)
