import json
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rich.console import Console

from tag2mask.errors import DataError
from tag2mask.evaluate import confusion
from tag2mask.evaluate.confusion import Result, evaluate_masks
from tag2mask.evaluate.folders import evaluate_folders, list_hash
from tag2mask.evaluate.show import result_table
from tag2mask.files import write_json
from tag2mask.photos.masks import write_class_names, write_mask
from tag2mask.vision import torchvision  # noqa: F401, torchmetrics imports it

from torchmetrics.classification import (  # isort: skip
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
    MulticlassPrecision,
    MulticlassRecall,
)

TRUE = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 255], [2, 2, 255, 255]], np.uint8)
PREDICTED = np.array([[0, 0, 1, 0], [0, 1, 1, 255], [2, 2, 0, 0], [1, 2, 2, 255]], np.uint8)


def result(predicted, truth, classes=("background", "cat", "dog"), **more) -> Result:
    return evaluate_masks(
        [(np.array(predicted, np.uint8), np.array(truth, np.uint8))], classes, **more
    )


def test_four_by_four_by_hand():
    metrics = result(PREDICTED, TRUE)
    assert metrics.matrix.tolist() == [[3, 1, 0, 0], [1, 2, 0, 1], [0, 1, 3, 0]]
    assert metrics.iou.tolist() == [3 / 5, 2 / 6, 3 / 4]  # cat: 2 hits, 4 true, 4 predicted
    assert metrics.precision.tolist() == [3 / 4, 2 / 4, 3 / 3]
    assert metrics.recall.tolist() == [3 / 4, 2 / 4, 3 / 4]
    assert metrics.miou == pytest.approx((3 / 5 + 2 / 6 + 3 / 4) / 3)
    assert metrics.predicted_ignore == 1 / 12
    assert metrics.confusions() == [
        ("dog", "cat", 0.25),
        ("cat", "ignore", 0.25),
        ("cat", "background", 0.25),
        ("background", "cat", 0.25),
    ]


def test_a_perfect_mask_and_one_that_is_all_background():
    assert result(TRUE, TRUE).miou == 1 and result(TRUE, TRUE).confusions() == []
    nothing = result(np.zeros((4, 4)), TRUE)
    assert nothing.iou.tolist() == [4 / 12, 0, 0] and nothing.precision.tolist() == [4 / 12, 0, 0]


def test_predicted_ignore_is_wrong_not_skipped():
    metrics = result([[255, 1]], [[1, 1]])
    assert metrics.iou[1] == 0.5 and metrics.predicted_ignore == 0.5


@pytest.mark.filterwarnings("error")
def test_a_class_that_the_ground_truth_never_shows_is_in_no_mean():
    metrics = result([[0, 2, 1, 1]], [[0, 0, 1, 1]])
    assert (
        np.isnan(metrics.iou[2]) and np.isnan(metrics.precision[2]) and np.isnan(metrics.recall[2])
    )
    assert metrics.miou == pytest.approx(
        (1 / 2 + 1) / 2
    )  # the wrong "dog" pixel still costs background
    assert np.isnan(result([[0]], [[255]]).miou)


def test_one_pixel_counts_in_full():
    metrics = result([[0, 1]], [[0, 1]])
    for figures in (metrics.iou, metrics.precision, metrics.recall):
        assert figures[:2].tolist() == [1, 1] and np.isnan(figures[2])
    assert metrics.miou == 1 and result([[255]], [[0]]).predicted_ignore == 1


def test_the_mean_can_be_over_named_classes():
    assert result(PREDICTED, TRUE, mean_over=["cat", "dog"]).miou == pytest.approx(
        (2 / 6 + 3 / 4) / 2
    )
    with pytest.raises(
        DataError, match="mean over bird: no such class; there are background, cat, dog"
    ):
        result(PREDICTED, TRUE, mean_over=["bird"])


def test_the_mean_is_over_one_matrix_not_over_images():
    pairs = [
        (np.array([[1, 1]], np.uint8), np.array([[1, 0]], np.uint8)),
        (np.full((1, 8), 1, np.uint8),) * 2,
    ]
    assert evaluate_masks(pairs, ("background", "cat")).iou.tolist() == [0, 9 / 10]


masks = hnp.arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 1, 2, 3, 255]))


