"""Decisions of operators: reviews, blocks and their removal, and adjustments of coins."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import NOW, Base, Proposal, is_another, one_of
from shared.states import ReviewReason

BLOCKED_KINDS = ("upi_id", "wallet")
ADJUSTMENT_KINDS = ("adjustment", "credit")


class Review(Base):
    """An operator's decision on a withdrawal that awaited approval. Append-only: enforced by a trigger."""

    __tablename__ = "reviews"
    __table_args__ = (
        CheckConstraint("outcome IN ('approved', 'rejected')", name="outcome"),
        CheckConstraint(one_of("why", ReviewReason), name="why"),
        CheckConstraint("length(reason) > 0", name="has_a_reason"),
        CheckConstraint(
            f"outcome <> 'approved' OR {is_another('decided_by', 'requested_by')}", name="not_their_own"
        ),
        Index("ix_reviews_withdrawal", "withdrawal_id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    withdrawal_id: Mapped[UUID] = mapped_column(ForeignKey("withdrawals.id"))
    why: Mapped[str]  # why it needed approval: a ReviewReason
    facts: Mapped[str]  # hash of the facts that were decided on (review.py)
    coins_amount: Mapped[int]
    upi_id: Mapped[str]
    requested_by: Mapped[str]
    outcome: Mapped[str]
    reason: Mapped[str]
    decided_by: Mapped[str]
    decided_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Block(Base):
    """A payee or user who is not paid: a UPI id, a whole handle (`@handle`), or a frozen wallet."""

    __tablename__ = "blocks"
    __table_args__ = (
        CheckConstraint(one_of("kind", BLOCKED_KINDS), name="kind"),
        CheckConstraint("kind <> 'upi_id' OR subject = lower(subject)", name="upi_ids_in_lower_case"),
        CheckConstraint("length(reason) > 0", name="has_a_reason"),
        CheckConstraint(
            "(removed_at IS NULL) = (removed_by IS NULL)"
            " AND (removed_at IS NULL) = (removed_because IS NULL)",
            name="removed_by_someone",
        ),
        Index(
            "uq_one_block_per_subject",
            "kind",
            "subject",
            unique=True,
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    kind: Mapped[str]
    subject: Mapped[str]
    reason: Mapped[str]
    added_by: Mapped[str]
    added_at: Mapped[datetime] = mapped_column(server_default=NOW)
    removed_by: Mapped[str | None]
    removed_at: Mapped[datetime | None]
    removed_because: Mapped[str | None]


class BlockRemoval(Proposal, Base):
    """A proposal to lift a block or a freeze. `Block` records when it was lifted."""

    __tablename__ = "block_removals"
    __table_args__ = (
        CheckConstraint("length(reason) > 0", name="has_a_reason"),
        CheckConstraint("outcome IN ('approved', 'rejected')", name="outcome"),
        CheckConstraint(
            "(decided_at IS NULL) = (outcome IS NULL) AND (decided_at IS NULL) = (decided_by IS NULL)",
            name="decided_by_someone",
        ),
        CheckConstraint(
            f"decided_by IS NULL OR outcome <> 'approved' OR {is_another('decided_by', 'proposed_by')}",
            name="two_people",
        ),
        Index("uq_one_open_removal", "block_id", unique=True, postgresql_where=text("decided_at IS NULL")),
    )

    block_id: Mapped[int] = mapped_column(ForeignKey("blocks.id"))
    reason: Mapped[str]


class Adjustment(Proposal, Base):
    """Coins that operators credit or debit; above a limit, a second operator must approve."""

    __tablename__ = "adjustments"
    __table_args__ = (
        CheckConstraint(one_of("kind", ADJUSTMENT_KINDS), name="kind"),
        CheckConstraint("coins <> 0 AND (kind <> 'credit' OR coins > 0)", name="coins"),
        CheckConstraint("(kind = 'credit') = (reference IS NOT NULL)", name="credits_have_a_reference"),
        CheckConstraint("length(reason) > 0", name="has_a_reason"),
        CheckConstraint("outcome IN ('approved', 'rejected')", name="outcome"),
        CheckConstraint(
            "(decided_at IS NULL) = (outcome IS NULL) AND (decided_at IS NULL) = (decided_by IS NULL)",
            name="decided_by_someone",
        ),
        CheckConstraint(
            "NOT needs_two OR decided_by IS NULL OR outcome <> 'approved'"
            f" OR {is_another('decided_by', 'proposed_by')}",
            name="two_people",
        ),
        # An adjustment that corrects a withdrawal is written when two people have decided it
        # (corrections.py).
        CheckConstraint(
            "(withdrawal_id IS NULL) = (resolution_id IS NULL) AND (withdrawal_id IS NULL"
            " OR (kind = 'adjustment' AND needs_two AND outcome = 'approved' AND outcome IS NOT NULL))",
            name="corrections_are_decided",
        ),
        Index(
            "ix_adjustments_corrections",
            "withdrawal_id",
            postgresql_where=text("withdrawal_id IS NOT NULL"),
        ),
        Index(
            "uq_one_adjustment_per_resolution",
            "resolution_id",
            unique=True,
            postgresql_where=text("resolution_id IS NOT NULL"),
        ),
        Index("ix_adjustments_open", "proposed_at", postgresql_where=text("decided_at IS NULL")),
        Index("ix_adjustments_of_person", "proposed_by", "decided_at"),
        Index("ix_adjustments_as_reference", text("(id::text)")),  # the journal's reference
    )

    kind: Mapped[str]
    user_id: Mapped[str]  # no foreign key: a credit creates the wallet if it does not exist
    coins: Mapped[int]
    reference: Mapped[str | None]
    reason: Mapped[str]
    needs_two: Mapped[bool]  # by the limit at the time of the proposal
    withdrawal_id: Mapped[UUID | None] = mapped_column(ForeignKey("withdrawals.id"))  # which it corrects
    resolution_id: Mapped[UUID | None] = mapped_column(ForeignKey("resolutions.id"))  # which decided it
