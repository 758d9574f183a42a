"""Versions of what people decided, seals over them and the books, and certificates: all append-only."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import NOW, Base, one_of

SOURCES = ("audit", "events", "evidence", "journal", "reviews")


class Evidence(Base):
    """One version of a row that may change lawfully (`evidence.py`). A trigger of its table writes it."""

    __tablename__ = "evidence"
    __table_args__ = (Index("ix_evidence_versions", "of_table", "of_key", "id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    of_table: Mapped[str]
    of_key: Mapped[str]
    was: Mapped[dict[str, Any] | None] = mapped_column(JSONB)  # before this change; NULL: it was new
    content: Mapped[dict[str, Any]] = mapped_column(JSONB)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class SealBlock(Base):
    """One block of sealed rows. Its hash covers every other column, the hash of the block before included."""

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
    version: Mapped[int]  # which columns of a row are sealed, and how they are written (proofs.COLUMNS)
    leaf_count: Mapped[int]
    merkle_root: Mapped[bytes]
    previous_hash: Mapped[bytes]
    block_hash: Mapped[bytes]
    journal_to: Mapped[int]  # what could be seen up to this id then is sealed here or before
    events_to: Mapped[int]
    # The same for each other source, by its word. NULL in a block of version 1, which knew no others.
    others_to: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    sealed_at: Mapped[datetime]


class SealLeaf(Base):
    """Which row stands where in which block. `row_id` has no foreign key: it must outlive a deleted row."""

    __tablename__ = "seal_leaves"
    __table_args__ = (
        CheckConstraint(one_of("source", SOURCES), name="source"),
        UniqueConstraint("block", "position"),
    )

    source: Mapped[str] = mapped_column(primary_key=True)
    row_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    block: Mapped[int] = mapped_column(ForeignKey("seal_blocks.number"))
    position: Mapped[int]
    withdrawal_id: Mapped[UUID | None]  # whose row it was, also when it is gone
    salt: Mapped[bytes]  # hashed with the row: a neighbour's hash in somebody's proof tells nothing
    leaf_hash: Mapped[bytes]


class DayCertificate(Base):
    """A day's totals, signed. `body` is the very text that was signed."""

    __tablename__ = "day_certificates"
    __table_args__ = (UniqueConstraint("day"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    day: Mapped[date]
    block: Mapped[int] = mapped_column(ForeignKey("seal_blocks.number"))  # the head of the chain then
    body: Mapped[str]
    certificate_hash: Mapped[bytes]
    signature: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
