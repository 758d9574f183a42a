"""How much of the pace is used: a promise to whom it makes wait is made anew only while it is kept"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    now = sa.text("now()")
    zero = sa.text("0")
    op.add_column("pace", sa.Column("calls", sa.BigInteger(), server_default=zero, nullable=False))
    op.add_column(
        "pace", sa.Column("sampled_at", sa.DateTime(timezone=True), server_default=now, nullable=False)
    )
    op.add_column("pace", sa.Column("sampled_calls", sa.BigInteger(), server_default=zero, nullable=False))
    op.add_column("pace", sa.Column("per_second", sa.Double(), server_default=zero, nullable=False))


def downgrade() -> None:
    for column in ("per_second", "sampled_calls", "sampled_at", "calls"):
        op.drop_column("pace", column)
