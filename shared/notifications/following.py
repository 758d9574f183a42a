"""From the events to deliveries, after the fact: one for each change of status and each endpoint.

What pays writes its events and knows nothing of this. Ids are given out before their transactions commit, so
an event may appear below one that was read before it. A change is therefore told when a delivery names it,
and not when its id is small; and the search begins only above what has settled:

    mark_to, mark_xid    up to here ids were given out when the transaction `mark_xid` began
    followed_to          a mark whose transactions have all ended: nothing can appear below it any more

For an event is written after its withdrawal's row, so whoever holds an id has a transaction number, and one
below the mark's. No clock is asked, and however long a transaction takes, its event is found.
"""

from typing import Any
from uuid import UUID, uuid5

import structlog
from sqlalchemy import Row, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db import transaction
from shared.models import Delivery, Endpoint, WithdrawalEvent
from shared.notifications.bodies import body_of

CHANGES_AT_ONCE = 500  # a transaction: a few dozen milliseconds
BATCHES_PER_CALL = 20  # after a standstill a call catches up by so much; the next one goes on

# The sequence counts a withdrawal's changes. Its row is locked while it changes, so they commit in order.
NEWS = text("""
    SELECT e.id, e.withdrawal_id, e.from_status, e.to_status, e.created_at AS changed_at, w.created_at,
           w.user_id, w.coins_amount, w.amount_paise, w.upi_id, w.failure_reason, w.utr,
           (SELECT count(*) FROM withdrawal_events before
            WHERE before.withdrawal_id = e.withdrawal_id AND before.id <= e.id
              AND before.from_status IS DISTINCT FROM before.to_status) AS sequence
    FROM withdrawal_events e JOIN withdrawals w ON w.id = e.withdrawal_id
    WHERE e.id > :followed_to AND e.from_status IS DISTINCT FROM e.to_status
      AND NOT EXISTS (SELECT FROM deliveries d WHERE d.endpoint_id = :endpoint_id AND d.event_id = e.id)
    ORDER BY e.id LIMIT :most
""")
# The oldest transaction that has not ended, and our own number.
TRANSACTIONS = text("""
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
           pg_current_xact_id()::text::bigint AS ours
""")
DELIVERIES = insert(Delivery.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]
LAST_GIVEN = select(func.coalesce(func.max(WithdrawalEvent.id), 0))

log = structlog.get_logger()


def follow() -> int:
    """Make the deliveries of all changes that are new; returns how many. Two at once do no harm.

    Raises Unavailable. A change is told to the endpoints that were there when it happened.
    """
    with transaction() as session:
        listening = session.scalars(select(Endpoint.id).where(Endpoint.removed_at.is_(None))).all()
    made = sum(_follow_for(endpoint_id) for endpoint_id in listening)
    if made:
        log.info("[NOTIFY] to be told", deliveries=made)
    return made


def _follow_for(endpoint_id: UUID) -> int:
    made = 0
    for _ in range(BATCHES_PER_CALL):
        with transaction() as session:
            changes = _go_on(session, endpoint_id)
        made += changes
        if changes < CHANGES_AT_ONCE:
            break
    return made


def _go_on(session: Session, endpoint_id: UUID) -> int:
    """One batch. The order matters: first what was given out, then our number, then what can be seen."""
    last = session.scalars(LAST_GIVEN).one()
    listening = select(Endpoint).where(Endpoint.id == endpoint_id, Endpoint.removed_at.is_(None))
    if session.scalar(listening.where(Endpoint.followed_to >= last)):
        return 0
    endpoint = session.scalar(
        listening.with_for_update(key_share=True).execution_options(populate_existing=True)
    )
    if endpoint is None:
        return 0
    now = session.execute(TRANSACTIONS).one()
    values = {"followed_to": endpoint.followed_to, "endpoint_id": endpoint_id, "most": CHANGES_AT_ONCE}
    changes = session.execute(NEWS, values).all()
    if changes:
        rows = [_delivery(endpoint_id, change) for change in changes]
        session.connection().execute(DELIVERIES, rows)
    _move_mark(endpoint, now, last, changes[-1].id if len(changes) == CHANGES_AT_ONCE else None)
    return len(changes)


def _move_mark(endpoint: Endpoint, now: Row[Any], last: int, cut_at: int | None) -> None:
    """Go up to a mark that has settled, or to where this batch was cut off; set the next mark."""
    if endpoint.mark_to is not None and endpoint.mark_xid is not None:
        # A number that is not given out yet is another server's, on which this was restored from a backup.
        if now.oldest <= endpoint.mark_xid <= now.ours:
            return
        endpoint.followed_to = min(endpoint.mark_to, cut_at or endpoint.mark_to)
    has_more = last > endpoint.followed_to
    endpoint.mark_to, endpoint.mark_xid = (last, now.ours) if has_more else (None, None)


def _delivery(endpoint_id: UUID, change: Row[Any]) -> dict[str, Any]:
    """Its id is always the same: a database that lost it (a restored backup) tells it under that id again."""
    name = f"{change.withdrawal_id}/{change.sequence}/{change.to_status}"
    return {
        "id": uuid5(endpoint_id, name),
        "endpoint_id": endpoint_id,
        "event_id": change.id,
        "withdrawal_id": change.withdrawal_id,
        "body": body_of(change),
    }
