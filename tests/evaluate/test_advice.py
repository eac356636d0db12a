"""Which masks are doubtful, which segmenters are refused, and which are not."""

import numpy as np
import pytest
from rich.console import Console

from tag2mask.config import Config
from tag2mask.evaluate.advice import mask_doubts, refusal, segmenter_doubts
from tag2mask.evaluate.finds import count_finds
from tag2mask.evaluate.show import finds_table
from tag2mask.photos.masks import write_mask
from tag2mask.photos.table import Photo, Table

TAGS = ("forest", "city", "lake")


def finds_of(folder, photos, maps=None):
    """(tags, {tag: share of the photo in its mask}) of each photo to the finds."""
    table = []
    for i, (tags, shares) in enumerate(photos):
        mask, start = np.zeros(10_000, np.uint8), 0
        for tag, share in shares.items():
            end = start + round(share * mask.size)
            mask[start:end] = TAGS.index(tag) + 1
            start = end
        write_mask(folder / f"{i}.png", mask.reshape(100, 100))
        table.append(Photo(str(i), folder / f"{i}.png", tags))
    return count_finds(Table(TAGS, tuple(table)), folder, maps)


F, C, L, NOTHING = ("forest",), ("city",), ("lake",), ()


@pytest.mark.parametrize(
    ("photos", "reason"),
    [
        ([(F, {}), (C, {})] * 2, "it marks nothing on 4 training photos"),
        ([(F, {"forest": 0.95}), (C, {"forest": 0.89}), (L, {"forest": 0.9})] * 10, "calls nearly"),
        (
            [(F, {"forest": 0.9}), (NOTHING, {"forest": 0.9})] * 20,
            "calls nearly every photo forest",
        ),
        (
            [(F, {"city": 0.3}), (C, {"lake": 0.2}), (L, {"forest": 0.3})] * 10,
            "have nothing to do with the tags: it marks a tag in 0 of 30",
        ),
        # noise: 34 of 36 where the tag is, 67 of 72 where it is not
        (
            [(F, {"forest": 0.3, "city": 0.3, "lake": 0.3})] * 11
            + [(F, {"city": 0.3})]
            + [(C, {"forest": 0.3, "city": 0.3, "lake": 0.3})] * 11
            + [(C, {"city": 0.3, "lake": 0.3})]
            + [(L, {"forest": 0.3, "city": 0.3, "lake": 0.3})] * 11
            + [(L, {})],
            "nothing to do with the tags: it marks a tag in 34 of 36",
        ),
        ([(F, {"lake": 0.3}), (C, {"lake": 0.3}), (L, {"lake": 0.3})] * 10, "nothing to do with"),
    ],
)
def test_a_segmenter_of_no_use_is_refused_with_the_next_step(tmp_path, photos, reason):
    text = refusal(finds_of(tmp_path, photos), Config())
    assert reason in text and "--segmenter.lr 5e-05 or 0.0008" in text
    assert "with --segmenter.balanced" in text and "--segmenter.steps 1600" in text


@pytest.mark.parametrize(
    "photos",
    [
        # satellite photos: forest covers nearly all of most, and is called so in some others
        [(F, {"forest": 0.97})] * 50 + [(C, {"city": 0.3})] * 10 + [(C, {"forest": 0.95})] * 4,
        [(F, {"forest": 0.9}), (C, {"forest": 0.9})] * 7,  # a tiny demo
        [(F, {"forest": 0.99})] * 60,  # every photo shows it, and is full of it
        [(F, {"forest": 0.99})] * 60 + [(C, {"forest": 0.99})] * 5,  # too few others: a warning
        [(F, {"forest": 0.1}), (C, {"forest": 0.1}), (L, {"city": 0.1})] * 4,  # 12 photos: chance
        [(F, {}), (C, {"city": 0.01}), (L, {})] * 20,  # weak, but not without use
        # 12 of 36 found, 11 of 72 marked wrongly: weak, but more than chance
        [(F, {"forest": 0.2}), (C, {}), (L, {"city": 0.1})] * 11
        + [(F, {"forest": 0.2}), (C, {}), (L, {})],
        [(F, {"forest": 0.5}), (NOTHING, {"forest": 0.5})] * 10 + [(F, {"forest": 0.5})],
    ],
)
def test_legitimate_data_and_small_demos_are_not_refused(tmp_path, photos):
    assert refusal(finds_of(tmp_path, photos), Config()) == ""


def test_without_tags_elsewhere_nothing_is_proven(tmp_path):
    """One tag, in all photos, marked in some of them."""
    assert refusal(finds_of(tmp_path, [(F, {"forest": 0.9}), (F, {})] * 20), Config()) == ""


