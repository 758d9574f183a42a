"""Faults, planted by hand past everything that would refuse them: at least one for each truth of `payouts check`.

Each stands in the newest rows, where a spot check must find it too, and is the same in a database of three
withdrawals and in one of thousands.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared import checks
from shared.seal_checks import KEPT, LATE, MADE, SAID, SIGNED


@dataclass(frozen=True, slots=True)
class Plant:
    """Statements that no trigger and no foreign key sees, and the truth that then does not hold."""

    truth: str
    statements: tuple[str, ...]

    def __str__(self) -> str:
        return self.statements[-1]


def _plants(truth: str, *plants: str | tuple[str, ...]) -> list[Plant]:
    return [Plant(truth, (plant,) if isinstance(plant, str) else plant) for plant in plants]


def _newest(status: str, *, with_a: str = "payout_attempts") -> str:
    return (
        f"(SELECT id FROM withdrawals w WHERE status = '{status}' AND EXISTS (SELECT FROM {with_a} x"
        " WHERE x.withdrawal_id = w.id) ORDER BY created_at DESC, id DESC LIMIT 1)"
    )


PAID, FAILED, PENDING = (
    _newest("completed"),
    _newest("failed"),
    _newest("pending", with_a="withdrawal_events"),
)
# Of whoever moved last, and of a user whose withdrawals count.
USER = "(SELECT user_id FROM coin_transactions ORDER BY id DESC LIMIT 1)"
PAID_USER = "(SELECT user_id FROM destinations ORDER BY created_at DESC, id DESC LIMIT 1)"
LAST_CREDIT = "(SELECT max(id) FROM coin_transactions WHERE kind = 'credit')"

FOUND_BY_BOTH = (
    *_plants(
        "every balance is the sum of its journal",
        f"UPDATE wallets SET balance_coins = balance_coins + 1 WHERE user_id = {USER}",
    ),
    *_plants(
        "every line of the journal continues the one before it",
        f"UPDATE coin_transactions SET balance_after = 7 WHERE id = {LAST_CREDIT}",
    ),
    *_plants(
        "lifetime coins are the sum of the credits",
        f"UPDATE wallets SET lifetime_coins = 1 WHERE user_id = {USER}",
    ),
    *_plants(
        "every withdrawal took its coins, once",
        f"DELETE FROM coin_transactions WHERE kind = 'withdrawal' AND withdrawal_id = {PAID}",
        # Out of nothing, without an event and an entry.
        "INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, completed_at)"
        f" SELECT gen_random_uuid(), {USER}, 500, 5000, 'thief@okaxis', 'completed', now()",
    ),
    *_plants(
        "no withdrawal has two live payouts",
        (
            "DROP INDEX uq_one_live_attempt_per_withdrawal",
            "INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sent_as)"
            f" VALUES (gen_random_uuid(), {PAID}, 9, '', 'unknown', '')",
        ),
    ),
    *_plants(
        "a completed withdrawal has one paid payout, or two people's word, and only it has one",
        f"UPDATE payout_attempts SET state = 'accepted', recheck_at = NULL WHERE state = 'paid' AND withdrawal_id = {PAID}",
        f"DELETE FROM payout_attempts WHERE withdrawal_id = {PAID}",
    ),
    *_plants(
        "failed and cancelled withdrawals were refunded once, others never",
        f"DELETE FROM coin_transactions WHERE kind = 'refund' AND withdrawal_id = {FAILED}",
    ),
    *_plants(
        "nothing was refunded while a payout may still succeed",
        f"UPDATE payout_attempts SET state = 'accepted', payout_id = coalesce(payout_id, 'pout_x'), ended_at = NULL"
        f" WHERE withdrawal_id = {FAILED}",
    ),
    *_plants(
        "payee and amount are those of the request",
        f"UPDATE withdrawals SET upi_id = 'thief@okaxis' WHERE id = {PENDING}",
        f"UPDATE withdrawals SET amount_paise = 100 WHERE id = {PENDING}",
        f"UPDATE withdrawal_events SET data = '{{}}' WHERE reason = 'requested' AND withdrawal_id = {PENDING}",
        """UPDATE withdrawal_events SET data = '{"upi_id": "user@okhdfcbank", "amount_paise": "much"}'"""
        f" WHERE from_status IS NULL AND withdrawal_id = {PENDING}",
    ),
    *_plants(
        "nothing that awaited approval was sent without it",
        f"UPDATE withdrawals SET awaits_approval = 'amount' WHERE id = {FAILED}",
        f"""UPDATE withdrawal_events SET data = '{{"awaits_approval": "every"}}' WHERE reason = 'paid' AND withdrawal_id = {PAID}""",
    ),
    *_plants(
        "a wallet is frozen exactly while somebody's word says so",
        f"UPDATE wallets SET is_frozen = true WHERE user_id = {USER}",
        f"INSERT INTO blocks (kind, subject, reason, added_by) SELECT 'wallet', {USER}, 'x', 'x'",
        # Of somebody who has not moved for long.
        "INSERT INTO blocks (kind, subject, reason, added_by)"
        " SELECT 'wallet', user_id, 'x', 'x' FROM wallets WHERE NOT is_frozen ORDER BY user_id LIMIT 1",
    ),
    *_plants(
        "adjustments are those that people decided on",
        "UPDATE coin_transactions SET kind = 'adjustment', withdrawal_id = NULL WHERE id ="
        " (SELECT max(id) FROM coin_transactions WHERE kind = 'refund')",
        f"INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor)"
        f" VALUES ({USER}, 'adjustment', 1, 1, gen_random_uuid()::text, 'operator:me')",
    ),
    *_plants(
        "coins that people took back for a withdrawal are all of its coins, once, by two people's word",
        # Decided, and no coin moved.
        "INSERT INTO resolutions (id, withdrawal_id, decision, evidence, fingerprint, proposed_by, decided_by,"
        f" decided_at, outcome) VALUES (gen_random_uuid(), {FAILED}, 'take_back', 'x', 'x', 'operator:a',"
        " 'operator:b', now(), 'approved')",
        # Taken, and nobody decided.
        "INSERT INTO adjustments (id, kind, user_id, coins, reason, needs_two, proposed_by, decided_by, decided_at,"
        " outcome, withdrawal_id, resolution_id) SELECT gen_random_uuid(), 'adjustment', user_id, -coins_amount, 'x',"
        " true, 'operator:a', 'operator:b', now(), 'approved', id, gen_random_uuid() FROM withdrawals"
        f" WHERE id = {FAILED}",
    ),
    *_plants(
        "what counts for a user's limits is what was asked for and not given back",
        f"UPDATE wallets SET day_coins = day_coins + 100 WHERE user_id = {USER}",
        f"UPDATE withdrawals SET counted_on = NULL WHERE id = {PENDING}",
    ),
    *_plants(
        "the events of every withdrawal are one unbroken story from its request on",
        f"DELETE FROM withdrawal_events WHERE from_status = 'pending' AND to_status = 'processing' AND withdrawal_id = {PAID}",
        f"DELETE FROM withdrawal_events WHERE from_status IS NULL AND withdrawal_id = {PAID}",
        f"UPDATE withdrawal_events SET from_status = 'cancelled' WHERE reason = 'paid' AND withdrawal_id = {PAID}",
        f"UPDATE withdrawal_events SET reason = 'paid' WHERE from_status IS NULL AND withdrawal_id = {PAID}",
    ),
    *_plants(
        "the last event of every withdrawal tells its status",
        f"UPDATE withdrawals SET status = 'cancelled', failure_reason = NULL WHERE id = {FAILED}",
    ),
    *_plants(
        f"nothing due was left lying for {checks.OVERDUE_SECONDS} seconds",
        f"UPDATE withdrawals SET due_at = now() - interval '1 hour' WHERE id = {PENDING}",
    ),
    *_plants(
        "everything that waits says why and until when",
        *(
            (
                f"ALTER TABLE withdrawals DROP CONSTRAINT ck_withdrawals_{rule}",
                f"UPDATE withdrawals SET {column} = NULL WHERE id = {PENDING}",
            )
            for rule, column in (
                ("due_iff_not_final", "due_at"),
                ("waits_for_a_reason", "status_reason"),
                ("waits_until_a_time", "expected_by"),
            )
        ),
    ),
)
# What only `payouts check` asks, of all rows. What was planted last was sealed before.
FOUND_BY_THE_WHOLE = (
    *_plants("credited = balances + held + paid", "DELETE FROM wallets"),
    *_plants(SAID, "UPDATE coin_transactions SET actor = 'nobody' WHERE id = 1"),
    *_plants(MADE, "UPDATE seal_blocks SET journal_to = 0"),
    *_plants(
        KEPT,
        # All later payouts of this user go to another account.
        f"UPDATE destinations SET fund_account_id = 'fa_thief' WHERE user_id = {PAID_USER}",
        f"DELETE FROM destinations WHERE user_id = {PAID_USER}",
        "INSERT INTO blocks (kind, subject, reason, added_by) VALUES ('upi_id', 'user@okaxis', 'x', 'operator:asha')",
    ),
    *_plants(
        LATE,
        "INSERT INTO withdrawal_events (withdrawal_id, to_status, actor, reason, created_at)"
        f" SELECT {PENDING}, 'pending', 'x', 'x', now() - interval '2 hours'",
    ),
    *_plants(
        SIGNED,
        "INSERT INTO day_certificates (number, day, block, body, certificate_hash, signature)"
        " VALUES (1, '2026-01-01', 1, '{}', '', '')",
    ),
)


def plant(connection: Connection, planted: Plant) -> None:
    """Plant a fault in the connection's transaction."""
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    for statement in planted.statements:
        connection.execute(text(statement))
