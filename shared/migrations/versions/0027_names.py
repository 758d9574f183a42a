"""Columns named by the field's words: a withdrawal on hold is not one in review."""

from alembic import op

revision = "0027"
down_revision = "0026"

RENAMED = (
    ("withdrawals", "review", "hold"),
    ("payout_attempts", "waits", "throttles"),
    ("payout_attempts", "checks", "queries"),
    ("payout_attempts", "absent_looks", "absent_replies"),
)


def upgrade() -> None:
    for table, before, after in RENAMED:
        op.alter_column(table, before, new_column_name=after)
    op.execute("ALTER INDEX ix_withdrawals_review RENAME TO ix_withdrawals_hold")


def downgrade() -> None:
    op.execute("ALTER INDEX ix_withdrawals_hold RENAME TO ix_withdrawals_review")
    for table, before, after in RENAMED:
        op.alter_column(table, after, new_column_name=before)
