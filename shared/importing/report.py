"""What became of each row, as CSV for a spreadsheet. No UPI id is in it."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.cells import harmless
from shared.importing.results import Result
from shared.private_files import create_anew

COLUMNS = ("line", "reference", "user_id", "result", "withdrawal_id", "error")

Write = Callable[[Result], object]


@contextmanager
def report_to(path: Path | None) -> Iterator[Write]:
    """Write each result to `path`, which appears when all is written; nowhere without one. Raises OSError."""
    if path is None:
        yield lambda _: None
        return
    part = path.with_name(f".{path.name}.part")
    # What is no text (a row in another encoding) is shown as \udc.., not lost.
    with create_anew(part, errors="backslashreplace") as file:
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
    return [harmless(cell) for cell in cells]
