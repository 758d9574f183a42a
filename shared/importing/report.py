"""The result of each row as CSV for a spreadsheet. It contains no UPI ids."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.importing.results import Result
from shared.text.csv_cells import escape_formula
from shared.text.private_files import recreate

COLUMNS = ("line", "reference", "user_id", "result", "withdrawal_id", "error")

WriteResult = Callable[[Result], object]


@contextmanager
def report_writer(path: Path | None) -> Iterator[WriteResult]:
    """A function that writes a result to `path`, or nowhere if that is None. The file appears once it is
    complete. Raises OSError.
    """
    if path is None:
        yield lambda _: None
        return
    part = path.with_name(f".{path.name}.part")
    # Bytes that are not UTF-8 appear as \udc.. instead of getting lost.
    with recreate(part, errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        try:
            yield lambda result: writer.writerow(_cells(result))
        finally:
            file.close()
            part.replace(path)


def _cells(result: Result) -> list[str]:
    row = result.row
    cells = (str(row.line), row.reference, row.user_id, result.outcome, result.withdrawal_id, result.error)
    return [escape_formula(cell) for cell in cells]
