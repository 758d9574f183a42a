"""A provider that takes 300 ms to answer."""

from collections.abc import Callable, Mapping
from functools import partial

from bench import backlog, ours
from bench.figures import most_in_a_second, per_second
from bench.plan import Column, Contender, Figures, Goal, Options, Row, Table, ratio, typical
from bench.rivals import baseline
from bench.rivals.shop import service as shop
from bench.service import Payee, Run, Service, Start, in_turns, payees_of

LATENCY_MS = 300
PACE = 40
NUMBER = 600  # of known payees, and half as many new ones; half of both for the slower rivals
ONE = "ours, one worker process"
TWO = "ours, two"
PACED = f"ours, one, at most {PACE} calls a second"
ABOUT = f"""
The same backlog with a provider that takes {LATENCY_MS} ms for each call. A known payee takes one call, a new
one three, one after the other: contact, fund account, payout. Without a rate limit, and with one of {PACE}
calls a second, where a single worker process should use the whole of it. {NUMBER} withdrawals to known
payees, then {NUMBER // 2} to new ones; half as many of each for the rivals, which take longer.
"""


def contenders(options: Options) -> list[Contender]:
    """Each pays known payees first, then new ones."""
    rate = ours.INSTANT | {"PAYOUTS_PER_SECOND": str(PACE)}

    def slow(run: Run, settings: dict[str, str] = ours.INSTANT, **size: int) -> Callable[[], Figures]:
        return partial(_measure, partial(run, settings, **size), options.pick(NUMBER, 8))

    def rival(run: Run, **size: int) -> Callable[[], Figures]:
        return partial(_measure, partial(run, ours.INSTANT, **size), options.pick(NUMBER // 2, 8))

    return [
        Contender(ONE, slow(ours.running)),
        Contender(TWO, slow(ours.running, workers=2)),
        Contender(PACED, slow(ours.running, rate)),
        Contender(f"commit {baseline.COMMIT}, one", rival(baseline.running), baseline.missing),
        Contender(f"commit {baseline.COMMIT}, two", rival(baseline.running, workers=2), baseline.missing),
        Contender("Django + Celery, one of 8 threads", rival(shop.running), shop.missing),
        Contender("Django + Celery, two", rival(shop.running, workers=2), shop.missing),
    ]


def _measure(start: Start, number: int) -> Figures:
    known = payees_of(max(2, number // 30))
    new = payees_of(len(known) + number // 2)[len(known) :]
    with start() as service:
        service.give_coins(len(known) + len(new))
        backlog.warm_up(service, known)
        service.simulator.settings(latency_ms=LATENCY_MS)
        figures = {
            f"{key}_{name}": value
            for name, payees in {"known": in_turns(known, number), "new": new}.items()
            for key, value in _drain(service, payees).items()
        }
        service.check()
    return figures


def _drain(service: Service, payees: list[Payee]) -> Figures:
    before = service.simulator.get("calls", limit=0)["next"]
    drained = backlog.drain(service, payees)
    items = service.simulator.get("calls", since=before)["items"]
    # Until the last payout: the confirmations after it are few and far apart.
    last = max(number for number, call in enumerate(items) if call["idempotency_key"])
    calls = [call["monotonic"] for call in items[: last + 1]]
    return {
        "per_second": drained["per_second"],
        "cpu_ms": drained["cpu_ms"],
        "calls": per_second(calls),
        "most_calls": most_in_a_second(calls),
    }


def _table(name: str, heading: str) -> Table:
    return Table(
        heading,
        [
            Column(f"per_second_{name}", "paid per second"),
            Column(f"calls_{name}", "calls per second"),
            Column(f"most_calls_{name}", "most in a second", max),
            Column(f"cpu_ms_{name}", "CPU each, ms"),
        ],
        ratio_of=f"per_second_{name}",
    )


def _share(name: str) -> Callable[[Mapping[str, object]], float]:
    return lambda results: typical(PACED, f"calls_{name}")(results) / PACE  # type: ignore[arg-type]


ROW = Row(
    name="slow",
    title="A slow provider",
    about=ABOUT,
    contenders=contenders,
    tables=[_table("known", "known payees"), _table("new", "new payees")],
    goals=[
        Goal(
            "two processes at least 1.7 × one, known payees", ratio(TWO, ONE, "per_second_known"), least=1.7
        ),
        Goal("two processes at least 1.7 × one, new payees", ratio(TWO, ONE, "per_second_new"), least=1.7),
        Goal(
            f"one process uses at least 0.95 of {PACE} calls a second, known payees",
            _share("known"),
            least=0.95,
        ),
        Goal(
            f"one process uses at least 0.95 of {PACE} calls a second, new payees", _share("new"), least=0.95
        ),
    ],
)
