"""`tag2mask correct`: masks corrected in other tools come into a run."""

import json
import shutil

import layouts
import numpy as np
import pytest
from layouts import picture, submit
from PIL import Image

from tag2mask.cli import main
from tag2mask.config import Config
from tag2mask.config_files import write_config
from tag2mask.formats.convert import convert
from tag2mask.formats.mask_writers import MASK_WRITERS
from tag2mask.photos.masks import read_mask, write_class_names, write_mask
from tag2mask.runs.run import Run

TAGS = ("cat", "dog/hound", "Ö, x")
FILES = ("a b/1.jpg", "a b/1.png", "a b/c/ü.jpg", "z.png", "nothing.png")


@pytest.fixture
def run(tmp_path):
    """A run with masks of photos in folders, two of one name, and one photo of nothing."""
    rng = np.random.default_rng(0)
    rows, masks = [], {}
    for i, file in enumerate(FILES):
        tags = [] if file.startswith("nothing") else [TAGS[i % 3], TAGS[(i + 1) % 3]]
        rows.append({"file_name": picture(tmp_path / "in" / file, i).name and file, "tags": tags})
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    data = layouts.write(tmp_path / "in" / "tags.jsonl", text)
    folder = tmp_path / "run"
    write_config(Config(data=data, out=folder), folder / "config.toml")
    run = Run(folder)
    write_class_names(folder / "masks", run.given.classes)
    for photo in run.given.photos:
        mask = np.zeros((48, 64), np.uint8)
        for tag in photo.tags:
            x, y = rng.integers(15, 40, 2)  # a disk: as a polygon it is another
            disk = np.hypot(*np.ogrid[-y : 48 - y, -x : 64 - x]) < 14.3
            mask[disk] = run.given.classes.index(tag)
            mask[y + 5, x + 5] = 0
        masks[photo.name] = mask
        write_mask(folder / "masks" / f"{photo.name}.png", mask)
    return run


def kept(run: Run) -> dict[str, np.ndarray]:
    state = run.files.corrections.state()
    return {
        name: run.files.corrections.read_mask(one, run.given.classes)
        for name, one in state.items()
        if one.mask == "mended"
    }


def exported(run: Run, to: str, folder) -> "tuple":
    """The masks of a run in a tool, and its file."""
    there = convert(run.data, to, folder / to, run.folder / "masks", "table")
    return submit(there) if to == "label-studio" else there


@pytest.mark.parametrize("to", [*MASK_WRITERS, "masks"])
def test_only_masks_that_were_corrected_come_into_the_run(run, tmp_path, to, capfd):
    there = exported(run, to, tmp_path)
    assert main(["correct", str(run.folder), "--from", str(there)]) == 0
    assert "0 masks corrected, 5 as in the run" in capfd.readouterr().out
    assert kept(run) == {}
    # A person erases and paints in two of them.
    mended = {}
    for name in ("a b/1.png", "nothing"):
        path = run.folder / "masks" / f"{name}.png"
        mask = read_mask(path)
        mask[:10, :30] = 0
        mask[30:40, 2:9] = 3
        mended[name] = mask
    for name, mask in mended.items():
        shutil.copy(run.folder / "masks" / f"{name}.png", tmp_path / "before.png")
        write_mask(run.folder / "masks" / f"{name}.png", mask)
        mended[name] = (mask, read_mask(tmp_path / "before.png"))
    shutil.rmtree(tmp_path / to)
    there = exported(run, to, tmp_path)
    for name, (_, before) in mended.items():
        write_mask(run.folder / "masks" / f"{name}.png", before)
    assert main(["correct", str(run.folder), "--from", str(there)]) == 0
    assert "2 masks corrected, 3 as in the run" in capfd.readouterr().out
    masks = kept(run)
    assert masks.keys() == mended.keys()
    for name, (mask, _) in mended.items():
        differ = np.mean(masks[name] != mask)
        assert differ < 0.02 if to in ("yolo", "labelme") else differ == 0, name
    assert main(["correct", str(run.folder), "--from", str(there)]) == 0, "again: nothing is new"
    assert "0 masks corrected, 5 as in the run" in capfd.readouterr().out


