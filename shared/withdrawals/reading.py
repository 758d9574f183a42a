"""What callers may read of withdrawals."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from shared.errors import NotFound, Stale
from shared.models import Withdrawal
from shared.states import Status

Position = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True)
class Page:
    """Some withdrawals, newest first, and where to go on (None: that was all)."""

    withdrawals: list[Withdrawal]
    next: Position | None


def find(
    session: Session,
    withdrawal_id: UUID,
    *,
    lock: bool = False,
    of_user: str | None = None,
    version: int | None = None,
) -> Withdrawal:
    """One withdrawal; for `of_user` another user's does not exist; a `version` must still be the row's.

    Raises NotFound, Stale.
    """
    query = select(Withdrawal).where(Withdrawal.id == withdrawal_id)
    if of_user is not None:
        query = query.where(Withdrawal.user_id == of_user)  # another user's row is not even waited for
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    withdrawal = session.scalar(query)
    if withdrawal is None:
        raise NotFound("Withdrawal not found", "No withdrawal has this id", code="withdrawal_not_found")
    if version not in (None, withdrawal.version):
        raise Stale
    return withdrawal


def history(
    session: Session,
    user_id: str,
    *,
    status: Status | None = None,
    limit: int = 50,
    after: Position | None = None,
) -> Page:
    """A user's withdrawals, newest first; `after` continues behind a row, whatever was added meanwhile."""
    query = select(Withdrawal).where(Withdrawal.user_id == user_id)
    if status is not None:
        query = query.where(Withdrawal.status == status)
    if after is not None:
        query = query.where(tuple_(Withdrawal.created_at, Withdrawal.id) < after)
    query = query.order_by(Withdrawal.created_at.desc(), Withdrawal.id.desc()).limit(limit + 1)
    rows = list(session.scalars(query))
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(shown, (shown[-1].created_at, shown[-1].id) if more else None)
