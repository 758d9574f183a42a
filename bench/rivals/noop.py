"""Rival: Celery tasks that do nothing, on the same pool of threads: what a message costs at least.

python -m celery --app bench.rivals.noop worker --pool threads --concurrency 8
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import redis
from celery import Celery

from bench import processes
from bench.ours import ALWAYS, ROOT
from sandbox.keeper import wait_until
from sandbox.processes import Part
from sandbox.readiness import is_consuming
from sandbox.services import Redis

QUEUE = "celery"  # Celery's default
PATIENCE_SECONDS = 300.0

celery = Celery("noop", broker=os.environ.get("NOOP_REDIS_URL"))
celery.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1)


@celery.task(name="noop", shared=False)  # not a task of our own worker, where both are imported
def noop(_key: str) -> None:
    """Do nothing."""


def drain(number: int) -> dict[str, float]:
    """Send so many messages to a suspended worker, and measure how it works them off."""
    with tempfile.TemporaryDirectory(prefix="coin-noop-") as directory, Redis() as broker:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "NOOP_REDIS_URL": broker.url}
        argv = [
            sys.executable, "-m", "celery", "--quiet", "--app", "bench.rivals.noop", "worker", "--pool",
            "threads", "--concurrency", ALWAYS["WORKER_THREADS"], "--without-mingle", "--without-gossip",
        ]  # fmt: skip
        part = Part("noop", argv, env, Path(directory) / "noop.log", cwd=ROOT)
        part.ready = lambda: is_consuming(part, broker.url)
        with part, redis.Redis.from_url(broker.url) as client:
            pids = {"worker": [part.pid or 0], "redis": [broker.pid or 0]}
            with processes.frozen(pids["worker"]):
                _send(number, broker.url)
                before = processes.cpu_seconds(pids)
                started_at = time.perf_counter()
            wait_until(lambda: _is_empty(client), PATIENCE_SECONDS)
            seconds = time.perf_counter() - started_at
            after = processes.cpu_seconds(pids)
    cpu = {f"cpu_{kind}_ms": (after[kind] - before[kind]) / number * 1000 for kind in pids}
    return {"per_second": number / seconds, "cpu_ms": sum(cpu.values()), **cpu}


def _send(number: int, url: str) -> None:
    with Celery("sender", broker=url) as sender, sender.connection_for_write() as connection:
        producer = sender.amqp.Producer(connection)
        for key in range(number):
            sender.send_task("noop", [str(key)], producer=producer, ignore_result=True)


def _is_empty(client: redis.Redis) -> bool:
    return not client.llen(QUEUE) and not client.hlen("unacked")
