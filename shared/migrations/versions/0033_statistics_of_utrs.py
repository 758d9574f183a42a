"""Statistics about UTRs, without which the server reads every withdrawal to find one by its UTR"""

from alembic import op

revision = "0033"
down_revision = "0032"

STATISTICS = "st_withdrawals_utr"


def upgrade() -> None:
    # The server takes no statistics from the index on upper(utr), because it is partial: it would expect
    # each UTR in every two-hundredth row.
    op.execute(f"CREATE STATISTICS {STATISTICS} ON (upper(utr)) FROM withdrawals")
    op.execute("ANALYZE withdrawals")


def downgrade() -> None:
    op.execute(f"DROP STATISTICS {STATISTICS}")
