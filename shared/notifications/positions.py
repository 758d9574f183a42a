"""How far a table was read, so that whoever follows it tells of each row once, whatever is committed when.

What pays writes its rows and knows nothing of this. Ids are given out before their transactions commit, so a
row may appear below one that was read before it. A row is therefore told when something written down names
it, and not when its id is small; and the search begins only above what has settled:

    mark_to, mark_xid    up to here ids were given out when the transaction `mark_xid` began
    followed_to          a mark whose transactions have all ended: nothing can appear below it any more

For whoever holds an id has a transaction number, and one below the mark's: an event is written after its
withdrawal's row, and a trigger sees to it for exception records. No clock is asked, and however long a
transaction takes, its row is found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, select, text
from sqlalchemy.orm import Session

from shared.db import transaction
from shared.models import ExceptionRecord, WithdrawalEvent
from shared.models.base import Position

ROWS_AT_ONCE = 500  # a transaction: a few dozen milliseconds
BATCHES_PER_CALL = 20  # after a standstill a call catches up by so much; the next one goes on

# The oldest transaction that has not ended, and our own number.
TRANSACTIONS = text("""
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
           pg_current_xact_id()::text::bigint AS ours
""")


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told of a table's rows.

    `position` finds the row that keeps how far it has read; none: it does not listen now. `tell` writes down
    what is to be told of the next rows above `followed_to`, in the order of their ids and at most so many,
    and gives their ids back.
    """

    table: type[WithdrawalEvent] | type[ExceptionRecord]
    position: Select[Any]
    tell: Callable[[Session, int, int], Sequence[int]]


def last_id(session: Session, table: type[WithdrawalEvent] | type[ExceptionRecord]) -> int:
    """The highest id that can be seen; 0 for an empty table."""
    return session.scalars(select(func.coalesce(func.max(table.id), 0))).one()


def follow(listener: Listener) -> int:
    """Tell of all that is new; of how many rows. Two at once do no harm. Raises Unavailable."""
    told = 0
    for _ in range(BATCHES_PER_CALL):
        with transaction() as session:
            rows = go_on(session, listener)
        told += rows
        if rows < ROWS_AT_ONCE:
            break
    return told


def go_on(session: Session, listener: Listener) -> int:
    """One batch. The order matters: first what was given out, then our number, then what can be seen."""
    last = last_id(session, listener.table)
    position: Position | None = session.scalar(listener.position)
    if position is None or position.followed_to >= last:
        return 0
    locked = listener.position.with_for_update(key_share=True).execution_options(populate_existing=True)
    position = session.scalar(locked)
    if position is None:
        return 0
    now = session.execute(TRANSACTIONS).one()
    told = listener.tell(session, position.followed_to, ROWS_AT_ONCE)
    _move_mark(position, now, last, told[-1] if len(told) == ROWS_AT_ONCE else None)
    return len(told)


def _move_mark(position: Position, now: Row[Any], last: int, cut_at: int | None) -> None:
    """Go up to a mark that has settled, or to where this batch was cut off; set the next mark."""
    if position.mark_to is not None and position.mark_xid is not None:
        # A number that is not given out yet is another server's, on which this was restored from a backup.
        if now.oldest <= position.mark_xid <= now.ours:
            return
        position.followed_to = min(position.mark_to, cut_at or position.mark_to)
    has_more = last > position.followed_to
    position.mark_to, position.mark_xid = (last, now.ours) if has_more else (None, None)
