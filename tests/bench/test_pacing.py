"""A measurement that misses a requirement fails."""

import pytest

from bench.pacing import Measurement, failures, measure


def test_a_rate_near_the_limit_has_no_failures() -> None:
    assert failures(Measurement(600, 10, 9.5, 0), 10) == []


@pytest.mark.parametrize(
    ("measurement", "failure"),
    [
        (Measurement(600, 11, 9.9, 0), "11 calls in one second"),
        (Measurement(600, 10, 9.49, 0), "on average less than 95% of the limit"),
        (Measurement(600, 10, 9.9, 1), "1 times 429"),
    ],
)
def test_each_failure_is_reported(measurement: Measurement, failure: str) -> None:
    assert failures(measurement, 10) == [failure]


def test_any_interval_of_one_second_is_measured() -> None:
    calls = [{"monotonic": moment, "status": 200} for moment in (0.0, 0.9, 1.1, 1.8, 1.9, 3.0)]
    assert measure(calls).most_in_a_second == 3 + 1
