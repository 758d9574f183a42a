"""Withdrawals accepted per second over HTTP."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice

from bench import load, ours, processes
from bench.backlog import cpu_each
from bench.figures import median_ratio
from bench.plan import Column, Contender, Figures, Goal, Options, Row, Table, ratio, values
from bench.rivals import baseline, pgbench
from bench.rivals.shop import service as shop
from bench.service import Run, Service, Start, payees_of

USERS = 1000
API_PROCESSES = 2
COUNTED = "ours"
OFF = "ours, limits off"
RIVAL = "Django + DRF"
RIVAL_OFF = "Django + DRF, limits off"
PGBENCH = "pgbench, the statement alone"
ABOUT = f"""
Withdrawals accepted per second, over so many connections that stay open, each with one request at a time.
Everything is on: API keys, limits per key, user and address (counted for each request and never reached),
validation, log lines, metrics, the message to a worker. {API_PROCESSES} API processes with 8 threads each.
The client shares the cores; the workers are suspended, because Celery's would collect messages that are not
due.

The rival is the same endpoint in Django with Django REST framework, as most would write it
(`bench/rivals/shop`), on gunicorn with as many processes and threads, with limits per key and user; once also
on granian, our server. pgbench sends the API's own statement, prepared, and nothing else: what is possible at
most.
"""


def contenders(options: Options) -> list[Contender]:
    """Each starts with an empty database."""
    limits_off = ours.NOT_DUE | ours.LIMITS_OFF

    def over_http(start: Start) -> Callable[[], Figures]:
        return partial(_measure_http, start, options)

    def start(
        run: Run,
        settings: dict[str, str] = ours.NOT_DUE,
        **more: str,
    ) -> Callable[[], Figures]:
        return over_http(partial(run, settings, api_workers=API_PROCESSES, **more))

    return [
        Contender(COUNTED, start(ours.running)),
        Contender(OFF, start(ours.running, limits_off)),
        Contender(f"commit {baseline.COMMIT}", start(baseline.running), baseline.missing),
        Contender(RIVAL, start(shop.running), shop.missing),
        Contender(RIVAL_OFF, start(shop.running, limits_off), shop.missing),
        Contender("Django + DRF on granian", start(shop.running, server="granian"), shop.missing),
        Contender(PGBENCH, partial(_measure_pgbench, options)),
    ]


def _connections(options: Options) -> tuple[int, ...]:
    return options.pick((16, 64), (4,))


def _seconds(options: Options) -> float:
    return options.pick(8.0, 0.5)


def _measure_http(start: Start, options: Options) -> Figures:
    figures: Figures = {}
    with start() as service:
        service.give_coins(USERS)
        requests = cycle([service.withdraw_request(payee) for payee in payees_of(USERS)])
        # Every thread has its connections then.
        load.send(service.api, islice(requests, options.pick(1000, 100)), connections=16)
        with service.workers_frozen():
            for number in _connections(options):
                figures |= _measure(service, requests, number, _seconds(options))
        service.check()
    return figures


def _measure(service: Service, requests: Iterator[bytes], connections: int, seconds: float) -> Figures:
    before = processes.cpu_seconds(service.pids)
    done = load.send(service.api, requests, connections=connections, seconds=seconds)
    spent = cpu_each(before, processes.cpu_seconds(service.pids), len(done.times))
    kept = {f"{kind}_{connections}": value for kind, value in spent.items()}
    return {**done.figures(f"_{connections}"), **kept}


def _measure_pgbench(options: Options) -> Figures:
    figures: Figures = {}
    with ours.running(ours.NOT_DUE) as service:
        service.give_coins(USERS)
        for number in _connections(options):
            one = pgbench.requests_per_second(
                service.database_url, users=USERS, connections=number, seconds=_seconds(options)
            )
            figures |= {f"{key}_{number}": value for key, value in one.items()}
        service.check()
    return figures


def _table(connections: int) -> Table:
    return Table(
        f"{connections} connections",
        [
            Column(f"per_second_{connections}", "per second"),
            Column(f"p50_ms_{connections}", "median, ms"),
            Column(f"p99_ms_{connections}", "p99, ms"),
            Column(f"cpu_api_ms_{connections}", "CPU of the API, ms"),
            Column(f"cpu_postgres_ms_{connections}", "of PostgreSQL"),
            Column(f"cpu_redis_ms_{connections}", "of Redis"),
        ],
        ratio_of=f"per_second_{connections}",
    )


def _goals(connections: int) -> list[Goal]:
    rate = f"per_second_{connections}"
    at = f"at {connections} connections"
    return [
        Goal(f"at least 2 × Django + DRF {at} (the goal beyond: 3)", ratio(COUNTED, RIVAL, rate), least=2),
        Goal(
            f"at least 0.27 × pgbench {at} (the goal beyond: 0.35)", ratio(COUNTED, PGBENCH, rate), least=0.27
        ),
        Goal(
            f"p99 at most 4 × the median {at}",
            lambda results: median_ratio(
                values(results, COUNTED, f"p99_ms_{connections}"),
                values(results, COUNTED, f"p50_ms_{connections}"),
            ),
            most=4,
        ),
        Goal(f"limits leave at least 0.85 of the rate {at}", ratio(COUNTED, OFF, rate), least=0.85),
    ]


ROW = Row(
    name="create",
    title="Accepting withdrawals",
    about=ABOUT,
    contenders=contenders,
    tables=[_table(16), _table(64), _table(4)],
    goals=[*_goals(16), *_goals(64)],
)
