"""Our side of RazorpayX: attempts, payees, and the webhooks that came."""

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
    """One try at the provider. `id` is the idempotency key and the `reference_id`; the body never changes."""

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
    in_doubt: Mapped[bool] = mapped_column(server_default=text("false"))  # some send of it has no known end
    sends: Mapped[int] = mapped_column(server_default=text("1"))  # calls begun, counted before each
    checks: Mapped[int] = mapped_column(server_default=text("0"))  # polls and look-ups begun
    absent_since: Mapped[datetime | None]  # every look-up since then was answered, with "none"
    absent_looks: Mapped[int] = mapped_column(server_default=text("0"))  # how many those were
    sent_as: Mapped[str]  # Settings.razorpayx_identity: who asked, and whom
    waits: Mapped[int] = mapped_column(server_default=text("0"))  # times the provider asked for patience
    payout_id: Mapped[str | None]
    provider_status: Mapped[str | None]
    status_details: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    utr: Mapped[str | None]
    fees_paise: Mapped[int | None]
    tax_paise: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_sent_at: Mapped[datetime] = mapped_column(server_default=NOW)
    unconfirmed: Mapped[bool] = mapped_column(server_default=text("false"))  # paid, by a webhook's word alone
    recheck_at: Mapped[datetime | None]  # paid, and looked at once more then: banks send money back
    answered_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Hint(Base):
    """What webhooks said of an attempt, and a call of ours has yet to tell. One row for an attempt."""

    __tablename__ = "hints"
    __table_args__ = (
        CheckConstraint("came > 0 AND asked >= 0", name="counted"),
        CheckConstraint("asked = 0 OR asked_at IS NOT NULL", name="asked_at_a_time"),
        Index("ix_hints_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("ix_hints_withdrawal", "withdrawal_id"),
    )

    attempt_id: Mapped[UUID] = mapped_column(ForeignKey("payout_attempts.id"), primary_key=True)
    withdrawal_id: Mapped[UUID] = mapped_column(ForeignKey("withdrawals.id"))
    said: Mapped[str]  # the status that the last one named
    by_reference: Mapped[bool]  # it named a payout that is not the one we know: ask for all of this reference
    came: Mapped[int] = mapped_column(server_default=text("1"))
    last_at: Mapped[datetime] = mapped_column(server_default=NOW)
    asked: Mapped[int] = mapped_column(server_default=text("0"))  # questions since one that brought news
    asked_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]  # when to ask, or when the lease of who asks ends; None: nothing to ask


class Destination(Base):
    """Where a user's UPI id is known at the provider. It decides who is paid: it never changes, it ends."""

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
    known_to: Mapped[str]  # Settings.razorpayx_identity; for another one the payee is made known anew
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    ended_at: Mapped[datetime | None]  # the provider refused to pay there: the payee is made known anew


class WebhookEvent(Base):
    """One event that the provider sent, kept as it came."""

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
    occurred_at: Mapped[datetime | None]  # when it happened, by the provider's clock
    received_at: Mapped[datetime] = mapped_column(server_default=NOW)
    due_at: Mapped[datetime] = mapped_column(server_default=NOW)
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    applied_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    withdrawal_id: Mapped[UUID | None] = mapped_column(ForeignKey("withdrawals.id"))
    reference_id: Mapped[str | None]  # whose it says it is, kept while it is unmatched
