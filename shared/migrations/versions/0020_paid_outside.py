"""A UTR is one withdrawal's; by which way it was paid, and when, by people's word

Where two withdrawals have the same UTR already, nothing is changed or lost: the first keeps it, the others get
a number (`utr_twin`) and an exception record each, `utr_twice`. Look at the bank's statement for each of them,
refund what was not paid by `payouts resolve`, and close the record with what you found. No new twin can be made.
"""

import sqlalchemy as sa
import structlog
from alembic import op

revision = "0020"
down_revision = "0019"

WAYS = "paid_via IN ('imps', 'neft', 'razorpayx', 'rtgs', 'unknown', 'upi')"
TIME = sa.DateTime(timezone=True)
TWINS = """
    UPDATE withdrawals w SET utr_twin = t.twin FROM (
        SELECT id, row_number() OVER (PARTITION BY upper(utr) ORDER BY completed_at, created_at, id) - 1 AS twin
        FROM withdrawals WHERE utr IS NOT NULL
    ) t WHERE t.id = w.id AND t.twin > 0
"""
TOLD = """
    INSERT INTO exception_records (kind, subject, source, withdrawal_id, ours, theirs)
    SELECT 'utr_twice', id::text, 'migration', id,
           jsonb_build_object('utr', utr, 'status', status, 'amount_paise', amount_paise), '{}'::jsonb
    FROM withdrawals WHERE utr_twin > 0 ON CONFLICT DO NOTHING
"""
# By which way, nobody had to say until now.
OUTSIDE = """
    UPDATE withdrawals w SET paid_via = 'unknown' WHERE status = 'completed' AND utr IS NOT NULL
    AND EXISTS (SELECT FROM resolutions r WHERE r.withdrawal_id = w.id AND r.decision = 'paid'
                AND r.outcome = 'approved' AND r.utr = w.utr)
    AND NOT EXISTS (SELECT FROM payout_attempts a WHERE a.withdrawal_id = w.id AND a.state = 'paid')
"""
# Only two people say that it was paid another way, and only where it completes: it stays said.
RULE = """
    CREATE FUNCTION refuse_other_payment() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.utr_twin > coalesce(OLD.utr_twin, 0) THEN
            RAISE EXCEPTION 'another withdrawal has the UTR of %', NEW.id USING ERRCODE = 'restrict_violation';
        END IF;
        IF NEW.paid_via <> coalesce(OLD.paid_via, 'razorpayx') THEN
            IF TG_OP = 'INSERT' OR OLD.status = 'completed' OR NEW.status <> 'completed' OR NOT EXISTS (
                SELECT FROM resolutions WHERE withdrawal_id = NEW.id AND decision = 'paid' AND outcome = 'approved'
                AND paid_via = NEW.paid_via AND utr = NEW.utr AND paid_at = NEW.completed_at) THEN
                RAISE EXCEPTION 'no two people said that withdrawal % was paid by %', NEW.id, NEW.paid_via
                    USING ERRCODE = 'restrict_violation';
            END IF;
        END IF;
        RETURN NEW;
    END $$
"""


def upgrade() -> None:
    # The rules of a withdrawal's moves are no matter here, and a large table has many rows.
    op.add_column(
        "withdrawals", sa.Column("utr_twin", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column(
        "withdrawals", sa.Column("paid_via", sa.Text(), server_default=sa.text("'razorpayx'"), nullable=False)
    )
    op.add_column("resolutions", sa.Column("paid_via", sa.Text()))
    op.add_column("resolutions", sa.Column("paid_at", TIME))
    op.execute(OUTSIDE)
    twins = op.get_bind().execute(sa.text(TWINS)).rowcount
    if twins:
        op.execute(TOLD)
        structlog.get_logger().warning(
            "[MIGRATE] withdrawals share a UTR",
            count=twins,
            then="each has an exception record `utr_twice`: look at the bank's statement, then close it",
        )
    op.create_index(
        "uq_withdrawals_utr",
        "withdrawals",
        [sa.literal_column("upper(utr)"), "utr_twin"],
        unique=True,
        postgresql_where=sa.text("utr IS NOT NULL"),
    )
    op.drop_index("ix_withdrawals_utr", "withdrawals")
    op.create_index(
        "ix_withdrawals_paid_outside",
        "withdrawals",
        ["completed_at"],
        postgresql_where=sa.text("paid_via <> 'razorpayx'"),
    )
    op.create_check_constraint(op.f("ck_withdrawals_paid_via"), "withdrawals", WAYS)
    op.create_check_constraint(
        op.f("ck_withdrawals_outside_under_a_utr"), "withdrawals", "paid_via = 'razorpayx' OR utr IS NOT NULL"
    )
    op.create_check_constraint(
        op.f("ck_withdrawals_outside_after_the_request"),
        "withdrawals",
        "paid_via = 'razorpayx' OR completed_at IS NULL OR completed_at >= created_at",
    )
    op.create_check_constraint(op.f("ck_resolutions_paid_via"), "resolutions", WAYS)
    op.create_check_constraint(
        op.f("ck_resolutions_tells_of_a_payment"),
        "resolutions",
        "(paid_via IS NULL) = (paid_at IS NULL) AND (paid_via IS NULL OR decision = 'paid')",
    )
    op.create_check_constraint(
        op.f("ck_resolutions_paid_before_it_is_told"), "resolutions", "paid_at <= proposed_at"
    )
    op.execute(RULE)
    for name, when, which in (
        ("right_payment_from_the_first", "INSERT", "NEW.utr_twin > 0 OR NEW.paid_via <> 'razorpayx'"),
        (
            "right_payment",
            "UPDATE OF utr_twin, paid_via",
            "NEW.utr_twin > OLD.utr_twin OR NEW.paid_via <> OLD.paid_via",
        ),
    ):
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {when} ON withdrawals FOR EACH ROW WHEN ({which})"
            " EXECUTE FUNCTION refuse_other_payment()"
        )


def downgrade() -> None:
    op.execute("DROP FUNCTION refuse_other_payment() CASCADE")  # and the trigger that calls it
    op.create_index("ix_withdrawals_utr", "withdrawals", ["utr"], postgresql_where=sa.text("utr IS NOT NULL"))
    op.drop_index("uq_withdrawals_utr", "withdrawals")
    op.drop_index("ix_withdrawals_paid_outside", "withdrawals")
    for column in ("paid_via", "utr_twin"):
        op.drop_column("withdrawals", column)
    for column in ("paid_via", "paid_at"):
        op.drop_column("resolutions", column)
