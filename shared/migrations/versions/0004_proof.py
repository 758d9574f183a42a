"""Seals over journal and events, and signed days"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "seal_blocks",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("leaf_count", sa.BigInteger(), nullable=False),
        sa.Column("merkle_root", sa.LargeBinary(), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("block_hash", sa.LargeBinary(), nullable=False),
        sa.Column("journal_to", sa.BigInteger(), nullable=False),
        sa.Column("events_to", sa.BigInteger(), nullable=False),
        sa.Column("sealed_at", TIME, nullable=False),
        sa.CheckConstraint("number > 0 AND leaf_count > 0", name=op.f("ck_seal_blocks_not_empty")),
        sa.CheckConstraint(
            "length(merkle_root) = 32 AND length(previous_hash) = 32 AND length(block_hash) = 32",
            name=op.f("ck_seal_blocks_hashes_are_whole"),
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_seal_blocks")),
        sa.UniqueConstraint("previous_hash", name=op.f("uq_seal_blocks_previous_hash")),
    )
    op.create_table(
        "seal_leaves",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("row_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("withdrawal_id", sa.Uuid()),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("source IN ('events', 'journal')", name=op.f("ck_seal_leaves_source")),
        sa.ForeignKeyConstraint(["block"], ["seal_blocks.number"], name=op.f("fk_seal_leaves_block")),
        sa.PrimaryKeyConstraint("source", "row_id", name=op.f("pk_seal_leaves")),
        sa.UniqueConstraint("block", "position", name=op.f("uq_seal_leaves_block_position")),
    )
    op.create_table(
        "day_certificates",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("certificate_hash", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["block"], ["seal_blocks.number"], name=op.f("fk_day_certificates_block")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_day_certificates")),
        sa.UniqueConstraint("day", name=op.f("uq_day_certificates_day")),
    )
    for table in ("seal_blocks", "seal_leaves", "day_certificates"):
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    """Only before the first certificate: what was signed is not forgotten by a downgrade."""
    if op.get_bind().execute(sa.text("SELECT EXISTS (SELECT FROM day_certificates)")).scalar():
        raise RuntimeError("There are signed certificates; move away with a backup, not a downgrade")
    for table in ("day_certificates", "seal_leaves", "seal_blocks"):
        op.drop_table(table)
