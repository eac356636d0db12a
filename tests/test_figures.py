"""README's figures are cells of benchmarks/results.md; its tables agree with results/*.json."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "benchmarks" / "results.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = re.compile(r"<!-- table ([\w-]+): (.+?) -->\n(.*?)\n<!-- end -->", re.DOTALL)
TABLES = {name: body for name, _, body in TABLE.findall(PAGE)}
(MEASURED,) = [body for name, _, body in TABLE.findall(README) if name == "measured"]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import tables

    return tables


def rows(body):
    """A table's rows below its head, as lists of cells."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in body.splitlines()
        if line.startswith("| ")
    ][1:]


def test_readme_says_what_the_table_says():
    """Read from the text of both, by no code that writes them."""
    headline = {name: cells for name, *cells in rows(TABLES["headline"])}
    photos, spread, bare, *_ = headline.values()
    on_cpu, best = (
        headline.get(f"recipe `{name}`, in float32 on two CPU cores", ["-"] * 9)
        for name in ("photos", "best")
    )
    text, recipes = MEASURED.partition("\n| recipe")[0], rows(MEASURED)
    assert re.findall(r"\d\.\d\d", text) == photos[4:6]  # times CAM: spread alike, and bare
    assert re.findall(r"\d+\.\d ± \d+\.\d", text) == [photos[0], spread[0], bare[0]]
    ours = {name: [cells[3], cells[4]] for name, *cells in recipes}
    assert ours["`photos`, the default"] == [on_cpu[2], on_cpu[6]]
    assert ours["`best`"] == [best[2], best[6]]
    assert {tuple(cells) for cells in list(ours.values())[2:]} == {("not run", "not run")}
    (named,) = re.findall(r"IoU of pseudo masks: (.+?\.) ", MEASURED)
    classes = dict(re.findall(r"(\w+) (\d+)[,.]", named))
    head, table = TABLES["classes"].splitlines()[0], rows(TABLES["classes"])
    names = [cell.strip() for cell in head.strip("|").split(" | ")][3:]
    name = "new masks, recipe `photos`, in float32 on two CPU cores"
    (mine,) = [cells[3:] for cells in table if cells[0] == name]
    assert classes == dict(zip(names, mine, strict=True))


def test_the_papers_figures_are_those_of_the_page_of_recipes():
    page = rows((ROOT / "docs/recipes.md").read_text(encoding="utf-8").split("\n## ")[0])
    papers = {cells[0].split(",")[0]: cells[1:4] for cells in page if "in its paper" in cells[0]}
    ours = {name: cells[5:7] for name, *cells in rows(MEASURED)}
    assert ours["`ppc` on VOC 2012"] == papers["PPC"][:2]
    assert ours["`voc12-cpc`"] == papers["CPC"][:2] and ours["`coco14-cpc`"][1] == papers["CPC"][2]


def test_no_figure_of_readme_stands_elsewhere():
    """Figures stand in the checked block; the papers' figures are named as theirs."""
    rest = README.replace(MEASURED, "")
    figures = set(re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", rest))
    assert figures <= {"3.11", "2.0", "4.0", "2412.13823", "2508.17009"}


def test_tables_are_what_the_results_say(tables):
    page, readme = tables.pages(tables.Results())
    assert page == PAGE
    assert readme == README


def test_every_table_stands_between_markers(tables):
    """So every figure is written by a script, and the command of each is named."""
    rest = re.sub(r"<!-- table .*?<!-- end -->", "", PAGE, flags=re.DOTALL)
    assert not re.findall(r"^\|.*", rest, re.MULTILINE)
    assert TABLES.keys() == {
        *tables.TABLES,
        "masks",
        "new-masks",
        "regions",
        "small",
        "segmenters",
        "evaluate",
        "clusters",
        "tiles",
        "finds",
        "unknown",
        "corrections-corrected",
        "corrections-new",
        "view",
        "predict-threshold",
        "predict-tiles",
        "round-trips",
        "export",
    }
    commands = {name: command for name, command, _ in TABLE.findall(PAGE)}
    for name, (command, _) in tables.TABLES.items():
        assert commands[name] == command, name


def test_a_finished_demo_becomes_a_row(tables, tmp_path, monkeypatch):
    """What its metrics also hold, such as the tags that were found, is no row."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "demo/evaluate").mkdir(parents=True)
    about = {"split": "val", "labels": "none", "crf": True, "images": 4, "mean_over": ["a"]}
    row = {**about, "weights": "w", "seed": 5, "miou": 0.5, "iou": {"a": 0.5, "b": None}}
    metrics = {"pseudo": row, "segmenter": {**row, "miou": 0.25}, "finds": {"tags": {}}}
    (tmp_path / "demo/evaluate/metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "demo/evaluate/done.json").write_text('{"versions": {}}')
    tables.take(tmp_path / "demo")
    result = json.loads((tmp_path / "demo-5.json").read_text())
    assert [row["miou"] for row in result["rows"]] == [0.5, 0.25]
