"""Evidence is sealed too: versions of what people decided and of who may act, the audit log, reviews"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"

JSON = postgresql.JSONB(astext_type=sa.Text())
TIME = sa.DateTime(timezone=True)

# table -> its key, the columns that are no evidence, the secrets of which a hash is kept (shared/proof/evidence.py)
KEPT = {
    "adjustments": ("id", "", ""),
    "resolutions": ("id", "", ""),
    "blocks": ("id", "", ""),
    "operators": ("name", "last_sign_in_at,totp_step", "password_hash,totp_secret"),
    "app_keys": ("prefix", "last_used_at", ""),
    "endpoints": ("id", "followed_to,mark_to,mark_xid,failing_since", ""),
}
FUNCTIONS = (
    """
    CREATE FUNCTION evidence_of(content jsonb, never text[], hashed text[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (content - never) || coalesce(
        (SELECT jsonb_object_agg(name, encode(sha256(convert_to(content ->> name, 'UTF8')), 'hex'))
         FROM unnest(hashed) name WHERE content ? name), '{}')
    """,
    # In the same transaction as the change, for both or neither. Times and bytes are written in one way, whatever
    # the session has set.
    """
    CREATE FUNCTION write_version() RETURNS trigger LANGUAGE plpgsql SET timezone = 'UTC' SET bytea_output = 'hex' AS $$
    DECLARE
        becomes jsonb := evidence_of(to_jsonb(NEW), TG_ARGV[1]::text[], TG_ARGV[2]::text[]);
        was jsonb := CASE WHEN TG_OP = 'UPDATE'
                          THEN evidence_of(to_jsonb(OLD), TG_ARGV[1]::text[], TG_ARGV[2]::text[]) END;
    BEGIN
        IF was IS DISTINCT FROM becomes THEN
            INSERT INTO evidence (of_table, of_key, was, content)
            VALUES (TG_TABLE_NAME, to_jsonb(NEW) ->> TG_ARGV[0], was, becomes);
        END IF;
        RETURN NULL;
    END $$
    """,
)


def upgrade() -> None:
    op.create_table(
        "evidence",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("of_table", sa.Text(), nullable=False),
        sa.Column("of_key", sa.Text(), nullable=False),
        sa.Column("was", JSON),
        sa.Column("content", JSON, nullable=False),
        sa.Column("at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
    )
    op.create_index("ix_evidence_versions", "evidence", ["of_table", "of_key", "id"])
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON evidence"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    for function in FUNCTIONS:
        op.execute(function)
    op.execute("SET LOCAL timezone = 'UTC'")
    op.execute("SET LOCAL bytea_output = 'hex'")
    for table, (key, never, hashed) in KEPT.items():
        # The trigger first: its lock keeps changes out until both are there.
        op.execute(
            f"CREATE TRIGGER version AFTER INSERT OR UPDATE ON {table} FOR EACH ROW"
            f" EXECUTE FUNCTION write_version('{key}', '{{{never}}}', '{{{hashed}}}')"
        )
        op.execute(
            f"INSERT INTO evidence (of_table, of_key, content) SELECT '{table}', t.{key}::text,"
            f" evidence_of(to_jsonb(t), '{{{never}}}', '{{{hashed}}}') FROM {table} t ORDER BY t.{key}"
        )
    op.add_column("seal_blocks", sa.Column("others_to", JSON))
    _sources("'audit', 'events', 'evidence', 'journal', 'reviews'")
    # A spot check asks for the decision of each of the last adjustments, and for the word behind a paid withdrawal.
    op.create_index("ix_adjustments_as_reference", "adjustments", [sa.text("(id::text)")])
    op.create_index("ix_resolutions_withdrawal", "resolutions", ["withdrawal_id"])


def _sources(words: str) -> None:
    op.drop_constraint(op.f("ck_seal_leaves_source"), "seal_leaves")
    op.create_check_constraint(op.f("ck_seal_leaves_source"), "seal_leaves", f"source IN ({words})")


def downgrade() -> None:
    """Only before the first seal of this release: an older one could not tell whether it is whole."""
    asked = sa.text("SELECT EXISTS (SELECT FROM seal_blocks WHERE version > 1)")
    if op.get_bind().execute(asked).scalar():
        raise RuntimeError("There are seals over evidence; move away with a backup, not a downgrade")
    op.drop_index("ix_resolutions_withdrawal", "resolutions")
    op.drop_index("ix_adjustments_as_reference", "adjustments")
    _sources("'events', 'journal'")
    op.drop_column("seal_blocks", "others_to")
    for function in ("write_version()", "evidence_of(jsonb, text[], text[])"):
        op.execute(f"DROP FUNCTION {function} CASCADE")  # and the triggers that call it
    op.drop_table("evidence")
