"""A backlog of due withdrawals, and a provider that answers at once."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from bench import backlog, ours
from bench.plan import Column, Contender, Figures, Goal, Options, Row, Table, ratio, typical
from bench.rivals import baseline, noop
from bench.rivals.shop import service as shop
from bench.service import Run, Start, in_turns, payees_of

OURS = "ours, one worker process"
BASELINE = f"commit {baseline.COMMIT}, one"
RIVAL = "Django + Celery, one of 8 threads"
NUMBER = 2000
RIVALS_NUMBER = 600  # their rate does not depend on it, and 2,000 take minutes
LOOP_SECONDS = 60
ABOUT = f"""
A backlog of {NUMBER:,} withdrawals that are all due ({RIVALS_NUMBER} for the slower rivals), requested over
HTTP while the workers are suspended. Then they work: the provider answers at once and pays in 15 ms, and
sends four webhooks for each payout. The provider's rate limit is set so high that it is never reached.
Everything is on: metrics, events for Flower, the sealing of events (every 2 s), webhooks, the confirmation of
payments that only a webhook reported (after 2 s; the rivals do not confirm any). The rate is from the first
moment to the last completion; the CPU time of every process counts until the last webhook is applied and the
last payment confirmed, without the simulator's.

Rivals: commit {baseline.COMMIT} with its own code; the same in Django with Celery, one ORM transaction before
and one after the call and one for each webhook, on threads as ours and on Celery's default pool
(`bench/rivals/shop`); a loop written by hand on our tables that does nothing but pay, the floor
(`bench/rivals/loop.py`); and Celery tasks that do nothing at all.
"""
CPU = {
    "cpu_ms": "CPU each, ms",
    "cpu_worker_ms": "worker",
    "cpu_postgres_ms": "PostgreSQL",
    "cpu_api_ms": "API",
    "cpu_redis_ms": "Redis",
    "cpu_notifier_ms": "notifier",
    "cpu_beat_ms": "beat",
    "cpu_flower_ms": "Flower",
    "cpu_simulator_ms": "(simulator)",
}


def contenders(options: Options) -> list[Contender]:
    """Each starts with an empty database and pays every payee once before it is measured."""

    def draining(run: Run, number: int = NUMBER, **size: object) -> Callable[[], Figures]:
        return partial(_measure, partial(run, ours.INSTANT, **size), options.pick(number, 20))

    rival = partial(draining, number=RIVALS_NUMBER)

    return [
        Contender(OURS, draining(ours.running)),
        Contender("ours, two", draining(ours.running, workers=2)),
        Contender("ours, one, and Flower", draining(ours.running, flower=True)),
        Contender(BASELINE, rival(baseline.running), baseline.missing),
        Contender(f"commit {baseline.COMMIT}, two", rival(baseline.running, workers=2), baseline.missing),
        Contender(RIVAL, rival(shop.running), shop.missing),
        Contender(
            f"Django + Celery, {os.cpu_count()} processes",
            rival(shop.running, pool="prefork"),
            shop.missing,
        ),
        Contender("a loop by hand", partial(_measure_loop, options.pick(NUMBER, 20))),
        Contender("Celery tasks that do nothing", partial(noop.drain, options.pick(5000, 100))),
    ]


def _measure(start: Start, number: int) -> Figures:
    payees = payees_of(number // 10)
    with start() as service:
        service.give_coins(len(payees))
        backlog.warm_up(service, payees)
        figures = backlog.drain(service, in_turns(payees, number))
        service.check()
    return figures


def _measure_loop(number: int) -> Figures:
    """The loop takes the place of our worker, which stays suspended."""
    payees = payees_of(number // 10)
    with ours.running(ours.INSTANT) as service:
        service.give_coins(len(payees))
        backlog.warm_up(service, payees)
        with service.workers_frozen():
            command = [sys.executable, "-m", "bench.rivals.loop"]
            with subprocess.Popen(command, cwd=ours.ROOT, env=service.env, stdin=subprocess.PIPE) as loop:
                service.pids["worker"] = [loop.pid]
                try:
                    figures = backlog.drain(service, in_turns(payees, number))
                finally:
                    assert loop.stdin
                    loop.stdin.close()
                    loop.wait(LOOP_SECONDS)
        service.check()
    return figures


ROW = Row(
    name="drain",
    title="Working off a backlog",
    about=ABOUT,
    contenders=contenders,
    tables=[
        Table(
            "", [Column("per_second", "per second"), Column("cpu_ms", CPU["cpu_ms"])], ratio_of="per_second"
        ),
        Table("CPU each, ms", [Column(key, name) for key, name in CPU.items() if key != "cpu_ms"]),
    ],
    goals=[
        Goal(f"at least 5 × commit {baseline.COMMIT}", ratio(OURS, BASELINE, "per_second"), least=5),
        Goal("at least 2 × Django + Celery", ratio(OURS, RIVAL, "per_second"), least=2),
        Goal("at most 12 ms of CPU each, without the simulator", typical(OURS, "cpu_ms"), most=12),
    ],
)
