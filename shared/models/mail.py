"""Mail: one row for each mail and recipient, and the cursors of what is fanned out to mail."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import NOW, Base, EventCursor, one_of

EMAIL_STATES = ("waiting", "sent", "failed", "skipped")


class MailSubscriber(EventCursor, Base):
    """A cursor: `users` reads withdrawal events, `operators` reads exception records."""

    __tablename__ = "mail_listeners"
    __table_args__ = (
        CheckConstraint(one_of("name", ("users", "operators")), name="name"),
        CheckConstraint("(mark_to IS NULL) = (mark_xid IS NULL)", name="marked_as_a_whole"),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    told_at: Mapped[datetime | None]  # the last mail to operators; the next is at least a minute later


class Email(Base):
    """One mail to one recipient. Its id is part of the Message-ID; its facts never change.

    It is about an event of a withdrawal, or about a group: exception records, a notice, an invitation. No
    foreign keys: each would briefly lock a row of the money path.
    """

    __tablename__ = "emails"
    __table_args__ = (
        CheckConstraint(one_of("state", EMAIL_STATES), name="state"),
        CheckConstraint("(event_id IS NULL) <> (group_id IS NULL)", name="of_one_thing"),
        CheckConstraint("(event_id IS NULL) = (withdrawal_id IS NULL)", name="event_has_a_withdrawal"),
        CheckConstraint("state = 'skipped' OR recipient IS NOT NULL", name="has_a_recipient"),
        CheckConstraint("(state = 'waiting') = (due_at IS NOT NULL)", name="due_iff_waiting"),
        CheckConstraint("(state = 'sent') = (sent_at IS NOT NULL)", name="sent_at_iff_sent"),
        CheckConstraint("state NOT IN ('failed', 'skipped') OR last_error IS NOT NULL", name="says_why_not"),
        CheckConstraint("leased_until IS NULL OR state = 'waiting'", name="leased_while_waiting"),
        CheckConstraint("server_failed_at IS NULL OR state = 'waiting'", name="server_failed_while_waiting"),
        CheckConstraint("unsure BETWEEN 0 AND tries", name="unsure_tries"),
        UniqueConstraint("event_id", "recipient"),
        UniqueConstraint("group_id", "recipient"),
        Index("ix_emails_due", "due_at", postgresql_where=text("state = 'waiting'")),
        Index("ix_emails_began", "began_at", postgresql_where=text("state = 'waiting'")),
        Index("ix_emails_leased", "leased_until", postgresql_where=text("leased_until IS NOT NULL")),
        Index("ix_emails_refused", "server_failed_at", postgresql_where=text("server_failed_at IS NOT NULL")),
        Index("ix_emails_failed", "created_at", postgresql_where=text("state = 'failed'")),
        Index("ix_emails_withdrawal", "withdrawal_id"),
        Index("ix_emails_created", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[int | None]
    withdrawal_id: Mapped[UUID | None]
    group_id: Mapped[UUID | None]
    recipient: Mapped[str | None]  # None: skipped, because the user has no address
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB)  # what the mail says, as of the event
    state: Mapped[str] = mapped_column(server_default=text("'waiting'"))
    due_at: Mapped[datetime | None] = mapped_column(server_default=NOW)
    leased_until: Mapped[datetime | None]  # a worker is sending it
    server_failed_at: Mapped[datetime | None]  # the server was down then: no fault of this mail
    tries: Mapped[int] = mapped_column(server_default=text("0"))  # attempts since `began_at`
    unsure: Mapped[int] = mapped_column(server_default=text("0"))  # of them: sent in full, and no reply came
    began_at: Mapped[datetime] = mapped_column(server_default=NOW)  # a replay restarts it
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    sent_at: Mapped[datetime | None]


class MailedRecord(Base):
    """An exception record that was mailed to operators; kept until the cursor has passed it."""

    __tablename__ = "told_records"

    record_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    group_id: Mapped[UUID]
