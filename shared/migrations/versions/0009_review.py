"""Review, limits, the wait for a new UPI id, the block list, frozen wallets, adjustments by two people"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")
WHY = "IN ('amount', 'every', 'upi_blocked', 'wallet_frozen')"

RULES = (
    # What awaits approval is not sent, and nothing is sent before its time.
    """
    CREATE FUNCTION refuse_unapproved_payout() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM withdrawals WHERE id = NEW.withdrawal_id
                   AND (awaits_approval IS NOT NULL OR not_before > now())) THEN
            RAISE EXCEPTION 'withdrawal % may not be sent yet', NEW.withdrawal_id
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER approved BEFORE INSERT ON payout_attempts
    FOR EACH ROW EXECUTE FUNCTION refuse_unapproved_payout()
    """,
    # It awaits until somebody has approved this amount and this payee, in the same transaction.
    """
    CREATE FUNCTION refuse_silent_approval() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.awaits_approval IS NULL AND NEW.status <> 'pending' THEN
            RAISE EXCEPTION 'withdrawal % was begun already', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        IF OLD.awaits_approval IS NOT NULL AND (NEW.awaits_approval IS NOT NULL OR NOT EXISTS (
            SELECT FROM reviews WHERE withdrawal_id = OLD.id AND outcome = 'approved' AND decided_at = now()
            AND (why, coins_amount, upi_id) = (OLD.awaits_approval, OLD.coins_amount, OLD.upi_id))) THEN
            RAISE EXCEPTION 'nobody approved withdrawal %', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER approved_by_someone BEFORE UPDATE OF awaits_approval ON withdrawals
    FOR EACH ROW WHEN (OLD.awaits_approval IS DISTINCT FROM NEW.awaits_approval)
    EXECUTE FUNCTION refuse_silent_approval()
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON reviews
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON blocks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()
    """,
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON adjustments
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()
    """,
    # Coins are given or taken as they were proposed, and the journal's line says so too.
    """
    CREATE FUNCTION refuse_other_adjustment() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.decided_at IS NOT NULL
           OR (OLD.id, OLD.kind, OLD.user_id, OLD.coins, OLD.reference, OLD.needs_two, OLD.proposed_by)
           IS DISTINCT FROM (NEW.id, NEW.kind, NEW.user_id, NEW.coins, NEW.reference, NEW.needs_two, NEW.proposed_by)
        THEN
            RAISE EXCEPTION 'what adjustment % says never changes', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER same_adjustment BEFORE UPDATE ON adjustments
    FOR EACH ROW EXECUTE FUNCTION refuse_other_adjustment()
    """,
    """
    CREATE FUNCTION refuse_undecided_adjustment() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM adjustments WHERE id::text = NEW.reference AND user_id = NEW.user_id
                       AND kind = 'adjustment' AND coins = NEW.coins AND outcome = 'approved') THEN
            RAISE EXCEPTION 'nobody decided on this adjustment' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER decided BEFORE INSERT ON coin_transactions
    FOR EACH ROW WHEN (NEW.kind = 'adjustment') EXECUTE FUNCTION refuse_undecided_adjustment()
    """,
)
FUNCTIONS = (
    "refuse_unapproved_payout",
    "refuse_silent_approval",
    "refuse_other_adjustment",
    "refuse_undecided_adjustment",
)

# This month's withdrawals count from the first day on, as if the limits had been there.
COUNT_WITHDRAWALS = """
    UPDATE withdrawals SET counted_on = CAST(created_at AT TIME ZONE 'Asia/Kolkata' AS date)
    WHERE created_at >= date_trunc('month', now() AT TIME ZONE 'Asia/Kolkata') AT TIME ZONE 'Asia/Kolkata'
"""
COUNT_USERS = """
    UPDATE wallets SET used_on = used.last_day, day_withdrawals = used.day_withdrawals, day_coins = used.day_coins,
        month_withdrawals = used.month_withdrawals, month_coins = used.month_coins
    FROM (SELECT user_id, last_day, count(*) AS month_withdrawals, sum(coins_amount) AS month_coins,
              count(*) FILTER (WHERE counted_on = last_day) AS day_withdrawals,
              coalesce(sum(coins_amount) FILTER (WHERE counted_on = last_day), 0) AS day_coins
          FROM (SELECT user_id, counted_on, coins_amount, max(counted_on) OVER (PARTITION BY user_id) AS last_day
                FROM withdrawals WHERE counted_on IS NOT NULL AND status NOT IN ('failed', 'cancelled')) counted
          GROUP BY user_id, last_day) used
    WHERE wallets.user_id = used.user_id
"""


def upgrade() -> None:
    _withdrawals()
    _wallets()
    _reviews()
    _blocks()
    _adjustments()
    for rule in RULES:
        op.execute(rule)
    op.execute(COUNT_WITHDRAWALS)
    op.execute(COUNT_USERS)


def _withdrawals() -> None:
    op.add_column("withdrawals", sa.Column("awaits_approval", sa.Text()))
    op.add_column("withdrawals", sa.Column("not_before", TIME))
    op.add_column("withdrawals", sa.Column("counted_on", sa.Date()))
    op.create_check_constraint(
        op.f("ck_withdrawals_awaits_approval"),
        "withdrawals",
        f"awaits_approval IS NULL OR (awaits_approval {WHY})",
    )
    op.create_check_constraint(
        op.f("ck_withdrawals_approved_before_sent"),
        "withdrawals",
        "awaits_approval IS NULL OR status NOT IN ('processing', 'completed')",
    )
    op.create_index(
        "ix_withdrawals_awaiting",
        "withdrawals",
        ["created_at"],
        postgresql_where=sa.text("status = 'pending' AND awaits_approval IS NOT NULL"),
    )


