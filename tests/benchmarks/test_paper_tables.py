"""benchmarks/papers.py: the rows of the papers' tables are the runs that they should be."""

import json
import re
import signal
import sys
from argparse import Namespace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from clusters.chat_server import ChatServer, Say, answer
from PIL import Image

from tag2mask.clusters import PRESETS, load_clusters
from tag2mask.clusters.refine import replay
from tag2mask.clusters.vote import canonical, vote
from tag2mask.config_files import changed_config, load_recipe
from tag2mask.demo.scenes import make_scenes
from tag2mask.errors import ConfigError
from tag2mask.photos.classes import COCO, VOC

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "papers.py"
TINY = """
--classifier.backbone tf_efficientnet_lite0 --classifier.epochs 1 --classifier.frozen-epochs 0
--classifier.image-size 64 --classifier.trained-blocks 1 --masks.image-size 64 --masks.mask-size 64
--segmenter.backbone tf_efficientnet_lite0 --segmenter.output-stride 16 --segmenter.test-scales 1
--segmenter.feature-length 5 --segmenter.steps 1 --segmenter.crop-size 65 --segmenter.image-size 65
--segmenter.lr 1e-6 --photos.workers 0
"""


@pytest.fixture
def papers(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import papers

    return papers


@pytest.fixture
def plan(papers, tmp_path):
    """The jobs of some tables: {(table, row): {seed: job}}."""

    def make(tables, tags, seeds=(0, 1, 2), base=None, **given):
        options = {"answers": None, "overlapping": "voc-ppc-llm", "out": tmp_path, **given}
        options = Namespace(seeds=seeds, **options)
        base = base or load_recipe("cpc")
        rows = papers.plan(tables, papers.Answers(options, base, tags), base, options)
        return {(row.table, row.name): jobs for row, jobs in rows.items()}

    return make


def groups(job):
    return canonical(load_clusters(Path(job.config.clusters.source)).as_mapping)


def test_rows_differ_in_what_the_papers_say(plan):
    rows = plan(["ppc3", "cpc4"], list(VOC))
    settings = {
        key: (jobs[1].config.classifier.token, jobs[1].config.classifier.pce_weight)
        for key, jobs in rows.items()
    }
    assert settings == {
        ("ppc3", "original framework"): ("none", 0),
        ("ppc3", "+ class token"): ("class", 0),
        ("ppc3", "+ cluster token"): ("cluster", 0),
        ("cpc4", "original framework"): ("none", 0),
        ("cpc4", "+ cluster token"): ("cluster", 0),
        ("cpc4", "+ self refine"): ("cluster", 0),
        ("cpc4", "+ contrastive learning"): ("cluster", 0.01),
    }
    assert rows["ppc3", "original framework"] == rows["cpc4", "original framework"], "trained once"
    assert {seed: job.config.seed for seed, job in rows["ppc3", "+ class token"].items()} == {
        0: 0,
        1: 1,
        2: 2,
    }
    names = [job.name for jobs in rows.values() for job in jobs.values()]
    assert len(set(names)) == len(names) - 3
    refined, voting = replay(PRESETS["voc-llm"])
    assert groups(rows["cpc4", "+ self refine"][2]) == canonical(refined.as_mapping)
    for seed in range(3):  # one answer, another one for each seed
        assert groups(rows["cpc4", "+ cluster token"][seed]) == voting[0].answers[seed]
    overlapping = groups(rows["ppc3", "+ cluster token"][0])
    assert sum(map(len, overlapping)) > len(VOC)


def test_table_5_votes_on_some_of_the_answers(plan):
    rows = plan(["cpc5"], list(VOC), seeds=range(8))
    answers = replay(PRESETS["voc-llm"])[1][0].answers
    assert {groups(job) for job in rows["cpc5", "R = 10"].values()} == {vote(answers)}
    two = [groups(job) for job in rows["cpc5", "R = 2"].values()]
    assert len(set(two)) > 1 and set(two) <= set(answers)
    # The same clusters and the same seed are the same run.
    six, ten = rows["cpc5", "R = 6"], rows["cpc5", "R = 10"]
    same = [seed for seed in six if groups(six[seed]) == groups(ten[seed])]
    assert same and all(six[seed] == ten[seed] for seed in same)


def test_other_settings_are_other_runs(plan):
    changed = changed_config(load_recipe("cpc"), {"classifier": {"epochs": 3}})
    first, second = plan(["ppc3"], list(VOC)), plan(["ppc3"], list(VOC), base=changed)
    assert not {job.name for jobs in first.values() for job in jobs.values()} & {
        job.name for jobs in second.values() for job in jobs.values()
    }


def test_rows_without_enough_answers_are_left_out(plan):
    assert plan(["cpc5"], list(COCO)).keys() == {("cpc5", "R = 2"), ("cpc5", "R = 6")}


def test_unknown_tags_need_answers(plan):
    with pytest.raises(ConfigError, match="give --answers FILE"):
        plan(["cpc4"], ["cat", "blowhole"])


def test_a_language_model_is_asked_anew_for_each_seed(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    replies = [answer("cat dog", "car bus"), answer("cat", "dog", "car bus")]
    with ChatServer(lambda request: Say(replies[len(server.requests) % 2])) as server:
        model = {
            "source": "llm",
            "llm": "fake",
            "llm_url": server.url,
            "queries": 4,
            "refinements": 1,
        }
        base = changed_config(load_recipe("cpc"), {"clusters": model})
        tags = ["bus", "car", "cat", "dog"]
        rows = plan(["cpc4", "cpc5"], tags, seeds=(0, 1), base=base)
        # one: 1 answer each; refined: once 4 and 1; R = 2, 6, 10: as many and 1 for each seed
        asked = 2 * 1 + (4 + 1) + 2 * (2 + 1 + 6 + 1 + 10 + 1)
        assert len(server.requests) == asked
        assert plan(["cpc4", "cpc5"], tags, seeds=(0, 1), base=base) == rows
        assert len(server.requests) == asked, "stored answers are used again"
    jobs = [job for jobs in rows.values() for job in jobs.values()]
    assert {job.config.clusters.llm for job in jobs} == {None}
    assert {groups(job) for job in jobs if job.config.classifier.token == "cluster"} <= {
        canonical({"a": ["cat", "dog"], "b": ["bus", "car"]}),
        canonical({"a": ["cat"], "b": ["dog"], "c": ["bus", "car"]}),
    }


def test_rows_with_equal_clusters_are_named(papers, tmp_path):
    import papers_page

    base, tags = load_recipe("cpc"), ["cat", "cow", "dog", "horse", "person"]
    options = Namespace(answers=None, overlapping="voc-ppc-llm", out=tmp_path, seeds=(0, 2))
    rows = papers.plan(["cpc4"], papers.Answers(options, base, tags), base, options)
    assert papers_page.same_runs(rows) == [
        "- + self refine, seed 0: the same clusters and run as + cluster token.",
        "",
    ]


def test_tables_show_means_and_gains_seed_by_seed(papers):
    import papers_page

    first, second = (row for row in papers.ROWS if row.table == "cpc4" and row.paper < "72")
    figures = {first: {0: (0.4, 0.3), 1: (0.5, 0.3)}, second: {0: (0.5, 0.32), 1: (0.6, 0.34)}}
    done = {
        row: {
            seed: {"pseudo": {"miou": pseudo}, "segmenter": {"miou": segmenter}}
            for seed, (pseudo, segmenter) in by_seed.items()
        }
        for row, by_seed in figures.items()
    }
    assert papers_page.ablation(done)[2:] == [
        "| original framework | 0, 1 | 45.0 ± 7.1 |  | 30.0 ± 0.0 |  | 68.6 |  |",
        "| + cluster token | 0, 1 | 55.0 ± 7.1 | +10.0 ± 0.0 | 33.0 ± 1.4 | +3.0 ± 1.4 | 71.1 "
        "| +2.5 |",
    ]
    bars = [
        float(rect.get("width"))
        for rect in ElementTree.fromstring(papers_page.chart(done)).iter()
        if rect.tag.endswith("rect") and rect.get("height") == "11"
    ]
    assert bars == pytest.approx([4.2 * x for x in (45, 30, 55, 33)], abs=0.1)


@pytest.mark.slow
def test_a_whole_table_at_a_tiny_size(papers, tmp_path, monkeypatch):
    make_scenes(tmp_path / "scenes", num_train=14, num_val=4, size=64, seed=0)
    words = "cpc5 --data scenes/tags.csv --val scenes/val.csv --val-masks scenes/masks --out out"
    command = f"papers.py {words} --seeds 0 --jobs 2 --photos 2 --settings {TINY}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", command.split())

    def run():
        with pytest.raises(SystemExit) as stop:
            papers.main()
        assert not stop.value.code
        return {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.json")}

    files = run()
    results = [json.loads(file.read_text()) for file in files]
    assert results and all(0 < r["pseudo"]["miou"] < 1 and r["segmenter"]["crf"] for r in results)
    page = (tmp_path / "out" / "papers.md").read_text()
    shown = set(re.findall(r"^\| [26] \|.* (\d+\.\d) \| \d+\.\d \| 73", page, re.MULTILINE))
    assert shown == {f"{100 * result['pseudo']['miou']:.1f}" for result in results}
    for name, columns in (("masks.jpg", 2), ("scores.jpg", 1)):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width == 200 * (columns + len(results))
    assert run() == files, "what is done is not made again"
