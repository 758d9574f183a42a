"""What became of a row."""

from dataclasses import dataclass
from enum import StrEnum

from shared.errors import BadRequest
from shared.idempotency import Reused
from shared.importing.rows import Row
from shared.importing.wishes import Before, Wish


class Outcome(StrEnum):
    """What became of a row, in a word or two."""

    TAKEN = "taken"
    BEFORE = "taken before"
    WOULD_BE_TAKEN = "would be taken"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Result:
    """A row and what became of it; `coins` are those that it took or would take."""

    row: Row
    outcome: Outcome
    coins: int = 0
    withdrawal_id: str = ""
    error: str = ""


def refused(row: Row, error: BadRequest) -> Result:
    """A row that is not taken, with the reason in the API's words."""
    if isinstance(error, Reused) and error.elsewhere:
        words = "Reference already used: An app used it as its Idempotency-Key for this user"
    elif isinstance(error, Reused):
        words = "Reference already used: It was imported before with another amount or UPI id"
    else:
        words = error.error if error.details == error.error else f"{error.error}: {error.details}"
    return Result(row, Outcome.REFUSED, error=words)


def of_before(row: Row, wish: Wish, before: Before) -> Result | None:
    """What is known of a row whose reference was used before; None of one that is new."""
    first = before.get((wish.user_id, wish.key))
    if first is None:
        return None
    if first.idempotency_key != wish.key:
        return refused(row, Reused(elsewhere=True))
    if first.request_fingerprint != wish.fingerprint:
        return refused(row, Reused())
    return Result(row, Outcome.BEFORE, withdrawal_id=str(first.id))
