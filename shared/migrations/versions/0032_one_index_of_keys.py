"""One index instead of two on the apps' keys, which are random: each change of a withdrawal writes a page less"""

import sqlalchemy as sa
from alembic import op

from shared.migrations import indexes

revision = "0032"
down_revision = "0031"

KEY = "(user_id, given_key(idempotency_key), idempotency_key) WHERE idempotency_key IS NOT NULL"
CONSTRAINT = "uq_withdrawals_user_id_idempotency_key"


def upgrade() -> None:
    indexes.create("uq_withdrawals_key", f"withdrawals {KEY}", unique=True)
    op.execute(f"ALTER TABLE withdrawals DROP CONSTRAINT IF EXISTS {CONSTRAINT}")
    op.execute("DROP INDEX IF EXISTS ix_withdrawals_given_key")


def downgrade() -> None:
    op.create_unique_constraint(CONSTRAINT, "withdrawals", ["user_id", "idempotency_key"])
    op.create_index(
        "ix_withdrawals_given_key",
        "withdrawals",
        ["user_id", sa.literal_column("given_key(idempotency_key)")],
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.execute("DROP INDEX uq_withdrawals_key")