@given(st.lists(st.tuples(masks, masks), min_size=1, max_size=4), st.integers(1, 3))
def test_equal_to_counting_pixel_by_pixel(pairs, workers):
    classes = ("background", "a", "b", "c")
    expected = np.zeros((4, 5), int)
    for predicted, truth in pairs:
        for p, t in zip(predicted.flat, truth.flat, strict=True):
            if t != 255:
                expected[t, 4 if p == 255 else p] += 1
    metrics = evaluate_masks(pairs, classes, workers)
    assert np.array_equal(metrics.matrix, expected) and metrics.images == len(pairs)
    present = [i for i in range(4) if expected[i].sum()]
    for i in present:
        assert metrics.iou[i] == expected[i, i] / (
            expected[i].sum() + expected[:, i].sum() - expected[i, i]
        )
    assert not present or metrics.miou == pytest.approx(np.mean([metrics.iou[i] for i in present]))


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_torchmetrics(seed):
    rng = np.random.default_rng(seed)
    classes = tuple(map(str, range(21)))
    truth = rng.integers(0, 21, (4, 60, 80)).astype(np.uint8)
    predicted = np.where(
        rng.random(truth.shape) < 0.6, truth, rng.integers(0, 21, truth.shape)
    ).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    metrics = evaluate_masks(list(zip(predicted, truth, strict=True)), classes)
    p, t = torch.tensor(predicted).long(), torch.tensor(truth).long()
    assert np.array_equal(
        metrics.matrix[:, :21], MulticlassConfusionMatrix(21, ignore_index=255)(p, t).numpy()
    )
    for ours, metric in (
        (metrics.iou, MulticlassJaccardIndex),
        (metrics.precision, MulticlassPrecision),
        (metrics.recall, MulticlassRecall),
    ):
        assert np.allclose(
            ours, metric(21, average=None, ignore_index=255)(p, t).numpy(), atol=1e-6
        )
    assert metrics.miou == pytest.approx(
        MulticlassJaccardIndex(21, average="macro", ignore_index=255)(p, t).item(), abs=1e-6
    )


def test_counts_stay_exact_beyond_float_precision():
    matrix = np.array([[2**53 + 1, 0, 0], [0, 1, 1]], np.int64)
    metrics = Result(("background", "cat"), matrix, 1)
    assert metrics.matrix.sum() == 2**53 + 3 and metrics.iou.tolist() == [1, 0.5]


def test_every_bad_mask_is_named_at_once(tmp_path):
    good = np.zeros((3, 4), np.uint8)
    for name, predicted, true in (
        ("a", good, good),
        ("b", good.T, good),
        ("c", good + 7, good),
        ("d", good, good + 9),
    ):
        write_mask(tmp_path / "predicted" / f"{name}.png", predicted)
        write_mask(tmp_path / "true" / f"{name}.png", true)
    (tmp_path / "predicted" / "a.png").unlink()
    pairs = [
        (tmp_path / "predicted" / f"{name}.png", tmp_path / "true" / f"{name}.png")
        for name in "abcd"
    ]
    with pytest.raises(DataError) as caught:
        evaluate_masks(pairs, ("background", "cat"))
    problems = sorted(caught.value.problems)
    assert [problem.split(": ")[0].rsplit("/", 1)[1] for problem in problems] == [
        "a.png",
        "b.png",
        "c.png",
        "d.png",
    ]
    assert all(problem.count(".png") == 1 and "/predicted/" in problem for problem in problems)
    assert "the mask is 3 x 4, the true mask 4 x 3" in problems[1]
    assert "the mask has 7; class numbers are 0 to 1, and 255 for ignore" in problems[2]
    assert "the true mask has 9" in problems[3]


def test_pairs_are_taken_as_needed_and_by_as_many_threads_as_asked_for(monkeypatch):
    taken, counted, threads = 0, 0, set()

    def source():
        nonlocal taken
        for _ in range(500):
            taken += 1
            yield mask, mask

    def mask():
        nonlocal counted
        counted += 0.5
        threads.add(threading.get_ident())
        assert taken - counted <= 2 * confusion.AHEAD + 3  # memory does not grow with the pairs
        return np.zeros((2, 2), np.uint8)

    assert evaluate_masks(source(), ("background",), workers=2).images == 500
    assert len(threads) <= 2


