"""The provider's webhooks, stored per second."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice

from bench import backlog, load, ours, processes
from bench.plan import Column, Contender, Figures, Goal, Options, Row, Table, ratio, typical
from bench.rivals import baseline
from bench.rivals.shop import service as shop
from bench.service import Run, Service, Start, in_turns, payees_of

OURS = "ours"
BASELINE = f"commit {baseline.COMMIT}"
API_PROCESSES = 2
CONNECTIONS = 16
ABOUT = f"""
The provider's own webhooks about payouts, sent again under new event ids over {CONNECTIONS} connections. The
API verifies and stores each, and nudges a worker. The workers are suspended first; then one worker process
works off a backlog and applies the webhooks too. {API_PROCESSES} API processes with 8 threads each.
"""


def contenders(options: Options) -> list[Contender]:
    """Ours, the commit before it, and the same in Django."""

    def measured(run: Run) -> Callable[[], Figures]:
        return partial(_measure, partial(run, ours.INSTANT, api_workers=API_PROCESSES), options)

    return [
        Contender(OURS, measured(ours.running)),
        Contender(BASELINE, measured(baseline.running), baseline.missing),
        Contender("Django + DRF", measured(shop.running), shop.missing),
    ]


def _measure(start: Start, options: Options) -> Figures:
    payees = payees_of(options.pick(100, 4))
    seconds = options.pick(5.0, 0.5)
    with start() as service:
        service.give_coins(len(payees))
        backlog.warm_up(service, payees)
        bodies = cycle(service.webhook_bodies(len(payees)))
        _load(
            service, islice(bodies, options.pick(1000, 100)), seconds
        )  # every thread has its connections then
        service.wait_until_final()
        with service.workers_frozen():
            figures = _load(service, bodies, seconds, "_stopped")
            service.withdraw(in_turns(payees, options.pick(2000, 20)))
        figures |= _load(service, bodies, seconds, "_beside")
        service.check()
    return figures


def _load(service: Service, bodies: Iterator[bytes], seconds: float, name: str = "") -> Figures:
    before = processes.cpu_seconds(service.pids)["api"]
    requests = (service.webhook_request(body) for body in bodies)
    done = load.send(service.api, requests, connections=CONNECTIONS, seconds=seconds, status=200)
    spent = processes.cpu_seconds(service.pids)["api"] - before
    return {**done.figures(name), f"cpu_api_ms{name}": spent / len(done.times) * 1000}


def _table(name: str, heading: str) -> Table:
    return Table(
        heading,
        [
            Column(f"per_second_{name}", "per second"),
            Column(f"p50_ms_{name}", "median, ms"),
            Column(f"p99_ms_{name}", "p99, ms"),
            Column(f"cpu_api_ms_{name}", "CPU of the API, ms"),
        ],
        ratio_of=f"per_second_{name}",
    )


ROW = Row(
    name="webhooks",
    title="Webhooks of the provider",
    about=ABOUT,
    contenders=contenders,
    tables=[_table("stopped", "workers suspended"), _table("beside", "beside a backlog")],
    goals=[
        Goal(
            f"at least 2 × {BASELINE}, workers suspended",
            ratio(OURS, BASELINE, "per_second_stopped"),
            least=2,
        ),
        Goal(
            f"at least 2 × {BASELINE}, beside a backlog", ratio(OURS, BASELINE, "per_second_beside"), least=2
        ),
        Goal("p99 below 250 ms beside a backlog", typical(OURS, "p99_ms_beside"), most=250),
    ],
)
