"""Webhooks to apps: their endpoints, and a delivery for each change."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.models.base import NOW, Base, EventCursor, one_of

DELIVERY_STATES = ("waiting", "delivered", "failed")


class Endpoint(EventCursor, Base):
    """A URL of an app. Its secret is derived (`webhooks/signing.py`), not stored."""

    __tablename__ = "endpoints"
    __table_args__ = (
        CheckConstraint("length(url) BETWEEN 1 AND 2000", name="url_length"),
        CheckConstraint("url LIKE 'https://%' OR allow_private AND url LIKE 'http://%'", name="url_scheme"),
        CheckConstraint("generation > 0", name="generation_positive"),
        CheckConstraint(
            "(generation = 1) = (rotated_at IS NULL) AND (rotated_at IS NULL) = (rotated_by IS NULL)"
            " AND (rotated_at IS NULL) = (previous_until IS NULL)",
            name="rotated_by_someone",
        ),
        CheckConstraint("(removed_at IS NULL) = (removed_by IS NULL)", name="removed_by_someone"),
        CheckConstraint("(mark_to IS NULL) = (mark_xid IS NULL)", name="marked_as_a_whole"),
        Index("uq_one_endpoint_per_url", "url", unique=True, postgresql_where=text("removed_at IS NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    url: Mapped[str]
    allow_private: Mapped[bool]  # for development: http, and private addresses
    generation: Mapped[int] = mapped_column(server_default=text("1"))  # of its secret
    previous_until: Mapped[datetime | None]  # until then the previous secret also signs
    rotated_at: Mapped[datetime | None]
    rotated_by: Mapped[str | None]
    failing_since: Mapped[datetime | None]  # no delivery succeeded since
    # Not now(), which is the start of the transaction, before `followed_to` was read.
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    created_by: Mapped[str]
    removed_at: Mapped[datetime | None]
    removed_by: Mapped[str | None]


class Delivery(Base):
    """One change of a withdrawal for one endpoint. `id` is the `webhook-id`; the body never changes.

    No foreign key to the withdrawal or its event: each would briefly lock a row of the money path.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint(one_of("state", DELIVERY_STATES), name="state"),
        CheckConstraint("(state = 'waiting') = (due_at IS NOT NULL)", name="due_iff_waiting"),
        CheckConstraint(
            "(state = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_at_iff_delivered"
        ),
        CheckConstraint("leased_until IS NULL OR state = 'waiting'", name="leased_while_waiting"),
        CheckConstraint("tries >= 0", name="tries_not_negative"),
        UniqueConstraint("endpoint_id", "event_id"),
        Index("ix_deliveries_due", "endpoint_id", "due_at", postgresql_where=text("state = 'waiting'")),
        Index("ix_deliveries_leased", "endpoint_id", postgresql_where=text("leased_until IS NOT NULL")),
        Index("ix_deliveries_failed", "endpoint_id", postgresql_where=text("state = 'failed'")),
        Index("ix_deliveries_withdrawal", "withdrawal_id"),
        Index("ix_deliveries_created", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("endpoints.id"))
    event_id: Mapped[int]
    withdrawal_id: Mapped[UUID]
    body: Mapped[str]  # the exact text; each attempt signs and sends it unchanged
    state: Mapped[str] = mapped_column(server_default=text("'waiting'"))
    due_at: Mapped[datetime | None] = mapped_column(server_default=NOW)
    leased_until: Mapped[datetime | None]  # a worker is sending it
    tries: Mapped[int] = mapped_column(server_default=text("0"))  # attempts since `began_at`
    began_at: Mapped[datetime] = mapped_column(server_default=NOW)  # a replay restarts it
    last_http_status: Mapped[int | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    delivered_at: Mapped[datetime | None]