def test_the_progress_bar_says_what_and_how_many(monkeypatch):
    bars = []
    monkeypatch.setattr(confusion, "track", lambda items, *what: bars.append(what) or items)
    pair = np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
    evaluate_masks([pair] * 3, ("background",))
    evaluate_masks(iter([pair]), ("background",))
    assert bars == [("evaluate", 3), ("evaluate", None)]


def test_counts_are_whole_numbers_summed_over_all_pairs_and_boundaries_are_counted_if_asked_for(
    monkeypatch,
):
    single, double = (
        evaluate_masks([(lambda: PREDICTED, lambda: TRUE)] * n, None, boundary=True) for n in (1, 2)
    )
    assert single.matrix.dtype == single.boundary.dtype == np.int64
    assert (
        double.matrix.tolist() == (2 * single.matrix).tolist()
        and double.boundary.tolist() == (2 * single.boundary).tolist()
    )
    monkeypatch.setattr(confusion, "boundary_counts", None)
    assert evaluate_masks([(PREDICTED, TRUE)], None).boundary is None


def test_folders(tmp_path):
    for i in range(3):
        write_mask(tmp_path / "true" / "sub" / f"{i}.v2.png", TRUE)
        write_mask(tmp_path / "predicted" / "sub" / f"{i}.v2.png", PREDICTED if i else TRUE)
    metrics, names = evaluate_folders(tmp_path / "predicted", tmp_path / "true")
    assert metrics.classes == ("background", "1", "2") and metrics.images == 3
    assert names == ["sub/0.v2", "sub/1.v2", "sub/2.v2"]
    (tmp_path / "list.txt").write_text("sub/0.v2\n\n")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    metrics, names = evaluate_folders(
        tmp_path / "predicted",
        tmp_path / "true",
        tmp_path / "list.txt",
        str(tmp_path / "names.txt"),
    )
    assert (metrics.miou, metrics.classes, names) == (1, ("background", "cat", "dog"), ["sub/0.v2"])
    (tmp_path / "predicted" / "sub" / "1.v2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 masks are missing, first sub/1\.v2\.png"):
        evaluate_folders(tmp_path / "predicted", tmp_path / "true")
    with pytest.raises(DataError, match="no such folder"):
        evaluate_folders(tmp_path / "predicted", tmp_path / "nowhere")


