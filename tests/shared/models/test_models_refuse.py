"""The database keeps the promises itself: it refuses every change that our code must never make."""

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared.db.transactions import transaction
from shared.models import BlockRemoval
from shared.providers.answers import Refused
from shared.withdrawals import blocks
from tests.support.steps import record_answer
from tests.support.world import World

REFUND = """
    UPDATE wallets SET balance_coins = balance_coins + 500;
    INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, actor)
    SELECT 'user123', 'refund', 500, balance_coins, (SELECT id FROM withdrawals), 'me' FROM wallets;
"""
FAILED = "UPDATE withdrawals SET status = 'failed', failure_reason = 'x', due_at = NULL;"
ATTEMPT = """
    INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sent_as)
    SELECT gen_random_uuid(), id, 9, '', 'sending', '' FROM withdrawals;
"""
APPROVED = """
    INSERT INTO reviews (withdrawal_id, why, facts, coins_amount, requested_by, reason, decided_by, upi_id, outcome)
    SELECT id, 'amount', '', coins_amount, 'app:test', 'x', 'operator:asha', {} FROM withdrawals;
    UPDATE withdrawals SET awaits_approval = NULL;
"""


def pending(world: World) -> None:
    world.credit(coins=2000)
    world.request(coins=500)


def awaiting(world: World) -> None:
    pending(world)
    world.sql("UPDATE withdrawals SET awaits_approval = 'amount'")


def early(world: World) -> None:
    pending(world)
    world.sql("UPDATE withdrawals SET not_before = now() + interval '1 second'")


def sending(world: World) -> None:
    world.credit(coins=2000)
    world.first_send(coins=500)


def paid(world: World) -> None:
    world.paid()


def failed(world: World) -> None:
    world.paid(upi_id="fail.bank_account_closed@sim")


def refused(world: World) -> None:
    """A refusal that says nothing about the payee."""
    world.credit()
    record_answer(world.first_send(), Refused("input_validation_failed", "no", 400))


def forgotten(world: World) -> None:
    world.credit()
    record_answer(world.first_send(), Refused("fund_account_invalid", "no", 400))


def frozen(world: World) -> None:
    pending(world)
    with transaction() as session:
        block = blocks.freeze(session, "user123", reason="stolen", actor="operator:asha")
        session.add(BlockRemoval(block_id=block.id, reason="back", proposed_by="operator:asha"))


# Two spellings of one person.
SPELT_TWICE = "'operator:asha', 'operator:ＡSHA '"
END_BLOCK = "UPDATE blocks SET removed_at = now(), removed_by = 'operator:ravi', removed_because = 'x'"
DECIDE_REMOVAL = "UPDATE block_removals SET outcome = '{}', decided_by = '{}', decided_at = {};"

