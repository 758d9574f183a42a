"""What an import would do, told without doing it."""

from collections.abc import Iterable, Iterator

from sqlalchemy import select, text

from shared.db import transaction
from shared.errors import BadRequest
from shared.importing.results import Outcome, Result, of_before, refused
from shared.importing.rows import Row
from shared.importing.scratch import Scratch
from shared.importing.wishes import Before, Wish, asked, taken_before
from shared.models import Wallet
from shared.withdrawals import refusal


def rehearse(rows: Iterable[Row], scratch: Scratch) -> Iterator[Result]:
    """What `take` would do with each row, if nobody else touched the wallets. Raises Unavailable."""
    for piece in asked(rows, scratch):
        balances, before = _known([wish for _, wish in piece if isinstance(wish, Wish)])
        for row, wish in piece:
            if isinstance(wish, BadRequest):
                yield refused(row, wish)
            else:
                balance = balances.get(wish.user_id)
                yield of_before(row, wish, before) or _would_be(row, wish, balance, scratch)


def _known(wishes: list[Wish]) -> tuple[dict[str, int], Before]:
    """The balances of their users, and those that were taken before."""
    users = {wish.user_id for wish in wishes}
    query = select(Wallet.user_id, Wallet.balance_coins).where(Wallet.user_id.in_(users))
    with transaction() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        balances = {found.user_id: found.balance_coins for found in session.execute(query)}
        return balances, taken_before(session, wishes)


def _would_be(row: Row, wish: Wish, balance: int | None, scratch: Scratch) -> Result:
    left = None if balance is None else balance - scratch.spent(wish.user_id)
    if (error := refusal(wish.amount, left)) is not None:
        return refused(row, error)
    scratch.spend(wish.user_id, wish.amount)
    return Result(row, Outcome.WOULD_BE_TAKEN, wish.amount)
