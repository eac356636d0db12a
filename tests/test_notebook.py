"""The notebook of examples/ runs from top to bottom, and is stored with its outputs."""

import os
from pathlib import Path

import nbformat
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


STORED = code_cells(nbformat.read(EXAMPLES / "own_photos.ipynb", as_version=4))


def kinds(cell):
    """What a cell shows, without the lines of a log: their number depends on the machine."""
    results = [output for output in cell.outputs if output.output_type == "execute_result"]
    return [sorted(output.data) for output in results]


def test_it_is_stored_with_its_outputs():
    assert [cell.execution_count for cell in STORED] == list(range(1, len(STORED) + 1))
    assert [out for cell in STORED for out in cell.outputs if out.output_type == "error"] == []
    assert sum("image/jpeg" in kind for cell in STORED for kind in kinds(cell)) == 3


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    for name in ("PATH", "PYTHONWARNINGS"):  # it changes them
        monkeypatch.setenv(name, os.environ.get(name, ""))
    from execute import execute

    cells = code_cells(execute(tmp_path))
    assert list(map(kinds, cells)) == list(map(kinds, STORED))
    run = tmp_path / "runs/mine"
    assert len(list((run / "masks").glob("*.png"))) == 33
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert "corrections: 1 mask mended" in log and "segmenter: continues, because" in log
    assert "100.0% of the pixels" in cells[-1].outputs[0].data["text/plain"]
