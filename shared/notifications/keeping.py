"""Deliveries as people see them: listed, told again, and after a while forgotten."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from shared.clock import iso
from shared.db import locked_once, one_statement, told_plainly
from shared.errors import Conflict, NotFound
from shared.models import Delivery, Endpoint

DELIVERED_KEPT_DAYS, FAILED_KEPT_DAYS = 7, 90
FORGET_AT_ONCE = 10_000
UNSEEN_SECONDS = 60

ANEW = {
    "state": "waiting",
    "due_at": func.now(),
    "began_at": func.now(),
    "leased_until": None,
    "delivered_at": None,
    "tries": 0,
}
# A delivery is what says that a change was told: none is forgotten that the follower may still look for.
FORGET = text("""
    WITH old AS MATERIALIZED (
        SELECT d.id FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id
        WHERE (e.removed_at IS NOT NULL OR d.event_id <= e.followed_to)
          AND (d.state = 'delivered' AND d.created_at < now() - make_interval(days => :delivered_days)
               AND d.delivered_at < now() - make_interval(days => :delivered_days)
            OR d.state = 'failed' AND d.created_at < now() - make_interval(days => :failed_days)
               AND d.began_at < now() - make_interval(days => :failed_days))
        LIMIT :most)
    DELETE FROM deliveries WHERE id IN (SELECT id FROM old)
""")

STANDING = text("""
    SELECT e.id, e.url, e.failing_since, waiting.number AS waiting, waiting.oldest, failed.number AS failed,
           (SELECT d.last_error FROM deliveries d WHERE d.endpoint_id = e.id AND d.state = 'waiting'
            AND d.last_error IS NOT NULL ORDER BY d.due_at DESC LIMIT 1) AS last_error,
           EXISTS (SELECT FROM withdrawal_events v WHERE v.id > e.followed_to
                   AND v.created_at < now() - make_interval(secs => :unseen)) AS is_behind
    FROM endpoints e,
         LATERAL (SELECT count(*) AS number, min(created_at) AS oldest FROM deliveries d
                  WHERE d.endpoint_id = e.id AND d.state = 'waiting') AS waiting,
         LATERAL (SELECT count(*) AS number FROM deliveries d
                  WHERE d.endpoint_id = e.id AND d.state = 'failed') AS failed
    WHERE e.removed_at IS NULL ORDER BY e.created_at
""")


@dataclass(frozen=True, slots=True)
class Standing:
    """How an endpoint stands: what waits for it, what was given up, whether changes are looked at."""

    id: UUID
    url: str
    failing_since: datetime | None
    waiting: int
    oldest: datetime | None  # of those that wait
    failed: int
    last_error: str | None
    is_behind: bool  # no notifier has looked at changes of UNSEEN_SECONDS ago


def standings(session: Session) -> list[Standing]:
    """How each endpoint stands, the oldest first."""
    return [Standing(*row) for row in session.execute(STANDING, {"unseen": UNSEEN_SECONDS})]


def deliveries(
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
    """Tell these again, whatever became of them, under their old ids; all or none. How many.

    Raises NotFound, Conflict when an endpoint of them was removed.
    """
    query = select(Delivery.id, Endpoint.removed_at).join(Endpoint, Endpoint.id == Delivery.endpoint_id)
    found = {row.id: row.removed_at for row in session.execute(query.where(Delivery.id.in_(delivery_ids)))}
    for delivery_id in delivery_ids:
        if delivery_id not in found:
            raise NotFound(
                "No such delivery", f"There is no delivery {delivery_id}", code="delivery_not_found"
            )
        if found[delivery_id] is not None:
            raise Conflict(
                "Endpoint removed", f"The endpoint of {delivery_id} was removed", code="endpoint_removed"
            )
    session.execute(update(Delivery).where(Delivery.id.in_(delivery_ids)).values(ANEW))
    return len(found)


def replay_failed(session: Session, endpoint: Endpoint) -> int:
    """Tell an endpoint all that was given up; how many. Call it until that is 0."""
    failed = select(Delivery.id).where(Delivery.endpoint_id == endpoint.id, Delivery.state == "failed")
    chosen = failed.limit(FORGET_AT_ONCE).with_for_update()
    anew = update(Delivery).where(Delivery.id.in_(locked_once(chosen))).values(ANEW).returning(Delivery.id)
    return len(session.execute(anew).all())


def forget_old() -> int:
    """Forget what was delivered a week ago and what failed three months ago; how many. Raises Unavailable."""
    with told_plainly(), one_statement() as connection:
        values = {
            "delivered_days": DELIVERED_KEPT_DAYS,
            "failed_days": FAILED_KEPT_DAYS,
            "most": FORGET_AT_ONCE,
        }
        return connection.execute(FORGET, values).rowcount


def words(delivery: Delivery) -> str:
    """A delivery in one line: of what, how it stands, and why."""
    told = json.loads(delivery.body)
    state = {
        "waiting": f"waiting, due {iso(delivery.due_at)}",
        "delivered": f"delivered {iso(delivery.delivered_at)}",
        "failed": "failed",
    }[delivery.state]
    why = f" ({delivery.last_error})" if delivery.last_error else ""
    data = told["data"]
    return (
        f"{told['type']} #{data['sequence']} of {data['withdrawal_id']}: {state}, {delivery.tries} tries{why}"
    )
