"""SQL statements and round trips to PostgreSQL and Redis, counted from outside."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from bench import backlog, load, ours
from bench.plan import Column, Contender, Figures, Goal, Options, Row, Table, typical
from bench.rivals import baseline
from bench.rivals.shop import service as shop
from bench.service import Payee, Run, Service, in_turns, payees_of
from bench.wire_counts import Monitor, Proxy
from sandbox.services import Postgres

OURS = "ours"
ABOUT = """
What one piece of work costs in messages to the servers. A proxy in front of PostgreSQL counts the statements
of the API and the workers, with BEGIN and COMMIT, and their round trips (a pipeline is one); Redis counts
their commands (a script is one). What an idle system does in the same time is subtracted: measured for a
minute before, because some of it happens once a minute. Batches form differently each time, so counts vary.
Known payees, one worker process; in the backlog and alone with all four webhooks of each payout. The backlog
also has the confirmations of what only webhooks reported; alone, a payment ends with its last webhook.
"""
WORKING = ("api", "worker")  # whose messages count; beat and the notifier only read what is due
COUNTED = {
    "statements": "SQL statements",
    "round_trips": "SQL round trips",
    "redis": "Redis commands",
}
NOTHING = dict.fromkeys(COUNTED, 0.0)


@dataclass
class _Meter:
    """Reads the counters of a running system."""

    service: Service
    postgres: Proxy
    redis: Monitor

    def read(self) -> dict[str, float]:
        sql = self.postgres.counts(self.service.pids)
        redis = self.redis.counts(self.service.pids)
        return {
            "statements": sum(sql[kind].statements for kind in WORKING),
            "round_trips": sum(sql[kind].round_trips for kind in WORKING),
            "redis": sum(redis[kind] for kind in WORKING),
            "at": time.monotonic(),
        }

    def idle_rates(self, seconds: float) -> dict[str, float]:
        """What an idle system does in a second."""
        before = self.read()
        time.sleep(seconds)
        after = self.read()
        return {name: (after[name] - before[name]) / (after["at"] - before["at"]) for name in COUNTED}

    def measure(self, work: Callable[[], None], number: int, idle: Mapping[str, float] = NOTHING) -> Figures:
        """What `number` pieces of work cost each, beyond an idle system."""
        before = self.read()
        work()
        after = self.read()
        seconds = after["at"] - before["at"]
        return {name: (after[name] - before[name] - idle[name] * seconds) / number for name in COUNTED}


def contenders(options: Options) -> list[Contender]:
    """Ours, and what it is compared with."""
    return [
        Contender(OURS, partial(_measure, ours.running, options)),
        Contender(
            f"commit {baseline.COMMIT}", partial(_measure, baseline.running, options), baseline.missing
        ),
        Contender("Django + DRF + Celery", partial(_measure, shop.running, options), shop.missing),
    ]


def _measure(run: Run, options: Options) -> Figures:
    payees = payees_of(options.pick(20, 2))
    with (
        Postgres() as postgres,
        Proxy(postgres.url).running() as proxy,
        run(ours.INSTANT | {"DATABASE_URL": proxy.url}) as service,
        Monitor(service.redis_url).running() as monitor,
    ):
        service.database_url = postgres.url  # what this process asks does not count
        service.give_coins(len(payees))
        backlog.warm_up(service, payees)
        figures = _measure_all(_Meter(service, proxy, monitor), payees, options)
        service.check()
    return figures


def _measure_all(meter: _Meter, payees: list[Payee], options: Options) -> Figures:
    service = meter.service
    number = options.pick(200, 20)
    alone = options.pick(20, 2)
    idle = meter.idle_rates(options.pick(60.0, 2.0))
    with ExitStack() as frozen:
        frozen.enter_context(service.workers_frozen())
        request = partial(service.withdraw, in_turns(payees, number))
        kinds = {"create": meter.measure(request, number)}

        def pay() -> None:
            frozen.close()
            service.wait_until_final()

        kinds["backlog"] = meter.measure(pay, number, idle)
    kinds["alone"] = meter.measure(partial(_pay_alone, service, payees[0], alone), alone, idle)
    service.wait_until_final()
    with service.workers_frozen():
        kinds["webhook"] = meter.measure(partial(_send_webhooks, service, number), number)
    service.wait_until_final()
    return {f"{name}_{kind}": value for kind, figures in kinds.items() for name, value in figures.items()}


def _pay_alone(service: Service, payee: Payee, number: int) -> None:
    for _ in range(number):
        service.withdraw([payee], connections=1)
        service.wait_until_final(confirmed=False)


def _send_webhooks(service: Service, number: int) -> None:
    """Send a webhook about a payout again, as new events."""
    body = service.webhook_bodies(1)[0]
    requests = iter([service.webhook_request(body) for _ in range(number)])
    load.send(service.api, requests, connections=4, status=200)


ROW = Row(
    name="counts",
    title="Statements and round trips",
    about=ABOUT,
    contenders=contenders,
    tables=[
        Table(heading, [Column(f"{name}_{kind}", text) for name, text in COUNTED.items()])
        for kind, heading in {
            "create": "an accepted withdrawal, API",
            "webhook": "a stored webhook, API",
            "backlog": "a payment in a backlog, its webhooks stored and applied",
            "alone": "a payment alone, with its request and its webhooks",
        }.items()
    ],
    goals=[
        Goal("at most 6 round trips in a backlog", typical(OURS, "round_trips_backlog"), most=6),
        Goal("at most 16 round trips alone", typical(OURS, "round_trips_alone"), most=16),
    ],
)
