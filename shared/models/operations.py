"""Operations: circuit breakers, the rate limit, the provider's balance, exception records, resolutions."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Double, ForeignKey, Identity, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import NOW, Base, Proposal, is_another, one_of
from shared.states import Decision, PaidVia


class CircuitBreaker(Base):
    """A named circuit breaker: on lets payouts through. Operators and `circuit_breakers.py` change it."""

    __tablename__ = "switches"
    __table_args__ = (CheckConstraint("NOT is_on OR probe_at IS NULL", name="probes_only_while_off"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    is_on: Mapped[bool]
    reason: Mapped[str]
    actor: Mapped[str]
    changed_at: Mapped[datetime] = mapped_column(server_default=NOW)
    strikes: Mapped[int] = mapped_column(server_default=text("0"))  # consecutive failures
    trips: Mapped[int] = mapped_column(server_default=text("0"))  # consecutive failed probes
    probe_at: Mapped[datetime | None]  # if the system turned it off: when a probe may be sent
    probe_id: Mapped[UUID | None]  # the withdrawal that is the probe


class RateLimit(Base):
    """The rate limit of calls to the provider: one row for all workers."""

    __tablename__ = "pace"

    name: Mapped[str] = mapped_column(primary_key=True)
    next_at: Mapped[datetime] = mapped_column(server_default=NOW)  # when the next call may start
    calls: Mapped[int] = mapped_column(server_default=text("0"))  # slots given out
    sampled_at: Mapped[datetime] = mapped_column(server_default=NOW)
    sampled_calls: Mapped[int] = mapped_column(server_default=text("0"))
    per_second: Mapped[float] = mapped_column(Double, server_default=text("0"))  # until `sampled_at`


class ProviderBalance(Base):
    """The balance of our account as the provider last reported it, in paise."""

    __tablename__ = "provider_balances"

    account_number: Mapped[str] = mapped_column(primary_key=True)
    available_paise: Mapped[int]
    seen_at: Mapped[datetime] = mapped_column(server_default=NOW)


class SpotCheck(Base):
    """The last result of one check on recently changed rows (`spot_checks.py`)."""

    __tablename__ = "spot_checks"

    truth: Mapped[str] = mapped_column(primary_key=True)
    promise: Mapped[int]
    faults: Mapped[int]
    asked_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ExceptionRecord(Base):
    """A discrepancy for an operator, with both sides. At most one open record per kind and subject."""

    __tablename__ = "exception_records"
    __table_args__ = (
        CheckConstraint(
            "(resolved_at IS NULL) = (resolution IS NULL AND resolved_by IS NULL)", name="resolved_by_someone"
        ),
        CheckConstraint("(owner IS NULL) = (owned_at IS NULL)", name="owned_since"),
        Index(
            "uq_one_open_exception",
            "kind",
            "subject",
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
        Index("ix_exception_records_withdrawal", "withdrawal_id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    kind: Mapped[str]
    subject: Mapped[str]  # the id of a withdrawal, payout or transaction, or a handle
    source: Mapped[str]  # what found it: a channel (reply, webhook, poll, lookup), reconciliation, watch
    withdrawal_id: Mapped[UUID | None] = mapped_column(ForeignKey("withdrawals.id"))
    ours: Mapped[dict[str, Any]] = mapped_column(JSONB)
    theirs: Mapped[dict[str, Any]] = mapped_column(JSONB)
    opened_at: Mapped[datetime] = mapped_column(server_default=NOW)
    seen_at: Mapped[datetime] = mapped_column(server_default=NOW)  # when it was last found again
    owner: Mapped[str | None]
    owned_at: Mapped[datetime | None]
    resolution: Mapped[str | None]
    resolved_by: Mapped[str | None]
    resolved_at: Mapped[datetime | None]


class Resolution(Proposal, Base):
    """A decision about a withdrawal, proposed with evidence and approved by a second operator."""

    __tablename__ = "resolutions"
    __table_args__ = (
        CheckConstraint(one_of("decision", Decision), name="decision"),
        CheckConstraint("length(evidence) > 0", name="has_evidence"),
        CheckConstraint(one_of("paid_via", PaidVia), name="paid_via"),
        CheckConstraint(
            "(paid_via IS NULL) = (paid_at IS NULL) AND (paid_via IS NULL OR decision = 'paid')",
            name="tells_of_a_payment",
        ),
        CheckConstraint("paid_at <= proposed_at", name="paid_before_it_is_told"),
        CheckConstraint(
            f"decided_by IS NULL OR outcome <> 'approved' OR {is_another('decided_by', 'proposed_by')}",
            name="two_people",
        ),
        CheckConstraint("outcome IN ('approved', 'rejected')", name="outcome"),
        CheckConstraint(
            "(decided_at IS NULL) = (outcome IS NULL) AND (decided_at IS NULL) = (decided_by IS NULL)",
            name="decided_by_someone",
        ),
        Index("ix_resolutions_withdrawal", "withdrawal_id"),
        Index(
            "ix_resolutions_corrections",
            "withdrawal_id",
            postgresql_where=text("decision IN ('give_back', 'take_back')"),
        ),
        Index(
            "uq_one_open_resolution",
            "withdrawal_id",
            unique=True,
            postgresql_where=text("decided_at IS NULL"),
        ),
    )

    withdrawal_id: Mapped[UUID] = mapped_column(ForeignKey("withdrawals.id"))
    decision: Mapped[str]
    evidence: Mapped[str]
    utr: Mapped[str | None]
    paid_via: Mapped[str | None]  # a PaidVia, stated by the operator
    paid_at: Mapped[datetime | None]  # when the rupees arrived, stated by the operator
    fingerprint: Mapped[str]  # of the facts that were decided on; approving other facts is refused
