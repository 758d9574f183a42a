"""People who work in the panel, and everything that was done there."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import NOW, Base, one_of
from shared.roles import Role

OUTCOMES = ("asked", "done", "refused")
ORIGINS = ("panel", "cli", "api", "system")
MAX_TOKEN_HOURS = 8


class Operator(Base):
    """Who may sign in to the panel. Kept when disabled: the records name them."""

    __tablename__ = "operators"
    __table_args__ = (
        CheckConstraint("name ~ '^[a-z0-9][a-z0-9._-]{0,49}$'", name="name"),
        CheckConstraint(one_of("role", Role), name="role"),
        CheckConstraint("(disabled_at IS NULL) = (disabled_by IS NULL)", name="disabled_by_someone"),
        # What two operators share, one person has (maker_checker.py).
        Index("uq_operators_user_id", "user_id", unique=True, postgresql_where=text("user_id IS NOT NULL")),
        Index(
            "uq_operators_email",
            text("lower(email)"),
            unique=True,
            postgresql_where=text("email IS NOT NULL"),
        ),
        Index("uq_operators_phone", "phone", unique=True, postgresql_where=text("phone IS NOT NULL")),
    )

    name: Mapped[str] = mapped_column(primary_key=True)  # folded (names.py): the check allows no other
    role: Mapped[str]
    user_id: Mapped[str | None]  # their own account in the app
    email: Mapped[str | None]
    phone: Mapped[str | None]
    password_hash: Mapped[str]  # argon2id, with its parameters
    totp_secret: Mapped[str | None]  # base32; None: no second factor
    totp_step: Mapped[int] = mapped_column(server_default=text("0"))  # the last code's: none works twice
    generation: Mapped[int] = mapped_column(server_default=text("1"))  # sessions of an older one are over
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    created_by: Mapped[str]
    disabled_at: Mapped[datetime | None]
    disabled_by: Mapped[str | None]
    last_sign_in_at: Mapped[datetime | None]


class OperatorToken(Base):
    """Proof, for a short time, of who is at a shell (`payouts operator sign-in`), by its hash."""

    __tablename__ = "operator_tokens"
    __table_args__ = (
        CheckConstraint(f"expires_at <= created_at + interval '{MAX_TOKEN_HOURS} hours'", name="short_lived"),
        Index("ix_operator_tokens_operator", "operator"),
    )

    token_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    operator: Mapped[str] = mapped_column(ForeignKey("operators.name"))
    role: Mapped[str]  # as it was then: it counts while the role is that one
    generation: Mapped[int]  # and while the operator's is that one
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]


class AuditEntry(Base):
    """One line of what was done. Append-only: a trigger refuses any other change."""

    __tablename__ = "audit_log"
    __table_args__ = (
        CheckConstraint(one_of("outcome", OUTCOMES), name="outcome"),
        CheckConstraint(one_of("origin", ORIGINS), name="origin"),
        Index("ix_audit_log_operator", "operator", text("id DESC")),
        Index("ix_audit_log_action", "action", text("id DESC")),
        Index(
            "ix_audit_log_subject", "subject", text("id DESC"), postgresql_where=text("subject IS NOT NULL")
        ),
        Index("ix_audit_log_at", "at", postgresql_using="brin"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    operator: Mapped[str]  # the name; `unknown` for a name that nobody has
    address: Mapped[str]  # from where: an IP address, or `shell`
    origin: Mapped[str | None]  # through which door; None: from before this was kept
    action: Mapped[str]  # sign_in, export, cancel, …
    outcome: Mapped[str]  # asked before it is tried, then done or refused
    subject: Mapped[str | None]  # what it was done to: an id
    reason: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
