"""A run whose masks end where regions end: in the stage `masks` and in every later round."""

import shutil

import numpy as np
import pytest
from PIL import Image
from test_pipeline import SETTINGS, data, log_of, scenes  # noqa: F401

from tag2mask.api import run_config
from tag2mask.config_files import load_recipe, make_config, merged
from tag2mask.errors import DataError
from tag2mask.photos.masks import read_mask, write_mask

STAGES = ("check", "clusters", "classifier", "masks")
pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def regions(scenes, tmp_path_factory):  # noqa: F811
    """Quarters of each scene, which no mask has by chance."""
    folder = tmp_path_factory.mktemp("regions")
    for mask in scenes.glob("masks/*.png"):
        height, width = read_mask(mask).shape
        y, x = np.mgrid[:height, :width]
        labels = 1 + (y > height // 2) * 2 + (x > width // 2)
        Image.fromarray(labels.astype(np.uint8)).save(folder / mask.name)
    return folder


def run(out, scenes, regions, *stages, continued=False):  # noqa: F811
    values = merged({**load_recipe("photos").model_dump(), **data(scenes), "out": out}, SETTINGS)
    return run_config(
        make_config(merged(values, {"masks": {"regions": regions}})), stages, continued
    )


def test_masks_of_all_rounds_end_at_the_regions(scenes, regions, tmp_path):  # noqa: F811
    result = run(tmp_path / "run", scenes, regions, *STAGES, "segmenter")
    assert f"regions of 20 of 20 photos: {regions}" in log_of(result)
    newest = result.newest_masks
    folders = [result.folder / "masks", newest, newest.parent / "round-1" / "masks"]
    blurred = 0
    for folder in folders:
        masks = [read_mask(path) for path in sorted(folder.glob("*.png"))]
        assert len(masks) == 20 and any(mask.any() for mask in masks)
        for mask in masks:
            tops, lefts = (
                (slice(side // 2 + 1 - blurred), slice(side // 2 + 1 + blurred, None))
                for side in mask.shape
            )
            for part in (mask[top, left] for top in tops for left in lefts):
                assert (part == part[0, 0]).all()

    again = run(tmp_path / "run", scenes, regions, *STAGES)
    assert "masks: done already" in log_of(again).rpartition("check: done already")[2]
    first, *others = sorted(path.name for path in again.folder.glob("masks/*.png"))
    before = {name: (again.folder / "masks" / name).stat().st_ino for name in others}
    Image.new("L", Image.open(regions / first).size, 1).save(regions / first)
    changed = run(tmp_path / "run", scenes, regions, *STAGES, continued=True)
    assert "masks: continues, because regions changed" in log_of(changed)
    assert np.unique(read_mask(changed.folder / "masks" / first)).size == 1
    after = {name: (changed.folder / "masks" / name).stat().st_ino for name in others}
    assert before == after, "the masks of the other photos are kept"


def test_masks_stay_when_the_regions_are_gone(scenes, regions, tmp_path):  # noqa: F811
    """And a mask that was changed by hand is kept: to see that, it is made again."""
    shutil.copytree(regions, tmp_path / "regions")
    result = run(tmp_path / "run", scenes, tmp_path / "regions", *STAGES)
    changed = sorted(result.folder.glob("masks/*.png"))[0]
    write_mask(changed, np.full_like(read_mask(changed), 1))
    result = run(tmp_path / "run", scenes, tmp_path / "regions", *STAGES)
    assert "1 mask changed by hand" in log_of(result)

    (tmp_path / "regions").rename(tmp_path / "moved")
    again = run(tmp_path / "run", scenes, tmp_path / "regions", *STAGES)
    assert "masks: done already" in log_of(again).rpartition("check: done already")[2]
    moved = run(tmp_path / "run", scenes, tmp_path / "moved", *STAGES)
    assert "masks: done already" in log_of(moved).rpartition("check: done already")[2]
    with pytest.raises(DataError, match="no such folder of regions"):
        run(tmp_path / "new", scenes, tmp_path / "regions", *STAGES)


def test_wrong_regions_are_told_before_any_training(scenes, regions, tmp_path):  # noqa: F811
    for name in sorted(path.name for path in regions.glob("*.png"))[:20]:
        Image.new("L", (7, 7)).save(tmp_path / name)
    with pytest.raises(DataError) as error:
        run(tmp_path / "run", scenes, tmp_path, *STAGES)
    assert len(error.value.problems) > 1 and "7 x 7, but" in str(error.value)
    assert not (tmp_path / "run" / "clusters").exists()
