"""A block, and a freeze, is ended by two: one proposes it, another approves"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"

TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")


def _is_another(one: str, other: str) -> str:
    return " <> ".join(f"lower(btrim(normalize({column}, NFKC)))" for column in (one, other))


RULES = (
    # What a block says never changes, and nobody ends one alone: another has just approved it.
    """
    CREATE FUNCTION refuse_silent_removal() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.removed_at IS NOT NULL
           OR (OLD.id, OLD.kind, OLD.subject, OLD.reason, OLD.added_by, OLD.added_at)
           IS DISTINCT FROM (NEW.id, NEW.kind, NEW.subject, NEW.reason, NEW.added_by, NEW.added_at) THEN
            RAISE EXCEPTION 'what block % says never changes', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        IF NEW.removed_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM block_removals WHERE block_id = OLD.id AND outcome = 'approved' AND decided_at = now()) THEN
            RAISE EXCEPTION 'nobody approved the end of block %', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER removed_by_two BEFORE UPDATE ON blocks
    FOR EACH ROW EXECUTE FUNCTION refuse_silent_removal()
    """,
    # The flag in the wallet follows its block.
    """
    CREATE FUNCTION refuse_silent_thaw() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM blocks WHERE kind = 'wallet' AND subject = NEW.user_id AND removed_at IS NULL) THEN
            RAISE EXCEPTION 'nobody approved the end of this freeze' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER thawed_by_two BEFORE UPDATE OF is_frozen ON wallets
    FOR EACH ROW WHEN (OLD.is_frozen AND NOT NEW.is_frozen) EXECUTE FUNCTION refuse_silent_thaw()
    """,
    """
    CREATE FUNCTION refuse_other_removal() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.decided_at IS NOT NULL OR (OLD.id, OLD.block_id, OLD.reason, OLD.proposed_by, OLD.proposed_at)
           IS DISTINCT FROM (NEW.id, NEW.block_id, NEW.reason, NEW.proposed_by, NEW.proposed_at) THEN
            RAISE EXCEPTION 'what proposal % says never changes', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER same_removal BEFORE UPDATE ON block_removals
    FOR EACH ROW EXECUTE FUNCTION refuse_other_removal()
    """,
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON block_removals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()
    """,
)


def upgrade() -> None:
    _removals()
    for rule in RULES:
        op.execute(rule)
    op.execute(  # evidence, as 0021 has it of blocks
        "CREATE TRIGGER version AFTER INSERT OR UPDATE ON block_removals FOR EACH ROW"
        " EXECUTE FUNCTION write_version('id', '{}', '{}')"
    )


def _removals() -> None:
    op.create_table(
        "block_removals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("block_id", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("proposed_at", TIME, server_default=NOW, nullable=False),
        sa.Column("decided_by", sa.Text()),
        sa.Column("decided_at", TIME),
        sa.Column("outcome", sa.Text()),
        sa.CheckConstraint("length(reason) > 0", name=op.f("ck_block_removals_has_a_reason")),
        sa.CheckConstraint("outcome IN ('approved', 'rejected')", name=op.f("ck_block_removals_outcome")),
        sa.CheckConstraint(
            "(decided_at IS NULL) = (outcome IS NULL) AND (decided_at IS NULL) = (decided_by IS NULL)",
            name=op.f("ck_block_removals_decided_by_someone"),
        ),
        sa.CheckConstraint(
            f"decided_by IS NULL OR outcome <> 'approved' OR {_is_another('decided_by', 'proposed_by')}",
            name=op.f("ck_block_removals_two_people"),
        ),
        sa.ForeignKeyConstraint(["block_id"], ["blocks.id"], name=op.f("fk_block_removals_block_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_block_removals")),
    )
    op.create_index(
        "uq_one_open_removal",
        "block_removals",
        ["block_id"],
        unique=True,
        postgresql_where=sa.text("decided_at IS NULL"),
    )


def downgrade() -> None:
    """Forgets who ended which block with whom; the blocks keep who approved it."""
    for function in ("refuse_silent_removal", "refuse_silent_thaw", "refuse_other_removal"):
        op.execute(f"DROP FUNCTION {function}() CASCADE")  # and the triggers that call it
    op.drop_table("block_removals")
