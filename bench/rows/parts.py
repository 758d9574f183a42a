"""What the parts cost: messages, statements, calls, each alone in one process."""

import http.client
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import redis

from bench import apart, ours
from bench.figures import median
from bench.plan import Column, Contender, Figures, Options, Row, Table, by_subject
from bench.service import payees_of

REPEATS = 5
NUDGED_KEY = "01a208a5-b724-779f-a85a-7688d7fa28bd"
ABOUT = f"""
Each part alone, one after the other, in one process, on an otherwise idle system: the median of {REPEATS}
rounds, each the average of many repetitions. CPU time of this process, and time on the clock, which has the
server's part too.
"""


def contenders(options: Options) -> list[Contender]:
    """One process measures all parts."""
    return [Contender("ours", partial(_measure, options))]


def _measure(options: Options) -> Figures:
    with ours.running(ours.NOT_DUE) as service:
        service.give_coins(1)
        urls = (service.database_url, service.redis_url, service.simulator_url)
        with service.workers_frozen():  # they would work off the messages meanwhile
            figures = apart.run(_time_all, service.env, *urls, options.pick(1000, 20))
        service.withdraw(payees_of(1))
        service.check()
    return figures


def _time_all(database_url: str, redis_url: str, simulator_url: str, number: int) -> Figures:
    figures: Figures = {}
    for subject, work in _parts(database_url, redis_url, simulator_url).items():
        work()  # connects
        clock, cpu = zip(*(_time(work, number) for _ in range(REPEATS)), strict=True)
        figures |= {f"{subject}|clock": median(clock), f"{subject}|cpu": median(cpu)}
    return figures


def _time(work: Callable[[], Any], number: int) -> tuple[float, float]:
    """Milliseconds on the clock and of CPU, each."""
    started_at = time.perf_counter()
    cpu_before = time.process_time()
    for _ in range(number):
        work()
    cpu = time.process_time() - cpu_before
    return (time.perf_counter() - started_at) / number * 1000, cpu / number * 1000


def _parts(database_url: str, redis_url: str, simulator_url: str) -> dict[str, Callable[[], Any]]:
    from sqlalchemy import text

    from shared.db.transactions import autocommit, transaction
    from shared.providers.clients import client
    from shared.providers.steps import Poll
    from shared.queues import messages, soon

    one = text("SELECT 1")
    plain = psycopg.connect(database_url, autocommit=True)
    broker = redis.Redis.from_url(redis_url)
    wire = http.client.HTTPConnection(urlsplit(simulator_url).netloc)
    missing = Poll(uuid4(), uuid4(), "pout_00000000000000", 100, 0, None)

    def in_transaction() -> None:
        with transaction() as session:
            session.execute(one)

    def alone() -> None:
        with autocommit() as connection:
            connection.execute(one)

    def get() -> bytes:
        wire.request("GET", "/v1/payouts/pout_00000000000000")
        return wire.getresponse().read()

    return {
        "psycopg: SELECT 1, prepared": lambda: plain.execute("SELECT 1", prepare=True).fetchone(),
        "SQLAlchemy: SELECT 1 without a transaction": alone,
        "SQLAlchemy: a transaction with SELECT 1": in_transaction,
        "redis-py: PING": broker.ping,
        "Celery: send_task": partial(messages.nudge, messages.SUBMIT, NUDGED_KEY),
        "a nudge from a request (`soon.py`)": partial(soon.nudge_soon, messages.SWEEP_SENDS),
        "http.client: a call to the simulator": get,
        "our client: a call to the simulator": partial(client().perform, missing),
    }


ROW = Row(
    name="parts",
    title="What the parts cost",
    about=ABOUT,
    contenders=contenders,
    tables=[Table("", [Column("cpu", "CPU, ms"), Column("clock", "on the clock, ms")])],
    shape=by_subject,
)
