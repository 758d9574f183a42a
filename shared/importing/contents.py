"""What a whole file asks for, whatever the wallets hold, and which operators it would pay."""

from collections.abc import Iterable
from dataclasses import dataclass

from shared import maker_checker
from shared.db import transaction
from shared.importing.rows import Row
from shared.importing.scratch import Scratch
from shared.importing.wishes import Wish, asked


@dataclass(frozen=True, slots=True)
class Contents:
    """All well-formed rows of a file, their coins together, and the names of the operators whom they pay."""

    rows: int
    coins: int
    pays: frozenset[str]


def contents(rows: Iterable[Row], scratch: Scratch) -> Contents:
    """Whoever proposes or confirms a file agrees to all of this: balances do not count. Raises Unavailable.

    The database is asked in pieces, each in its own transaction, so a long file holds no locks.
    """
    number, coins, pays = 0, 0, set[str]()
    for piece in asked(rows, scratch):
        wishes = [wish for _, wish in piece if isinstance(wish, Wish)]
        number += len(wishes)
        coins += sum(wish.amount for wish in wishes)
        with transaction() as session:
            pays |= maker_checker.paid_operators(
                session, {wish.user_id for wish in wishes}, {wish.upi_id for wish in wishes}
            )
    return Contents(number, coins, frozenset(pays))
