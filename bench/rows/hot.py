"""One user with many withdrawals, whose wallet is one row."""

from collections.abc import Callable
from functools import partial
from itertools import cycle, islice

from bench import backlog, load, ours
from bench.plan import Column, Contender, Figures, Options, Row, Table
from bench.rivals import baseline, pgbench
from bench.rivals.shop import service as shop
from bench.service import Run, in_turns, payees_of

CONNECTIONS = 16
USERS = {"hot": 1, "many": 100}
ABOUT = f"""
All withdrawals are of one user, to one UPI id: requested over {CONNECTIONS} connections, then worked off as a
backlog by one worker process. Beside them, the same spread over {USERS["many"]} users.
"""


def contenders(options: Options) -> list[Contender]:
    """Ours and its rivals; pgbench only requests."""

    def measured(run: Run) -> Callable[[], Figures]:
        return partial(_measure, run, options)

    return [
        Contender("ours", measured(ours.running)),
        Contender(f"commit {baseline.COMMIT}", measured(baseline.running), baseline.missing),
        Contender("Django + DRF + Celery", measured(shop.running), shop.missing),
        Contender("pgbench, the statement alone", partial(_measure_pgbench, options)),
    ]


def _measure(run: Run, options: Options) -> Figures:
    figures: Figures = {}
    with run(ours.NOT_DUE) as service:
        service.give_coins(max(USERS.values()))
        requests = {
            name: cycle([service.withdraw_request(payee) for payee in payees_of(users)])
            for name, users in USERS.items()
        }
        # Every thread has its connections then.
        load.send(service.api, islice(requests["many"], options.pick(1000, 100)), connections=CONNECTIONS)
        with service.workers_frozen():
            for name in USERS:
                seconds = options.pick(5.0, 0.5)
                done = load.send(service.api, requests[name], connections=CONNECTIONS, seconds=seconds)
                figures |= done.figures(f"_{name}")
        service.check()
    with run(ours.INSTANT) as service:
        payees = payees_of(max(USERS.values()))
        service.give_coins(len(payees))
        backlog.warm_up(service, payees)
        for name, users in USERS.items():
            drained = backlog.drain(service, in_turns(payees[:users], options.pick(300, 10)))
            figures[f"drained_{name}"] = drained["per_second"]
        service.check()
    return figures


def _measure_pgbench(options: Options) -> Figures:
    figures: Figures = {}
    with ours.running(ours.NOT_DUE) as service:
        service.give_coins(max(USERS.values()))
        for name, users in USERS.items():
            one = pgbench.requests_per_second(
                service.database_url, users=users, connections=CONNECTIONS, seconds=options.pick(5.0, 1.0)
            )
            figures |= {f"{key}_{name}": value for key, value in one.items()}
        service.check()
    return figures


def _table(name: str, heading: str) -> Table:
    return Table(
        heading,
        [
            Column(f"per_second_{name}", "accepted per second"),
            Column(f"p50_ms_{name}", "median, ms"),
            Column(f"p99_ms_{name}", "p99, ms"),
            Column(f"drained_{name}", "paid per second"),
        ],
        ratio_of=f"per_second_{name}",
    )


ROW = Row(
    name="hot",
    title="A hot wallet",
    about=ABOUT,
    contenders=contenders,
    tables=[_table("hot", "one user"), _table("many", f"{USERS['many']} users")],
    max_rounds=3,  # nothing is required here
)
