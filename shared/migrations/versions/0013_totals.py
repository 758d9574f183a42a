"""What each day in India came to, and the indexes that moves of a day are found by"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"

AMOUNT = sa.BigInteger()
INDEXES = {
    # One entry for each end of a withdrawal: what ended in an hour or a day is read without its whole story.
    "ix_withdrawal_events_ends": "from_status <> to_status AND to_status IN ('cancelled', 'completed', 'failed')",
    # What came after the payment: learnt fees, and reversals.
    "ix_withdrawal_events_after": "from_status = 'completed'",
}


def upgrade() -> None:
    # Its ranges are of a million bytes, and the newest has none until a vacuum: a day of attempts is read often.
    op.drop_index("ix_payout_attempts_created", "payout_attempts")
    op.create_index("ix_payout_attempts_created", "payout_attempts", ["created_at"])
    for name, which in INDEXES.items():
        op.create_index(name, "withdrawal_events", ["created_at"], postgresql_where=sa.text(which))
    op.create_table(
        "counted_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column(
            "counted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_counted_days")),
    )
    op.create_table(
        "day_totals",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("handle", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("number", AMOUNT, nullable=False),
        sa.Column("coins", AMOUNT, nullable=False),
        sa.Column("paise", AMOUNT, nullable=False),
        sa.Column("fees_paise", AMOUNT, nullable=False),
        sa.Column("tax_paise", AMOUNT, nullable=False),
        sa.Column("times", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint(
            "what IN ('asked', 'cancelled', 'completed', 'failed', 'reversed')",
            name=op.f("ck_day_totals_what"),
        ),
        sa.CheckConstraint("number > 0", name=op.f("ck_day_totals_number_positive")),
        sa.ForeignKeyConstraint(
            ["day"], ["counted_days.day"], name=op.f("fk_day_totals_day_counted_days"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("day", "handle", "what", "reason", name=op.f("pk_day_totals")),
    )


def downgrade() -> None:
    """Forgets the totals; all of them can be counted again."""
    op.drop_table("day_totals")
    op.drop_table("counted_days")
    for name in INDEXES:
        op.drop_index(name, "withdrawal_events")
    op.drop_index("ix_payout_attempts_created", "payout_attempts")
    op.create_index("ix_payout_attempts_created", "payout_attempts", ["created_at"], postgresql_using="brin")
