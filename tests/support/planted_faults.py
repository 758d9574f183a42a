"""Faults that evade every database rule: at least one for each invariant of `payouts check`.

Each is in the newest rows, where a spot check must find it too, and works in a database of three withdrawals
and in one of thousands.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.proof import checks
from shared.proof.seal_checks import (
    CERTIFICATES_UNCHANGED,
    CHAIN_UNCHANGED,
    EVIDENCE_UNCHANGED,
    ROWS_UNCHANGED,
    SEALED_IN_TIME,
)


@dataclass(frozen=True, slots=True)
class Plant:
    """Statements that run without triggers and foreign keys, and the invariant that they break."""

    invariant: str
    statements: tuple[str, ...]

    def __str__(self) -> str:
        return self.statements[-1]


def _plants(invariant: str, *plants: str | tuple[str, ...]) -> list[Plant]:
    return [Plant(invariant, (plant,) if isinstance(plant, str) else plant) for plant in plants]


def _newest(status: str, *, with_a: str = "payout_attempts") -> str:
    return (
        f"(SELECT id FROM withdrawals w WHERE status = '{status}' AND EXISTS (SELECT FROM {with_a} x"
        " WHERE x.withdrawal_id = w.id) ORDER BY created_at DESC, id DESC LIMIT 1)"
    )


PAID = _newest("completed")
FAILED = _newest("failed")
PENDING = _newest("pending", with_a="withdrawal_events")
# The user with the newest entry, and a user whose withdrawals count towards limits.
USER = "(SELECT user_id FROM coin_transactions ORDER BY id DESC LIMIT 1)"
PAID_USER = "(SELECT user_id FROM destinations ORDER BY created_at DESC, id DESC LIMIT 1)"
LAST_CREDIT = "(SELECT max(id) FROM coin_transactions WHERE kind = 'credit')"

FOUND_BY_BOTH = (
    *_plants(
        "every balance equals the sum of its journal entries",
        f"UPDATE wallets SET balance_coins = balance_coins + 1 WHERE user_id = {USER}",
    ),
    *_plants(
        "every journal entry continues the balance of the entry before it",
        f"UPDATE coin_transactions SET balance_after = 7 WHERE id = {LAST_CREDIT}",
    ),
    *_plants(
        "lifetime coins equal the sum of credits",
        f"UPDATE wallets SET lifetime_coins = 1 WHERE user_id = {USER}",
    ),
    *_plants(
        "every withdrawal debited its coins exactly once",
        f"DELETE FROM coin_transactions WHERE kind = 'withdrawal' AND withdrawal_id = {PAID}",
        # Without an event or an entry.
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
        "every completed withdrawal, and no other, has one paid payout or an approved resolution",
        f"UPDATE payout_attempts SET state = 'accepted', recheck_at = NULL WHERE state = 'paid' AND withdrawal_id = {PAID}",
        f"DELETE FROM payout_attempts WHERE withdrawal_id = {PAID}",
    ),
    *_plants(
        "every failed or cancelled withdrawal, and no other, was refunded exactly once",
        f"DELETE FROM coin_transactions WHERE kind = 'refund' AND withdrawal_id = {FAILED}",
    ),
    *_plants(
        "no withdrawal was refunded while a payout could still succeed",
        f"UPDATE payout_attempts SET state = 'accepted', payout_id = coalesce(payout_id, 'pout_x'), ended_at = NULL"
        f" WHERE withdrawal_id = {FAILED}",
    ),
    *_plants(
        "payee and amount match the request",
        f"UPDATE withdrawals SET upi_id = 'thief@okaxis' WHERE id = {PENDING}",
        f"UPDATE withdrawals SET amount_paise = 100 WHERE id = {PENDING}",
        f"UPDATE withdrawal_events SET data = '{{}}' WHERE reason = 'requested' AND withdrawal_id = {PENDING}",
        """UPDATE withdrawal_events SET data = '{"upi_id": "user@okhdfcbank", "amount_paise": "much"}'"""
        f" WHERE from_status IS NULL AND withdrawal_id = {PENDING}",
    ),
    *_plants(
        "no withdrawal was sent without the approval it needed",
        f"UPDATE withdrawals SET awaits_approval = 'amount' WHERE id = {FAILED}",
        f"""UPDATE withdrawal_events SET data = '{{"awaits_approval": "every"}}' WHERE reason = 'paid' AND withdrawal_id = {PAID}""",
    ),
    *_plants(
        "a wallet is frozen only while an active block says so",
        f"UPDATE wallets SET is_frozen = true WHERE user_id = {USER}",
        f"INSERT INTO blocks (kind, subject, reason, added_by) SELECT 'wallet', {USER}, 'x', 'x'",
        # On a user without recent activity.
        "INSERT INTO blocks (kind, subject, reason, added_by)"
        " SELECT 'wallet', user_id, 'x', 'x' FROM wallets WHERE NOT is_frozen ORDER BY user_id LIMIT 1",
    ),
    *_plants(
        "every adjustment matches an approved proposal",
        "UPDATE coin_transactions SET kind = 'adjustment', withdrawal_id = NULL WHERE id ="
        " (SELECT max(id) FROM coin_transactions WHERE kind = 'refund')",
        f"INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor)"
        f" VALUES ({USER}, 'adjustment', 1, 1, gen_random_uuid()::text, 'operator:me')",
    ),
    *_plants(
        "every correction moves a withdrawal's full amount once, approved by two people",
        # Decided, but no coins moved.
        "INSERT INTO resolutions (id, withdrawal_id, decision, evidence, fingerprint, proposed_by, decided_by,"
        f" decided_at, outcome) VALUES (gen_random_uuid(), {FAILED}, 'take_back', 'x', 'x', 'operator:a',"
        " 'operator:b', now(), 'approved')",
        # Taken back without a decision.
        "INSERT INTO adjustments (id, kind, user_id, coins, reason, needs_two, proposed_by, decided_by, decided_at,"
        " outcome, withdrawal_id, resolution_id) SELECT gen_random_uuid(), 'adjustment', user_id, -coins_amount, 'x',"
        " true, 'operator:a', 'operator:b', now(), 'approved', id, gen_random_uuid() FROM withdrawals"
        f" WHERE id = {FAILED}",
    ),
    *_plants(
        "limit counters match withdrawals",
        f"UPDATE wallets SET day_coins = day_coins + 100 WHERE user_id = {USER}",
        f"UPDATE withdrawals SET counted_on = NULL WHERE id = {PENDING}",
    ),
    *_plants(
        "every withdrawal's events form an unbroken chain from its request",
        f"DELETE FROM withdrawal_events WHERE from_status = 'pending' AND to_status = 'processing' AND withdrawal_id = {PAID}",
        f"DELETE FROM withdrawal_events WHERE from_status IS NULL AND withdrawal_id = {PAID}",
        f"UPDATE withdrawal_events SET from_status = 'cancelled' WHERE reason = 'paid' AND withdrawal_id = {PAID}",
        f"UPDATE withdrawal_events SET reason = 'paid' WHERE from_status IS NULL AND withdrawal_id = {PAID}",
    ),
    *_plants(
        "every withdrawal's last event matches its status",
        f"UPDATE withdrawals SET status = 'cancelled', failure_reason = NULL WHERE id = {FAILED}",
    ),
    *_plants(
        f"no withdrawal has been due for more than {checks.OVERDUE_SECONDS} seconds",
        f"UPDATE withdrawals SET due_at = now() - interval '1 hour' WHERE id = {PENDING}",
    ),
    *_plants(
        "every open withdrawal has a reason, a due time and a promised time",
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
# Only `payouts check` runs these, on all rows. The changed rows were sealed before.
FOUND_BY_FULL_CHECK = (
    *_plants("credited = balances + held + paid", "DELETE FROM wallets"),
    *_plants(ROWS_UNCHANGED, "UPDATE coin_transactions SET actor = 'nobody' WHERE id = 1"),
    *_plants(CHAIN_UNCHANGED, "UPDATE seal_blocks SET journal_to = 0"),
    *_plants(
        EVIDENCE_UNCHANGED,
        # All later payouts of this user would go to another account.
        f"UPDATE destinations SET fund_account_id = 'fa_thief' WHERE user_id = {PAID_USER}",
        f"DELETE FROM destinations WHERE user_id = {PAID_USER}",
        "INSERT INTO blocks (kind, subject, reason, added_by) VALUES ('upi_id', 'user@okaxis', 'x', 'operator:asha')",
    ),
    *_plants(
        SEALED_IN_TIME,
        "INSERT INTO withdrawal_events (withdrawal_id, to_status, actor, reason, created_at)"
        f" SELECT {PENDING}, 'pending', 'x', 'x', now() - interval '2 hours'",
    ),
    *_plants(
        CERTIFICATES_UNCHANGED,
        "INSERT INTO day_certificates (number, day, block, body, certificate_hash, signature)"
        " VALUES (1, '2026-01-01', 1, '{}', '', '')",
    ),
)


def plant(connection: Connection, planted: Plant) -> None:
    """Plant a fault in the connection's transaction."""
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    for statement in planted.statements:
        connection.execute(text(statement))
