"""Since when a withdrawal goes round among the reasons for which it is tried: that moves no promise"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("withdrawals", sa.Column("trying_since", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("withdrawals", "trying_since")
