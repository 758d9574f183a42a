"""Whatever stands in Redis, or answers in its place: workers, beat and the API wait or set it aside, and go on."""

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
from shared import queues, working
from tests.liar import liar
from tests.world import World
from worker.beat import Scheduler

SECONDS = 60  # a worker's start on a busy machine, and its longest wait several times
_numbers = count(1)


def message(key: str = "key", **changed: Any) -> dict[str, Any]:
    """An order as Celery writes it, with something else in it."""
    body = base64.b64encode(json.dumps([[key], {}, {}]).encode()).decode()
    known: dict[str, Any] = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": queues.APPLY, "id": "1", "retries": 0, "timelimit": [None, None]},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queues.WEBHOOKS},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "tag",
        },
    }
    return known | changed


HEAD = message()["headers"]
POISON = [
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
    json.dumps(message(headers={"task": queues.APPLY})).encode(),
    json.dumps(message(headers={**HEAD, "eta": "never"})).encode(),
    json.dumps(message(headers={**HEAD, "expires": []})).encode(),
]
LIES = [
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
    """A real one, for webhooks and sweeps."""
    command = [sys.executable, "-m", "shared.cli", "worker", "--queues", "webhooks,sweeps"]
    env = os.environ | {"REDIS_URL": url, "WORKER_THREADS": "2"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def assert_works(client: redis.Redis, process: subprocess.Popen[bytes], log: Path) -> None:
    """The worker takes an order: it takes the mark of it away."""
    key = f"probe{next(_numbers)}"
    client.set(f"nudged:{key}", 1)
    client.lpush("webhooks", json.dumps(message(key)))
    wait_until(
        lambda: not client.exists(f"nudged:{key}") or process.poll() is not None,
        SECONDS,
        lambda: AssertionError(log.read_text()[-3000:]),
    )
    assert process.poll() is None, log.read_text()[-3000:]


@pytest.fixture
def own(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """A Redis that others do not use, and this process does."""
    with Redis(tmp_path / "redis") as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        world.forget_settings()
        with redis.Redis.from_url(server.url) as client:
            yield client


def test_whatever_redis_holds_or_says_ends_no_worker(own: redis.Redis, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with liar(os.environ["REDIS_URL"]) as wire, worker(log, wire.url) as process:
        assert_works(own, process, log)
        assert working.worked() == {name: name in ("webhooks", "sweeps") for name in queues.EVERY_QUEUE}
        for _ in range(2):  # the second time nothing is new
            own.lpush("webhooks", *POISON)
            assert_works(own, process, log)
        said = [json.loads(line) for line in log.read_text().splitlines() if "message set aside" in line]
        wanted = {hashlib.sha256(one).hexdigest(): one for one in POISON}
        assert [wanted[one] for one in wanted.keys() - {line["sha256"] for line in said}] == []
        assert len(said) == working.number_set_aside() == len(POISON)
        assert own.llen("webhooks") == 0
        for lie in LIES[:3]:
            wire.lie, wire.told = lie, 0
            wait_until(lambda: wire.told >= 2 or process.poll() is not None, SECONDS)
            wire.lie = None
            assert_works(own, process, log)
        own.delete("webhooks")
        own.set("webhooks", "no list")
        wait_until(lambda: _refused(own, "WRONGTYPE") >= 2 or process.poll() is not None, SECONDS)
        own.delete("webhooks")
        assert_works(own, process, log)
        own.replicaof("127.0.0.1", 1)
        wait_until(lambda: _refused(own, "READONLY") >= 2 or process.poll() is not None, SECONDS)
        own.replicaof("NO", "ONE")
        assert_works(own, process, log)


def _refused(client: redis.Redis, word: str) -> int:
    """How often Redis has answered so."""
    told = client.info("errorstats").get(f"errorstat_{word}", {})
    return int(told.get("count", 0))


class Clock(Scheduler):
    """Beat, with one thing to send."""

    def setup_schedule(self) -> None:
        self.merge_inplace({"sweep": {"task": queues.SWEEP, "schedule": 0.0}})


def test_beat_goes_on_whatever_redis_says(own: redis.Redis) -> None:
    with liar(os.environ["REDIS_URL"]) as wire:
        celery = Celery("clock", set_as_current=False, broker=wire.url)
        celery.conf.update(
            task_routes={queues.SWEEP: {"queue": queues.SWEEPS}},
            broker_transport_options=queues.sender().conf.broker_transport_options,
        )
        clock = Clock(celery)
        for lie in (None, *LIES, None):
            wire.lie = lie
            assert 0 <= clock.tick() <= 300
        assert own.llen(queues.SWEEPS) >= 1
        clock.close()


def test_readiness_says_whether_anybody_works(own: redis.Redis, client: FlaskClient) -> None:
    def told() -> tuple[int, str]:
        ready = client.get("/readyz")
        return ready.status_code, ready.get_json()["workers"]

    assert told() == (200, "none")
    working.beat(set(queues.QUEUES) - {queues.PAYOUTS})
    assert told() == (200, "none")  # a queue without a worker is payouts that wait
    working.beat(queues.QUEUES)
    assert told() == (200, "ok")
    own.set("working:payouts", 1, px=1)
    wait_until(lambda: told() == (200, "none"), 5)


def test_messages_that_are_set_aside_stay_few(own: redis.Redis) -> None:
    for number in range(working.MOST_SET_ASIDE + 20):
        working.set_aside("webhooks", b"x" * 10_000 + str(number).encode(), ValueError())
    assert working.number_set_aside() == working.MOST_SET_ASIDE
    assert max(map(len, own.zrange(working.SET_ASIDE, 0, -1))) < 2 * working.MOST_BYTES
