"""What operators turn and look at: switches that trip, the pace, exception records, resolutions, the balance"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

JSON = postgresql.JSONB(astext_type=sa.Text())
TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")


def upgrade() -> None:
    _switches_and_pace()
    _exception_records()
    _resolutions()
    _webhooks()


def _switches_and_pace() -> None:
    op.add_column("switches", sa.Column("strikes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("switches", sa.Column("trips", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("switches", sa.Column("probe_at", TIME))
    op.add_column("switches", sa.Column("probe_id", sa.Uuid()))
    op.create_check_constraint(
        op.f("ck_switches_probes_only_while_off"), "switches", "NOT is_on OR probe_at IS NULL"
    )
    # A switch that is not there is off: without this line nothing is paid.
    op.execute(
        "INSERT INTO switches (name, is_on, reason, actor) VALUES ('payouts', true, 'installed', 'migration')"
        " ON CONFLICT DO NOTHING"
    )
    op.create_table(
        "pace",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next_at", TIME, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_pace")),
    )
    op.execute("INSERT INTO pace (name) VALUES ('razorpayx')")
    op.create_table(
        "provider_balances",
        sa.Column("account_number", sa.Text(), nullable=False),
        sa.Column("available_paise", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", TIME, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("account_number", name=op.f("pk_provider_balances")),
    )


def _exception_records() -> None:
    op.create_table(
        "exception_records",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("withdrawal_id", sa.Uuid()),
        sa.Column("ours", JSON, nullable=False),
        sa.Column("theirs", JSON, nullable=False),
        sa.Column("opened_at", TIME, server_default=NOW, nullable=False),
        sa.Column("seen_at", TIME, server_default=NOW, nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("owned_at", TIME),
        sa.Column("resolution", sa.Text()),
        sa.Column("resolved_by", sa.Text()),
        sa.Column("resolved_at", TIME),
        sa.CheckConstraint(
            "(resolved_at IS NULL) = (resolution IS NULL AND resolved_by IS NULL)",
            name=op.f("ck_exception_records_resolved_by_someone"),
        ),
        sa.CheckConstraint(
            "(owner IS NULL) = (owned_at IS NULL)", name=op.f("ck_exception_records_owned_since")
        ),
        sa.ForeignKeyConstraint(
            ["withdrawal_id"], ["withdrawals.id"], name=op.f("fk_exception_records_withdrawal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exception_records")),
    )
    op.create_index(
        "uq_one_open_exception",
        "exception_records",
        ["kind", "subject"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_index("ix_exception_records_withdrawal", "exception_records", ["withdrawal_id"])
    _keep("exception_records")


def _resolutions() -> None:
    op.create_table(
        "resolutions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("withdrawal_id", sa.Uuid(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("utr", sa.Text()),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("proposed_at", TIME, server_default=NOW, nullable=False),
        sa.Column("decided_by", sa.Text()),
        sa.Column("decided_at", TIME),
        sa.Column("outcome", sa.Text()),
        sa.CheckConstraint("decision IN ('go_on', 'paid', 'refund')", name=op.f("ck_resolutions_decision")),
        sa.CheckConstraint("length(evidence) > 0", name=op.f("ck_resolutions_has_evidence")),
        sa.CheckConstraint(
            "decided_by IS NULL OR outcome <> 'approved' OR decided_by <> proposed_by",
            name=op.f("ck_resolutions_two_people"),
        ),
        sa.CheckConstraint("outcome IN ('approved', 'rejected')", name=op.f("ck_resolutions_outcome")),
        sa.CheckConstraint(
            "(decided_at IS NULL) = (outcome IS NULL) AND (decided_at IS NULL) = (decided_by IS NULL)",
            name=op.f("ck_resolutions_decided_by_someone"),
        ),
        sa.ForeignKeyConstraint(
            ["withdrawal_id"], ["withdrawals.id"], name=op.f("fk_resolutions_withdrawal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resolutions")),
    )
    op.create_index(
        "uq_one_open_resolution",
        "resolutions",
        ["withdrawal_id"],
        unique=True,
        postgresql_where=sa.text("decided_at IS NULL"),
    )
    _keep("resolutions")


def _webhooks() -> None:
    op.add_column("webhook_events", sa.Column("occurred_at", TIME))
    op.add_column("webhook_events", sa.Column("reference_id", sa.Text()))
    # Tells what happened lately without reading the whole story, for hardly any room.
    op.create_index(
        "ix_withdrawal_events_created", "withdrawal_events", ["created_at"], postgresql_using="brin"
    )
    op.create_index("ix_webhook_events_withdrawal", "webhook_events", ["withdrawal_id"])
    op.create_index("ix_webhook_events_received", "webhook_events", ["received_at"])
    op.create_index(
        "ix_webhook_events_unmatched",
        "webhook_events",
        ["reference_id"],
        postgresql_where=sa.text("outcome = 'unmatched'"),
    )


def _keep(table: str) -> None:
    """Rows of it are never deleted (the function is migration 0002's)."""
    op.execute(
        f"CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()"
    )


def downgrade() -> None:
    """Forgets what was decided and found; coins and payouts stay as they are."""
    op.drop_index("ix_withdrawal_events_created", "withdrawal_events")
    for index in ("unmatched", "received", "withdrawal"):
        op.drop_index(f"ix_webhook_events_{index}", "webhook_events")
    op.drop_column("webhook_events", "reference_id")
    op.drop_column("webhook_events", "occurred_at")
    for table in ("resolutions", "exception_records", "provider_balances", "pace"):
        op.drop_table(table)
    op.drop_constraint(op.f("ck_switches_probes_only_while_off"), "switches")
    for column in ("probe_id", "probe_at", "trips", "strikes"):
        op.drop_column("switches", column)
