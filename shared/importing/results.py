"""The result of a row."""

from dataclasses import dataclass
from enum import StrEnum

from shared.access.idempotency import KeyReused
from shared.errors import BadRequest
from shared.importing.parse import ImportedBefore, ImportRequest
from shared.importing.rows import Row


class Outcome(StrEnum):
    """The result of a row as people read it."""

    IMPORTED = "imported"
    ALREADY_IMPORTED = "already imported"
    WOULD_BE_IMPORTED = "would be imported"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Result:
    """A row and its outcome. `coins` are those that it debited or would debit."""

    row: Row
    outcome: Outcome
    coins: int = 0
    withdrawal_id: str = ""
    error: str = ""


def rejected(row: Row, error: BadRequest) -> Result:
    """A rejected row, with the API's error as the reason."""
    if isinstance(error, KeyReused) and error.elsewhere:
        reason = "Reference already used: An app used it as its Idempotency-Key for this user"
    elif isinstance(error, KeyReused):
        reason = "Reference already used: It was imported before with another amount or UPI id"
    else:
        reason = error.error if error.details == error.error else f"{error.error}: {error.details}"
    return Result(row, Outcome.REJECTED, error=reason)


def already_imported(row: Row, request: ImportRequest, imported: ImportedBefore) -> Result | None:
    """The result of a row whose reference was used before. None if the reference is new."""
    first = imported.get((request.user_id, request.key))
    if first is None:
        return None
    if first.idempotency_key != request.key:
        return rejected(row, KeyReused(elsewhere=True))
    if first.request_fingerprint != request.fingerprint:
        return rejected(row, KeyReused())
    return Result(row, Outcome.ALREADY_IMPORTED, withdrawal_id=str(first.id))
