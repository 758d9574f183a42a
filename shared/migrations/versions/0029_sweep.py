"""Indexes with which the sweep reads the head of a long queue only."""

from alembic import op

from shared.migrations import indexes

revision = "0029"
down_revision = "0028"

INDEXES = {
    "ix_withdrawals_begun": "(due_at) WHERE status = 'processing' OR status_reason = 'preparing'",
    "ix_withdrawals_turn": "(user_id, due_at) WHERE status IN ('pending', 'processing')",
}


def upgrade() -> None:
    for name, definition in INDEXES.items():
        indexes.create(name, f"withdrawals {definition}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