def test_a_name_that_stands_twice_in_a_list_is_an_error(tmp_path):
    for folder in ("true", "predicted"):
        write_mask(tmp_path / folder / "a.png", TRUE)
        write_mask(tmp_path / folder / "b.png", TRUE)
    (tmp_path / "list.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r"list\.txt: duplicate names: a$"):
        evaluate_folders(tmp_path / "predicted", tmp_path / "true", tmp_path / "list.txt")
    (tmp_path / "true" / "b.png").rename(tmp_path / "true" / "b.PNG")
    assert evaluate_folders(tmp_path / "predicted", tmp_path / "true")[0].images == 2


def test_the_folders_say_what_the_numbers_mean(tmp_path):
    """The same masks in another order of classes had 14 %, without a word."""
    predicted, truth = tmp_path / "predicted", tmp_path / "true"
    for folder in (predicted, truth):
        write_mask(folder / "a.png", TRUE)
    write_json(predicted / "classes.json", {"classes": ["background", "cat", "dog"]})
    assert evaluate_folders(predicted, truth)[0].classes == ("background", "cat", "dog")
    write_class_names(truth, ("background", "Cat", "dog", "fox"))  # it goes on: no contradiction
    assert evaluate_folders(predicted, truth)[0].classes == ("background", "Cat", "dog", "fox")
    write_class_names(truth, ("background", "dog", "cat"))
    with pytest.raises(DataError, match=r"different classes .*1 cat, 2 dog; .*1 dog, 2 cat"):
        evaluate_folders(predicted, truth)


def test_the_list_hash_names_a_set_of_photos():
    assert list_hash(["a", "b"]) == list_hash(["b", "a"]) != list_hash(["a", "c"])


def test_summary_is_json_and_says_how_the_metrics_were_made():
    stated = {
        "split": "val",
        "labels": "none",
        "crf": True,
        "weights": "imagenet",
        "seed": 0,
        "list_hash": "abc",
    }
    summary = result([[0, 2, 1, 1]], [[0, 0, 1, 1]], boundary=True).summary(**stated)
    assert json.loads(json.dumps(summary, allow_nan=False)) == json.loads(json.dumps(summary))
    assert summary["iou"] == {"background": 0.5, "cat": 1.0, "dog": None}
    assert (
        summary["miou"] == 0.75
        and summary["mean_over"] == ["background", "cat"]
        and summary["images"] == 1
    )
    assert stated.items() <= summary.items()
    figures = summary.keys() - stated.keys()
    assert figures == {
        *(
            "miou",
            "iou",
            "precision",
            "recall",
            "images",
            "mean_over",
            "predicted_ignore",
            "confusions",
            "by_size",
        ),
        *("boundary_miou", "boundary_iou"),
    }
    assert summary["precision"] == {"background": 1.0, "cat": 1.0, "dog": None}
    assert summary["recall"] == {"background": 0.5, "cat": 1.0, "dog": None}
    assert summary["predicted_ignore"] == 0 and summary["confusions"] == [
        ("background", "dog", 0.5)
    ]
    assert summary["boundary_miou"] == pytest.approx(
        np.mean([summary["boundary_iou"][name] for name in ("background", "cat")])
    )
    plain = result([[0]], [[255]]).summary()
    assert not any(name.startswith("boundary") for name in plain)
    assert plain["miou"] is None and plain["predicted_ignore"] == 0 and plain["mean_over"] == []


def test_the_five_largest_confusions_are_listed():
    truth = np.repeat(np.arange(7, dtype=np.uint8), 10)[None]
    predicted = truth.copy()
    for number in range(7):
        predicted[0, 10 * number : 11 * number] = (
            number + 1
        ) % 7  # class n is taken for the next n times of 10
    metrics = result(predicted, truth, tuple("0123456"))
    assert metrics.confusions() == [(str(n), str((n + 1) % 7), n / 10) for n in (6, 5, 4, 3, 2)]
    assert len(metrics.confusions(99)) == 6 and metrics.confusions(1) == [("6", "0", 0.6)]


def test_confusions_as_bad_as_each_other_always_come_in_the_same_order():
    metrics = Result(tuple(map(str, range(20))), np.ones((20, 21), int), 1).confusions(400)
    names = [*map(str, range(20)), "ignore"]
    assert [pair[:2] for pair in metrics] == [
        (t, p) for t in names[-2::-1] for p in names[::-1] if t != p
    ]


def test_figures_of_a_matrix_by_hand():
    metrics = Result(
        ("background", "cat"), np.array([[0, 0, 0], [2, 6, 4]]), 3, np.array([[0, 3], [2, 4]])
    )
    assert (
        np.isnan(metrics.iou[0])
        and metrics.iou[1] == 0.5
        and metrics.recall[1] == 0.5
        and metrics.precision[1] == 1
    )
    assert (
        metrics.miou == 0.5
        and metrics.in_mean.tolist() == [False, True]
        and metrics.predicted_ignore == pytest.approx(1 / 3)
    )
    assert np.isnan(metrics.boundary_iou[0]) and metrics.boundary_iou[1] == 0.75
    assert np.isnan(Result(("background",), np.zeros((1, 2), int), 0).miou)


def test_no_mask_at_all_and_names_for_none():
    with pytest.raises(DataError, match="no mask to evaluate"):
        evaluate_masks([], ("background",))
    assert result([[0, 254]], [[0, 254]], None).classes == ("background", *map(str, range(1, 255)))
    assert result([[0, 3]], [[0, 1]], None).classes == ("background", "1", "2", "3"), (
        "predicted, if never true"
    )
    assert (
        result([[0, 255]], [[0, 0]], None).classes
        == result([[255]], [[255]], None).classes
        == ("background",)
    )
    with pytest.raises(DataError, match="the mask has 2, 9; class numbers are 0 to 1"):
        result([[2, 9]], [[0, 1]], ("background", "cat"))


def test_the_table_shows_every_class_that_occurs_and_what_the_mean_does_not_show():
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(
        result_table(
            result(PREDICTED, TRUE, ("background", "cat", "dog", "[red]bird")), "pseudo masks"
        )
    )
    text = console.export_text()
    for part in (
        "33.3",
        "56.1",
        "mean of 3",
        "25.0 % of dog is taken for cat",
        "counted as wrong: 8.3 %",
        "in no mean: [red]bird",
    ):
        assert part in text, part
