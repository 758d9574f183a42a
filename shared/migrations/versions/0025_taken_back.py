"""Coins that came back although the rupees arrived: taken again, and given back again, by two people"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

BEFORE = "'go_on', 'paid', 'refund'"
NOW = "'give_back', 'go_on', 'paid', 'refund', 'take_back'"
CORRECTIONS = "decision IN ('give_back', 'take_back')"
# Python asks first. Here it cannot be past asking: one withdrawal, its user, all of its coins or none of them,
# and the decision of two people about just that. Its row is locked: two corrections come one after the other.
RULE = """
    CREATE FUNCTION refuse_loose_correction() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        corrected withdrawals;
        taken bigint;
    BEGIN
        SELECT * INTO corrected FROM withdrawals WHERE id = NEW.withdrawal_id FOR UPDATE;
        taken := NEW.coins + (SELECT coalesce(sum(coins), 0) FROM adjustments WHERE withdrawal_id = NEW.withdrawal_id);
        IF corrected.user_id <> NEW.user_id OR abs(NEW.coins) <> corrected.coins_amount
           OR taken NOT IN (0, -corrected.coins_amount) THEN
            RAISE EXCEPTION 'the corrections of withdrawal % are all of its coins, or none', NEW.withdrawal_id
                USING ERRCODE = 'restrict_violation';
        END IF;
        IF corrected.status <> 'failed' THEN
            RAISE EXCEPTION 'the coins of withdrawal % are not back', NEW.withdrawal_id
                USING ERRCODE = 'restrict_violation';
        END IF;
        IF NOT EXISTS (SELECT FROM resolutions r WHERE r.id = NEW.resolution_id
                       AND r.withdrawal_id = NEW.withdrawal_id AND r.outcome = 'approved'
                       AND r.decision = CASE WHEN NEW.coins < 0 THEN 'take_back' ELSE 'give_back' END
                       AND (r.proposed_by, r.decided_by) = (NEW.proposed_by, NEW.decided_by)) THEN
            RAISE EXCEPTION 'no two people decided on this correction of withdrawal %', NEW.withdrawal_id
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
"""


def upgrade() -> None:
    _decisions(NOW)
    op.add_column("adjustments", sa.Column("withdrawal_id", sa.Uuid()))
    op.add_column("adjustments", sa.Column("resolution_id", sa.Uuid()))
    for column, table in (("withdrawal_id", "withdrawals"), ("resolution_id", "resolutions")):
        op.create_foreign_key(op.f(f"fk_adjustments_{column}"), "adjustments", table, [column], ["id"])
    op.create_check_constraint(
        op.f("ck_adjustments_corrections_are_decided"),
        "adjustments",
        "(withdrawal_id IS NULL) = (resolution_id IS NULL) AND (withdrawal_id IS NULL"
        " OR (kind = 'adjustment' AND needs_two AND outcome = 'approved' AND outcome IS NOT NULL))",
    )
    op.create_index(
        "ix_adjustments_corrections",
        "adjustments",
        ["withdrawal_id"],
        postgresql_where=sa.text("withdrawal_id IS NOT NULL"),
    )
    op.create_index(
        "uq_one_adjustment_per_resolution",
        "adjustments",
        ["resolution_id"],
        unique=True,
        postgresql_where=sa.text("resolution_id IS NOT NULL"),
    )
    op.create_index(
        "ix_resolutions_corrections",
        "resolutions",
        ["withdrawal_id"],
        postgresql_where=sa.text(CORRECTIONS),
    )
    op.execute(RULE)
    op.execute(
        "CREATE TRIGGER tied_correction BEFORE INSERT ON adjustments FOR EACH ROW"
        " WHEN (NEW.withdrawal_id IS NOT NULL) EXECUTE FUNCTION refuse_loose_correction()"
    )
    # What was proposed without a withdrawal gets none later.
    op.execute(
        "CREATE TRIGGER tied_from_the_first BEFORE UPDATE OF withdrawal_id, resolution_id ON adjustments"
        " FOR EACH ROW WHEN ((OLD.withdrawal_id, OLD.resolution_id)"
        " IS DISTINCT FROM (NEW.withdrawal_id, NEW.resolution_id)) EXECUTE FUNCTION refuse_change()"
    )


def _decisions(words: str) -> None:
    op.drop_constraint(op.f("ck_resolutions_decision"), "resolutions")
    op.create_check_constraint(op.f("ck_resolutions_decision"), "resolutions", f"decision IN ({words})")


def downgrade() -> None:
    """Only while nothing was corrected: an older release would not know whose the coins are."""
    asked = sa.text(f"SELECT EXISTS (SELECT FROM resolutions WHERE {CORRECTIONS})")
    if op.get_bind().execute(asked).scalar():
        raise RuntimeError("Coins of withdrawals were taken back; move away with a backup, not a downgrade")
    op.execute("DROP FUNCTION refuse_loose_correction() CASCADE")  # and the trigger that calls it
    op.execute("DROP TRIGGER tied_from_the_first ON adjustments")
    op.drop_index("ix_resolutions_corrections", "resolutions")
    for column in ("withdrawal_id", "resolution_id"):
        op.drop_column("adjustments", column)
    _decisions(BEFORE)
