"""Each row's coins, once for its reference."""

from collections.abc import Iterable, Iterator

from shared import withdrawals
from shared.db import transaction
from shared.errors import BadRequest
from shared.importing.results import Outcome, Result, of_before, refused
from shared.importing.rows import Row
from shared.importing.scratch import Scratch
from shared.importing.wishes import Wish, asked, taken_before


def take(rows: Iterable[Row], scratch: Scratch, *, actor: str) -> Iterator[Result]:
    """Take the coins of each good row, in their order; a bad one stops nobody.

    Raises Unavailable: what was yielded is done, and a later call with the same file goes on.
    """
    for piece in asked(rows, scratch):
        # Asked together, those of an earlier import go by at once. The verb below would find each of them
        # too: nothing depends on this.
        with transaction() as session:
            before = taken_before(session, [wish for _, wish in piece if isinstance(wish, Wish)])
        for row, wish in piece:
            if isinstance(wish, BadRequest):
                yield refused(row, wish)
            else:
                yield of_before(row, wish, before) or _taken(row, wish, actor)


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
