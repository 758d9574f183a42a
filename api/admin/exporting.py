"""CSV files that are written while they are read.

A list of withdrawals goes page by page along its index, each page a transaction of its own: a slow reader
holds no connection, and no snapshot that keeps the database from cleaning up. So rows that change meanwhile
are told as they are when their page is read; none comes twice.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from threading import BoundedSemaphore

from flask import Response, current_app

from shared.cells import harmless
from shared.clock import INDIA
from shared.errors import Unavailable
from shared.models import Withdrawal
from shared.money import PAISE_PER_RUPEE
from shared.upi import mask
from shared.withdrawals.searching import Wanted, search

COLUMNS = (
    "withdrawal",
    "requested_ist",
    "user",
    "upi_id",
    "coins",
    "rupees",
    "status",
    "reason",
    "review",
    "failure",
    "utr",
    "completed_ist",
    "paid_via",
)
CHUNK_ROWS = 1000


def streamed(wanted: Wanted) -> Response:
    """The answer with the list. Raises Unavailable when too many others are being written."""
    return as_file("withdrawals.csv", _lines(wanted))


def as_file(name: str, lines: Iterator[str]) -> Response:
    """An answer that is written while it is read. Raises Unavailable when too many others are."""
    at_once: BoundedSemaphore = current_app.config["EXPORTS"]
    if not at_once.acquire(blocking=False):
        raise Unavailable("Busy", "Other exports are being written; try again later", code="export_busy")
    response = Response(lines, mimetype="text/csv")
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    response.call_on_close(at_once.release)
    return response


def _lines(wanted: Wanted) -> Iterator[str]:
    yield written([COLUMNS])
    after = None
    while True:
        found = search(wanted, limit=CHUNK_ROWS, after=after)
        yield written([tuple(_cells(row)) for row in found.withdrawals])
        after = found.next
        if after is None:
            return


def written(rows: Iterable[tuple[str, ...]]) -> str:
    """Rows as they stand in the file, with cells that no spreadsheet takes for a formula."""
    out = io.StringIO()
    csv.writer(out).writerows(tuple(harmless(cell) for cell in row) for row in rows)
    return out.getvalue()


def rupees(paise: int) -> str:
    """Rupees as a number: `1234.50`."""
    return "{}.{:02d}".format(*divmod(paise, PAISE_PER_RUPEE))


def _cells(row: Withdrawal) -> Iterator[str]:
    yield str(row.id)
    yield row.created_at.astimezone(INDIA).strftime("%Y-%m-%d %H:%M:%S")
    yield row.user_id
    yield mask(row.upi_id)
    yield str(row.coins_amount)
    yield rupees(row.amount_paise)
    yield row.status
    yield row.status_reason or ""
    yield row.review or ""
    yield row.failure_reason or ""
    yield row.utr or ""
    yield row.completed_at.astimezone(INDIA).strftime("%Y-%m-%d %H:%M:%S") if row.completed_at else ""
    yield row.paid_via if row.completed_at else ""