def _wallets() -> None:
    op.add_column("wallets", sa.Column("is_frozen", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("wallets", sa.Column("used_on", sa.Date()))
    for column in ("day_withdrawals", "day_coins", "month_withdrawals", "month_coins"):
        op.add_column("wallets", sa.Column(column, sa.BigInteger(), server_default="0", nullable=False))


def _reviews() -> None:
    op.create_table(
        "reviews",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("withdrawal_id", sa.Uuid(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("coins_amount", sa.BigInteger(), nullable=False),
        sa.Column("upi_id", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_at", TIME, server_default=NOW, nullable=False),
        sa.CheckConstraint("outcome IN ('approved', 'rejected')", name=op.f("ck_reviews_outcome")),
        sa.CheckConstraint(f"why {WHY}", name=op.f("ck_reviews_why")),
        sa.CheckConstraint("length(reason) > 0", name=op.f("ck_reviews_has_a_reason")),
        sa.CheckConstraint(
            "outcome <> 'approved' OR decided_by <> requested_by", name=op.f("ck_reviews_not_their_own")
        ),
        sa.ForeignKeyConstraint(["withdrawal_id"], ["withdrawals.id"], name=op.f("fk_reviews_withdrawal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
    )
    op.create_index("ix_reviews_withdrawal", "reviews", ["withdrawal_id"])


def _blocks() -> None:
    op.create_table(
        "blocks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("added_by", sa.Text(), nullable=False),
        sa.Column("added_at", TIME, server_default=NOW, nullable=False),
        sa.Column("removed_by", sa.Text()),
        sa.Column("removed_at", TIME),
        sa.Column("removed_because", sa.Text()),
        sa.CheckConstraint("kind IN ('upi_id', 'wallet')", name=op.f("ck_blocks_kind")),
        sa.CheckConstraint(
            "kind <> 'upi_id' OR subject = lower(subject)", name=op.f("ck_blocks_upi_ids_in_lower_case")
        ),
        sa.CheckConstraint("length(reason) > 0", name=op.f("ck_blocks_has_a_reason")),
        sa.CheckConstraint(
            "(removed_at IS NULL) = (removed_by IS NULL) AND (removed_at IS NULL) = (removed_because IS NULL)",
            name=op.f("ck_blocks_removed_by_someone"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blocks")),
    )
    op.create_index(
        "uq_one_block_per_subject",
        "blocks",
        ["kind", "subject"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )


def _adjustments() -> None:
    op.create_table(
        "adjustments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("coins", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("needs_two", sa.Boolean(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("proposed_at", TIME, server_default=NOW, nullable=False),
        sa.Column("decided_by", sa.Text()),
        sa.Column("decided_at", TIME),
        sa.Column("outcome", sa.Text()),
        sa.CheckConstraint("kind IN ('adjustment', 'credit')", name=op.f("ck_adjustments_kind")),
        sa.CheckConstraint(
            "coins <> 0 AND (kind <> 'credit' OR coins > 0)", name=op.f("ck_adjustments_coins")
        ),
        sa.CheckConstraint(
            "(kind = 'credit') = (reference IS NOT NULL)",
            name=op.f("ck_adjustments_credits_have_a_reference"),
        ),
        sa.CheckConstraint("length(reason) > 0", name=op.f("ck_adjustments_has_a_reason")),
        sa.CheckConstraint("outcome IN ('approved', 'rejected')", name=op.f("ck_adjustments_outcome")),
        sa.CheckConstraint(
            "(decided_at IS NULL) = (outcome IS NULL) AND (decided_at IS NULL) = (decided_by IS NULL)",
            name=op.f("ck_adjustments_decided_by_someone"),
        ),
        sa.CheckConstraint(
            "NOT needs_two OR decided_by IS NULL OR outcome <> 'approved' OR decided_by <> proposed_by",
            name=op.f("ck_adjustments_two_people"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adjustments")),
    )
    op.create_index(
        "ix_adjustments_open", "adjustments", ["proposed_at"], postgresql_where=sa.text("decided_at IS NULL")
    )
    op.create_index("ix_adjustments_of_person", "adjustments", ["proposed_by", "decided_at"])
    op.create_index(
        "uq_one_line_per_adjustment",
        "coin_transactions",
        ["reference"],
        unique=True,
        postgresql_where=sa.text("kind = 'adjustment'"),
    )


# Older code knows no approval: it would send what awaits one.
NOTHING_WAITS = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM withdrawals WHERE status = 'pending'
                   AND (awaits_approval IS NOT NULL OR not_before > now())) THEN
            RAISE EXCEPTION 'some withdrawals await approval, or their time: approve, reject or cancel them first';
        END IF;
    END $$
"""


def downgrade() -> None:
    """Forgets who approved and who is blocked. Refused while something waits that would then be sent."""
    op.execute(NOTHING_WAITS)
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}() CASCADE")  # and the triggers that call it
    op.drop_index("uq_one_line_per_adjustment", "coin_transactions")
    for table in ("adjustments", "blocks", "reviews"):
        op.drop_table(table)
    for column in (
        "month_coins",
        "month_withdrawals",
        "day_coins",
        "day_withdrawals",
        "used_on",
        "is_frozen",
    ):
        op.drop_column("wallets", column)
    op.drop_index("ix_withdrawals_awaiting", "withdrawals")
    for check in ("approved_before_sent", "awaits_approval"):
        op.drop_constraint(op.f(f"ck_withdrawals_{check}"), "withdrawals")
    for column in ("counted_on", "not_before", "awaits_approval"):
        op.drop_column("withdrawals", column)
