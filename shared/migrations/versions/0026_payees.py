"""Whom a payout goes to never changes, and is evidence: a destination is replaced only after its refusal"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"

INDEX = "uq_one_live_destination"
KEY = ["user_id", "upi_id", "known_to"]
RULES = (
    # Another identity of ours has rows of its own. One ends in the transaction that writes down that the
    # provider refused a payout to just this fund account.
    """
    CREATE FUNCTION refuse_other_payee() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.ended_at IS NOT NULL
           OR (OLD.id, OLD.user_id, OLD.upi_id, OLD.contact_id, OLD.fund_account_id, OLD.known_to, OLD.created_at)
           IS DISTINCT FROM
              (NEW.id, NEW.user_id, NEW.upi_id, NEW.contact_id, NEW.fund_account_id, NEW.known_to, NEW.created_at)
        THEN
            RAISE EXCEPTION 'whom destination % pays never changes', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        IF NEW.ended_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM withdrawals w JOIN payout_attempts a ON a.withdrawal_id = w.id
            WHERE w.user_id = OLD.user_id AND w.upi_id = OLD.upi_id
              AND a.state = 'refused' AND a.answered_at = now()
              AND a.status_details ->> 'reason' = 'fund_account_invalid'
              AND position(convert_to('"' || OLD.fund_account_id || '"', 'UTF8') IN a.request_body) > 0) THEN
            RAISE EXCEPTION 'nothing was refused to destination %', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER same_payee BEFORE UPDATE ON destinations
    FOR EACH ROW EXECUTE FUNCTION refuse_other_payee()
    """,
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON destinations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()
    """,
    # Evidence, as 0021 has it of blocks. The trigger first: its lock keeps changes out until both are there.
    """
    CREATE TRIGGER version AFTER INSERT OR UPDATE ON destinations FOR EACH ROW
    EXECUTE FUNCTION write_version('id', '{}', '{}')
    """,
)


def upgrade() -> None:
    op.add_column(
        "destinations",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
    )
    op.alter_column("destinations", "id", server_default=None)
    op.add_column("destinations", sa.Column("ended_at", sa.DateTime(timezone=True)))
    op.drop_constraint(op.f("pk_destinations"), "destinations")
    op.create_primary_key(op.f("pk_destinations"), "destinations", ["id"])
    op.create_index(INDEX, "destinations", KEY, unique=True, postgresql_where=sa.text("ended_at IS NULL"))
    for rule in RULES:
        op.execute(rule)
    op.execute("SET LOCAL timezone = 'UTC'")
    op.execute(
        "INSERT INTO evidence (of_table, of_key, content) SELECT 'destinations', t.id::text,"
        " evidence_of(to_jsonb(t), '{}', '{}') FROM destinations t ORDER BY t.created_at, t.id"
    )


def downgrade() -> None:
    """Keeps the newest destination of each payee; the others are made again when they are needed.

    The versions stay, for what is sealed is not taken out: after another upgrade `payouts check` names these rows.
    """
    for trigger in ("version", "kept"):
        op.execute(f"DROP TRIGGER {trigger} ON destinations")
    op.execute("DROP FUNCTION refuse_other_payee() CASCADE")  # and the trigger that calls it
    op.execute(
        "DELETE FROM destinations d WHERE ended_at IS NOT NULL OR EXISTS (SELECT FROM destinations n"
        " WHERE (n.user_id, n.upi_id) = (d.user_id, d.upi_id) AND n.ended_at IS NULL"
        " AND (n.created_at, n.id) > (d.created_at, d.id))"
    )
    op.drop_index(INDEX, "destinations")
    op.drop_constraint(op.f("pk_destinations"), "destinations")
    op.create_primary_key(op.f("pk_destinations"), "destinations", ["user_id", "upi_id"])
    for column in ("id", "ended_at"):
        op.drop_column("destinations", column)