def test_masks_that_are_kept_beside_the_first_ones(run, tmp_path, capfd):
    """segmenter/learned, where a segmenter without new masks learned from them, has no list."""
    there = exported(run, "masks", tmp_path)
    learned = run.folder / "segmenter" / "learned"
    shutil.copytree(run.folder / "masks", learned)
    (learned / "masks.json").unlink()
    write_mask(learned / "nothing.png", np.full((48, 64), 3, np.uint8))
    assert main(["correct", str(run.folder), "--from", str(there)]) == 0
    assert "1 mask corrected, 4 as in the run" in capfd.readouterr().out
    assert kept(run).keys() == {"nothing"}


def test_masks_come_before_the_run_has_any(run, tmp_path, capfd):
    there = exported(run, "masks", tmp_path)
    shutil.rmtree(run.folder / "masks")
    assert main(["correct", str(run.folder), "--from", str(there)]) == 0
    assert "5 masks corrected" in capfd.readouterr().out
    assert len(kept(run)) == 5


def test_one_fault_and_nothing_is_kept(run, tmp_path, capfd):
    there = exported(run, "cvat", tmp_path)
    text = there.read_text()
    first, *others, last = text.split("<mask ")
    others[0] = others[0].replace("<mask ", "").replace('label="', 'label="dog/hound" x="')
    last = last.replace('left="', 'left="9', 1)
    there.write_text("<mask ".join([first, *others, last]))
    assert main(["correct", str(run.folder), "--from", str(there)]) == 2
    assert "does not fit the picture" in capfd.readouterr().err
    assert kept(run) == {} and not run.files.corrections.lines


def test_classes_and_pictures_that_the_run_does_not_have(run, tmp_path, capfd):
    there = exported(run, "cvat", tmp_path)
    text = there.read_text()
    there.write_text(text.replace('label="cat"', 'label="cats"'))
    assert main(["correct", str(run.folder), "--from", str(there)]) == 2
    error = capfd.readouterr().err
    assert 'tag "cats"' in error and 'did you mean "cat"?' in error
    picture(tmp_path / "other" / "z.png", 77, (64, 48))
    image = '<image id="0" name="z.png" width="64" height="48">{}</image>'
    points = "1,1;9,1;9,9"
    text = image.format(f'<polygon label="cat" points="{points}"/>')
    path = layouts.write(tmp_path / "other" / "a.xml", f"<annotations>{text}</annotations>")
    words = ["correct", str(run.folder), "--from", str(path)]
    assert main([*words, "--photos.images", str(tmp_path / "other")]) == 2
    assert "none of its pictures is a training photo of" in capfd.readouterr().err


def test_a_class_of_a_folder_of_masks_that_the_run_does_not_have(run, tmp_path, capfd):
    """Each once, with all other faults; and masks of no photo are counted."""
    there = exported(run, "masks", tmp_path)
    write_class_names(there, ("background", "kat", "dog/hound", "Ö, x", "wolf"))
    write_mask(there / "z.png", np.zeros((9, 9), np.uint8))
    write_mask(there / "b" / "none.png", np.zeros((9, 9), np.uint8))
    assert main(["correct", str(run.folder), "--from", str(there)]) == 2
    error = capfd.readouterr().err
    assert error.count('"kat" is no tag of the run; did you mean "cat"?') == 1
    assert "z.png: 9 x 9" in error and "wolf" not in error and not run.files.corrections.lines
    assert "1 mask of no training photo left out: b/none.png" in error


def test_a_picture_that_has_only_the_name_is_not_the_photo(run, tmp_path, capfd):
    there = exported(run, "labelme", tmp_path)
    Image.new("RGB", (64, 48)).save(there / "z.png")
    assert main(["correct", str(run.folder), "--from", str(there)]) == 0
    captured = capfd.readouterr()
    assert "1 photo left out, which the run does not have: z" in captured.err
    assert "0 masks corrected, 4 as in the run" in captured.out
