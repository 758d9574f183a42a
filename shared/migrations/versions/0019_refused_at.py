"""When the provider first refused a withdrawal's own request as it refuses wrong settings."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("withdrawals", sa.Column("refused_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("withdrawals", "refused_at")
