"""Queries for callers: one withdrawal, or a user's history."""

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
    """A page of withdrawals, newest first, and the position of the next page (None: there is none)."""

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
    """Return one withdrawal, optionally locked; with `of_user`, only if it is that user's.

    Raises NotFound, Stale (no longer this `version`).
    """
    query = select(Withdrawal).where(Withdrawal.id == withdrawal_id)
    if of_user is not None:
        query = query.where(Withdrawal.user_id == of_user)  # never wait for the lock of another user's row
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
    """Return a user's withdrawals, newest first; `after` continues after a row, despite newer ones."""
    query = select(Withdrawal).where(Withdrawal.user_id == user_id)
    if status is not None:
        query = query.where(Withdrawal.status == status)
    if after is not None:
        query = query.where(tuple_(Withdrawal.created_at, Withdrawal.id) < after)
    query = query.order_by(Withdrawal.created_at.desc(), Withdrawal.id.desc()).limit(limit + 1)
    rows = list(session.scalars(query))
    page = rows[:limit]
    has_more = len(rows) > limit
    return Page(page, (page[-1].created_at, page[-1].id) if has_more else None)
