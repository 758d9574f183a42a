"""What some withdrawals come to together."""

import random

import pytest

from shared.totals.counting import STEPS_PER_OCTAVE, Line
from shared.totals.summing import OTHERS, Sum, top


def of_times(*steps: int) -> Sum:
    came_to = Sum()
    came_to.add_times({str(step): steps.count(step) for step in steps})
    return came_to


def step_of(seconds: float) -> int:
    """As the database counts it."""
    from math import floor, log2

    return floor(STEPS_PER_OCTAVE * log2(max(1, seconds)))


@pytest.mark.parametrize("seed", range(5))
def test_times_are_right_to_a_fiftieth(seed: int) -> None:
    seconds = sorted(random.Random(seed).lognormvariate(5, 2) + 1 for _ in range(999))
    came_to = of_times(*map(step_of, seconds))
    for share, place in ((0.5, 499), (0.95, 949)):
        assert came_to.time(share) == pytest.approx(seconds[place], rel=0.022)


def test_of_nothing_there_is_no_rate_and_no_time() -> None:
    assert (Sum().p50_seconds, Sum().failure_rate, Sum().refund_rate) == (None, None, None)


def test_a_reversal_is_refunded_once_and_was_paid() -> None:
    came_to = Sum()
    for what, reason in (("completed", ""), ("completed", ""), ("reversed", "reversed"), ("cancelled", "")):
        came_to.add(Line(None, "x", what, reason, 1, 10, 100))  # type: ignore[arg-type]
    assert (came_to.paid, came_to.refunded, came_to.refunded_coins, came_to.refunded_paise) == (2, 2, 20, 200)
    assert came_to.failure_rate == 0 and came_to.refund_rate == pytest.approx(2 / 3)


def test_what_people_rejected_is_refunded_and_no_failure() -> None:
    came_to = Sum()
    for what, reason in (
        ("completed", ""),
        ("failed", "rejected_in_review"),
        ("failed", "resolved"),
        ("failed", "beneficiary_vpa_invalid"),
    ):
        came_to.add(Line(None, "x", what, reason, 1, 10, 100))  # type: ignore[arg-type]
    assert (came_to.tried, came_to.failure_rate) == (2, 0.5)
    assert dict(came_to.reasons) == {"beneficiary_vpa_invalid": 1}
    assert (came_to.refunded, came_to.refunded_coins, came_to.refunded_paise) == (3, 30, 300)
    assert came_to.refund_rate == 0.75


def test_the_many_small_ones_are_one_line() -> None:
    sums = {name: Sum() for name in "abcd"}
    for number, came_to in enumerate(sums.values(), 1):
        came_to.add(Line(None, "x", "asked", "", number, number, number))  # type: ignore[arg-type]
    shown = top(sums, 2)
    assert [(name, came_to.asked) for name, came_to in shown] == [("d", 4), ("c", 3), (OTHERS, 3)]
