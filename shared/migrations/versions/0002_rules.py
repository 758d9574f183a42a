"""The rules that one row cannot check for itself: coins, refunds, moves and requests"""

from alembic import op

revision = "0002"
down_revision = "0001"

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

FUNCTIONS = (
    "refuse_change",
    "refuse_delete",
    "refuse_wrong_move",
    "refuse_other_request",
    "refuse_unsafe_refund",
    "refuse_unheld_payout",
    "refuse_lost_coins",
    "refuse_unwritten_balance",
)


def upgrade() -> None:
    for rule in RULES:
        op.execute(rule)


def downgrade() -> None:
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}() CASCADE")  # and the triggers that call it
