"""The panel's operators, its audit log, and the indexes that its lists stand on"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"

JSON = postgresql.JSONB(astext_type=sa.Text())
TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")


def upgrade() -> None:
    _operators()
    _audit_log()
    _lists()


def _operators() -> None:
    op.create_table(
        "operators",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("totp_secret", sa.Text()),
        sa.Column("totp_step", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("disabled_at", TIME),
        sa.Column("disabled_by", sa.Text()),
        sa.Column("last_sign_in_at", TIME),
        sa.CheckConstraint("name ~ '^[a-z0-9][a-z0-9._-]{0,49}$'", name=op.f("ck_operators_name")),
        sa.CheckConstraint(
            "role IN ('admin', 'finance', 'operator', 'viewer')", name=op.f("ck_operators_role")
        ),
        sa.CheckConstraint(
            "(disabled_at IS NULL) = (disabled_by IS NULL)", name=op.f("ck_operators_disabled_by_someone")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_operators")),
    )
    op.execute(
        "CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON operators"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()"
    )


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("data", JSON, server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.CheckConstraint("outcome IN ('asked', 'done', 'refused')", name=op.f("ck_audit_log_outcome")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    newest = sa.text("id DESC")
    op.create_index("ix_audit_log_operator", "audit_log", ["operator", newest])
    op.create_index("ix_audit_log_action", "audit_log", ["action", newest])
    op.create_index(
        "ix_audit_log_subject",
        "audit_log",
        ["subject", newest],
        postgresql_where=sa.text("subject IS NOT NULL"),
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"], postgresql_using="brin")
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )


def _lists() -> None:
    """Each filter and each order of the list of withdrawals walks an index, and stops after a page."""
    newest = [sa.text("created_at DESC"), sa.text("id DESC")]
    op.create_index("ix_withdrawals_newest", "withdrawals", newest)
    op.create_index("ix_withdrawals_status", "withdrawals", ["status", *newest])
    op.create_index("ix_withdrawals_amount", "withdrawals", ["amount_paise", "id"])
    op.create_index("ix_withdrawals_upi", "withdrawals", [sa.text("lower(upi_id)"), *newest])
    for name, column in (("reason", "status_reason"), ("review", "review")):
        op.create_index(
            f"ix_withdrawals_{name}",
            "withdrawals",
            [column, *newest],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    for table in ("withdrawals", "payout_attempts"):
        op.create_index(f"ix_{table}_utr", table, ["utr"], postgresql_where=sa.text("utr IS NOT NULL"))


def downgrade() -> None:
    """Forgets who the operators are and what they did in the panel; withdrawals keep their events."""
    for table in ("withdrawals", "payout_attempts"):
        op.drop_index(f"ix_{table}_utr", table)
    for name in ("newest", "status", "amount", "upi", "reason", "review"):
        op.drop_index(f"ix_withdrawals_{name}", "withdrawals")
    op.drop_table("audit_log")
    op.drop_table("operators")
