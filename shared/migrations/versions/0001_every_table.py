"""Every table, with the rules that a single row can be checked against"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "switches",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_on", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_switches")),
    )
    op.create_table(
        "wallets",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("balance_coins", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lifetime_coins", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("balance_coins >= 0", name=op.f("ck_wallets_balance_not_negative")),
        sa.CheckConstraint("length(user_id) BETWEEN 1 AND 500", name=op.f("ck_wallets_user_id_length")),
        sa.CheckConstraint("lifetime_coins >= 0", name=op.f("ck_wallets_lifetime_not_negative")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_wallets")),
    )
    op.create_table(
        "destinations",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("upi_id", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=False),
        sa.Column("fund_account_id", sa.Text(), nullable=False),
        sa.Column("known_to", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["wallets.user_id"], name=op.f("fk_destinations_user_id")),
        sa.PrimaryKeyConstraint("user_id", "upi_id", name=op.f("pk_destinations")),
    )
    op.create_table(
        "withdrawals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("coins_amount", sa.BigInteger(), nullable=False),
        sa.Column("amount_paise", sa.BigInteger(), nullable=False),
        sa.Column("upi_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expected_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("admin_notes", sa.Text(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("utr", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_fingerprint", sa.Text(), nullable=True),
        sa.Column("review", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'completed') = (completed_at IS NOT NULL)",
            name=op.f("ck_withdrawals_completed_at_iff_completed"),
        ),
        sa.CheckConstraint(
            "(status = 'failed') = (failure_reason IS NOT NULL)",
            name=op.f("ck_withdrawals_failure_has_a_reason"),
        ),
        sa.CheckConstraint(
            "(status IN ('pending', 'processing')) = (due_at IS NOT NULL)",
            name=op.f("ck_withdrawals_due_iff_not_final"),
        ),
        sa.CheckConstraint(
            "NOT (status IN ('pending', 'processing')) OR status_reason IS NOT NULL",
            name=op.f("ck_withdrawals_waits_for_a_reason"),
        ),
        sa.CheckConstraint(
            "status IN ('cancelled', 'completed', 'failed', 'pending', 'processing')",
            name=op.f("ck_withdrawals_status"),
        ),
        sa.CheckConstraint(
            "amount_paise BETWEEN 100 AND 10000000", name=op.f("ck_withdrawals_amount_within_upi")
        ),
        sa.CheckConstraint("coins_amount > 0", name=op.f("ck_withdrawals_coins_positive")),
        sa.CheckConstraint("length(upi_id) BETWEEN 5 AND 100", name=op.f("ck_withdrawals_upi_id_length")),
        sa.ForeignKeyConstraint(["user_id"], ["wallets.user_id"], name=op.f("fk_withdrawals_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawals")),
        sa.UniqueConstraint(
            "id", "user_id", "coins_amount", name=op.f("uq_withdrawals_id_user_id_coins_amount")
        ),
        sa.UniqueConstraint(
            "user_id", "idempotency_key", name=op.f("uq_withdrawals_user_id_idempotency_key")
        ),
    )
    op.create_index(
        "ix_withdrawals_due",
        "withdrawals",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('pending', 'processing')"),
    )
    op.create_index(
        "ix_withdrawals_history",
        "withdrawals",
        ["user_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "coin_transactions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("coins", sa.BigInteger(), nullable=False),
        sa.Column("balance_after", sa.BigInteger(), nullable=False),
        sa.Column("withdrawal_id", sa.Uuid(), nullable=True),
        sa.Column(
            "withdrawal_coins", sa.BigInteger(), sa.Computed("abs(coins)", persisted=True), nullable=False
        ),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(kind = 'withdrawal') <= (coins < 0)", name=op.f("ck_coin_transactions_withdrawals_take")
        ),
        sa.CheckConstraint(
            "(kind IN ('credit', 'refund')) <= (coins > 0)", name=op.f("ck_coin_transactions_credits_add")
        ),
        sa.CheckConstraint(
            "(kind IN ('withdrawal', 'refund')) = (withdrawal_id IS NOT NULL)",
            name=op.f("ck_coin_transactions_names_its_withdrawal"),
        ),
        sa.CheckConstraint(
            "kind <> 'credit' OR reference IS NOT NULL",
            name=op.f("ck_coin_transactions_credit_has_a_reference"),
        ),
        sa.CheckConstraint(
            "kind IN ('adjustment', 'credit', 'refund', 'withdrawal')", name=op.f("ck_coin_transactions_kind")
        ),
        sa.CheckConstraint("balance_after >= 0", name=op.f("ck_coin_transactions_balance_not_negative")),
        sa.CheckConstraint("coins <> 0", name=op.f("ck_coin_transactions_coins_not_zero")),
        sa.ForeignKeyConstraint(["user_id"], ["wallets.user_id"], name=op.f("fk_coin_transactions_user_id")),
        sa.ForeignKeyConstraint(
            ["withdrawal_id", "user_id", "withdrawal_coins"],
            ["withdrawals.id", "withdrawals.user_id", "withdrawals.coins_amount"],
            name="fk_coin_transactions_same_withdrawal",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coin_transactions")),
    )
    op.create_index(
        "ix_coin_transactions_user",
        "coin_transactions",
        ["user_id", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "uq_one_credit_per_reference",
        "coin_transactions",
        ["user_id", "reference"],
        unique=True,
        postgresql_where=sa.text("kind = 'credit'"),
    )
    op.create_index(
        "uq_one_debit_per_withdrawal",
        "coin_transactions",
        ["withdrawal_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'withdrawal'"),
    )
    op.create_index(
        "uq_one_refund_per_withdrawal",
        "coin_transactions",
        ["withdrawal_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'refund'"),
    )
    op.create_table(
        "payout_attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("withdrawal_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("request_body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("in_doubt", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("sends", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("checks", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("absent_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("absent_looks", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("sent_as", sa.Text(), nullable=False),
        sa.Column("waits", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("payout_id", sa.Text(), nullable=True),
        sa.Column("provider_status", sa.Text(), nullable=True),
        sa.Column("status_details", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("utr", sa.Text(), nullable=True),
        sa.Column("fees_paise", sa.BigInteger(), nullable=True),
        sa.Column("tax_paise", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "last_sent_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("recheck_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('accepted', 'paid', 'failed', 'reversed')) <= (payout_id IS NOT NULL)",
            name=op.f("ck_payout_attempts_known"),
        ),
        sa.CheckConstraint(
            "(state IN ('accepted', 'paid', 'sending', 'throttled', 'unknown')) = (ended_at IS NULL)",
            name=op.f("ck_payout_attempts_ended_iff_not_live"),
        ),
        sa.CheckConstraint(
            "state IN ('accepted', 'failed', 'paid', 'refused', 'reversed', 'sending', 'throttled', 'unknown')",
            name=op.f("ck_payout_attempts_state"),
        ),
        sa.CheckConstraint(
            "recheck_at IS NULL OR state = 'paid'", name=op.f("ck_payout_attempts_recheck_what_is_paid")
        ),
        sa.CheckConstraint("number > 0", name=op.f("ck_payout_attempts_number_positive")),
        sa.CheckConstraint("sends >= 1", name=op.f("ck_payout_attempts_sent_or_about_to_be")),
        sa.ForeignKeyConstraint(
            ["withdrawal_id"], ["withdrawals.id"], name=op.f("fk_payout_attempts_withdrawal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payout_attempts")),
        sa.UniqueConstraint("payout_id", name=op.f("uq_payout_attempts_payout_id")),
        sa.UniqueConstraint("withdrawal_id", "number", name=op.f("uq_payout_attempts_withdrawal_id_number")),
    )
    op.create_index(
        "ix_payout_attempts_recheck",
        "payout_attempts",
        ["recheck_at"],
        unique=False,
        postgresql_where=sa.text("recheck_at IS NOT NULL"),
    )
    op.create_index(
        "uq_one_live_attempt_per_withdrawal",
        "payout_attempts",
        ["withdrawal_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('accepted', 'paid', 'sending', 'throttled', 'unknown')"),
    )
    op.create_table(
        "webhook_events",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("withdrawal_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "(outcome IS NULL) = (applied_at IS NULL)", name=op.f("ck_webhook_events_applied_with_an_outcome")
        ),
        sa.ForeignKeyConstraint(
            ["withdrawal_id"], ["withdrawals.id"], name=op.f("fk_webhook_events_withdrawal_id")
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_webhook_events")),
    )
    op.create_index(
        "ix_webhook_events_waiting",
        "webhook_events",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("applied_at IS NULL"),
    )
    op.create_table(
        "withdrawal_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("withdrawal_id", sa.Uuid(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "data",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["withdrawal_id"], ["withdrawals.id"], name=op.f("fk_withdrawal_events_withdrawal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawal_events")),
    )
    op.create_index("ix_withdrawal_events_story", "withdrawal_events", ["withdrawal_id", "id"], unique=False)


def downgrade() -> None:
    """Only for an empty database: money is never dropped by a downgrade."""
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT EXISTS (SELECT FROM coin_transactions)")).scalar():
        raise RuntimeError("there is a journal; it is not dropped")
    for table in ("switches", "webhook_events", "withdrawal_events", "destinations", "payout_attempts"):
        op.drop_table(table)
    for table in ("coin_transactions", "withdrawals", "wallets"):
        op.drop_table(table)
