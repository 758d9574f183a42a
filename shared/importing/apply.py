"""Create a withdrawal for each row, once per reference."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shared import withdrawals
from shared.db.transactions import transaction
from shared.errors import BadRequest
from shared.importing.parse import ImportRequest, find_imported, parse_rows
from shared.importing.results import Outcome, Result, already_imported, rejected
from shared.importing.rows import Row
from shared.importing.scratch import Scratch


@dataclass(frozen=True, slots=True)
class ConfirmedLimits:
    """The number of rows and coins that a second person confirmed. An import never exceeds them."""

    rows: int
    coins: int


def import_rows(
    rows: Iterable[Row], scratch: Scratch, *, actor: str, limits: ConfirmedLimits | None
) -> Iterator[Result]:
    """Create a withdrawal for each good row, in order. A bad row does not stop the rest. Stays within
    `limits`.

    Raises Unavailable. Yielded rows are done; a later call with the same file continues.
    """
    row_count = 0
    coins = 0
    for batch in parse_rows(rows, scratch):
        # One query for the whole batch makes repeated imports fast. Correctness does not depend on it:
        # `withdrawals.request` finds each of them too.
        with transaction() as session:
            imported = find_imported(
                session, [request for _, request in batch if isinstance(request, ImportRequest)]
            )
        for row, request in batch:
            if isinstance(request, BadRequest):
                yield rejected(row, request)
                continue
            # Every good row counts, even if it was imported before or the wallet is empty: an import resumed
            # after a crash counts the same, and a row that can be imported tomorrow was confirmed today.
            row_count += 1
            coins += request.amount
            if limits is not None and (row_count > limits.rows or coins > limits.coins):
                yield rejected(row, _beyond_limits(limits))
            else:
                yield already_imported(row, request, imported) or _import_row(row, request, actor)


def _beyond_limits(limits: ConfirmedLimits) -> BadRequest:
    details = f"{limits.rows:,} rows and {limits.coins:,} coins were confirmed. Propose the file again"
    return BadRequest("More than was confirmed", details, code="beyond_confirmed")


def _import_row(row: Row, request: ImportRequest, actor: str) -> Result:
    try:
        created = withdrawals.request(
            user_id=request.user_id,
            coins=request.amount,
            upi_id=request.upi_id,
            actor=actor,
            key=request.key,
            fingerprint=request.fingerprint,
        )
    except BadRequest as error:
        return rejected(row, error)
    if created.replayed:
        return Result(row, Outcome.ALREADY_IMPORTED, withdrawal_id=str(created.id))
    return Result(row, Outcome.IMPORTED, created.coins, str(created.id))