def test_what_is_doubtful_about_a_segmenter_is_said_once_for_all_its_tags(tmp_path):
    photos = [
        (F, {"forest": 0.95}),
        (C, {"forest": 0.95}),
        (L, {}),
        (NOTHING, {"lake": 0.1}),
    ] * 5
    missed, marked, covered = (
        next((text for text in segmenter_doubts(finds_of(tmp_path, photos)) if begin in text), "")
        for begin in ("less than half", "in photos without them", "cover more than 90 %")
    )
    assert "found in less than half of their photos: city (0 of 5), lake (0 of 5)." in missed
    assert "forest (5 of 15), lake (5 of 15)" in marked
    assert "forest (10)" in covered
    nothing = segmenter_doubts(finds_of(tmp_path, photos))[0]
    assert (
        "marked on 5 of 5 photos of nothing" in nothing and "--segmenter.no-object-first" in nothing
    )
    good = [(F, {"forest": 0.3}), (C, {"city": 0.3}), (L, {"lake": 0.3}), (NOTHING, {})] * 5
    assert segmenter_doubts(finds_of(tmp_path, good)) == []


def test_a_tag_in_few_photos_is_not_judged(tmp_path):
    assert segmenter_doubts(finds_of(tmp_path, [(F, {"forest": 0.3})] * 9 + [(C, {})] * 3)) == []


def flat(photo):
    return (0, 1), np.stack([np.zeros((10, 10)), np.full((10, 10), 3.0)])


def spot(patches):
    """Score maps, 10 x 10, high in this number of patches."""
    values = np.zeros((2, 100), np.float32)
    values[1, :patches] = 2
    return lambda photo: ((0, 1), values.reshape(2, 10, 10))


@pytest.mark.parametrize(
    ("share", "maps", "parts"),
    [
        (0.3, spot(30), []),
        (0.97, spot(97), ["cover more than 90 % of a photo: forest (8)"]),
        (0.3, spot(2), []),
        (
            0.005,
            spot(30),
            ["smaller than one patch of the classifier: forest (8 of 8). A patch is 1 %"],
        ),
        (0.0, spot(30), ["8 of 8 masks of photos with tags show nothing", "forest (8 of 8)"]),
        (0.3, flat, ["nearly the same evidence all over their photos: forest (8)"]),
    ],
)
def test_what_is_doubtful_about_pseudo_masks(tmp_path, share, maps, parts):
    text = "\n".join(mask_doubts(finds_of(tmp_path, [(F, {"forest": share})] * 8, maps), Config()))
    assert all(part in text for part in parts) and bool(text) == bool(parts)


def test_what_is_small_is_what_the_masks_took_for_small(tmp_path):
    """One rule: that of the masks, which `small` names."""
    finds = finds_of(tmp_path, [(F, {"forest": 0.005})] * 8 + [(C, {"city": 0.3})] * 8, spot(2))
    (text,) = mask_doubts(finds, Config(), ["forest"])
    assert text.startswith("small things, by their evidence: forest. Their")
    assert text.endswith("--masks.no-small-things")
    assert "smaller than one patch" not in text and "city" not in text


def test_half_of_the_masks_without_their_tag(tmp_path):
    photos = [(F, {"forest": 0.3}), (F, {})] * 4
    (empty, missed) = mask_doubts(finds_of(tmp_path, photos, spot(30)), Config())
    assert empty.startswith("4 of 8 masks") and "not in the masks of their photos" in missed
    assert "--masks.threshold, such as 0.3" in missed
    other = Config(masks=Config().masks.model_copy(update={"scores": "max_norm"}))
    assert "threshold" not in "".join(mask_doubts(finds_of(tmp_path, photos, spot(30)), other))


def test_new_masks_are_the_work_of_the_segmenter(tmp_path):
    """The classifier's settings cannot mend them."""
    photos = [(F, {"forest": share}) for share in (0, 0.005, 0.97)] * 4
    text = "\n".join(mask_doubts(finds_of(tmp_path, photos, flat), Config(), new=True))
    assert "give more --segmenter.steps" in text and "patch of the segmenter: forest" in text
    assert "the segmenter cannot tell where they are" in text
    assert "classifier" not in text and "threshold" not in text


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_shows_the_tags(tmp_path, width):
    """With areas as long as they get: the table took all of the width for them."""
    rows = [(F, {"forest": 0.0084}), (C, {"city": 0.95}), (F, {"city": 0.1})]
    finds = finds_of(tmp_path, rows * 40)
    finds["tags"]["forest"]["area"] = [0.000084, 0.000084, 1.0]
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(finds_table(finds, "segmenter"))
    text = console.export_text()
    assert "\u2502 forest " in text and "\u2502 city " in text and "40 of 80" in text
    assert max(map(len, text.splitlines())) <= width
