"""What an import would do, told without doing it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text

from shared import blocks
from shared.db import transaction
from shared.errors import BadRequest
from shared.importing.results import Outcome, Result, of_before, refused
from shared.importing.rows import Row
from shared.importing.scratch import Scratch
from shared.importing.wishes import Before, Wish, asked, taken_before
from shared.models import Wallet
from shared.withdrawals import refusal, terms


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of some wishes: the users' wallets, who is not paid, what was taken before."""

    wallets: dict[str, Any]
    blocked: set[str]
    before: Before


def rehearse(rows: Iterable[Row], scratch: Scratch) -> Iterator[Result]:
    """What `take` would do with each row, if nobody else touched the wallets. Raises Unavailable.

    The limits of a day and a month are not foretold: what counts for them is another day's when it is taken.
    """
    for piece in asked(rows, scratch):
        known = _known([wish for _, wish in piece if isinstance(wish, Wish)])
        for row, wish in piece:
            if isinstance(wish, BadRequest):
                yield refused(row, wish)
            else:
                yield of_before(row, wish, known.before) or _would_be(row, wish, known, scratch)


def _known(wishes: list[Wish]) -> Known:
    users = {wish.user_id for wish in wishes}
    query = select(Wallet.user_id, Wallet.balance_coins, Wallet.is_frozen).where(Wallet.user_id.in_(users))
    with transaction() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        return Known(
            {found.user_id: found for found in session.execute(query)},
            blocks.blocked(session, {wish.upi_id for wish in wishes}),
            taken_before(session, wishes),
        )


def _would_be(row: Row, wish: Wish, known: Known, scratch: Scratch) -> Result:
    error = _why_not(wish, known, scratch.spent(wish.user_id))
    if error is not None:
        return refused(row, error)
    scratch.spend(wish.user_id, wish.amount)
    return Result(row, Outcome.WOULD_BE_TAKEN, wish.amount)


def _why_not(wish: Wish, known: Known, spent: int) -> BadRequest | None:
    """In the order in which the API tells it."""
    wallet = known.wallets.get(wish.user_id)
    error = refusal(wish.amount, None if wallet is None else wallet.balance_coins - spent)
    if error is None and wallet is not None and wallet.is_frozen:
        return terms.frozen()
    if error is None and wish.upi_id in known.blocked:
        return terms.blocked()
    return error
