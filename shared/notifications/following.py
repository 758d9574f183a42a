"""From the events to deliveries, after the fact: one for each change of status and each endpoint."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

import structlog
from sqlalchemy import Row, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db import transaction
from shared.models import Delivery, Endpoint, WithdrawalEvent
from shared.notifications import positions
from shared.notifications.bodies import body_of

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
DELIVERIES = insert(Delivery.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]

log = structlog.get_logger()


def follow() -> int:
    """Make the deliveries of all changes that are new; returns how many. Two at once do no harm.

    Raises Unavailable. A change is told to the endpoints that were there when it happened.
    """
    with transaction() as session:
        listening = session.scalars(select(Endpoint.id).where(Endpoint.removed_at.is_(None))).all()
    made = sum(positions.follow(listener(endpoint_id)) for endpoint_id in listening)
    if made:
        log.info("[NOTIFY] to be told", deliveries=made)
    return made


def listener(endpoint_id: UUID) -> positions.Listener:
    """An endpoint as one who follows the changes."""

    def tell(session: Session, followed_to: int, most: int) -> Sequence[int]:
        values = {"followed_to": followed_to, "endpoint_id": endpoint_id, "most": most}
        changes = session.execute(NEWS, values).all()
        if changes:
            rows = [_delivery(endpoint_id, change) for change in changes]
            session.connection().execute(DELIVERIES, rows)
        return [change.id for change in changes]

    listening = select(Endpoint).where(Endpoint.id == endpoint_id, Endpoint.removed_at.is_(None))
    return positions.Listener(WithdrawalEvent, listening, tell)


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
