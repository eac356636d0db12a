"""Run own_photos.ipynb in an empty folder and store its outputs: `python examples/execute.py`."""

import os
import shutil
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

BOOK = Path(__file__).with_name("own_photos.ipynb")
FOLDER = Path("/tmp/own-photos")  # the log in the outputs names it


def execute(folder: Path) -> nbformat.NotebookNode:
    """The notebook as it is after a run in this folder. Raises CellExecutionError."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's
    book = nbformat.read(BOOK, as_version=4)
    where = {"metadata": {"path": folder}}
    NotebookClient(book, timeout=900, coalesce_streams=True, resources=where).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # times
        for output in cell.get("outputs", ()):
            if "image/jpeg" in output.get("data", {}):
                output.data.pop("image/png", None)  # the same picture, ten times as large
    book.metadata.pop("language_info", None)
    return book


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    nbformat.write(execute(FOLDER), BOOK)
