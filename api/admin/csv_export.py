"""CSV exports, streamed while they are read.

A list of withdrawals is read page by page along its index, each page in its own transaction, so a slow client
holds neither a connection nor a snapshot that would block vacuum. Rows that change during the export appear
as they are when their page is read; none appears twice.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from threading import BoundedSemaphore

from flask import Response, current_app

from shared.clock import INDIA
from shared.errors import Unavailable
from shared.models import Withdrawal
from shared.money import PAISE_PER_RUPEE
from shared.text.csv_cells import escape_formula
from shared.text.upi import mask
from shared.withdrawals.search import Filters, search

COLUMNS = (
    "withdrawal",
    "requested_ist",
    "user",
    "upi_id",
    "coins",
    "rupees",
    "status",
    "reason",
    "hold",
    "failure",
    "utr",
    "completed_ist",
    "paid_via",
)
CHUNK_ROWS = 1000


def withdrawals_response(filters: Filters) -> Response:
    """A streamed CSV of the filtered withdrawals. Raises Unavailable if too many exports are running."""
    return csv_response("withdrawals.csv", _csv_chunks(filters))


def csv_response(name: str, chunks: Iterator[str]) -> Response:
    """A streamed CSV response. Raises Unavailable if too many exports are running."""
    running_exports: BoundedSemaphore = current_app.config["EXPORTS"]
    if not running_exports.acquire(blocking=False):
        raise Unavailable("Busy", "Too many exports are running. Please retry later", code="export_busy")
    response = Response(chunks, mimetype="text/csv")
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    response.call_on_close(running_exports.release)
    return response


def _csv_chunks(filters: Filters) -> Iterator[str]:
    yield csv_text([COLUMNS])
    after = None
    while True:
        page = search(filters, limit=CHUNK_ROWS, after=after)
        yield csv_text([tuple(_cells(row)) for row in page.withdrawals])
        after = page.next
        if after is None:
            return


def csv_text(rows: Iterable[tuple[str, ...]]) -> str:
    """Rows as CSV, with cells that no spreadsheet interprets as a formula."""
    output = io.StringIO()
    csv.writer(output).writerows(tuple(escape_formula(cell) for cell in row) for row in rows)
    return output.getvalue()


def rupees(paise: int) -> str:
    """Rupees as a plain number: `1234.50`."""
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
    yield row.hold or ""
    yield row.failure_reason or ""
    yield row.utr or ""
    yield row.completed_at.astimezone(INDIA).strftime("%Y-%m-%d %H:%M:%S") if row.completed_at else ""
    yield row.paid_via if row.completed_at else ""
