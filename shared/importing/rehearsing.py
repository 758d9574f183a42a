"""What an import would do, told without doing it."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Row as Found
from sqlalchemy import select, text

from shared.db import transaction
from shared.errors import BadRequest
from shared.idempotency import Reused
from shared.importing.rows import Row
from shared.importing.scratch import Scratch
from shared.importing.taking import Outcome, Result, Wish, asked_for, refused
from shared.models import Wallet
from shared.withdrawals import refusal

AT_ONCE = 500  # rows for which the database is asked together

TAKEN_BEFORE = text("""
    SELECT w.user_id, w.idempotency_key, w.request_fingerprint, w.id
    FROM unnest(CAST(:users AS text[]), CAST(:keys AS text[])) AS asked (user_id, key)
    JOIN withdrawals w ON w.user_id = asked.user_id AND w.idempotency_key = asked.key
""")

Before = dict[tuple[str, str], Found[Any]]


def rehearse(rows: Iterable[Row], scratch: Scratch) -> Iterator[Result]:
    """What `take` would do with each row, if nobody else touched the wallets. Raises Unavailable."""
    left = iter(rows)
    while chunk := list(islice(left, AT_ONCE)):
        asked = [_asked_for(row, scratch) for row in chunk]
        wishes = [wish for wish in asked if isinstance(wish, Wish)]
        balances, before = _known(wishes)
        for row, wish in zip(chunk, asked, strict=True):
            if isinstance(wish, BadRequest):
                yield refused(row, wish)
            else:
                yield _result(row, wish, balances.get(wish.user_id), before, scratch)


def _asked_for(row: Row, scratch: Scratch) -> Wish | BadRequest:
    try:
        return asked_for(row, scratch)
    except BadRequest as error:
        return error


def _known(wishes: list[Wish]) -> tuple[dict[str, int], Before]:
    """The balances of their users, and those that were taken before."""
    users = [wish.user_id for wish in wishes]
    with transaction() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        query = select(Wallet.user_id, Wallet.balance_coins).where(Wallet.user_id.in_(set(users)))
        balances = {found.user_id: found.balance_coins for found in session.execute(query)}
        keys = {"users": users, "keys": [wish.key for wish in wishes]}
        before = {
            (found.user_id, found.idempotency_key): found for found in session.execute(TAKEN_BEFORE, keys)
        }
    return balances, before


def _result(row: Row, wish: Wish, balance: int | None, before: Before, scratch: Scratch) -> Result:
    first = before.get((wish.user_id, wish.key))
    if first is not None:
        if first.request_fingerprint != wish.fingerprint:
            return refused(row, Reused())
        return Result(row, Outcome.BEFORE, withdrawal_id=str(first.id))
    left = None if balance is None else balance - scratch.spent(wish.user_id)
    if (error := refusal(wish.amount, left)) is not None:
        return refused(row, error)
    scratch.spend(wish.user_id, wish.amount)
    return Result(row, Outcome.WOULD_BE_TAKEN, wish.amount)
