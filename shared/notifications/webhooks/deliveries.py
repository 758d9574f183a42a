"""Deliveries as operators see them: list them, replay them, and delete old ones."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from shared.errors import Conflict, NotFound
from shared.models import Delivery, Endpoint
from shared.notifications.outbox import BEHIND_SECONDS
from shared.notifications.webhooks.send import DELIVERIES, OUTBOX

# Not shared with mail: this counts per endpoint, and mail has one server. Only the names look alike.
ENDPOINT_HEALTH = text("""
    SELECT e.id, e.url, e.failing_since, waiting.number AS waiting, waiting.oldest, failed.number AS failed,
           (SELECT d.last_error FROM deliveries d WHERE d.endpoint_id = e.id AND d.state = 'waiting'
            AND d.last_error IS NOT NULL ORDER BY d.due_at DESC LIMIT 1) AS last_error,
           EXISTS (SELECT FROM withdrawal_events v WHERE v.id > e.followed_to
                   AND v.created_at < now() - make_interval(secs => :behind)) AS is_behind
    FROM endpoints e,
         LATERAL (SELECT count(*) AS number, min(created_at) AS oldest FROM deliveries d
                  WHERE d.endpoint_id = e.id AND d.state = 'waiting') AS waiting,
         LATERAL (SELECT count(*) AS number FROM deliveries d
                  WHERE d.endpoint_id = e.id AND d.state = 'failed') AS failed
    WHERE e.removed_at IS NULL ORDER BY e.created_at
""")


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """An endpoint's deliveries in numbers, and whether they work."""

    id: UUID
    url: str
    failing_since: datetime | None
    waiting: int
    oldest: datetime | None  # of the waiting ones
    failed: int
    last_error: str | None
    is_behind: bool  # a change of BEHIND_SECONDS ago has no delivery yet: no notifier runs


def endpoint_health(session: Session) -> list[EndpointHealth]:
    """The health of each endpoint, oldest first."""
    rows = session.execute(ENDPOINT_HEALTH, {"behind": BEHIND_SECONDS})
    return [EndpointHealth(*row) for row in rows]


def list_deliveries(
    session: Session, *, state: str | None = None, endpoint: Endpoint | None = None, limit: int = 100
) -> list[tuple[Delivery, str]]:
    """Deliveries with their URLs, newest first."""
    query = select(Delivery, Endpoint.url).join(Endpoint, Endpoint.id == Delivery.endpoint_id)
    if state is not None:
        query = query.where(Delivery.state == state)
    if endpoint is not None:
        query = query.where(Delivery.endpoint_id == endpoint.id)
    query = query.order_by(Delivery.created_at.desc(), Delivery.event_id.desc()).limit(limit)
    return [(row[0], row[1]) for row in session.execute(query)]


def replay(session: Session, delivery_ids: Sequence[UUID]) -> int:
    """Send these again under the same ids, in whatever state they are; all of them or none. Returns how many.

    Raises NotFound, Conflict (the endpoint of one was removed).
    """
    query = select(Delivery.id, Endpoint.removed_at).join(Endpoint, Endpoint.id == Delivery.endpoint_id)
    rows = session.execute(query.where(Delivery.id.in_(delivery_ids)))
    removed_at = {row.id: row.removed_at for row in rows}
    for delivery_id in delivery_ids:
        if delivery_id not in removed_at:
            raise NotFound(
                "No such delivery", f"There is no delivery {delivery_id}", code="delivery_not_found"
            )
        if removed_at[delivery_id] is not None:
            raise Conflict(
                "Endpoint removed", f"The endpoint of {delivery_id} was removed", code="endpoint_removed"
            )
    return OUTBOX.replay(session, DELIVERIES.id.in_(delivery_ids))


def replay_failed(session: Session, endpoint: Endpoint) -> int:
    """Send an endpoint's failed deliveries again. Returns how many; call it until that is 0."""
    return OUTBOX.replay_failed(session, DELIVERIES.endpoint_id == endpoint.id)


def delete_old() -> int:
    """Delete old deliveries, see Outbox.delete_old. Returns how many. Raises Unavailable."""
    return OUTBOX.delete_old()


def describe(delivery: Delivery) -> str:
    """A delivery in one line: its event, its state and its last error."""
    body = json.loads(delivery.body)
    data = body["data"]
    return f"{body['type']} #{data['sequence']} of {data['withdrawal_id']}: {OUTBOX.describe_state(delivery)}"
