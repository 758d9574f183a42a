"""What operators find: lists of withdrawals by what they typed and chose, a page at a time.

Nothing here counts, and nothing skips: a page goes on behind the last row of the one before, along an index.
So the millionth withdrawal costs what the first does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, func, select, text, tuple_, union
from sqlalchemy.orm import Session

from shared import ids
from shared.db import transaction
from shared.models import PayoutAttempt, WebhookEvent, Withdrawal

# A filter that fits hardly anything may have to look at much: it gives up before it is a burden.
SEARCH_SECONDS = 4
PAYOUT = "pout_"
NEWEST, OLDEST, LARGEST, SMALLEST = "newest", "oldest", "largest", "smallest"
ORDERS = (NEWEST, OLDEST, LARGEST, SMALLEST)
FLAGGED = "any"

Position = tuple[datetime | int, UUID]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list shows. Paise; `since` is included, `until` is not; None: no matter."""

    user_id: str | None = None
    upi_id: str | None = None
    utr: str | None = None
    status: str | None = None
    reason: str | None = None
    review: str | None = None  # a flag's word, or FLAGGED for every one
    since: datetime | None = None
    until: datetime | None = None
    min_paise: int | None = None
    max_paise: int | None = None
    order: str = NEWEST


@dataclass(frozen=True, slots=True)
class Found:
    """A page of a list, and where to go on (None: that was all)."""

    withdrawals: list[Withdrawal] = field(default_factory=list)
    next: Position | None = None


def search(wanted: Wanted, *, limit: int = 50, after: Position | None = None) -> Found:
    """The next page of what is wanted. Raises Unavailable, also when it takes too long."""
    column, is_rising = _order(wanted.order)
    key = tuple_(column, Withdrawal.id)
    query = select(Withdrawal).where(*_conditions(wanted))
    if after is not None:
        query = query.where(key > after if is_rising else key < after)
    ends = (column.asc(), Withdrawal.id.asc()) if is_rising else (column.desc(), Withdrawal.id.desc())
    with transaction() as session:
        session.execute(text(f"SET LOCAL statement_timeout = '{SEARCH_SECONDS}s'"))
        rows = list(session.scalars(query.order_by(*ends).limit(limit + 1)))
    shown = rows[:limit]
    more = len(rows) > limit
    return Found(shown, (getattr(shown[-1], column.key), shown[-1].id) if more else None)


def one(session: Session, typed: str) -> UUID | None:
    """The withdrawal that is named so: by its id, an attempt's key, RazorpayX's id of a payout or webhook."""
    if not typed.isprintable():  # no name is, and the database takes no NUL
        return None
    known = ids.parse_id(typed)
    if known is not None:
        itself = select(Withdrawal.id).where(Withdrawal.id == known)
        by_attempt = select(PayoutAttempt.withdrawal_id).where(PayoutAttempt.id == known)
        return session.scalar(itself) or session.scalar(by_attempt)
    if typed.startswith(PAYOUT):
        return session.scalar(select(PayoutAttempt.withdrawal_id).where(PayoutAttempt.payout_id == typed))
    return session.scalar(select(WebhookEvent.withdrawal_id).where(WebhookEvent.event_id == typed))


def meant(session: Session, typed: str) -> dict[str, str]:
    """What somebody who typed this looks for, as fields of `Wanted`: a UPI id, a UTR, or else a user.

    Apps name their users as they like, also by a telephone number or a mail address: so what looks like
    something else is first looked for as that, and taken for a user when there is none.
    """
    if "@" in typed and session.scalar(_any(_has_upi(typed))):
        return {"upi_id": typed}
    if typed.isalnum() and session.scalar(_any(_has_utr(typed))):
        return {"utr": typed}
    return {"user_id": typed}


def _order(order: str) -> tuple[Any, bool]:
    column = Withdrawal.amount_paise if order in (LARGEST, SMALLEST) else Withdrawal.created_at
    return column, order in (OLDEST, SMALLEST)


def _conditions(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    for column, value in (
        (Withdrawal.user_id, wanted.user_id),
        (Withdrawal.status, wanted.status),
        (Withdrawal.status_reason, wanted.reason),
        (Withdrawal.review, wanted.review if wanted.review != FLAGGED else None),
    ):
        if value is not None:
            yield column == value
    if wanted.review == FLAGGED:
        yield Withdrawal.review.is_not(None)
    if wanted.upi_id is not None:
        yield _has_upi(wanted.upi_id)
    if wanted.utr is not None:
        yield _has_utr(wanted.utr)
    if wanted.since is not None:
        yield Withdrawal.created_at >= wanted.since
    if wanted.until is not None:
        yield Withdrawal.created_at < wanted.until
    if wanted.min_paise is not None:
        yield Withdrawal.amount_paise >= wanted.min_paise
    if wanted.max_paise is not None:
        yield Withdrawal.amount_paise <= wanted.max_paise


def _has_upi(upi_id: str) -> ColumnElement[bool]:
    # Handles are not case-sensitive, and neither is what people type.
    return func.lower(Withdrawal.upi_id) == upi_id.lower()


def _has_utr(utr: str) -> ColumnElement[bool]:
    ours = select(Withdrawal.id).where(func.upper(Withdrawal.utr) == utr.upper())
    of_attempts = select(PayoutAttempt.withdrawal_id).where(PayoutAttempt.utr == utr)
    return Withdrawal.id.in_(union(ours, of_attempts))


def _any(condition: ColumnElement[bool]) -> Select[tuple[bool]]:
    return select(exists().where(condition))
