"""The pace is measured from the provider's log."""

from bench.rows import pace
from bench.rows.pace import Measurement, measure


def call(moment: float, status: int = 200) -> dict[str, float]:
    return {"monotonic": moment, "status": status}


def test_any_interval_of_one_second_is_measured() -> None:
    calls = [call(moment) for moment in (0.0, 0.9, 1.1, 1.8, 1.9, 3.0)]
    assert measure(calls) == Measurement(calls=6, most_in_a_second=4, per_second=5 / 3, throttled=0)


def test_throttled_calls_are_counted() -> None:
    assert measure([call(0.0), call(1.0, 429)]).throttled == 1


def test_one_call_too_many_in_one_round_does_not_meet_the_goal() -> None:
    kept = {"most": 10.0, "share": 0.96}
    broken = kept | {"most": 11.0}
    most, share = pace.ROW.goals
    assert most.is_met(most.value({pace.OURS: [kept, kept]}))
    assert not most.is_met(most.value({pace.OURS: [kept, broken, kept]}))
    assert share.is_met(share.value({pace.OURS: [kept]}))
    assert not share.is_met(share.value({pace.OURS: [kept | {"share": 0.949}]}))
