"""A million pending withdrawals: the sweep and the claim, and the memory of each process."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import psycopg

from bench import apart, ours, processes
from bench.figures import median
from bench.plan import Column, Contender, Figures, Goal, Options, Row, Table, by_subject, typical
from bench.rivals import pgbench
from bench.service import give_coins
from sandbox.services import Postgres, Redis
from shared.migrations import migrate

FEW_ROWS = 1_000
MANY_ROWS = 1_000_000
USERS = 1_000
MIB = 2**20
SWEEP = "a sweep"
CLAIM = "a claim of twenty"
FIRST_CLAIM = "a claim of twenty, the first after a checkpoint"
BATCH = 20
CLAIMED_BEFORE = 20_000  # the middle of a checkpoint's five minutes, at 133 payments a second
GROWTH = "growth in a minute of work, MiB"
NOT_DUE_SECONDS = 36_000.0
# They fall due in the order of the requests, as they do in life.
DUE = """
    WITH ordered AS (SELECT id, percent_rank() OVER (ORDER BY created_at, id) AS place FROM withdrawals)
    UPDATE withdrawals w SET due_at = now() - interval '1 second' * (1 - place)
    FROM ordered WHERE w.id = ordered.id
"""
# Not ours: the memory of the servers is a setting, or what they hold, and the simulator remembers every
# payout.
NOT_GROWING = ("postgres", "redis", "simulator")
ABOUT = f"""
All withdrawals are due at once, of a thousand users, requested with the API's own statement. The sweep for
due work and the claim of a batch of twenty, in one process: medians of fifteen, taken in turns on both
databases. After a checkpoint PostgreSQL writes each page as a whole into its log when it changes first, and
in the large database each claim changes other pages. So claims are measured twice: right after a checkpoint,
and when {CLAIMED_BEFORE:,} of the million have been claimed since, as in the middle of the five minutes
between two checkpoints. Then the whole system works off the million for a while with the instant provider:
how much each process grows once it has warmed up, and whether every promise holds.
"""


def contenders(options: Options) -> list[Contender]:
    """One, because both databases are planted once: it takes minutes."""
    return [Contender("ours", partial(_measure, options))]


def _measure(options: Options) -> Figures:
    sizes = {"few": options.pick(FEW_ROWS, 150), "many": options.pick(MANY_ROWS, 500)}
    with Postgres() as server:
        urls = {name: server.create_database(name) for name in sizes}
        for name, rows in sizes.items():
            _plant(urls[name], rows)
        with Redis() as broker:
            repeats, claimed_before = options.pick((15, CLAIMED_BEFORE), (3, BATCH))
            figures = apart.run(_measure_sweeps, {"REDIS_URL": broker.url}, urls, repeats, claimed_before)
        figures |= _measure_memory(urls["many"], server, options)
    return figures


def _plant(url: str, rows: int) -> None:
    """Request them, which takes minutes for a million; make them due afterwards, for none may be late."""
    migrate(url.replace("postgresql://", "postgresql+psycopg://", 1))
    give_coins(url, USERS)
    pgbench.plant(url, users=USERS, number=rows, due_seconds=NOT_DUE_SECONDS)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(DUE)
        connection.execute("VACUUM ANALYZE")


def _measure_sweeps(urls: dict[str, str], repeats: int, claimed_before: int) -> Figures:
    """Milliseconds of a sweep with an empty broker, then of a claim, which changes rows."""
    figures = _in_turns(SWEEP, _sweep, urls, repeats)
    for url in urls.values():
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
    figures |= _in_turns(FIRST_CLAIM, _claim, urls, repeats)
    _enter(urls["many"])
    _claim(urls["many"], claimed_before)
    return figures | _in_turns(CLAIM, _claim, urls, repeats)


def _in_turns(subject: str, work: Callable[[str], float], urls: dict[str, str], repeats: int) -> Figures:
    times: dict[str, list[float]] = {name: [] for name in urls}
    for _ in range(repeats):
        for name, url in urls.items():
            _enter(url)
            times[name].append(work(url))
    middle = {name: median(some) for name, some in times.items()}
    figures = {f"{subject}|{name}": value for name, value in middle.items()}
    return {**figures, f"{subject}|ratio": middle["many"] / middle["few"]}


def _enter(url: str) -> None:
    """Use this database, and connect to it."""
    from shared.db.engines import engine
    from shared.settings import settings

    if os.environ.get("DATABASE_URL") != url:
        os.environ["DATABASE_URL"] = url
        settings.cache_clear()
    with engine().connect() as connection:
        connection.exec_driver_sql("SELECT 1")


def _sweep(_url: str) -> float:
    from shared import withdrawals
    from shared.queues import redis_broker

    redis_broker.client().flushall()
    return _timed(withdrawals.sweep)


def _claim(url: str, number: int = BATCH) -> float:
    from shared.withdrawals.claim import claim

    query = "SELECT id FROM withdrawals WHERE status_reason = 'cancel_window' ORDER BY due_at LIMIT %s"
    with psycopg.connect(url) as connection:
        ids = [row[0] for row in connection.execute(query, [number]).fetchall()]
    return _timed(lambda: [claim(ids[first : first + BATCH]) for first in range(0, number, BATCH)])


def _timed(work: Callable[[], Any]) -> float:
    started_at = time.perf_counter()
    work()
    return (time.perf_counter() - started_at) * 1000


def _measure_memory(url: str, server: Postgres, options: Options) -> Figures:
    """The growth of each process in MiB, while the stack works on this database."""
    warm_seconds, seconds = options.pick((20.0, 60.0), (2.0, 2.0))
    with ours.running(ours.INSTANT | {"DATABASE_URL": url}) as service:
        service.pids["postgres"] = [server.pid or 0]
        time.sleep(warm_seconds)
        before = processes.memory_bytes(service.pids)
        final = "SELECT count(*) FROM withdrawals WHERE status = 'completed'"
        completed = service.value(final)
        time.sleep(seconds)
        after = processes.memory_bytes(service.pids)
        grown = {kind: max(0, after[kind] - before[kind]) / MIB for kind in after}
        paid = (service.value(final) - completed) / seconds
        service.check_promises()  # the provider's list of payouts would not fit into one answer
    own = [grown[kind] for kind in grown if kind not in NOT_GROWING]
    figures = {f"{GROWTH}|{kind}": mebibytes for kind, mebibytes in grown.items()}
    return {**figures, f"{GROWTH}|most": max(own), f"{GROWTH}|paid": paid}


KINDS: Sequence[str] = ("worker", "api", "notifier", "beat", "postgres", "redis")

ROW = Row(
    name="pending",
    title="A million pending withdrawals",
    about=ABOUT,
    contenders=contenders,
    tables=[
        Table(
            "",
            [Column("few", "a thousand, ms"), Column("many", "a million, ms"), Column("ratio", "ratio")],
        ),
        Table("", [*(Column(kind, kind) for kind in KINDS), Column("paid", "paid per second")]),
    ],
    goals=[
        Goal("the sweep at most 1.3 × that at a thousand", typical(SWEEP, "ratio"), most=1.3),
        Goal("a claim at most 1.3 × that at a thousand", typical(CLAIM, "ratio"), most=1.3),
        Goal("no process of ours grows by more than 50 MiB", typical(GROWTH, "most"), most=50),
    ],
    max_rounds=1,
    shape=by_subject,
)
