"""When the provider created a payout, so that a page of its list answers many polls."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.add_column("payout_attempts", sa.Column("payout_created_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("payout_attempts", "payout_created_at")