# The setup, the forbidden statements, and what the database's error says.
REFUSALS: list[tuple[Callable[[World], None], str, str]] = [
    (pending, "UPDATE coin_transactions SET coins = 1", "append-only"),
    (pending, "DELETE FROM coin_transactions", "append-only"),
    (pending, "TRUNCATE coin_transactions CASCADE", "append-only"),
    (pending, "UPDATE withdrawal_events SET actor = 'me'", "append-only"),
    (pending, "DELETE FROM withdrawal_events", "append-only"),
    (pending, "UPDATE wallets SET balance_coins = balance_coins + 1", "its journal says"),
    (pending, "UPDATE wallets SET balance_coins = -1", "balance_not_negative"),
    (pending, "UPDATE withdrawals SET coins_amount = 1", "never changes"),
    (pending, "UPDATE withdrawals SET amount_paise = 500000", "never changes"),
    (pending, "UPDATE withdrawals SET upi_id = 'other@bank'", "never changes"),
    (pending, "UPDATE withdrawals SET due_at = NULL", "due_iff_not_final"),
    (pending, "UPDATE withdrawals SET status_reason = NULL", "waits_for_a_reason"),
    (
        pending,
        "UPDATE withdrawals SET status = 'completed', completed_at = now(), due_at = NULL",
        "cannot go from pending to completed",
    ),
    (pending, FAILED, "gave no coins back"),
    (pending, REFUND, "is not over"),
    (sending, FAILED + REFUND, "may still succeed"),
    (sending, ATTEMPT, "uq_one_live_attempt_per_withdrawal"),
    (sending, "UPDATE payout_attempts SET request_body = 'other'", "never changes"),
    (sending, "UPDATE payout_attempts SET id = gen_random_uuid()", "never changes"),
    (paid, FAILED + REFUND, "ck_withdrawals|may still succeed"),
    (paid, ATTEMPT, "uq_one_live_attempt_per_withdrawal"),
    (paid, "UPDATE payout_attempts SET payout_id = 'pout_other'", "never changes"),
    *(
        (paid, f"UPDATE destinations SET {column} = 'other'", "never changes")
        for column in ("user_id", "upi_id", "contact_id", "fund_account_id", "known_to")
    ),
    (paid, "UPDATE destinations SET ended_at = now()", "nothing was refused"),
    (refused, "UPDATE destinations SET ended_at = now()", "nothing was refused"),
    (forgotten, "UPDATE destinations SET ended_at = NULL", "never changes"),
    (paid, "DELETE FROM destinations", "never deleted"),
    (paid, "TRUNCATE destinations", "never deleted"),
    (
        paid,
        "INSERT INTO destinations (id, user_id, upi_id, contact_id, fund_account_id, known_to)"
        " SELECT gen_random_uuid(), user_id, upi_id, contact_id, 'fa_other', known_to FROM destinations",
        "uq_one_live_destination",
    ),
    (failed, REFUND, "uq_one_refund_per_withdrawal"),
    (failed, ATTEMPT, "was refunded"),
    (failed, "UPDATE payout_attempts SET state = 'paid', ended_at = NULL", "was refunded|has ended"),
    (failed, "UPDATE payout_attempts SET state = 'refused'", "has ended"),
    (failed, "DELETE FROM payout_attempts", "never deleted"),
    (pending, "DELETE FROM withdrawals", "never deleted"),
    (pending, "DELETE FROM wallets", "never deleted"),
    (pending, "TRUNCATE wallets CASCADE", "never deleted|append-only"),
    (
        failed,
        "UPDATE withdrawals SET status = 'processing', due_at = now()",
        "cannot go from failed to processing",
    ),
    (
        pending,
        "INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, status_reason, due_at,"
        " expected_by) VALUES (gen_random_uuid(), 'user123', 100, 1000, 'a@bcd', 'pending', 'sending', now(), now())",
        "took no coins",
    ),
    (pending, "UPDATE withdrawals SET expected_by = NULL", "waits_until_a_time"),
    (
        failed,
        "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, actor)"
        " SELECT 'user123', 'withdrawal', -499, 0, id, 'me' FROM withdrawals",
        "same_withdrawal|uq_one_debit",
    ),
    (awaiting, ATTEMPT, "may not be sent yet"),
    (early, ATTEMPT, "may not be sent yet"),
    (awaiting, "UPDATE withdrawals SET status = 'processing'", "approved_before_sent"),
    (awaiting, "UPDATE withdrawals SET awaits_approval = NULL", "nobody approved"),
    (awaiting, "UPDATE withdrawals SET awaits_approval = 'every'", "nobody approved"),
    (awaiting, APPROVED.format("upi_id, 'rejected'"), "nobody approved"),
    (awaiting, APPROVED.format("'thief@okaxis', 'approved'"), "nobody approved"),
    (awaiting, APPROVED.format("upi_id, 'approved'") + "DELETE FROM reviews", "append-only"),
    (sending, "UPDATE withdrawals SET awaits_approval = 'amount'", "was begun already"),
    (
        pending,
        "INSERT INTO resolutions (id, withdrawal_id, decision, evidence, fingerprint, proposed_by, decided_by,"
        f" outcome, decided_at) SELECT gen_random_uuid(), id, 'refund', 'x', '', {SPELT_TWICE}, 'approved', now()"
        " FROM withdrawals",
        "ck_resolutions_two_people",
    ),
    (
        pending,
        "INSERT INTO adjustments (id, kind, user_id, coins, reason, needs_two, proposed_by, decided_by, outcome,"
        f" decided_at) SELECT gen_random_uuid(), 'adjustment', 'user123', 5, 'x', true, {SPELT_TWICE}, 'approved',"
        " now()",
        "ck_adjustments_two_people",
    ),
    (
        pending,
        "INSERT INTO reviews (withdrawal_id, why, facts, coins_amount, upi_id, reason, outcome, requested_by,"
        f" decided_by) SELECT id, 'amount', '', 500, upi_id, 'x', 'approved', {SPELT_TWICE} FROM withdrawals",
        "ck_reviews_not_their_own",
    ),
    (frozen, DECIDE_REMOVAL.format("approved", "operator:ASHA", "now()"), "ck_block_removals_two_people"),
    (frozen, END_BLOCK, "nobody approved the end"),
    (
        frozen,
        DECIDE_REMOVAL.format("rejected", "operator:ravi", "now()") + END_BLOCK,
        "nobody approved the end",
    ),
    (
        frozen,
        DECIDE_REMOVAL.format("approved", "operator:ravi", "now() - interval '1 s'") + END_BLOCK,
        "nobody approved the end",
    ),
    (frozen, "UPDATE wallets SET is_frozen = false", "nobody approved the end"),
    (frozen, "UPDATE blocks SET reason = 'other'", "never changes"),
    (frozen, "UPDATE blocks SET added_by = 'operator:ravi'", "never changes"),
    (frozen, "UPDATE block_removals SET proposed_by = 'operator:ravi'", "never changes"),
    (frozen, "DELETE FROM block_removals", "never deleted"),
    (pending, "DELETE FROM blocks", "never deleted"),
    (pending, "DELETE FROM adjustments", "never deleted"),
    (
        pending,
        "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor)"
        " VALUES ('user123', 'credit', 5, 1505, 'start', 'me')",
        "uq_one_credit_per_reference",
    ),
]


@pytest.mark.parametrize(("setup", "statements", "error"), REFUSALS)
def test_the_database_refuses_each_forbidden_change(
    world: World, setup: Callable[[World], None], statements: str, error: str
) -> None:
    setup(world)
    with pytest.raises(DBAPIError, match=error), transaction() as session:
        for statement in statements.split(";"):
            if statement.strip():
                session.execute(text(statement))


def test_a_refund_of_other_coins_is_refused(world: World) -> None:
    world.credit()
    send = world.first_send(coins=500)
    with pytest.raises(DBAPIError, match="same_withdrawal"), transaction() as session:
        session.execute(text("UPDATE payout_attempts SET state = 'refused', ended_at = now()"))
        session.execute(text(FAILED.rstrip(";")))
        session.execute(text("UPDATE wallets SET balance_coins = balance_coins + 501"))
        session.execute(
            text(
                "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, actor)"
                " SELECT 'user123', 'refund', 501, balance_coins, :id, 'me' FROM wallets"
            ),
            {"id": send.withdrawal_id},
        )


def test_two_withdrawals_cannot_share_a_payout(world: World) -> None:
    world.credit(coins=2000)
    for _ in range(2):
        world.first_send(coins=500)
    with pytest.raises(DBAPIError, match="uq_payout_attempts_payout_id"):
        world.sql("UPDATE payout_attempts SET payout_id = 'pout_00000000000001'")
