"""How far a subscriber has read a table, so that it handles each row once, whatever order the rows commit in.

The money path writes its rows and knows nothing of this. PostgreSQL assigns an id before the transaction
commits, so a row may appear below one that was read earlier. Therefore what says that a row was handled is a
row of the subscriber's own, not the id; and the cursor moves only past ids that have settled:

    mark_to, mark_xid    the highest id that was assigned when the transaction `mark_xid` began
    followed_to          a mark whose transactions have all ended: no row can appear below it any more

This holds because a transaction that has an id also has a transaction number below the mark's: an event is
written after its withdrawal's row, and a trigger ensures it for exception records. No clock is involved, and
a row is found however long its transaction takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, select, text
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.models import ExceptionRecord, WithdrawalEvent
from shared.models.base import EventCursor

ROWS_PER_BATCH = 500  # one transaction of a few dozen milliseconds
BATCHES_PER_CALL = 20  # the most that one call catches up after an outage; the next one continues

# `oldest`: the oldest transaction that has not ended; `ours`: this one.
TRANSACTION_NUMBERS = text("""
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
           pg_current_xact_id()::text::bigint AS ours
""")


@dataclass(frozen=True, slots=True)
class Subscriber:
    """What reads a table's rows and fans them out.

    `cursor` selects the row that keeps the cursor; if it selects none, the subscriber is inactive. `fan_out`
    takes the session, `followed_to` and a limit; it writes the messages for the next rows above
    `followed_to`, in the order of their ids, and returns those ids.
    """

    table: type[WithdrawalEvent] | type[ExceptionRecord]
    cursor: Select[Any]
    fan_out: Callable[[Session, int, int], Sequence[int]]


def last_id(session: Session, table: type[WithdrawalEvent] | type[ExceptionRecord]) -> int:
    """The highest id that is visible; 0 for an empty table."""
    return session.scalars(select(func.coalesce(func.max(table.id), 0))).one()


def advance(subscriber: Subscriber) -> int:
    """Fan out all new rows; returns how many. Safe to run twice at once. Raises Unavailable."""
    total = 0
    for _ in range(BATCHES_PER_CALL):
        with transaction() as session:
            rows = advance_batch(session, subscriber)
        total += rows
        if rows < ROWS_PER_BATCH:
            break
    return total


def advance_batch(session: Session, subscriber: Subscriber) -> int:
    """Fan out one batch; returns how many rows.

    The order matters: first the highest id, then our transaction number, then the rows that are visible.
    """
    last = last_id(session, subscriber.table)
    cursor: EventCursor | None = session.scalar(subscriber.cursor)
    if cursor is None or cursor.followed_to >= last:
        return 0
    locked = subscriber.cursor.with_for_update(key_share=True).execution_options(populate_existing=True)
    cursor = session.scalar(locked)
    if cursor is None:
        return 0
    numbers = session.execute(TRANSACTION_NUMBERS).one()
    row_ids = subscriber.fan_out(session, cursor.followed_to, ROWS_PER_BATCH)
    _advance_mark(cursor, numbers, last, row_ids[-1] if len(row_ids) == ROWS_PER_BATCH else None)
    return len(row_ids)


def _advance_mark(cursor: EventCursor, numbers: Row[Any], last: int, batch_end: int | None) -> None:
    """Move the cursor to a settled mark, or to the end of a full batch below it; set the next mark."""
    if cursor.mark_to is not None and cursor.mark_xid is not None:
        # A number that this server has not assigned yet comes from another one: a backup was restored here.
        if numbers.oldest <= cursor.mark_xid <= numbers.ours:
            return
        cursor.followed_to = min(cursor.mark_to, batch_end or cursor.mark_to)
    has_more = last > cursor.followed_to
    cursor.mark_to, cursor.mark_xid = (last, numbers.ours) if has_more else (None, None)
