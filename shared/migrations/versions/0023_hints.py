"""Webhooks are hints: what they made us ask, and payments that only a webhook has told of"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.add_column(
        "payout_attempts",
        sa.Column("unconfirmed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_check_constraint(
        op.f("ck_payout_attempts_unconfirmed_while_paid"),
        "payout_attempts",
        "NOT unconfirmed OR state = 'paid'",
    )
    op.create_table(
        "hints",
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("withdrawal_id", sa.Uuid(), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("by_reference", sa.Boolean(), nullable=False),
        sa.Column("came", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("asked", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("came > 0 AND asked >= 0", name=op.f("ck_hints_counted")),
        sa.CheckConstraint("asked = 0 OR asked_at IS NOT NULL", name=op.f("ck_hints_asked_at_a_time")),
        sa.ForeignKeyConstraint(["attempt_id"], ["payout_attempts.id"], name=op.f("fk_hints_attempt_id")),
        sa.ForeignKeyConstraint(["withdrawal_id"], ["withdrawals.id"], name=op.f("fk_hints_withdrawal_id")),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_hints")),
    )
    op.create_index("ix_hints_due", "hints", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_index("ix_hints_withdrawal", "hints", ["withdrawal_id"])
    # The turns of questions that webhooks provoke (rate_limit.py).
    op.execute("INSERT INTO pace (name) VALUES ('hints')")


def downgrade() -> None:
    op.execute("DELETE FROM pace WHERE name = 'hints'")
    op.drop_table("hints")
    op.drop_constraint(op.f("ck_payout_attempts_unconfirmed_while_paid"), "payout_attempts")
    op.drop_column("payout_attempts", "unconfirmed")
