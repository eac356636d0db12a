"""The bench over domains: its jobs, its halves, and its tables, computed by hand."""

import argparse
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NONE = {"methods": [], "segment": [], "photos": None, "epochs": None, "steps": None}


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def folders(tmp_path):
    """An own folder and one of the demo's scenes."""
    (tmp_path / "own").mkdir()
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "scenes.json").write_text("{}")
    return [tmp_path / "own", tmp_path / "scenes"]


def jobs(folders, **values):
    from quality import all_tasks

    options = argparse.Namespace(
        **{**NONE, "data": folders, "set": None, "seeds": [0, 1], **values}
    )
    return list(all_tasks(options))


def test_every_method_has_its_jobs_in_every_domain_the_most_important_first(folders):
    names = [task.name for task in jobs(folders)]
    assert len(set(names)) == len(names) == 2 * 2 * (4 + 6)
    assert names[:4] == ["own-photos-0", "own-photos-1", "demo-photos-0", "demo-photos-1"]
    segmenters = [name.split("-0-segmenter-") for name in names if "-0-segmenter-" in name]
    assert [tuple(parts) for parts in segmenters if parts[0].startswith("demo")] == [
        ("demo-photos", "own"),
        ("demo-truth", "true"),
        ("demo-cam", "best_threshold"),
        ("demo-cam", "affinity_Otsu"),
        ("demo-cpc", "its_own_rule"),
        ("demo-cpc", "logits_affinity_Otsu"),
    ]


def test_a_segmenter_waits_for_the_masks_it_learns_from(folders):
    tasks = jobs(folders, set="domains") + jobs(folders, set="ablation")
    by_name = {task.name: task for task in tasks}
    assert len(by_name) == len(tasks)
    for task in tasks:
        if task.masks and task.method != "truth":
            assert by_name[task.before.name] == task.before


def test_sizes_are_those_of_the_folders_recipe(folders):
    from methods import RUNS, configure, run_config_of

    options = argparse.Namespace(**NONE, scratch=folders[0])
    for task in (task for task in jobs(folders) if task.seed == 0 and not task.masks):
        config = (run_config_of if task.method in RUNS else configure)(task, options)
        is_demo = task.data == folders[1]
        rounds = dict.fromkeys(("photos", "best"), 2 if is_demo else 1) | {"rounds": 3}
        assert config.classifier.image_size == (192 if is_demo else 320), task.name
        assert config.segmenter.steps == (200 if is_demo else 800), task.name
        assert config.segmenter.rounds == rounds.get(task.method, 1), task.name
        assert (len(config.masks.scales) == 3) == (task.method == "best"), task.name


def test_choices_and_reports_share_no_photo():
    from domains import halves

    from tag2mask.photos.table import Photo, Table

    photos = tuple(Photo(str(i), Path(f"{i}.png"), ("a",)) for i in range(7))
    chosen_on, reported = halves(Table(("a",), photos))
    assert {*chosen_on.photos} | {*reported.photos} == {*photos}
    assert not {*chosen_on.photos} & {*reported.photos} and len(reported) == 3


def test_a_run_that_was_resumed_has_no_time(tmp_path):
    from jobs import seconds_of

    for stage, seconds, resumed in (("masks", 2.5, False), ("segmenter", 4, False), ("x", 1, True)):
        (tmp_path / stage).mkdir()
        about = {"seconds": seconds, "resumed": resumed}
        (tmp_path / stage / "done.json").write_text(json.dumps(about))
    assert seconds_of(tmp_path, ["masks", "segmenter"]) == 6.5
    assert seconds_of(tmp_path, ["segmenter"]) == 4
    assert seconds_of(tmp_path, ["masks", "x"]) is None


def result(folder, name, method, seed, rows, source="", which="domains", seconds=60):
    about = {"versions": {"torch": "1", "tag2mask": "2"}, "device": "d", "date": "2026-01-01"}
    about |= {"set": which, "data": "magnetic-tiles", "method": method, "seed": seed}
    about |= {"learned_from": source, "seconds": seconds, "rows": rows}
    (folder / f"{name}.json").write_text(json.dumps(about))


def row(masks, split, miou, recall, nothing=(0, 0), crf=True):
    return {
        "masks": masks,
        "split": split,
        "crf": crf,
        "miou": miou,
        "iou": {"background": miou, "crack": 0.1},
        "nothing": dict(zip(("marked", "photos"), nothing, strict=True)),
        "by_size": {"< 0.5 %": {"objects": 3, "recall": recall}},
    }


def test_tables_are_what_the_results_say(tmp_path):
    from domain_tables import DOMAIN_TABLES
    from figures import Results

    view = "448 px, affinity, Otsu"
    for seed, value in enumerate((0.2, 0.4)):
        result(tmp_path, f"p{seed}", "photos", seed, [row(view, "second half", value, 0.5)])
        new = row("new masks", "second half", value * 2, 0.75)
        val = row("test photos", "val", value / 2, 0.25, (seed, 4))
        seconds = 180 if seed else None  # None: a run that was resumed
        result(tmp_path, f"s{seed}", "photos", seed, [new, val], "own", seconds=seconds)
    pseudo = [row("best threshold", "second half", 0.1, 0, crf=crf) for crf in (False, True)]
    result(tmp_path, "c", "cam", 0, pseudo)
    parts = [row("whole", "second half", 0.3, 0), row("no mirror", "second half", 0.2, 0)]
    result(tmp_path, "a", "ours", 0, parts, which="ablation")
    tables = {name: make(Results(tmp_path)) for name, (_, make) in DOMAIN_TABLES.items()}
    name = "magnetic-tiles | recipe `photos` | 30.0 ± 14.1 | 0, 1 | 60.0 ± 28.3 | 0, 1"
    assert tables["domains"][2].startswith(f"| {name} | 15.0 ± 7.1 | 0, 1 | 12.5 ± 17.7 % | 4.0 |")
    assert "| 10.0 | 0 | - | - | - | - | - | - |" in tables["domains"][3]
    assert tables["domains-sizes"][2:5] == [
        "| magnetic-tiles | first masks, recipe `photos` | 0, 1 | 50 | - | - | - |",
        "| magnetic-tiles | new masks, recipe `photos` | 0, 1 | 75 | - | - | - |",
        "| magnetic-tiles | segmenter, recipe `photos` | 0, 1 | 25 | - | - | - |",
    ]
    assert (
        tables["domains-tiles"][4]
        == "| segmenter, recipe `photos` | 0, 1 | 15 | 0 | 0 | 10 | 0 | 0 |"
    )
    assert {
        "| magnetic-tiles, new masks | 0, 1 | 60.0 ± 28.3 | 55 | yes |",
        "| magnetic-tiles, new masks of crack | 0, 1 | 10.0 ± 0.0 | 25 | no |",
        "| magnetic-tiles, good tiles marked | 0, 1 | 12.5 ± 17.7 | at most 3 | no |",
        "| demo, segmenter | - | - | 80 | - |",
    } <= {*tables["goals"]}
    assert tables["ablation"][2:4] == [
        "| ours | whole | 30.0 (0) |",
        "| ours | no mirror | 20.0 (0) |",
    ]
