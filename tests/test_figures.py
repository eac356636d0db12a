"""README's figures are cells of benchmarks/results.md; its tables agree with results/*.json."""

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

    def with_seeds(figure, seeds):
        return figure if figure == "-" else f"{figure} (seeds {seeds})"

    headline = rows(
        TABLES["headline"]
    )  # name, pseudo masks, seeds, times CAM spread, times bare CAM, segmenter, seeds, times truth
    assert rows(MEASURED) == [
        [name, with_seeds(*cells[:2]), with_seeds(*cells[4:6])] for name, *cells in headline
    ]
    ratios = {name: cells[2:4] for name, *cells in headline}  # the first two rows are our recipes
    said = re.findall(r"(?<![\d.])\d\.\d\d(?![\d.])", MEASURED)
    assert (
        said == [figure for name in list(ratios)[:2] for figure in ratios[name] if figure != "-"]
        and said
    )


def test_no_figure_of_readme_stands_elsewhere():
    """Figures stand in the checked block; the papers' figures are named as theirs."""
    rest = README.replace(MEASURED, "")
    assert set(re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", rest)) <= {
        "75.7",
        "73.4",
        "3.11",
        "2.0",
        "4.0",
    }


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
        "bench-former",
        "masks",
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
