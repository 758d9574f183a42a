"""What people rule: which withdrawals may be paid, who is not paid, and coins that they give or take."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.models.base import NOW, Base, is_another, one_of
from shared.states import Awaits

BLOCKED_KINDS, ADJUSTMENT_KINDS = ("upi_id", "wallet"), ("adjustment", "credit")


class Review(Base):
    """One person's word on a withdrawal that awaited it. Append-only: a trigger refuses any other change."""

    __tablename__ = "reviews"
    __table_args__ = (
        CheckConstraint("outcome IN ('approved', 'rejected')", name="outcome"),
        CheckConstraint(one_of("why", Awaits), name="why"),
        CheckConstraint("length(reason) > 0", name="has_a_reason"),
        CheckConstraint(
            f"outcome <> 'approved' OR {is_another('decided_by', 'requested_by')}", name="not_their_own"
        ),
        Index("ix_reviews_withdrawal", "withdrawal_id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    withdrawal_id: Mapped[UUID] = mapped_column(ForeignKey("withdrawals.id"))
    why: Mapped[str]  # what it awaited approval for
    facts: Mapped[str]  # hash of what was decided on (reviewing.py)
    coins_amount: Mapped[int]
    upi_id: Mapped[str]
    requested_by: Mapped[str]
    outcome: Mapped[str]
    reason: Mapped[str]
    decided_by: Mapped[str]
    decided_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Block(Base):
    """Who is not paid: a UPI id, a whole handle (`@handle`), or the user of a frozen wallet."""

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


class BlockRemoval(Base):
    """The end of a block or a freeze: one proposes it and another approves. The block has its time."""

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

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    block_id: Mapped[int] = mapped_column(ForeignKey("blocks.id"))
    reason: Mapped[str]
    proposed_by: Mapped[str]
    proposed_at: Mapped[datetime] = mapped_column(server_default=NOW)
    decided_by: Mapped[str | None]
    decided_at: Mapped[datetime | None]
    outcome: Mapped[str | None]


class Adjustment(Base):
    """Coins that people give or take: alone up to a limit, above it one proposes and another approves."""

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
        # One that corrects a withdrawal: two people decided that, and it is done (correcting.py).
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
        Index("ix_adjustments_as_reference", text("(id::text)")),  # as the journal names it
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str]
    user_id: Mapped[str]  # a credit makes the wallet if there is none: no foreign key
    coins: Mapped[int]
    reference: Mapped[str | None]
    reason: Mapped[str]
    needs_two: Mapped[bool]  # as the limit was when it was proposed
    proposed_by: Mapped[str]
    proposed_at: Mapped[datetime] = mapped_column(server_default=NOW)
    decided_by: Mapped[str | None]
    decided_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    withdrawal_id: Mapped[UUID | None] = mapped_column(ForeignKey("withdrawals.id"))  # that it corrects
    resolution_id: Mapped[UUID | None] = mapped_column(ForeignKey("resolutions.id"))  # who decided that
