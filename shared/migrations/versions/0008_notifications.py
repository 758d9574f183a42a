"""Where apps listen, and what is on its way to them"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _endpoints()
    _deliveries()


def _endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("allow_private", sa.Boolean(), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("previous_until", TIME),
        sa.Column("rotated_at", TIME),
        sa.Column("rotated_by", sa.Text()),
        sa.Column("failing_since", TIME),
        sa.Column("followed_to", sa.BigInteger(), nullable=False),
        sa.Column("mark_to", sa.BigInteger()),
        sa.Column("mark_xid", sa.BigInteger()),
        sa.Column("created_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("removed_at", TIME),
        sa.Column("removed_by", sa.Text()),
        sa.CheckConstraint("length(url) BETWEEN 1 AND 2000", name=op.f("ck_endpoints_url_length")),
        sa.CheckConstraint(
            "url LIKE 'https://%' OR allow_private AND url LIKE 'http://%'",
            name=op.f("ck_endpoints_url_scheme"),
        ),
        sa.CheckConstraint("generation > 0", name=op.f("ck_endpoints_generation_positive")),
        sa.CheckConstraint(
            "(generation = 1) = (rotated_at IS NULL) AND (rotated_at IS NULL) = (rotated_by IS NULL)"
            " AND (rotated_at IS NULL) = (previous_until IS NULL)",
            name=op.f("ck_endpoints_rotated_by_someone"),
        ),
        sa.CheckConstraint(
            "(removed_at IS NULL) = (removed_by IS NULL)", name=op.f("ck_endpoints_removed_by_someone")
        ),
        sa.CheckConstraint(
            "(mark_to IS NULL) = (mark_xid IS NULL)", name=op.f("ck_endpoints_marked_as_a_whole")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
    )
    op.create_index(
        "uq_one_endpoint_per_url",
        "endpoints",
        ["url"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.execute(
        "CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON endpoints"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()"
    )


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("withdrawal_id", sa.Uuid(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("due_at", TIME, server_default=sa.text("now()")),
        sa.Column("leased_until", TIME),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("began_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("last_http_status", sa.BigInteger()),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("delivered_at", TIME),
        sa.CheckConstraint("state IN ('delivered', 'failed', 'waiting')", name=op.f("ck_deliveries_state")),
        sa.CheckConstraint(
            "(state = 'waiting') = (due_at IS NOT NULL)", name=op.f("ck_deliveries_due_iff_waiting")
        ),
        sa.CheckConstraint(
            "(state = 'delivered') = (delivered_at IS NOT NULL)",
            name=op.f("ck_deliveries_delivered_at_iff_delivered"),
        ),
        sa.CheckConstraint(
            "leased_until IS NULL OR state = 'waiting'", name=op.f("ck_deliveries_leased_while_waiting")
        ),
        sa.CheckConstraint("tries >= 0", name=op.f("ck_deliveries_tries_not_negative")),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name=op.f("fk_deliveries_endpoint_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("endpoint_id", "event_id", name=op.f("uq_deliveries_endpoint_id_event_id")),
    )
    where = {
        "ix_deliveries_due": (["endpoint_id", "due_at"], "state = 'waiting'"),
        "ix_deliveries_leased": (["endpoint_id"], "leased_until IS NOT NULL"),
        "ix_deliveries_failed": (["endpoint_id"], "state = 'failed'"),
    }
    for name, (columns, condition) in where.items():
        op.create_index(name, "deliveries", columns, postgresql_where=sa.text(condition))
    op.create_index("ix_deliveries_withdrawal", "deliveries", ["withdrawal_id"])
    op.create_index("ix_deliveries_created", "deliveries", ["created_at"])
    # What was signed and sent under an id once is what goes out under it again.
    op.execute("""
        CREATE FUNCTION refuse_other_message() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (OLD.id, OLD.endpoint_id, OLD.event_id, OLD.withdrawal_id, OLD.body)
               IS DISTINCT FROM (NEW.id, NEW.endpoint_id, NEW.event_id, NEW.withdrawal_id, NEW.body) THEN
                RAISE EXCEPTION 'the message of delivery % never changes', OLD.id USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute(
        "CREATE TRIGGER same_message BEFORE UPDATE ON deliveries"
        " FOR EACH ROW EXECUTE FUNCTION refuse_other_message()"
    )


def downgrade() -> None:
    """Forgets whom to tell; nothing of the money is in it."""
    op.drop_table("deliveries")
    op.drop_table("endpoints")
    op.execute("DROP FUNCTION refuse_other_message()")
