"""Fan-out: a delivery for each change of status and each endpoint, created after the change is committed."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

import structlog
from sqlalchemy import Row, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.models import Delivery, Endpoint, WithdrawalEvent
from shared.notifications import event_cursor
from shared.notifications.webhooks.payloads import build_body

# `sequence` counts a withdrawal's changes. Each change locks the withdrawal's row, so they commit in order.
NEW_CHANGES = text("""
    SELECT e.id, e.withdrawal_id, e.from_status, e.to_status, e.created_at AS changed_at, w.created_at,
           w.user_id, w.coins_amount, w.amount_paise, w.upi_id, w.failure_reason, w.utr,
           (SELECT count(*) FROM withdrawal_events before
            WHERE before.withdrawal_id = e.withdrawal_id AND before.id <= e.id
              AND before.from_status IS DISTINCT FROM before.to_status) AS sequence
    FROM withdrawal_events e JOIN withdrawals w ON w.id = e.withdrawal_id
    WHERE e.id > :followed_to AND e.from_status IS DISTINCT FROM e.to_status
      AND NOT EXISTS (SELECT FROM deliveries d WHERE d.endpoint_id = :endpoint_id AND d.event_id = e.id)
    ORDER BY e.id LIMIT :limit
""")
INSERT_DELIVERIES = insert(Delivery.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]

log = structlog.get_logger()


def create_deliveries() -> int:
    """Create the deliveries of all new changes; returns how many. Safe to run twice at once.

    An endpoint gets the changes that happen after it was added. Raises Unavailable.
    """
    with transaction() as session:
        endpoint_ids = session.scalars(select(Endpoint.id).where(Endpoint.removed_at.is_(None))).all()
    created = sum(event_cursor.advance(subscriber(endpoint_id)) for endpoint_id in endpoint_ids)
    if created:
        log.info("[NOTIFY] deliveries created", number=created)
    return created


def subscriber(endpoint_id: UUID) -> event_cursor.Subscriber:
    """An endpoint as a subscriber of the withdrawals' events."""

    def fan_out(session: Session, followed_to: int, limit: int) -> Sequence[int]:
        values = {"followed_to": followed_to, "endpoint_id": endpoint_id, "limit": limit}
        changes = session.execute(NEW_CHANGES, values).all()
        if changes:
            rows = [_delivery_row(endpoint_id, change) for change in changes]
            session.connection().execute(INSERT_DELIVERIES, rows)
        return [change.id for change in changes]

    cursor = select(Endpoint).where(Endpoint.id == endpoint_id, Endpoint.removed_at.is_(None))
    return event_cursor.Subscriber(WithdrawalEvent, cursor, fan_out)


def _delivery_row(endpoint_id: UUID, change: Row[Any]) -> dict[str, Any]:
    """The id depends on the change alone: if a restored backup lost the row, it is sent under the same id."""
    name = f"{change.withdrawal_id}/{change.sequence}/{change.to_status}"
    return {
        "id": uuid5(endpoint_id, name),
        "endpoint_id": endpoint_id,
        "event_id": change.id,
        "withdrawal_id": change.withdrawal_id,
        "body": build_body(change),
    }
