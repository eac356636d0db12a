"""Excel's .xlsx files to the records of a table."""

import zipfile
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from tag2mask.config import DataSettings
from tag2mask.errors import DataError, import_extra
from tag2mask.formats.rows import Rows
from tag2mask.formats.tables import rows_from_records

MOST_ROWS = 1 << 20  # Excel has no more; openpyxl makes all that are missing before a row
SMALL, MOST_TIMES = 1 << 26, 100  # bytes; a table unpacks to 5 to 30 times its size
MOST_UNPACKED = 1 << 30  # bytes; a sheet of a million rows and two columns has about 0.1 GB


def read_xlsx(path: Path, settings: DataSettings) -> Rows:
    """The first sheet of an .xlsx file that has cells; formulas have the values Excel stored.

    openpyxl reads it row by row. (A faster library, calamine, asks for memory for all cells that
    the sheet could have: a file of 5 kB can end the process.) Raises DataError.
    """
    openpyxl = import_extra("openpyxl", "excel", f"{path} (unlike CSV UTF-8)")
    try:
        _refuse_bombs(path)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # what the file says of its size may be wrong
            sheet = next(filter(_has_cells, book.worksheets), None)
            if sheet is None:
                raise DataError(f"{path}: the sheets are empty")
            form = f"sheet {sheet.title} of an Excel file"
            return rows_from_records(path, None, _records(sheet), settings, form, 1)
        finally:
            book.close()
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # openpyxl has many for broken files
        raise DataError(f"{path}: not a readable .xlsx file ({error})") from None


def _refuse_bombs(path: Path) -> None:
    """Raise DataError if the file unpacks to far more than a table needs, or is broken."""
    with zipfile.ZipFile(path) as file:
        unpacked = sum(entry.file_size for entry in file.infolist())
    packed = path.stat().st_size
    if unpacked > MOST_UNPACKED or (unpacked > SMALL and unpacked > MOST_TIMES * packed):
        what = f"it unpacks to {unpacked / 2**30:.1f} GB; save the sheet as CSV UTF-8"
        raise DataError(f"{path}: {what}")


def _has_cells(sheet: Any) -> bool:
    rows = sheet.iter_rows(values_only=True)
    return any(cell is not None for row in rows for cell in row)


def _records(sheet: Any) -> Iterator[list[object]]:
    """The rows of a sheet, all as wide as its first: Excel leaves out empty cells at the end."""
    width = 0
    for cells in islice(sheet.iter_rows(values_only=True), MOST_ROWS):
        row = ["" if cell is None else _plain(cell) for cell in cells]
        while row and row[-1] == "":
            row.pop()
        width = width or len(row)
        yield row and row + [""] * (width - len(row))


def _plain(cell: object) -> object:
    return cell.isoformat(" ") if isinstance(cell, datetime) else cell
