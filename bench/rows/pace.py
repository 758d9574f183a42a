"""A burst under the rate limit: the provider's calls in any second, and on average."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench import backlog, ours
from bench.figures import most_in_a_second, per_second
from bench.plan import Column, Contender, Figures, Goal, Options, Row, Table, typical
from bench.rivals import baseline
from bench.service import Run, Start, in_turns, payees_of
from sandbox.keeper import wait_until

OURS = "ours"
LIMIT = 10
MIN_SHARE = 0.95  # of the limit, on average
ABOUT = f"""
A burst of 600 withdrawals of known payees, two worker processes, and a rate limit of {LIMIT} calls a second.
The calls are those in the simulator's own log, by its own clock. The comparison is the limit itself: the most
calls that it allows. We give up one slot in thirty, so that a call that leaves a little late never makes one
call too many in any second. If the processes are delayed by more than 35 ms, one call too many is possible;
the 429 that follows makes workers wait and fails no payment.
"""


@dataclass(frozen=True)
class Measurement:
    """The calls in the provider's log."""

    calls: int
    most_in_a_second: int
    per_second: float
    throttled: int


def measure(calls: Sequence[Mapping[str, Any]]) -> Measurement:
    """Measure the simulator's list of calls by its monotonic clock."""
    times = [call["monotonic"] for call in calls]
    throttled = sum(call["status"] == 429 for call in calls)
    return Measurement(len(times), most_in_a_second(times), per_second(times), throttled)


def contenders(options: Options) -> list[Contender]:
    """Ours, and the commit before it."""
    limit = options.pick(LIMIT, 5 * LIMIT)
    settings = ours.INSTANT | {"PAYOUTS_PER_SECOND": str(limit)}

    def paced(run: Run) -> Callable[[], Figures]:
        return partial(_measure, partial(run, settings, workers=2), options, limit)

    return [
        Contender(OURS, paced(ours.running)),
        Contender(f"commit {baseline.COMMIT}", paced(baseline.running), baseline.missing),
    ]


def _measure(start: Start, options: Options, limit: int) -> Figures:
    number = options.pick(600, 40)
    payees = payees_of(number // 10)
    with start() as service:
        service.give_coins(len(payees))
        backlog.warm_up(service, payees)
        before = service.simulator.get("calls", limit=0)["next"]
        with service.workers_frozen():
            service.withdraw(in_turns(payees, number))
        wait_until(
            lambda: service.simulator.get("health")["calls"] >= before + number, 60 + 1.5 * number / limit
        )
        measured = measure(service.simulator.get("calls", since=before)["items"][:number])
        service.wait_until_final()
        service.check()
    return {
        "calls": measured.calls,
        "most": measured.most_in_a_second,
        "per_second": measured.per_second,
        "share": measured.per_second / limit,
        "throttled": measured.throttled,
    }


ROW = Row(
    name="pace",
    title="Keeping the rate limit",
    about=ABOUT,
    contenders=contenders,
    tables=[
        Table(
            "",
            [
                Column("calls", "calls"),
                Column("most", "most in any second, of all rounds", max),
                Column("per_second", "per second"),
                Column("share", "of the limit"),
                Column("throttled", "429 responses, most", max),
            ],
        )
    ],
    goals=[
        Goal(f"never more than {LIMIT} calls in any second", typical(OURS, "most", max), most=LIMIT),
        Goal(f"at least {MIN_SHARE} of the limit", typical(OURS, "share"), least=MIN_SHARE),
    ],
)
