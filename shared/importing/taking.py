"""Each row's coins, once for its reference."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from shared import fields, idempotency, withdrawals
from shared.errors import BadRequest
from shared.idempotency import Reused
from shared.importing.rows import Row
from shared.importing.scratch import Scratch, plain
from shared.settings import settings

# No key that an app sends begins with a blank, and none of a batch's (api/batches.py): they never meet.
PREFIX = " import "


class Outcome(StrEnum):
    """What became of a row."""

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


class Wish(BaseModel):
    """What a good row asks for."""

    model_config = ConfigDict(frozen=True)

    user_id: str
    amount: int
    upi_id: str
    reference: str

    @field_validator("user_id", mode="before")
    @classmethod
    def _user_id(cls, value: Any) -> Any:
        return fields.text(value, "user_id", fields.MAX_USER_ID)

    @field_validator("amount", mode="before")
    @classmethod
    def _amount(cls, value: Any, info: ValidationInfo) -> int:
        return fields.amount(value, (info.context or {})["min_withdrawal_coins"])

    @field_validator("upi_id", mode="before")
    @classmethod
    def _upi_id(cls, value: Any) -> str:
        return fields.upi_id(value)

    @field_validator("reference", mode="before")
    @classmethod
    def _reference(cls, value: Any) -> Any:
        return fields.reference(plain(value))

    @property
    def key(self) -> str:
        return PREFIX + self.reference

    @property
    def fingerprint(self) -> str:
        return idempotency.fingerprint("import", self.model_dump(exclude={"reference"}))


def take(rows: Iterable[Row], scratch: Scratch, *, actor: str) -> Iterator[Result]:
    """Take the coins of each good row, in their order; a bad one stops nobody.

    Raises Unavailable: what was yielded is done, and a later call with the same file goes on.
    """
    for row in rows:
        try:
            wish = asked_for(row, scratch)
            made = withdrawals.request(
                user_id=wish.user_id,
                coins=wish.amount,
                upi_id=wish.upi_id,
                actor=actor,
                key=wish.key,
                fingerprint=wish.fingerprint,
            )
        except BadRequest as error:
            yield refused(row, error)
        else:
            outcome = Outcome.BEFORE if made.replayed else Outcome.TAKEN
            yield Result(row, outcome, 0 if made.replayed else made.coins, str(made.id))


def asked_for(row: Row, scratch: Scratch) -> Wish:
    """What a row asks for. Raises BadRequest."""
    if row.cells is None:
        raise BadRequest("Wrong number of cells", "A row has as many cells as the header", code="wrong_row")
    least = settings().min_withdrawal_coins
    wish = fields.parsed(Wish, row.cells, min_withdrawal_coins=least)
    if (other := scratch.other(wish.reference, row.line)) is not None:
        # Which of the two is meant, nobody knows: neither is taken.
        raise BadRequest(
            "Reference is not unique", f"Line {other} has the same reference", code="reference_twice"
        )
    return wish


def refused(row: Row, error: BadRequest) -> Result:
    """A row that is not taken, with the reason in the API's words."""
    if isinstance(error, Reused):
        words = "Reference already used: It was imported before with another amount or UPI id"
        return Result(row, Outcome.REFUSED, error=words)
    same = error.details == error.error
    words = error.error if same else f"{error.error}: {error.details}"
    return Result(row, Outcome.REFUSED, error=words)
