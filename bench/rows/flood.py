"""A provider that sends each webhook ten times."""

from collections.abc import Callable
from functools import partial

from bench import backlog, ours
from bench.plan import Column, Contender, Figures, Options, Row, Table
from bench.rivals import baseline
from bench.rivals.shop import service as shop
from bench.service import Run, Start, in_turns, payees_of

TIMES = 10
SCENARIOS = {"once": "success", "often": "hook.many"}
ABOUT = f"""
A backlog with the instant provider: first as always, with four webhooks for each payout, then with a provider
that delivers each of them {TIMES} times under the same event id, at once.
"""


def contenders(options: Options) -> list[Contender]:
    """Ours, the commit before it, and the same in Django."""

    def measured(run: Run) -> Callable[[], Figures]:
        return partial(_measure, partial(run, ours.INSTANT), options)

    return [
        Contender("ours", measured(ours.running)),
        Contender(f"commit {baseline.COMMIT}", measured(baseline.running), baseline.missing),
        Contender("Django + Celery", measured(shop.running), shop.missing),
    ]


def _measure(start: Start, options: Options) -> Figures:
    number = options.pick(300, 10)
    with start() as service:
        service.give_coins(number // 10)
        figures: Figures = {}
        for name, scenario in SCENARIOS.items():
            payees = payees_of(number // 10, scenario)
            backlog.warm_up(service, payees)
            drained = backlog.drain(service, in_turns(payees, number))
            figures |= {f"{key}_{name}": drained[key] for key in ("per_second", "cpu_ms")}
        service.check()
    return figures


ROW = Row(
    name="flood",
    title="Ten times the webhooks",
    about=ABOUT,
    contenders=contenders,
    tables=[
        Table(
            "",
            [
                Column("per_second_once", "per second, each webhook once"),
                Column("cpu_ms_once", "CPU each, ms"),
                Column("per_second_often", f"per second, each {TIMES} times"),
                Column("cpu_ms_often", "CPU each, ms"),
            ],
            ratio_of="per_second_often",
        )
    ],
    max_rounds=3,  # nothing is required here
)
