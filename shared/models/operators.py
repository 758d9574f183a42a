"""Operators, their credentials, the audit log, and proposals about access."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.models.base import NOW, Base, Proposal, one_of
from shared.roles import Role

OUTCOMES = ("asked", "done", "refused")
ORIGINS = ("panel", "cli", "api", "system")
MAX_TOKEN_HOURS = 8


class Operator(Base):
    """An operator who may sign in to the panel. Disabled operators stay: other records name them."""

    __tablename__ = "operators"
    __table_args__ = (
        CheckConstraint("name ~ '^[a-z0-9][a-z0-9._-]{0,49}$'", name="name"),
        CheckConstraint(one_of("role", Role), name="role"),
        CheckConstraint("(disabled_at IS NULL) = (disabled_by IS NULL)", name="disabled_by_someone"),
        # Two operators who share one of these are one person (eligibility.py).
        Index("uq_operators_user_id", "user_id", unique=True, postgresql_where=text("user_id IS NOT NULL")),
        Index(
            "uq_operators_email",
            text("lower(email)"),
            unique=True,
            postgresql_where=text("email IS NOT NULL"),
        ),
        Index("uq_operators_phone", "phone", unique=True, postgresql_where=text("phone IS NOT NULL")),
    )

    name: Mapped[str] = mapped_column(primary_key=True)  # folded (names.py), as the check requires
    role: Mapped[str]
    user_id: Mapped[str | None]  # their own account in the app
    email: Mapped[str | None]  # for invitations and notices
    phone: Mapped[str | None]
    password_hash: Mapped[str | None]  # argon2id, with its parameters; None: not chosen yet
    totp_secret: Mapped[str | None]  # base32; None: no second factor
    totp_offered: Mapped[str | None]  # the secret of an enrolment that no code has confirmed yet
    totp_step: Mapped[int] = mapped_column(server_default=text("0"))  # of the last code: no code works twice
    generation: Mapped[int] = mapped_column(server_default=text("1"))  # older sessions are no longer valid
    # True if they ever were an admin with a password. A trigger sets it permanently: only a system that never
    # had two admins may add one without a second person.
    was_admin: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    created_by: Mapped[str]
    confirmed_by: Mapped[str | None]  # the second admin, who confirmed it
    disabled_at: Mapped[datetime | None]
    disabled_by: Mapped[str | None]
    last_sign_in_at: Mapped[datetime | None]

    def end_sessions(self) -> None:
        """End all sessions, and drop the second factor that was offered in one of them.

        An intruder in a session knows the offered secret. If the owner confirmed it later, the intruder could
        generate the owner's codes.
        """
        self.generation += 1
        self.totp_offered = None


class OperatorToken(Base):
    """A short-lived token that identifies an operator at a shell (`payouts operator sign-in`), as a hash."""

    __tablename__ = "operator_tokens"
    __table_args__ = (
        CheckConstraint(f"expires_at <= created_at + interval '{MAX_TOKEN_HOURS} hours'", name="short_lived"),
        Index("ix_operator_tokens_operator", "operator"),
    )

    token_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    operator: Mapped[str] = mapped_column(ForeignKey("operators.name"))
    role: Mapped[str]  # at sign-in: the token is valid while the operator has this role
    generation: Mapped[int]  # at sign-in: the token is valid while the operator has this generation
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]


class AuditEntry(Base):
    """A line of the audit log. Append-only: enforced by a trigger."""

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
    operator: Mapped[str]  # the name; `unknown` if no operator has the given name
    address: Mapped[str]  # an IP address, or `shell`
    origin: Mapped[str | None]  # one of ORIGINS; None in rows from before this column existed
    action: Mapped[str]  # sign_in, export, cancel, …
    outcome: Mapped[str]  # asked before the attempt, then done or refused
    subject: Mapped[str | None]  # the id of the object
    reason: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))


class Invitation(Base):
    """A single-use link with which an operator chooses a password. The link itself is not stored."""

    __tablename__ = "operator_invitations"
    __table_args__ = (
        CheckConstraint("used_at IS NULL OR ended_at IS NULL", name="used_or_ended"),
        Index(
            "uq_one_open_invitation",
            "operator",
            unique=True,
            postgresql_where=text("used_at IS NULL AND ended_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    operator: Mapped[str] = mapped_column(ForeignKey("operators.name"))
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]  # when a newer one replaced it, or the operator was disabled


class RecoveryCode(Base):
    """A single-use code that replaces a lost phone, as a hash. New codes replace all of an operator's."""

    __tablename__ = "operator_recovery_codes"

    operator: Mapped[str] = mapped_column(ForeignKey("operators.name"), primary_key=True)
    code_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    used_at: Mapped[datetime | None]


class AdminProposal(Proposal, Base):
    """A proposal about operators, API keys, endpoints or imports, confirmed by a second person."""

    __tablename__ = "admin_proposals"
    __table_args__ = (
        CheckConstraint("length(reason) > 0", name="has_a_reason"),
        CheckConstraint("outcome IN ('confirmed', 'rejected')", name="outcome"),
        CheckConstraint(
            "(decided_at IS NULL) = (outcome IS NULL) AND (decided_at IS NULL) = (decided_by IS NULL)",
            name="decided_by_someone",
        ),
        CheckConstraint(
            "alone OR decided_by IS NULL OR outcome <> 'confirmed' OR decided_by <> proposed_by",
            name="two_people",
        ),
        CheckConstraint(
            "outcome IS DISTINCT FROM 'confirmed' OR decided_at <= expires_at", name="confirmed_in_time"
        ),
        CheckConstraint("claimed_at IS NULL OR outcome = 'confirmed'", name="claimed_when_confirmed"),
        Index(
            "uq_one_open_admin_proposal",
            "kind",
            "subject",
            unique=True,
            postgresql_where=text("decided_at IS NULL"),
        ),
        Index("ix_admin_proposals_proposed", "proposed_at"),
    )

    kind: Mapped[str]  # the kind of change (shared/proposals/kinds.py)
    subject: Mapped[str]  # an operator's name, an app, a key's prefix, a URL, a file's hash
    wanted: Mapped[dict[str, Any]] = mapped_column(JSONB)  # role, e-mail, scopes, …
    fingerprint: Mapped[str]  # of the proposal and the current state; confirming other facts is refused
    alone: Mapped[bool]  # no second person was needed: the first admins, or SECOND_ADMIN_REQUIRED=off
    reason: Mapped[str]
    expires_at: Mapped[datetime]
    claimed_at: Mapped[datetime | None]  # when its secret was shown, once, to the proposer
