"""What the promises came to when they were last asked of what moved last"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "spot_checks",
        sa.Column("truth", sa.Text(), nullable=False),
        sa.Column("promise", sa.BigInteger(), nullable=False),
        sa.Column("faults", sa.BigInteger(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("truth", name=op.f("pk_spot_checks")),
    )


def downgrade() -> None:
    op.drop_table("spot_checks")
