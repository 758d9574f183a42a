"""Every table, and the rules the database keeps by itself"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

# What no single row can check for itself. A fault raised here is always our bug: Python asks first.
RULES = (
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON coin_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON withdrawal_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE FUNCTION refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of % are never deleted', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON wallets
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()
    """,
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON withdrawals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()
    """,
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON payout_attempts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()
    """,
    # A wish never changes what it asks for, and moves only along the edges of states.py.
    """
    CREATE FUNCTION refuse_wrong_move() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (OLD.id, OLD.user_id, OLD.coins_amount, OLD.amount_paise, OLD.upi_id)
           IS DISTINCT FROM (NEW.id, NEW.user_id, NEW.coins_amount, NEW.amount_paise, NEW.upi_id) THEN
            RAISE EXCEPTION 'what withdrawal % asks for never changes', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        IF OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (
            ('pending', 'processing'), ('pending', 'cancelled'), ('pending', 'failed'),
            ('processing', 'completed'), ('processing', 'failed'), ('completed', 'failed')) THEN
            RAISE EXCEPTION 'withdrawal % cannot go from % to %', OLD.id, OLD.status, NEW.status
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER right_move BEFORE UPDATE ON withdrawals
    FOR EACH ROW EXECUTE FUNCTION refuse_wrong_move()
    """,
    # The key and the bytes that went out once are the ones that go out again.
    """
    CREATE FUNCTION refuse_other_request() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (OLD.id, OLD.withdrawal_id, OLD.number, OLD.request_body)
           IS DISTINCT FROM (NEW.id, NEW.withdrawal_id, NEW.number, NEW.request_body)
           OR (OLD.payout_id IS NOT NULL AND OLD.payout_id IS DISTINCT FROM NEW.payout_id) THEN
            RAISE EXCEPTION 'the request of attempt % never changes', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        IF OLD.ended_at IS NOT NULL AND OLD.state <> NEW.state THEN
            RAISE EXCEPTION 'attempt % has ended', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER same_request BEFORE UPDATE ON payout_attempts
    FOR EACH ROW EXECUTE FUNCTION refuse_other_request()
    """,
    # Promise 3: never a refund while a payout could still succeed ...
    """
    CREATE FUNCTION refuse_unsafe_refund() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM payout_attempts WHERE withdrawal_id = NEW.withdrawal_id
                   AND state IN ('sending', 'throttled', 'unknown', 'accepted', 'paid')) THEN
            RAISE EXCEPTION 'a payout of withdrawal % may still succeed', NEW.withdrawal_id
                USING ERRCODE = 'restrict_violation';
        END IF;
        IF NOT EXISTS (SELECT FROM withdrawals WHERE id = NEW.withdrawal_id
                       AND status IN ('failed', 'cancelled')) THEN
            RAISE EXCEPTION 'withdrawal % is not over', NEW.withdrawal_id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER safe_refund BEFORE INSERT ON coin_transactions
    FOR EACH ROW WHEN (NEW.kind = 'refund') EXECUTE FUNCTION refuse_unsafe_refund()
    """,
    # ... and no payout beside a refund.
    """
    CREATE FUNCTION refuse_unheld_payout() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM coin_transactions WHERE withdrawal_id = NEW.withdrawal_id AND kind = 'refund') THEN
            RAISE EXCEPTION 'withdrawal % was refunded', NEW.withdrawal_id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER held_coins BEFORE INSERT OR UPDATE OF state ON payout_attempts
    FOR EACH ROW WHEN (NEW.state IN ('sending', 'throttled', 'unknown', 'accepted', 'paid'))
    EXECUTE FUNCTION refuse_unheld_payout()
    """,
    # Promise 1, at commit: coins leave and come back only together with their withdrawal.
    """
    CREATE FUNCTION refuse_lost_coins() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM coin_transactions WHERE withdrawal_id = NEW.id AND kind = 'withdrawal') THEN
            RAISE EXCEPTION 'withdrawal % took no coins', NEW.id USING ERRCODE = 'restrict_violation';
        END IF;
        IF NEW.status IN ('failed', 'cancelled')
           AND NOT EXISTS (SELECT FROM coin_transactions WHERE withdrawal_id = NEW.id AND kind = 'refund') THEN
            RAISE EXCEPTION 'withdrawal % gave no coins back', NEW.id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER coins_moved AFTER INSERT OR UPDATE OF status ON withdrawals
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_lost_coins()
    """,
    # Promise 1, at commit: a balance is what the journal's last line says it is.
    """
    CREATE FUNCTION refuse_unwritten_balance() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        balance bigint := (SELECT balance_coins FROM wallets WHERE user_id = NEW.user_id);
        written bigint := (SELECT balance_after FROM coin_transactions WHERE user_id = NEW.user_id
                           ORDER BY id DESC LIMIT 1);
    BEGIN
        IF balance IS DISTINCT FROM coalesce(written, 0) THEN
            RAISE EXCEPTION 'the balance of a wallet is % and its journal says %', balance, coalesce(written, 0)
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER balance_written AFTER INSERT OR UPDATE OF balance_coins ON wallets
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_unwritten_balance()
    """,
)


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
    for rule in RULES:
        op.execute(rule)


def downgrade() -> None:
    """Only for an empty database: money is never dropped by a downgrade."""
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT EXISTS (SELECT FROM coin_transactions)")).scalar():
        raise RuntimeError("there is a journal; it is not dropped")
    for table in ("switches", "webhook_events", "withdrawal_events", "destinations", "payout_attempts"):
        op.drop_table(table)
    for table in ("coin_transactions", "withdrawals", "wallets"):
        op.drop_table(table)
    for function in (
        "refuse_change",
        "refuse_delete", "refuse_wrong_move", "refuse_other_request", "refuse_unsafe_refund",
        "refuse_unheld_payout", "refuse_lost_coins", "refuse_unwritten_balance",
    ):  # fmt: skip
        op.execute(f"DROP FUNCTION {function}()")
