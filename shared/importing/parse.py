"""Parse rows into requests, in batches, and find those that were imported before."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.access import idempotency
from shared.errors import BadRequest
from shared.importing.rows import Row
from shared.importing.scratch import Scratch, normalized
from shared.settings import settings
from shared.text import fields

# No key from an app begins with a space, so import keys never equal app keys. Still, a reference that an app
# used as a key for the same user is rejected by the database (one_operation_per_key).
KEY_PREFIX = " import "
BATCH_ROWS = 500  # per database query

SELECT_IMPORTED = text("""
    SELECT asked.user_id, asked.key, w.idempotency_key, w.request_fingerprint, w.id
    FROM unnest(CAST(:users AS text[]), CAST(:keys AS text[])) AS asked (user_id, key)
    JOIN withdrawals w ON w.user_id = asked.user_id AND w.idempotency_key IS NOT NULL
         AND given_key(w.idempotency_key) = given_key(asked.key)
    ORDER BY w.idempotency_key = asked.key
""")

# (user_id, key) -> the withdrawal's id, key and fingerprint
ImportedBefore = dict[tuple[str, str], Any]


class ImportRequest(BaseModel):
    """The withdrawal that a good row requests."""

    model_config = ConfigDict(frozen=True)

    user_id: str
    amount: int
    upi_id: str
    reference: str

    @field_validator("user_id", mode="before")
    @classmethod
    def _user_id(cls, value: Any) -> Any:
        return fields.parse_text(value, "user_id", fields.MAX_USER_ID_CHARACTERS)

    @field_validator("amount", mode="before")
    @classmethod
    def _amount(cls, value: Any, info: ValidationInfo) -> int:
        return fields.parse_amount(value, (info.context or {})["min_withdrawal_coins"])

    @field_validator("upi_id", mode="before")
    @classmethod
    def _upi_id(cls, value: Any) -> str:
        return fields.parse_upi_id(value)

    @field_validator("reference", mode="before")
    @classmethod
    def _reference(cls, value: Any) -> Any:
        return fields.parse_reference(normalized(value))

    @property
    def key(self) -> str:
        return KEY_PREFIX + self.reference

    @property
    def fingerprint(self) -> str:
        return idempotency.fingerprint("import", self.model_dump(exclude={"reference"}))


def parse_rows(
    rows: Iterable[Row], scratch: Scratch
) -> Iterator[list[tuple[Row, ImportRequest | BadRequest]]]:
    """The rows in batches, each row with its request or the reason why it is rejected."""
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH_ROWS)):
        yield [(row, _parse_row(row, scratch)) for row in batch]


def find_imported(session: Session, requests: list[ImportRequest]) -> ImportedBefore:
    """The requests whose reference was used for the same user before, whatever the content and the client."""
    values = {
        "users": [request.user_id for request in requests],
        "keys": [request.key for request in requests],
    }
    return {(row.user_id, row.key): row for row in session.execute(SELECT_IMPORTED, values)}


def _parse_row(row: Row, scratch: Scratch) -> ImportRequest | BadRequest:
    if row.cells is None:
        return BadRequest(
            "Wrong number of cells", "A row must have as many cells as the header", code="wrong_row"
        )
    try:
        min_coins = settings().min_withdrawal_coins
        request = fields.parse(ImportRequest, row.cells, min_withdrawal_coins=min_coins)
    except BadRequest as error:
        return error
    if (other := scratch.other_line(request.reference, row.line)) is not None:
        # It is unclear which of the two is meant, so neither is imported.
        return BadRequest(
            "Reference is not unique", f"Line {other} has the same reference", code="reference_twice"
        )
    return request
