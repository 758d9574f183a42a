"""Search for operators: withdrawals by text and filters, a page at a time.

No query counts rows or skips them with an offset: each page continues after the last row of the one before,
along an index. So the millionth withdrawal costs as much as the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, func, select, text, tuple_, union
from sqlalchemy.orm import Session

from shared import ids
from shared.db.transactions import transaction
from shared.models import PayoutAttempt, WebhookEvent, Withdrawal
from shared.providers.registry import provider

SEARCH_SECONDS = 4  # the timeout: a filter that matches hardly anything may read many rows
NEWEST = "newest"
OLDEST = "oldest"
LARGEST = "largest"
SMALLEST = "smallest"
ORDERS = (NEWEST, OLDEST, LARGEST, SMALLEST)
ANY_HOLD = "any"

Position = tuple[datetime | int, UUID]


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a list; None means any. Amounts in paise; `since` is inclusive, `until` exclusive."""

    user_id: str | None = None
    upi_id: str | None = None
    utr: str | None = None
    status: str | None = None
    reason: str | None = None
    hold: str | None = None  # one kind of hold, or ANY_HOLD
    since: datetime | None = None
    until: datetime | None = None
    min_paise: int | None = None
    max_paise: int | None = None
    order: str = NEWEST


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of a list, and the position of the next page (None: there is none)."""

    withdrawals: list[Withdrawal] = field(default_factory=list)
    next: Position | None = None


def search(filters: Filters, *, limit: int = 50, after: Position | None = None) -> SearchPage:
    """Return the next page of matching withdrawals. Raises Unavailable, also after SEARCH_SECONDS."""
    column, is_ascending = _order(filters.order)
    key = tuple_(column, Withdrawal.id)
    query = select(Withdrawal).where(*_conditions(filters))
    if after is not None:
        query = query.where(key > after if is_ascending else key < after)
    order = (column.asc(), Withdrawal.id.asc()) if is_ascending else (column.desc(), Withdrawal.id.desc())
    with transaction() as session:
        session.execute(text(f"SET LOCAL statement_timeout = '{SEARCH_SECONDS}s'"))
        rows = list(session.scalars(query.order_by(*order).limit(limit + 1)))
    page = rows[:limit]
    has_more = len(rows) > limit
    return SearchPage(page, (getattr(page[-1], column.key), page[-1].id) if has_more else None)


def find_by_id(session: Session, typed: str) -> UUID | None:
    """Return the id of a withdrawal, found by its own id, an attempt's, a payout's or a webhook event's."""
    if not typed.isprintable():  # no id contains such characters, and the database rejects NUL
        return None
    typed_id = ids.parse_id(typed)
    if typed_id is not None:
        by_id = select(Withdrawal.id).where(Withdrawal.id == typed_id)
        by_attempt = select(PayoutAttempt.withdrawal_id).where(PayoutAttempt.id == typed_id)
        return session.scalar(by_id) or session.scalar(by_attempt)
    if typed.startswith(provider().payout_id_prefix):
        return session.scalar(select(PayoutAttempt.withdrawal_id).where(PayoutAttempt.payout_id == typed))
    return session.scalar(select(WebhookEvent.withdrawal_id).where(WebhookEvent.event_id == typed))


def parse_query(session: Session, typed: str) -> dict[str, str]:
    """Return what the text names, as a field of `Filters`: a UPI id, a UTR, or otherwise a user.

    Apps choose their own user ids, even phone numbers or e-mail addresses. So text that looks like a UPI id
    or a UTR counts as one only if a withdrawal has it.
    """
    if "@" in typed and session.scalar(_any(_has_upi(typed))):
        return {"upi_id": typed}
    if typed.isalnum() and session.scalar(_any(_has_utr(typed))):
        return {"utr": typed}
    return {"user_id": typed}


def _order(order: str) -> tuple[Any, bool]:
    column = Withdrawal.amount_paise if order in (LARGEST, SMALLEST) else Withdrawal.created_at
    return column, order in (OLDEST, SMALLEST)


def _conditions(filters: Filters) -> Iterator[ColumnElement[bool]]:
    for column, value in (
        (Withdrawal.user_id, filters.user_id),
        (Withdrawal.status, filters.status),
        (Withdrawal.status_reason, filters.reason),
        (Withdrawal.hold, filters.hold if filters.hold != ANY_HOLD else None),
    ):
        if value is not None:
            yield column == value
    if filters.hold == ANY_HOLD:
        yield Withdrawal.hold.is_not(None)
    if filters.upi_id is not None:
        yield _has_upi(filters.upi_id)
    if filters.utr is not None:
        yield _has_utr(filters.utr)
    if filters.since is not None:
        yield Withdrawal.created_at >= filters.since
    if filters.until is not None:
        yield Withdrawal.created_at < filters.until
    if filters.min_paise is not None:
        yield Withdrawal.amount_paise >= filters.min_paise
    if filters.max_paise is not None:
        yield Withdrawal.amount_paise <= filters.max_paise


def _has_upi(upi_id: str) -> ColumnElement[bool]:
    # Handles are not case-sensitive, and people type both cases.
    return func.lower(Withdrawal.upi_id) == upi_id.lower()


def _has_utr(utr: str) -> ColumnElement[bool]:
    by_withdrawal = select(Withdrawal.id).where(func.upper(Withdrawal.utr) == utr.upper())
    by_attempt = select(PayoutAttempt.withdrawal_id).where(PayoutAttempt.utr == utr)
    return Withdrawal.id.in_(union(by_withdrawal, by_attempt))


def _any(condition: ColumnElement[bool]) -> Select[tuple[bool]]:
    return select(exists().where(condition))
