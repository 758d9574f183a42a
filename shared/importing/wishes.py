"""What the rows of a file ask for, some hundred at a time, and which of it was taken before."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import fields, idempotency
from shared.errors import BadRequest
from shared.importing.rows import Row
from shared.importing.scratch import Scratch, plain
from shared.settings import settings

# No key that an app sends begins with a blank. What the app used as a key for this user is no reference for
# another withdrawal of theirs, though: the database refuses it (one_operation_per_key).
PREFIX = " import "
AT_ONCE = 500  # rows for which the database is asked together

TAKEN_BEFORE = text("""
    SELECT asked.user_id, asked.key, w.idempotency_key, w.request_fingerprint, w.id
    FROM unnest(CAST(:users AS text[]), CAST(:keys AS text[])) AS asked (user_id, key)
    JOIN withdrawals w ON w.user_id = asked.user_id AND w.idempotency_key IS NOT NULL
         AND given_key(w.idempotency_key) = given_key(asked.key)
    ORDER BY w.idempotency_key = asked.key
""")

# (user_id, key) -> the withdrawal, with its own key and fingerprint
Before = dict[tuple[str, str], Any]


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


def asked(rows: Iterable[Row], scratch: Scratch) -> Iterator[list[tuple[Row, Wish | BadRequest]]]:
    """The rows in pieces, each row with what it asks for or why it cannot be taken."""
    left = iter(rows)
    while piece := list(islice(left, AT_ONCE)):
        yield [(row, _asked_for(row, scratch)) for row in piece]


def taken_before(session: Session, wishes: list[Wish]) -> Before:
    """Those of them whose reference was used for this user before, with whatever content and by whomever."""
    named = {"users": [wish.user_id for wish in wishes], "keys": [wish.key for wish in wishes]}
    return {(found.user_id, found.key): found for found in session.execute(TAKEN_BEFORE, named)}


def _asked_for(row: Row, scratch: Scratch) -> Wish | BadRequest:
    if row.cells is None:
        return BadRequest("Wrong number of cells", "A row has as many cells as the header", code="wrong_row")
    try:
        wish = fields.parsed(Wish, row.cells, min_withdrawal_coins=settings().min_withdrawal_coins)
    except BadRequest as error:
        return error
    if (other := scratch.other(wish.reference, row.line)) is not None:
        # Which of the two is meant, nobody knows: neither is taken.
        return BadRequest(
            "Reference is not unique", f"Line {other} has the same reference", code="reference_twice"
        )
    return wish
