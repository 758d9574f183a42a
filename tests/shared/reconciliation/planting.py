"""Plant fifty discrepancies of all kinds in a clean day."""

import uuid
from collections.abc import Iterator
from uuid import UUID

from tests.shared.reconciliation.days import Day
from tests.support.world import World


def retrying_withdrawal(world: World) -> UUID:
    """The withdrawal whose first attempt failed for a temporary reason and whose next one is pending."""
    return world.sql("SELECT id FROM withdrawals WHERE upi_id LIKE 'fail.beneficiary_psp%'")[0].id


def plant(day: Day) -> None:
    """Plant fifty discrepancies: on our side with SQL past every rule, at the provider with the simulator."""
    world, provider = day.world, day.provider
    world.broken_on_purpose = True
    paid = iter(day.paid)
    failed = iter(day.failed)
    reversed_ids = iter(day.reversed)
    add_expected = day.planted.append

    def take_paid(count: int) -> Iterator[tuple[UUID, str]]:
        for _ in range(count):
            withdrawal_id = next(paid)
            yield withdrawal_id, day.payout(withdrawal_id)

    for number, (withdrawal_id, payout_id) in enumerate(take_paid(4)):
        if number % 2:
            world.sql_without_rules(
                f"UPDATE withdrawals SET amount_paise = amount_paise + 100 WHERE id = '{withdrawal_id}'"
            )
        else:
            line = provider.line(payout_id)
            provider.alter(payout_id, amount=line["debit"] - 590 - 7)
            provider.alter_line(line, debit=line["debit"] - 7)
        add_expected(("amount_differs", payout_id))
    for _, payout_id in take_paid(2):
        provider.set_status(payout_id, "processing")
        add_expected(("status_differs", payout_id))
    for withdrawal_id, payout_id in take_paid(2):
        provider.set_status(payout_id, "failed")
        add_expected(("failed_after_paid", str(withdrawal_id)))
    for withdrawal_id, _ in take_paid(3):
        world.sql_without_rules(
            f"""WITH a AS (UPDATE payout_attempts SET state = 'reversed', provider_status = 'reversed',
                             ended_at = now(), recheck_at = NULL
                           WHERE withdrawal_id = '{withdrawal_id}'),
                     w AS (UPDATE withdrawals SET status = 'failed', completed_at = NULL, failure_reason = 'x'
                           WHERE id = '{withdrawal_id}' RETURNING user_id, coins_amount)
                INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, actor)
                SELECT user_id, 'refund', coins_amount, 0, '{withdrawal_id}', 'nobody' FROM w"""
        )
        add_expected(("processed_after_reversed", str(withdrawal_id)))
    for withdrawal_id, payout_id in take_paid(4):
        attempt_id = str(day.attempt(withdrawal_id).id)
        provider.simulator.post(f"payouts/{payout_id}/forget", {})
        add_expected(("unknown_to_them", attempt_id))
    for withdrawal_id, _ in take_paid(3):
        provider.pay(12_300, str(day.attempt(withdrawal_id).id))
        add_expected(("two_payouts", str(withdrawal_id)))
    for number, (withdrawal_id, payout_id) in enumerate(take_paid(4)):
        if number == 0:
            world.sql_without_rules(f"UPDATE withdrawals SET utr = '1' WHERE id = '{withdrawal_id}'")
        elif number == 1:
            world.sql_without_rules(
                f"UPDATE payout_attempts SET utr = '2' WHERE withdrawal_id = '{withdrawal_id}'"
            )
        else:
            provider.alter(payout_id, utr=f"99999999999{number}" if number == 2 else None)
        add_expected(("utr_differs", payout_id))
    for (withdrawal_id, payout_id), change in zip(
        take_paid(4),
        ("fees_paise = 591", "fees_paise = 0", "tax_paise = 91", "tax_paise = NULL"),
        strict=True,
    ):
        world.sql_without_rules(
            f"UPDATE payout_attempts SET {change} WHERE withdrawal_id = '{withdrawal_id}'"
        )
        add_expected(("fees_differ", payout_id))
    for (first, _), (_, payout_id) in zip(take_paid(2), take_paid(2), strict=True):
        utr = str(day.attempt(first).utr)
        provider.alter(payout_id, utr=utr)
        add_expected(("utr_twice", utr))
    for _, payout_id in take_paid(3):
        provider.alter_line(provider.line(payout_id), gone=True)
        add_expected(("payout_without_debit", payout_id))
    for number, (_, payout_id) in enumerate(take_paid(2)):
        line = provider.line(payout_id)
        provider.alter_line(line, debit=line["debit"] + (1, -590)[number])
        add_expected(("debit_differs", payout_id))
    (_, payout_id), (_, other_id) = take_paid(2)
    add_expected(
        ("credit_unexplained", provider.add_line(credit=700, source="reversal", payout_id=payout_id))
    )
    provider.alter(other_id, reference_id="somebody-else")
    add_expected(("reference_differs", other_id))
    for _ in range(2):
        withdrawal_id = next(failed)
        provider.set_status(day.payout(withdrawal_id), "processed")
        add_expected(("processed_after_failed", str(withdrawal_id)))
    for _ in range(3):
        withdrawal_id = next(failed)
        world.sql_without_rules(
            f"DELETE FROM coin_transactions WHERE kind = 'refund' AND withdrawal_id = '{withdrawal_id}'"
        )
        add_expected(("reversed_not_refunded", day.payout(withdrawal_id)))
    for number in range(4):
        reference = ("salaries", str(uuid.uuid4()))[number % 2]
        add_expected(("unknown_to_us", provider.pay(50_000 + number, reference)))
    add_expected(("debit_without_payout", provider.add_line(debit=4_200, source="other")))
    add_expected(
        (
            "debit_without_payout",
            provider.add_line(debit=300, source="payout", payout_id="pout_None000000001"),
        )
    )
    add_expected(("credit_unexplained", provider.add_line(credit=100, source="other")))
    payout_id = day.payout(next(reversed_ids))
    provider.alter_line(provider.line(payout_id, "credit"), gone=True)
    add_expected(("credit_missing", payout_id))
    payout_id = day.payout(next(reversed_ids))
    provider.alter_line(provider.line(payout_id, "credit"), credit=1)
    add_expected(("credit_differs", payout_id))
    stuck = retrying_withdrawal(world)
    provider.set_status(day.payout(stuck), "processing")
    add_expected(("processing_after_failed", str(stuck)))
    assert len(day.planted) == 50 and len(set(day.planted)) == 50
    world.simulator.post("advance", {"seconds": 600})
