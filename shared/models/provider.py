"""Our records about the provider: attempts, webhook hints, payees, and received webhooks."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.models.base import NOW, Base, one_of
from shared.states import LIVE, AttemptState


class PayoutAttempt(Base):
    """An attempt at the provider. `id` is its idempotency key and `reference_id`; the body never changes."""

    __tablename__ = "payout_attempts"
    __table_args__ = (
        CheckConstraint(one_of("state", AttemptState), name="state"),
        CheckConstraint("number > 0", name="number_positive"),
        CheckConstraint("sends >= 1", name="sent_or_about_to_be"),
        CheckConstraint(
            "(state IN ('accepted', 'paid', 'failed', 'reversed')) <= (payout_id IS NOT NULL)", name="known"
        ),
        CheckConstraint(f"({one_of('state', LIVE)}) = (ended_at IS NULL)", name="ended_iff_not_live"),
        UniqueConstraint("withdrawal_id", "number"),
        UniqueConstraint("payout_id"),
        CheckConstraint("recheck_at IS NULL OR state = 'paid'", name="recheck_what_is_paid"),
        CheckConstraint("NOT unconfirmed OR state = 'paid'", name="unconfirmed_while_paid"),
        Index("ix_payout_attempts_utr", "utr", postgresql_where=text("utr IS NOT NULL")),
        Index("ix_payout_attempts_created", "created_at"),
        Index("ix_payout_attempts_recheck", "recheck_at", postgresql_where=text("recheck_at IS NOT NULL")),
        Index(
            "uq_one_live_attempt_per_withdrawal",
            "withdrawal_id",
            unique=True,
            postgresql_where=text(one_of("state", LIVE)),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    withdrawal_id: Mapped[UUID] = mapped_column(ForeignKey("withdrawals.id"))
    number: Mapped[int]
    request_body: Mapped[bytes]  # the exact bytes, sent again unchanged
    state: Mapped[str]
    in_doubt: Mapped[bool] = mapped_column(server_default=text("false"))  # the result of some send is unknown
    sends: Mapped[int] = mapped_column(server_default=text("1"))  # counted before each call
    queries: Mapped[int] = mapped_column(server_default=text("0"))  # polls and look-ups, counted before each
    absent_since: Mapped[datetime | None]  # since then every look-up was answered, with "none"
    absent_replies: Mapped[int] = mapped_column(server_default=text("0"))  # the number of those look-ups
    sent_as: Mapped[str]  # Provider.identity(): our account, and the provider's address
    throttles: Mapped[int] = mapped_column(server_default=text("0"))  # how often the provider throttled it
    payout_id: Mapped[str | None]
    provider_status: Mapped[str | None]
    status_details: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    utr: Mapped[str | None]
    fees_paise: Mapped[int | None]
    tax_paise: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_sent_at: Mapped[datetime] = mapped_column(server_default=NOW)
    payout_created_at: Mapped[datetime | None]  # by the provider's clock
    unconfirmed: Mapped[bool] = mapped_column(server_default=text("false"))  # only a webhook says it is paid
    recheck_at: Mapped[datetime | None]  # when to query a paid payout again: banks return money
    answered_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Hint(Base):
    """What webhooks reported about an attempt and no query of ours has confirmed. One row per attempt."""

    __tablename__ = "hints"
    __table_args__ = (
        CheckConstraint("came > 0 AND asked >= 0", name="counted"),
        CheckConstraint("asked = 0 OR asked_at IS NOT NULL", name="asked_at_a_time"),
        Index("ix_hints_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("ix_hints_withdrawal", "withdrawal_id"),
    )

    attempt_id: Mapped[UUID] = mapped_column(ForeignKey("payout_attempts.id"), primary_key=True)
    withdrawal_id: Mapped[UUID] = mapped_column(ForeignKey("withdrawals.id"))
    said: Mapped[str]  # the status in the last webhook
    by_reference: Mapped[bool]  # it named a payout that we do not know: query all payouts of this reference
    came: Mapped[int] = mapped_column(server_default=text("1"))  # number of webhooks
    last_at: Mapped[datetime] = mapped_column(server_default=NOW)
    asked: Mapped[int] = mapped_column(server_default=text("0"))  # queries since the last one with news
    asked_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]  # when to query, or when the current query's lease ends; None: no query


class Destination(Base):
    """A user's UPI id as a payee at the provider. It decides who is paid: it never changes, it only ends."""

    __tablename__ = "destinations"
    __table_args__ = (
        Index(
            "uq_one_live_destination",
            "user_id",
            "upi_id",
            "known_to",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey("wallets.user_id"))
    upi_id: Mapped[str]
    contact_id: Mapped[str]
    fund_account_id: Mapped[str]
    known_to: Mapped[str]  # Provider.identity(); another identity needs its own row
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    ended_at: Mapped[datetime | None]  # when the provider refused to pay there: the payee is created again


class WebhookEvent(Base):
    """A webhook of the provider, stored as received."""

    __tablename__ = "webhook_events"
    __table_args__ = (
        CheckConstraint("(outcome IS NULL) = (applied_at IS NULL)", name="applied_with_an_outcome"),
        Index("ix_webhook_events_waiting", "due_at", postgresql_where=text("applied_at IS NULL")),
        Index("ix_webhook_events_withdrawal", "withdrawal_id"),
        Index("ix_webhook_events_received", "received_at"),
        Index("ix_webhook_events_unmatched", "reference_id", postgresql_where=text("outcome = 'unmatched'")),
    )

    event_id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[bytes]
    occurred_at: Mapped[datetime | None]  # by the provider's clock
    received_at: Mapped[datetime] = mapped_column(server_default=NOW)
    due_at: Mapped[datetime] = mapped_column(server_default=NOW)
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    applied_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    withdrawal_id: Mapped[UUID | None] = mapped_column(ForeignKey("withdrawals.id"))
    reference_id: Mapped[str | None]  # the reference in its body, kept while no withdrawal matches
