"""Evidence, seals over it and over the journal and events, and certificates: all append-only."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import NOW, Base, one_of

SOURCES = ("audit", "events", "evidence", "journal", "reviews")


class Evidence(Base):
    """One version of a row that may change (`evidence.py`), written by a trigger of its table."""

    __tablename__ = "evidence"
    __table_args__ = (Index("ix_evidence_versions", "of_table", "of_key", "id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    of_table: Mapped[str]
    of_key: Mapped[str]
    was: Mapped[dict[str, Any] | None] = mapped_column(JSONB)  # before this change; NULL if the row was new
    content: Mapped[dict[str, Any]] = mapped_column(JSONB)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class SealBlock(Base):
    """A block of sealed rows. Its hash covers all other columns, including the previous block's hash."""

    __tablename__ = "seal_blocks"
    __table_args__ = (
        CheckConstraint("number > 0 AND leaf_count > 0", name="not_empty"),
        CheckConstraint(
            "length(merkle_root) = 32 AND length(previous_hash) = 32 AND length(block_hash) = 32",
            name="hashes_are_whole",
        ),
        UniqueConstraint("previous_hash"),  # a chain has no branches
    )

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]  # defines which columns are sealed, and their format (proofs.COLUMNS)
    leaf_count: Mapped[int]
    merkle_root: Mapped[bytes]
    previous_hash: Mapped[bytes]
    block_hash: Mapped[bytes]
    journal_to: Mapped[int]  # all rows up to this id that were visible then are sealed here or before
    events_to: Mapped[int]
    # The same for each other source, by its name. NULL in blocks of version 1, which had no others.
    others_to: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    sealed_at: Mapped[datetime]


class SealLeaf(Base):
    """The position of a row in a block. `row_id` has no foreign key: it must outlive a deleted row."""

    __tablename__ = "seal_leaves"
    __table_args__ = (
        CheckConstraint(one_of("source", SOURCES), name="source"),
        UniqueConstraint("block", "position"),
    )

    source: Mapped[str] = mapped_column(primary_key=True)
    row_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    block: Mapped[int] = mapped_column(ForeignKey("seal_blocks.number"))
    position: Mapped[int]
    withdrawal_id: Mapped[UUID | None]  # the row's withdrawal, even if the row is deleted
    salt: Mapped[bytes]  # hashed with the row, so that its hash in another row's proof reveals nothing
    leaf_hash: Mapped[bytes]


class DayCertificate(Base):
    """A day's totals, signed. `body` is the exact text that was signed."""

    __tablename__ = "day_certificates"
    __table_args__ = (UniqueConstraint("day"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    day: Mapped[date]
    block: Mapped[int] = mapped_column(ForeignKey("seal_blocks.number"))  # the head of the chain at that time
    body: Mapped[str]
    certificate_hash: Mapped[bytes]
    signature: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
