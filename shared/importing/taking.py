"""Each row's coins, once for its reference."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shared import withdrawals
from shared.db import transaction
from shared.errors import BadRequest
from shared.importing.results import Outcome, Result, of_before, refused
from shared.importing.rows import Row
from shared.importing.scratch import Scratch
from shared.importing.wishes import Wish, asked, taken_before


@dataclass(frozen=True, slots=True)
class Most:
    """So many rows and coins were confirmed; no row may go beyond them."""

    rows: int
    coins: int


def take(rows: Iterable[Row], scratch: Scratch, *, actor: str, most: Most | None) -> Iterator[Result]:
    """Take the coins of each good row, in their order; a bad one stops nobody. No more than `most`.

    Raises Unavailable: what was yielded is done, and a later call with the same file goes on.
    """
    number = coins = 0
    for piece in asked(rows, scratch):
        # Asked together, those of an earlier import go by at once. The verb below would find each of them
        # too: nothing depends on this.
        with transaction() as session:
            before = taken_before(session, [wish for _, wish in piece if isinstance(wish, Wish)])
        for row, wish in piece:
            if isinstance(wish, BadRequest):
                yield refused(row, wish)
                continue
            # Each good row counts, also one that was taken before or whose wallet is empty: an import that
            # goes on after a crash counts the same, and a row that can be taken tomorrow was confirmed today.
            number, coins = number + 1, coins + wish.amount
            if most is not None and (number > most.rows or coins > most.coins):
                yield refused(row, _beyond(most))
            else:
                yield of_before(row, wish, before) or _taken(row, wish, actor)


def _beyond(most: Most) -> BadRequest:
    words = f"{most.rows:,} rows and {most.coins:,} coins were confirmed: propose the file again"
    return BadRequest("More than was confirmed", words, code="beyond_confirmed")


def _taken(row: Row, wish: Wish, actor: str) -> Result:
    try:
        made = withdrawals.request(
            user_id=wish.user_id,
            coins=wish.amount,
            upi_id=wish.upi_id,
            actor=actor,
            key=wish.key,
            fingerprint=wish.fingerprint,
        )
    except BadRequest as error:
        return refused(row, error)
    if made.replayed:
        return Result(row, Outcome.BEFORE, withdrawal_id=str(made.id))
    return Result(row, Outcome.TAKEN, made.coins, str(made.id))
