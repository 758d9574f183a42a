"""Summarize a whole file: its rows and coins, whatever the balances, and the operators that it would pay."""

from collections.abc import Iterable
from dataclasses import dataclass

from shared.db.transactions import transaction
from shared.importing.parse import ImportRequest, parse_rows
from shared.importing.rows import Row
from shared.importing.scratch import Scratch
from shared.people import eligibility


@dataclass(frozen=True, slots=True)
class FileSummary:
    """The number of good rows in a file, their total coins, and the names of the operators that they pay."""

    rows: int
    coins: int
    paid_operators: frozenset[str]


def summarize(rows: Iterable[Row], scratch: Scratch) -> FileSummary:
    """What people agree to when they propose or confirm a file; balances do not matter. Raises Unavailable.

    Each batch has its own transaction, so a long file holds no locks.
    """
    row_count = 0
    coins = 0
    paid_operators = set[str]()
    for batch in parse_rows(rows, scratch):
        requests = [request for _, request in batch if isinstance(request, ImportRequest)]
        row_count += len(requests)
        coins += sum(request.amount for request in requests)
        with transaction() as session:
            paid_operators |= eligibility.paid_operators(
                session, {request.user_id for request in requests}, {request.upi_id for request in requests}
            )
    return FileSummary(row_count, coins, frozenset(paid_operators))
