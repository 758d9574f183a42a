"""What each comparison with the provider's books came to"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "reconciliation_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("from_at", TIME, nullable=False),
        sa.Column("to_at", TIME, nullable=False),
        sa.Column("started_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", TIME),
        sa.Column("outcome", sa.Text()),
        sa.Column("detail", sa.Text()),
        sa.Column("compared", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("exceptions", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "totals",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.CheckConstraint("from_at < to_at", name=op.f("ck_reconciliation_runs_a_period")),
        sa.CheckConstraint(
            "outcome IN ('clean', 'exceptions', 'incomplete')", name=op.f("ck_reconciliation_runs_outcome")
        ),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (outcome IS NULL)",
            name=op.f("ck_reconciliation_runs_finished_with_an_outcome"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliation_runs")),
    )
    op.execute(
        "CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON reconciliation_runs"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()"
    )
    # A day's attempts without reading all of them, for hardly any room: they are written in order of time.
    op.create_index("ix_payout_attempts_created", "payout_attempts", ["created_at"], postgresql_using="brin")


def downgrade() -> None:
    op.drop_index("ix_payout_attempts_created", "payout_attempts")
    op.drop_table("reconciliation_runs")
