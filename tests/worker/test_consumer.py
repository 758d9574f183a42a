"""Malformed messages and replies from Redis: workers, beat and the API set them aside or wait, and continue."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from flask.testing import FlaskClient

from sandbox.processes import wait_until
from sandbox.services import Redis
from shared.queues import messages, workers
from shared.queues.names import EVERY_QUEUE, PAYOUTS, QUEUES, SWEEPS, WEBHOOKS
from tests.support.corrupting_proxy import corrupting_proxy
from tests.support.world import World
from worker.beat import Scheduler

WAIT_SECONDS = 60  # a worker's start on a busy machine and several of its longest waits
_numbers = count(1)


def message(key: str = "key", **changed: Any) -> dict[str, Any]:
    """A message as Celery writes it, with these fields changed."""
    body = base64.b64encode(json.dumps([[key], {}, {}]).encode()).decode()
    known: dict[str, Any] = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": messages.APPLY, "id": "1", "retries": 0, "timelimit": [None, None]},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": WEBHOOKS},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "tag",
        },
    }
    return known | changed


HEAD = message()["headers"]
MALFORMED_MESSAGES = [
    b"no message",
    b"\xff\xfe\x00",
    b"",
    b"5",
    b"[]",
    b"[" * 100_000,
    b"{}",
    json.dumps(message(properties={})).encode(),
    json.dumps(message(properties=None)).encode(),
    json.dumps(message(body="no base64")).encode(),
    json.dumps(message(body=None)).encode(),
    json.dumps(message(**{"content-type": "application/data"})).encode(),
    json.dumps(message(**{"content-type": "application/x-python-serialize"})).encode(),
    json.dumps(message(headers=None)).encode(),
    json.dumps(message(headers={})).encode(),
    json.dumps(message(headers={**HEAD, "task": []})).encode(),
    json.dumps(message(headers={**HEAD, "task": "os.system"})).encode(),
    json.dumps(message(headers={"task": messages.APPLY})).encode(),
    json.dumps(message(headers={**HEAD, "eta": "never"})).encode(),
    json.dumps(message(headers={**HEAD, "expires": []})).encode(),
]
MALFORMED_REPLIES = [
    b"garbage\r\n",
    b"$abc\r\n",
    b"*-5\r\n",
    b"%1\r\n*1\r\n:1\r\n:1\r\n",
    b":7\r\n",
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    b"-READONLY You can't write against a read only replica.\r\n",
]


@contextmanager
def worker(log: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real worker for webhooks and sweeps."""
    command = [sys.executable, "-m", "cli", "worker", "--queues", "webhooks,sweeps"]
    env = os.environ | {"REDIS_URL": url, "WORKER_THREADS": "2"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def assert_worker_consumes(client: redis.Redis, process: subprocess.Popen[bytes], log: Path) -> None:
    """Assert that the worker consumes a message: it deletes the mark of its task."""
    mark = f"nudged:{messages.APPLY}"
    client.set(mark, 1)
    client.lpush("webhooks", json.dumps(message(f"probe{next(_numbers)}")))
    wait_until(
        lambda: not client.exists(mark) or process.poll() is not None,
        WAIT_SECONDS,
        lambda: AssertionError(log.read_text()[-3000:]),
    )
    assert process.poll() is None, log.read_text()[-3000:]


@pytest.fixture
def own_redis(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """A Redis server that only this test uses."""
    with Redis(tmp_path / "redis") as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        world.forget_settings()
        with redis.Redis.from_url(server.url) as client:
            yield client


@pytest.mark.exhaustive
def test_malformed_messages_and_redis_replies_stop_no_worker(own_redis: redis.Redis, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with corrupting_proxy(os.environ["REDIS_URL"]) as wire, worker(log, wire.url) as process:
        assert_worker_consumes(own_redis, process, log)
        assert workers.queues_with_workers() == {name: name in ("webhooks", "sweeps") for name in EVERY_QUEUE}
        for _ in range(2):  # the second time the messages are already set aside
            own_redis.lpush("webhooks", *MALFORMED_MESSAGES)
            assert_worker_consumes(own_redis, process, log)
        log_lines = [json.loads(line) for line in log.read_text().splitlines() if "message set aside" in line]
        by_hash = {hashlib.sha256(raw).hexdigest(): raw for raw in MALFORMED_MESSAGES}
        assert [by_hash[digest] for digest in by_hash.keys() - {line["sha256"] for line in log_lines}] == []
        assert len(log_lines) == workers.number_set_aside() == len(MALFORMED_MESSAGES)
        assert own_redis.llen("webhooks") == 0
        for reply in MALFORMED_REPLIES[:3]:
            wire.garbage = reply
            wire.sent = 0
            wait_until(lambda: wire.sent >= 2 or process.poll() is not None, WAIT_SECONDS)
            wire.garbage = None
            assert_worker_consumes(own_redis, process, log)
        own_redis.delete("webhooks")
        own_redis.set("webhooks", "no list")
        wait_until(
            lambda: _error_count(own_redis, "WRONGTYPE") >= 2 or process.poll() is not None, WAIT_SECONDS
        )
        own_redis.delete("webhooks")
        assert_worker_consumes(own_redis, process, log)
        own_redis.replicaof("127.0.0.1", 1)
        wait_until(
            lambda: _error_count(own_redis, "READONLY") >= 2 or process.poll() is not None, WAIT_SECONDS
        )
        own_redis.replicaof("NO", "ONE")
        assert_worker_consumes(own_redis, process, log)


def _error_count(client: redis.Redis, word: str) -> int:
    """Return how often Redis has answered with this error."""
    errors = client.info("errorstats").get(f"errorstat_{word}", {})
    return int(errors.get("count", 0))


class SweepScheduler(Scheduler):
    """Beat with one entry."""

    def setup_schedule(self) -> None:
        self.merge_inplace({"sweep": {"task": messages.SWEEP, "schedule": 0.0}})


def test_malformed_redis_replies_do_not_stop_beat(own_redis: redis.Redis) -> None:
    with corrupting_proxy(os.environ["REDIS_URL"]) as wire:
        celery = Celery("clock", set_as_current=False, broker=wire.url)
        celery.conf.update(
            task_routes={messages.SWEEP: {"queue": SWEEPS}},
            broker_transport_options=messages.sender().conf.broker_transport_options,
        )
        scheduler = SweepScheduler(celery)
        for reply in (None, *MALFORMED_REPLIES, None):
            wire.garbage = reply
            assert 0 <= scheduler.tick() <= 300
        assert own_redis.llen(SWEEPS) >= 1
        scheduler.close()


def test_readiness_reports_whether_every_queue_has_a_worker(
    own_redis: redis.Redis, client: FlaskClient
) -> None:
    def readiness() -> tuple[int, str]:
        ready = client.get("/readyz")
        return ready.status_code, ready.get_json()["workers"]

    assert readiness() == (200, "none")
    workers.record_heartbeat(set(QUEUES) - {PAYOUTS})
    assert readiness() == (200, "none")  # no worker serves payouts
    workers.record_heartbeat(QUEUES)
    assert readiness() == (200, "ok")
    own_redis.set("working:payouts", 1, px=1)
    wait_until(lambda: readiness() == (200, "none"), 5)


def test_the_number_of_messages_set_aside_is_bounded(own_redis: redis.Redis) -> None:
    for number in range(workers.MAX_SET_ASIDE + 20):
        workers.set_aside("webhooks", b"x" * 10_000 + str(number).encode(), ValueError())
    assert workers.number_set_aside() == workers.MAX_SET_ASIDE
    assert max(map(len, own_redis.zrange(workers.SET_ASIDE_KEY, 0, -1))) < 2 * workers.MAX_MESSAGE_BYTES
