"""Fifty discrepancies of every kind, planted into a clean day."""

import uuid
from collections.abc import Iterator
from uuid import UUID

from tests.integration.reconciliation.days import Day
from tests.world import World


def held_back(world: World) -> UUID:
    """The withdrawal whose first attempt failed for a passing cause: its next one waits."""
    return world.sql("SELECT id FROM withdrawals WHERE upi_id LIKE 'fail.beneficiary_psp%'")[0].id


def plant(day: Day) -> None:
    """Fifty discrepancies of all kinds: at our side by SQL past every rule, at theirs by its control."""
    world, provider = day.world, day.provider
    world.broken_on_purpose = True
    paid, failed, back = iter(day.paid), iter(day.failed), iter(day.reversed)
    put = day.planted.append

    def of(count: int) -> Iterator[tuple[UUID, str]]:
        for _ in range(count):
            withdrawal_id = next(paid)
            yield withdrawal_id, day.payout(withdrawal_id)

    for number, (withdrawal_id, payout_id) in enumerate(of(4)):
        if number % 2:
            world.sql_without_rules(
                f"UPDATE withdrawals SET amount_paise = amount_paise + 100 WHERE id = '{withdrawal_id}'"
            )
        else:
            line = provider.line(payout_id)
            provider.alter(payout_id, amount=line["debit"] - 590 - 7)
            provider.alter_line(line, debit=line["debit"] - 7)
        put(("amount_differs", payout_id))
    for _, payout_id in of(2):
        provider.becomes(payout_id, "processing")
        put(("status_differs", payout_id))
    for withdrawal_id, payout_id in of(2):
        provider.becomes(payout_id, "failed")
        put(("failed_after_paid", str(withdrawal_id)))
    for withdrawal_id, _ in of(3):
        world.sql_without_rules(
            f"""WITH a AS (UPDATE payout_attempts SET state = 'reversed', provider_status = 'reversed',
                             ended_at = now(), recheck_at = NULL
                           WHERE withdrawal_id = '{withdrawal_id}'),
                     w AS (UPDATE withdrawals SET status = 'failed', completed_at = NULL, failure_reason = 'x'
                           WHERE id = '{withdrawal_id}' RETURNING user_id, coins_amount)
                INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, actor)
                SELECT user_id, 'refund', coins_amount, 0, '{withdrawal_id}', 'nobody' FROM w"""
        )
        put(("processed_after_reversed", str(withdrawal_id)))
    for withdrawal_id, payout_id in of(4):
        attempt_id = str(day.attempt(withdrawal_id).id)
        provider.simulator.post(f"payouts/{payout_id}/forget", {})
        put(("unknown_to_them", attempt_id))
    for withdrawal_id, _ in of(3):
        provider.pay(12_300, str(day.attempt(withdrawal_id).id))
        put(("two_payouts", str(withdrawal_id)))
    for number, (withdrawal_id, payout_id) in enumerate(of(4)):
        if number == 0:
            world.sql_without_rules(f"UPDATE withdrawals SET utr = '1' WHERE id = '{withdrawal_id}'")
        elif number == 1:
            world.sql_without_rules(
                f"UPDATE payout_attempts SET utr = '2' WHERE withdrawal_id = '{withdrawal_id}'"
            )
        else:
            provider.alter(payout_id, utr=f"99999999999{number}" if number == 2 else None)
        put(("utr_differs", payout_id))
    for (withdrawal_id, payout_id), change in zip(
        of(4), ("fees_paise = 591", "fees_paise = 0", "tax_paise = 91", "tax_paise = NULL"), strict=True
    ):
        world.sql_without_rules(
            f"UPDATE payout_attempts SET {change} WHERE withdrawal_id = '{withdrawal_id}'"
        )
        put(("fees_differ", payout_id))
    for (first, _), (_, payout_id) in zip(of(2), of(2), strict=True):
        utr = str(day.attempt(first).utr)
        provider.alter(payout_id, utr=utr)
        put(("utr_twice", utr))
    for _, payout_id in of(3):
        provider.alter_line(provider.line(payout_id), gone=True)
        put(("payout_without_debit", payout_id))
    for number, (_, payout_id) in enumerate(of(2)):
        line = provider.line(payout_id)
        provider.alter_line(line, debit=line["debit"] + (1, -590)[number])
        put(("debit_differs", payout_id))
    (_, payout_id), (_, other_id) = of(2)
    put(("credit_unexplained", provider.add_line(credit=700, source="reversal", payout_id=payout_id)))
    provider.alter(other_id, reference_id="somebody-else")
    put(("reference_differs", other_id))
    for _ in range(2):
        withdrawal_id = next(failed)
        provider.becomes(day.payout(withdrawal_id), "processed")
        put(("processed_after_failed", str(withdrawal_id)))
    for _ in range(3):
        withdrawal_id = next(failed)
        world.sql_without_rules(
            f"DELETE FROM coin_transactions WHERE kind = 'refund' AND withdrawal_id = '{withdrawal_id}'"
        )
        put(("reversed_not_refunded", day.payout(withdrawal_id)))
    for number in range(4):
        reference = ("salaries", str(uuid.uuid4()))[number % 2]
        put(("unknown_to_us", provider.pay(50_000 + number, reference)))
    put(("debit_without_payout", provider.add_line(debit=4_200, source="other")))
    put(
        (
            "debit_without_payout",
            provider.add_line(debit=300, source="payout", payout_id="pout_None000000001"),
        )
    )
    put(("credit_unexplained", provider.add_line(credit=100, source="other")))
    payout_id = day.payout(next(back))
    provider.alter_line(provider.line(payout_id, "credit"), gone=True)
    put(("credit_missing", payout_id))
    payout_id = day.payout(next(back))
    provider.alter_line(provider.line(payout_id, "credit"), credit=1)
    put(("credit_differs", payout_id))
    stuck = held_back(world)
    provider.becomes(day.payout(stuck), "processing")
    put(("processing_after_failed", str(stuck)))
    assert len(day.planted) == 50 and len(set(day.planted)) == 50
    world.simulator.post("advance", {"seconds": 600})
