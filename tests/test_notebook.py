"""The notebook of examples/ runs from top to bottom, and is stored with its outputs."""

import os
import sys
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).parents[1] / "examples" / "own_photos.ipynb"


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def kinds(cell):
    """What a cell shows, without the lines of a log: their number depends on the machine."""
    data = [output.data for output in cell.outputs if output.output_type == "execute_result"]
    return [sorted(set(each) - {"image/png"}) for each in data]


def test_it_is_stored_with_its_outputs():
    cells = code_cells(nbformat.read(BOOK, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [o for cell in cells for o in cell.outputs if o.output_type == "error"] == []
    assert sum("image/jpeg" in kind for cell in cells for kind in kinds(cell)) == 3


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    stored, book = (nbformat.read(BOOK, as_version=4) for _ in range(2))
    NotebookClient(book, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    assert list(map(kinds, code_cells(book))) == list(map(kinds, code_cells(stored)))
    run = tmp_path / "runs/mine"
    assert len(list((run / "masks").glob("*.png"))) == 33
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert "corrections: 1 mask mended" in log and "segmenter: continues, because" in log
    *_, same = code_cells(book)
    assert "100.0% of the pixels" in same.outputs[0].data["text/plain"]
