"""A measurement that is not as it must be ends as a failure."""

import pytest

from bench.pacing import Seen, faults, seen


def test_a_pace_that_is_kept_and_used_has_no_faults() -> None:
    assert faults(Seen(600, 10, 9.5, 0), 10) == []


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (Seen(600, 11, 9.9, 0), "11 calls in one second"),
        (Seen(600, 10, 9.49, 0), "on average less than 95% of the pace"),
        (Seen(600, 10, 9.9, 1), "1 times 429"),
    ],
)
def test_each_fault_of_a_pace_is_told(told: Seen, says: str) -> None:
    assert faults(told, 10) == [says]


def test_any_second_is_looked_at_and_not_only_whole_ones() -> None:
    calls = [{"monotonic": moment, "status": 200} for moment in (0.0, 0.9, 1.1, 1.8, 1.9, 3.0)]
    assert seen(calls).most_in_a_second == 3 + 1
