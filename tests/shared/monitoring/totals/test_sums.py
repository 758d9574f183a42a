"""Totals of several withdrawals."""

import random

import pytest

from shared.monitoring.totals.counts import STEPS_PER_OCTAVE, TotalsRow
from shared.monitoring.totals.sums import OTHERS, WithdrawalTotals, largest


def totals_of_steps(*steps: int) -> WithdrawalTotals:
    totals = WithdrawalTotals()
    totals.add_times({str(step): steps.count(step) for step in steps})
    return totals


def step_of(seconds: float) -> int:
    """The step of a duration, as the database computes it."""
    from math import floor, log2

    return floor(STEPS_PER_OCTAVE * log2(max(1, seconds)))


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_right_within_two_percent(seed: int) -> None:
    seconds = sorted(random.Random(seed).lognormvariate(5, 2) + 1 for _ in range(999))
    totals = totals_of_steps(*map(step_of, seconds))
    for share, place in ((0.5, 499), (0.95, 949)):
        assert totals.percentile_seconds(share) == pytest.approx(seconds[place], rel=0.022)


def test_empty_totals_have_no_rate_and_no_percentile() -> None:
    assert (
        WithdrawalTotals().p50_seconds,
        WithdrawalTotals().failure_rate,
        WithdrawalTotals().refund_rate,
    ) == (None, None, None)


def test_a_reversal_counts_as_paid_and_as_one_refund() -> None:
    totals = WithdrawalTotals()
    for outcome, reason in (
        ("completed", ""),
        ("completed", ""),
        ("reversed", "reversed"),
        ("cancelled", ""),
    ):
        totals.add(TotalsRow(None, "x", outcome, reason, 1, 10, 100))  # type: ignore[arg-type]
    assert (totals.paid, totals.refunded, totals.refunded_coins, totals.refunded_paise) == (2, 2, 20, 200)
    assert totals.failure_rate == 0 and totals.refund_rate == pytest.approx(2 / 3)


def test_a_rejected_withdrawal_is_a_refund_and_no_failure() -> None:
    totals = WithdrawalTotals()
    for outcome, reason in (
        ("completed", ""),
        ("failed", "rejected_in_review"),
        ("failed", "resolved"),
        ("failed", "beneficiary_vpa_invalid"),
    ):
        totals.add(TotalsRow(None, "x", outcome, reason, 1, 10, 100))  # type: ignore[arg-type]
    assert (totals.tried, totals.failure_rate) == (2, 0.5)
    assert dict(totals.reasons) == {"beneficiary_vpa_invalid": 1}
    assert (totals.refunded, totals.refunded_coins, totals.refunded_paise) == (3, 30, 300)
    assert totals.refund_rate == 0.75


def test_the_smallest_groups_are_merged_into_one_row() -> None:
    sums = {name: WithdrawalTotals() for name in "abcd"}
    for number, totals in enumerate(sums.values(), 1):
        totals.add(TotalsRow(None, "x", "asked", "", number, number, number))  # type: ignore[arg-type]
    shown = largest(sums, 2)
    assert [(name, totals.requested) for name, totals in shown] == [("d", 4), ("c", 3), (OTHERS, 3)]
