"""What apps ask for under a key of their own, and what they were answered"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "idempotent_requests",
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("started_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("http_status", sa.BigInteger()),
        sa.Column("answer", postgresql.JSON(astext_type=sa.Text())),
        sa.CheckConstraint(
            "(http_status IS NULL) = (answer IS NULL)",
            name=op.f("ck_idempotent_requests_answered_as_a_whole"),
        ),
        sa.PrimaryKeyConstraint("actor", "key", name=op.f("pk_idempotent_requests")),
    )
    op.create_index("ix_idempotent_requests_started", "idempotent_requests", ["started_at"])


def downgrade() -> None:
    op.drop_table("idempotent_requests")
