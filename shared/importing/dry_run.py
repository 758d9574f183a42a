"""Preview an import without importing anything."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text

from shared.db.transactions import transaction
from shared.errors import BadRequest
from shared.importing.parse import ImportedBefore, ImportRequest, find_imported, parse_rows
from shared.importing.results import Outcome, Result, already_imported, rejected
from shared.importing.rows import Row
from shared.importing.scratch import Scratch
from shared.models import Wallet
from shared.withdrawals import balance_error, blocks, request_rules


@dataclass(frozen=True, slots=True)
class _BatchFacts:
    """Facts from the database about a batch of requests."""

    wallets: dict[str, Any]
    blocked: set[str]  # UPI ids
    imported: ImportedBefore


def preview_rows(rows: Iterable[Row], scratch: Scratch) -> Iterator[Result]:
    """The result that `import_rows` would give for each row if nothing else changed the wallets. Raises
    Unavailable.

    Daily and monthly limits are not checked, because the import may happen on another day.
    """
    for batch in parse_rows(rows, scratch):
        facts = _load_facts([request for _, request in batch if isinstance(request, ImportRequest)])
        for row, request in batch:
            if isinstance(request, BadRequest):
                yield rejected(row, request)
            else:
                imported = already_imported(row, request, facts.imported)
                yield imported or _preview_row(row, request, facts, scratch)


def _load_facts(requests: list[ImportRequest]) -> _BatchFacts:
    users = {request.user_id for request in requests}
    query = select(Wallet.user_id, Wallet.balance_coins, Wallet.is_frozen).where(Wallet.user_id.in_(users))
    with transaction() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        return _BatchFacts(
            {wallet.user_id: wallet for wallet in session.execute(query)},
            blocks.blocked_upi_ids(session, {request.upi_id for request in requests}),
            find_imported(session, requests),
        )


def _preview_row(row: Row, request: ImportRequest, facts: _BatchFacts, scratch: Scratch) -> Result:
    error = _rejection(request, facts, scratch.spent_coins(request.user_id))
    if error is not None:
        return rejected(row, error)
    scratch.add_spent_coins(request.user_id, request.amount)
    return Result(row, Outcome.WOULD_BE_IMPORTED, request.amount)


def _rejection(request: ImportRequest, facts: _BatchFacts, spent_coins: int) -> BadRequest | None:
    """The first error, in the API's order."""
    wallet = facts.wallets.get(request.user_id)
    error = balance_error(request.amount, None if wallet is None else wallet.balance_coins - spent_coins)
    if error is None and wallet is not None and wallet.is_frozen:
        return request_rules.wallet_frozen_error()
    if error is None and request.upi_id in facts.blocked:
        return request_rules.upi_blocked_error()
    return error
