"""A list of withdrawals as a CSV file that is written while it is read.

It goes page by page along the list's index, each page a transaction of its own: a slow reader holds no
connection, and no snapshot that keeps the database from cleaning up. So rows that change meanwhile are told
as they are when their page is read; none comes twice.
"""

import csv
import io
from collections.abc import Iterator
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
)
CHUNK_ROWS = 1000


def streamed(wanted: Wanted) -> Response:
    """The answer with the file. Raises Unavailable when too many others are being written."""
    at_once: BoundedSemaphore = current_app.config["EXPORTS"]
    if not at_once.acquire(blocking=False):
        raise Unavailable("Busy", "Other exports are being written; try again later", code="export_busy")
    response = Response(_lines(wanted), mimetype="text/csv")
    response.headers["Content-Disposition"] = "attachment; filename=withdrawals.csv"
    response.call_on_close(at_once.release)
    return response


def _lines(wanted: Wanted) -> Iterator[str]:
    yield _written([COLUMNS])
    after = None
    while True:
        found = search(wanted, limit=CHUNK_ROWS, after=after)
        yield _written([tuple(harmless(cell) for cell in _cells(row)) for row in found.withdrawals])
        after = found.next
        if after is None:
            return


def _written(rows: list[tuple[str, ...]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def _cells(row: Withdrawal) -> Iterator[str]:
    rupees, paise = divmod(row.amount_paise, PAISE_PER_RUPEE)
    yield str(row.id)
    yield row.created_at.astimezone(INDIA).strftime("%Y-%m-%d %H:%M:%S")
    yield row.user_id
    yield mask(row.upi_id)
    yield str(row.coins_amount)
    yield f"{rupees}.{paise:02d}"
    yield row.status
    yield row.status_reason or ""
    yield row.review or ""
    yield row.failure_reason or ""
    yield row.utr or ""
    yield row.completed_at.astimezone(INDIA).strftime("%Y-%m-%d %H:%M:%S") if row.completed_at else ""
