"""The loss of small things, by hand and by what it must not depend on."""

import numpy as np
import pytest
import torch

from tag2mask.photos.table import IGNORE
from tag2mask.segmenter.losses import small_things_loss

CELLS, PIXELS = 20, 80  # cells of 4 pixels


@pytest.fixture
def logits():
    return torch.randn(2, 4, CELLS, CELLS, generator=torch.Generator().manual_seed(0))


def crops():
    """Two crops: one with 12 cells of class 1 and 3 of class 2, one with 400 pixels of class 3."""
    mask = torch.zeros(2, PIXELS, PIXELS, dtype=torch.uint8)
    mask[0, 8:20, 4:20] = 1  # rows 2 to 4, columns 1 to 4
    mask[0, 60, 61:72] = 2  # one row of pixels in three cells
    mask[1, 40:60, 40:60] = 3
    return mask


def by_hand(probs, cells, count):
    """The terms of one class in one crop: probabilities as an array, the cells that show it."""
    rows, columns = np.ogrid[:CELLS, :CELLS]
    near = np.zeros((CELLS, CELLS), bool)
    for row, column in cells:
        near |= (abs(rows - row) <= 3) & (abs(columns - column) <= 3)
    inside = [-np.log(probs[row, column]) for row, column in cells]
    hardest = np.sort(probs[~near])[::-1][:count]
    return [np.mean(inside)] * bool(cells) + [np.mean(-np.log(1 - hardest))]


def test_things_count_as_much_as_what_looks_most_like_them(logits):
    probs = logits.double().softmax(1).numpy()
    first = [(row, column) for row in (2, 3, 4) for column in (1, 2, 3, 4)]
    second = [(15, 15), (15, 16), (15, 17)]
    terms = [
        *by_hand(probs[0, 1], first, 12),
        *by_hand(probs[1, 1], [], 4),
        *by_hand(probs[0, 2], second, 4),
        *by_hand(probs[1, 2], [], 4),
    ]
    assert len(terms) == 6
    loss = small_things_loss(logits, crops(), (1, 2))
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_what_is_ignored_counts_for_neither(logits):
    mask = crops()[:1]
    before = small_things_loss(logits[:1], mask, (1,))
    mask[0, 76:, 76:] = IGNORE
    changed = logits[:1].clone()
    changed[0, 1, 19, 19] = 50  # the surest of all
    assert small_things_loss(changed, mask, (1,)) == pytest.approx(before.item(), abs=0.05)
    assert small_things_loss(changed, crops()[:1], (1,)) > before + 0.3
    mask[0, 8:20, 4:20] = IGNORE
    mask[0, 8, 4] = 1
    beside = small_things_loss(logits[:1], mask, (1,))
    changed = logits[:1].clone()
    changed[0, :, 2:5, 1:5] = 0
    assert small_things_loss(changed, mask, (1,)) == beside, "a cell is known or it is not"


def test_next_to_a_thing_nothing_is_known(logits):
    changed = logits.clone()
    changed[0, 1, 5:8, 1:8] = 50
    changed[0, 1, :8, 5:8] = 50
    assert small_things_loss(changed, crops(), (1,)) == small_things_loss(logits, crops(), (1,))
    changed[0, 1, 8, 1] = 50
    assert small_things_loss(changed, crops(), (1,)) > small_things_loss(logits, crops(), (1,))


def test_no_small_things_change_nothing_and_certainty_is_finite(logits):
    assert small_things_loss(logits, crops(), ()).item() == 0
    assert small_things_loss(logits, torch.full_like(crops(), IGNORE), (1, 2)).item() == 0
    sure = 100 * logits.clone()
    sure.requires_grad_()
    loss = small_things_loss(sure, crops(), (1, 2))
    loss.backward()
    assert loss.isfinite() and sure.grad.isfinite().all() and sure.grad.any()
    wrong = torch.zeros(1, 2, CELLS, CELLS)
    wrong[0, 1, 10, 10] = 40
    wrong.requires_grad_()
    small_things_loss(wrong, torch.zeros(1, PIXELS, PIXELS, dtype=torch.uint8), (1,)).backward()
    assert wrong.grad[0, 1, 10, 10] == pytest.approx(0.25), "the surest is unlearned"
    whole = torch.full_like(crops(), 1)
    assert small_things_loss(logits, whole, (1,)).item() == pytest.approx(
        -logits.log_softmax(1)[:, 1].mean().item(), rel=1e-5
    ), "no other cells are left"
