"""Wallets, the journal of coins, withdrawals and their events."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.models.base import NOW, Base, one_of
from shared.states import FINAL, OPEN, PaidVia, ReviewReason, Status

GIVEN_KEY = text("given_key(idempotency_key)")
NEWEST_FIRST = (text("created_at DESC"), text("id DESC"))


class Wallet(Base):
    """A user's wallet of coins."""

    __tablename__ = "wallets"
    __table_args__ = (
        CheckConstraint("length(user_id) BETWEEN 1 AND 500", name="user_id_length"),
        CheckConstraint("balance_coins >= 0", name="balance_not_negative"),
        CheckConstraint("lifetime_coins >= 0", name="lifetime_not_negative"),
    )

    user_id: Mapped[str] = mapped_column(primary_key=True)
    balance_coins: Mapped[int] = mapped_column(server_default=text("0"))
    lifetime_coins: Mapped[int] = mapped_column(server_default=text("0"))  # sum of all credits
    name: Mapped[str | None]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    is_frozen: Mapped[bool] = mapped_column(server_default=text("false"))  # the reason is in `blocks`
    # Withdrawals that were not refunded, for the limits: those of the day `used_on` (IST), and of its month.
    used_on: Mapped[date | None]
    day_withdrawals: Mapped[int] = mapped_column(server_default=text("0"))
    day_coins: Mapped[int] = mapped_column(server_default=text("0"))
    month_withdrawals: Mapped[int] = mapped_column(server_default=text("0"))
    month_coins: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Withdrawal(Base):
    """A user's request to turn coins into rupees. The row is the job: `due_at` says when to act on it."""

    __tablename__ = "withdrawals"
    __table_args__ = (
        CheckConstraint("coins_amount > 0", name="coins_positive"),
        CheckConstraint(
            "amount_paise BETWEEN 100 AND 10000000", name="amount_within_upi"
        ),  # provider reference §6
        CheckConstraint("length(upi_id) BETWEEN 5 AND 100", name="upi_id_length"),
        CheckConstraint(one_of("status", Status), name="status"),
        CheckConstraint(
            "(status = 'completed') = (completed_at IS NOT NULL)", name="completed_at_iff_completed"
        ),
        CheckConstraint(f"({one_of('status', OPEN)}) = (due_at IS NOT NULL)", name="due_iff_not_final"),
        CheckConstraint(
            f"NOT ({one_of('status', OPEN)}) OR status_reason IS NOT NULL", name="waits_for_a_reason"
        ),
        CheckConstraint(
            f"NOT ({one_of('status', OPEN)}) OR expected_by IS NOT NULL", name="waits_until_a_time"
        ),
        CheckConstraint("(status = 'failed') = (failure_reason IS NOT NULL)", name="failure_has_a_reason"),
        CheckConstraint(
            f"awaits_approval IS NULL OR ({one_of('awaits_approval', ReviewReason)})", name="awaits_approval"
        ),
        CheckConstraint(
            "awaits_approval IS NULL OR status NOT IN ('processing', 'completed')",
            name="approved_before_sent",
        ),
        # The target of the journal's foreign key: a line has its withdrawal's user and coins.
        UniqueConstraint("id", "user_id", "coins_amount"),
        Index("ix_withdrawals_due", "due_at", postgresql_where=text(one_of("status", OPEN))),
        # For the sweep: what was begun goes first, and each user's first few go before the rest.
        Index(
            "ix_withdrawals_begun",
            "due_at",
            postgresql_where=text("status = 'processing' OR status_reason = 'preparing'"),
        ),
        Index("ix_withdrawals_turn", "user_id", "due_at", postgresql_where=text(one_of("status", OPEN))),
        Index(
            "ix_withdrawals_awaiting",
            "created_at",
            postgresql_where=text("status = 'pending' AND awaits_approval IS NOT NULL"),
        ),
        Index("ix_withdrawals_history", "user_id", *NEWEST_FIRST),
        # The filters and orders of the panel's list (search.py): each uses an index.
        Index("ix_withdrawals_newest", *NEWEST_FIRST),
        Index("ix_withdrawals_status", "status", *NEWEST_FIRST),
        Index("ix_withdrawals_amount", "amount_paise", "id"),
        Index("ix_withdrawals_upi", text("lower(upi_id)"), *NEWEST_FIRST),
        Index(
            "ix_withdrawals_reason",
            "status_reason",
            *NEWEST_FIRST,
            postgresql_where=text("status_reason IS NOT NULL"),
        ),
        Index("ix_withdrawals_hold", "hold", *NEWEST_FIRST, postgresql_where=text("hold IS NOT NULL")),
        # One index for two questions: whether a user's key was used, and (trigger one_operation_per_key) by
        # which operation it was used first. Keys are random, so a second index would cost each change of a
        # withdrawal another page.
        Index(
            "uq_withdrawals_key",
            "user_id",
            GIVEN_KEY,
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        # A bank's reference belongs to one payment. Duplicates from before this rule are numbered in
        # utr_twin.
        Index(
            "uq_withdrawals_utr",
            text("upper(utr)"),
            "utr_twin",
            unique=True,
            postgresql_where=text("utr IS NOT NULL"),
        ),
        Index(
            "ix_withdrawals_paid_outside",
            "completed_at",
            postgresql_where=text(f"paid_via <> '{PaidVia.PROVIDER}'"),
        ),
        CheckConstraint(one_of("paid_via", PaidVia), name="paid_via"),
        CheckConstraint(f"paid_via = '{PaidVia.PROVIDER}' OR utr IS NOT NULL", name="outside_under_a_utr"),
        CheckConstraint(
            f"paid_via = '{PaidVia.PROVIDER}' OR completed_at IS NULL OR completed_at >= created_at",
            name="outside_after_the_request",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey("wallets.user_id"))
    coins_amount: Mapped[int]
    amount_paise: Mapped[int]
    upi_id: Mapped[str]
    status: Mapped[str]
    status_reason: Mapped[str | None]
    due_at: Mapped[datetime | None]
    expected_by: Mapped[datetime | None]
    trying_since: Mapped[datetime | None]  # since when its reason has been one of states.TRYING
    admin_notes: Mapped[str | None]
    failure_reason: Mapped[str | None]
    utr: Mapped[str | None]
    # Above 0: a duplicate from before UTRs were unique.
    utr_twin: Mapped[int] = mapped_column(server_default=text("0"))
    # A PaidVia; final once the withdrawal is paid.
    paid_via: Mapped[str] = mapped_column(server_default=text(f"'{PaidVia.PROVIDER}'"))
    idempotency_key: Mapped[str | None]
    request_fingerprint: Mapped[str | None]
    hold: Mapped[str | None]  # why an operator must look at it (transitions.hold)
    awaits_approval: Mapped[str | None]  # why it needs approval before it is sent: a ReviewReason (review.py)
    # When the provider first refused this request with an error that also wrong settings cause.
    refused_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]  # it is not sent before this time, even if it is due
    counted_on: Mapped[date | None]  # the day (IST) on which it counts for the limits
    version: Mapped[int] = mapped_column(server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)
    completed_at: Mapped[datetime | None]  # when the rupees arrived, by the provider or an operator

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012  SQLAlchemy's own form


class CoinTransaction(Base):
    """A line of the journal of coins. Append-only: enforced by a trigger."""

    __tablename__ = "coin_transactions"
    __table_args__ = (
        CheckConstraint(one_of("kind", ("credit", "withdrawal", "refund", "adjustment")), name="kind"),
        CheckConstraint("coins <> 0", name="coins_not_zero"),
        CheckConstraint("balance_after >= 0", name="balance_not_negative"),
        CheckConstraint("(kind IN ('credit', 'refund')) <= (coins > 0)", name="credits_add"),
        CheckConstraint("(kind = 'withdrawal') <= (coins < 0)", name="withdrawals_take"),
        CheckConstraint(
            "(kind IN ('withdrawal', 'refund')) = (withdrawal_id IS NOT NULL)", name="names_its_withdrawal"
        ),
        CheckConstraint("kind <> 'credit' OR reference IS NOT NULL", name="credit_has_a_reference"),
        ForeignKeyConstraint(
            ["withdrawal_id", "user_id", "withdrawal_coins"],
            ["withdrawals.id", "withdrawals.user_id", "withdrawals.coins_amount"],
            name="fk_coin_transactions_same_withdrawal",
        ),
        Index(
            "uq_one_debit_per_withdrawal",
            "withdrawal_id",
            unique=True,
            postgresql_where=text("kind = 'withdrawal'"),
        ),
        Index(
            "uq_one_refund_per_withdrawal",
            "withdrawal_id",
            unique=True,
            postgresql_where=text("kind = 'refund'"),
        ),
        Index(
            "uq_one_credit_per_reference",
            "user_id",
            "reference",
            unique=True,
            postgresql_where=text("kind = 'credit'"),
        ),
        Index(
            "uq_one_line_per_adjustment",
            "reference",
            unique=True,
            postgresql_where=text("kind = 'adjustment'"),
        ),
        Index("ix_coin_transactions_user", "user_id", text("id DESC")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("wallets.user_id"))
    kind: Mapped[str]
    coins: Mapped[int]
    balance_after: Mapped[int]
    withdrawal_id: Mapped[UUID | None]
    withdrawal_coins: Mapped[int] = mapped_column(Computed("abs(coins)", persisted=True))
    reference: Mapped[str | None]
    reason: Mapped[str | None]
    actor: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class WithdrawalEvent(Base):
    """An event of a withdrawal. Append-only: enforced by a trigger."""

    __tablename__ = "withdrawal_events"
    __table_args__ = (
        Index("ix_withdrawal_events_story", "withdrawal_id", "id"),
        Index("ix_withdrawal_events_created", "created_at", postgresql_using="brin"),
        # The totals are counted from the first (monitoring/totals/); the second makes a day be counted again.
        Index(
            "ix_withdrawal_events_ends",
            "created_at",
            postgresql_where=text(f"from_status <> to_status AND {one_of('to_status', FINAL)}"),
        ),
        Index("ix_withdrawal_events_after", "created_at", postgresql_where=text("from_status = 'completed'")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    withdrawal_id: Mapped[UUID] = mapped_column(ForeignKey("withdrawals.id"))
    from_status: Mapped[str | None]
    to_status: Mapped[str]
    actor: Mapped[str]
    reason: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
