"""API keys of apps, and requests with idempotency keys."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import NOW, Base


class AppKey(Base):
    """An app's API key, stored as a hash. Revoked keys stay: other records name their app."""

    __tablename__ = "app_keys"
    __table_args__ = (
        CheckConstraint("length(app) BETWEEN 1 AND 50", name="app_length"),
        CheckConstraint(
            "cardinality(scopes) > 0 AND scopes <@ ARRAY['withdraw', 'read', 'credit']", name="scopes"
        ),
        CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="revoked_by_someone"),
    )

    prefix: Mapped[str] = mapped_column(primary_key=True)  # the start of the key, by which people name it
    secret_sha256: Mapped[bytes] = mapped_column(unique=True)
    app: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]
    last_used_at: Mapped[datetime | None]  # to the minute


class IdempotentRequest(Base):
    """A request with an `Idempotency-Key`, and its response, which repeats of the request get again."""

    __tablename__ = "idempotent_requests"
    __table_args__ = (
        CheckConstraint("(http_status IS NULL) = (answer IS NULL)", name="answered_as_a_whole"),
        Index("ix_idempotent_requests_started", "started_at"),
    )

    actor: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str]
    fingerprint: Mapped[str]  # SHA-256 of operation and body
    started_at: Mapped[datetime] = mapped_column(server_default=NOW)
    http_status: Mapped[int | None]  # None while it runs
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # JSON, not JSONB: keeps the order of fields
