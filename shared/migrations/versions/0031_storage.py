"""Room for updates in place (measured in docs/performance.md), and vacuums in time.

It takes only a lock that lets reads and writes pass, and rewrites nothing.
"""

from alembic import op

revision = "0031"
down_revision = "0030"

# A wallet changes with each request and none of its indexed columns does, so its new version fits in its page,
# and no index needs another entry.
ROOM_FOR_UPDATES = {"wallets": 70}
# Rows of these tables change four times within minutes, at the head of their indexes. With PostgreSQL's default
# a fifth of all rows ever must be dead before a vacuum, and until then each sweep reads past them.
QUEUES = ("withdrawals", "payout_attempts", "webhook_events", "hints")
QUEUE_SETTINGS = {
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_insert_scale_factor": 0.05,
    "autovacuum_analyze_scale_factor": 0.02,
}


def upgrade() -> None:
    for table, percent in ROOM_FOR_UPDATES.items():
        op.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")
    settings = ", ".join(f"{name} = {value}" for name, value in QUEUE_SETTINGS.items())
    for table in QUEUES:
        op.execute(f"ALTER TABLE {table} SET ({settings})")


def downgrade() -> None:
    for table in ROOM_FOR_UPDATES:
        op.execute(f"ALTER TABLE {table} RESET (fillfactor)")
    for table in QUEUES:
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(QUEUE_SETTINGS)})")
