"""What one request costs: SQL statements, round trips and Redis commands, counted at the wire.

A change that adds one fails here, and the failure lists what was sent.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from shared.db.engines import engine
from shared.queues import soon
from tests.api.test_auth import key_for
from tests.support.api import GOOD, WITHDRAW
from tests.support.counting_proxy import Counts, counting_postgres, counting_redis
from tests.support.user_tokens import token, use_tokens
from tests.support.world import KEY, World, event_body, forget_settings, sign

WEBHOOK = "/api/razorpay/webhook/"
REQUESTS = 5  # so that a share of a round trip shows as well


@dataclass
class Wires:
    """What is sent to both services, and a client of the API with every limit on."""

    sql: Counts
    redis: Counts
    client: FlaskClient

    def reset(self) -> None:
        soon.flush()  # nudges leave from a thread of their own
        self.sql.reset()
        self.redis.reset()

    def __str__(self) -> str:
        return f"SQL: {self.sql}\nRedis: {self.redis}"

    def assert_each(self, *, sql: int, redis: dict[str, int]) -> None:
        """Each of the requests sent so many statements, each in a round trip of its own, and these commands."""
        statements = sum(self.sql.statements.values())
        assert (statements, self.sql.round_trips) == (sql * REQUESTS, sql * REQUESTS), str(self)
        commands = {name: number for name, number in self.redis.statements.items() if name not in NUDGE}
        assert commands == {name: number * REQUESTS for name, number in redis.items()}, str(self)
        assert self.sql.commits == 0, str(self)


NUDGE = ("SET", "LPUSH", "SADD", "PING")  # what the thread of the nudges sends, at most once in 50 ms


@pytest.fixture
def wires(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wires]:
    for name in ("PER_KEY", "PER_USER", "PER_ADDRESS", "FAILED_AUTH"):
        monkeypatch.setenv(f"RATE_LIMIT_{name}", "1000/minute")
    use_tokens(monkeypatch)
    with (
        counting_postgres(os.environ["DATABASE_URL"]) as (database_url, sql),
        counting_redis(os.environ["REDIS_URL"]) as (redis_url, redis),
    ):
        monkeypatch.setenv("DATABASE_URL", database_url)
        monkeypatch.setenv("REDIS_URL", redis_url)
        forget_settings()
        soon.flush()
        world.credit(coins=100_000)
        yield Wires(sql, redis, create_app().test_client())
        soon.flush()
        engine().dispose()


def create(wires: Wires, secret: str, number: int = REQUESTS, **headers: str) -> None:
    """Create withdrawals, after one that connects, prepares the statement and makes the key known."""
    for _ in range(number):
        answer = wires.client.post(
            WITHDRAW, json=GOOD | {"amount": 100}, headers={"Authorization": f"Bearer {secret}", **headers}
        )
        assert answer.status_code == 201, answer.get_json()


@pytest.mark.parametrize("caller", ["key in the settings", "key in the database", "user token"])
def test_a_create_is_one_round_trip_to_each_service(wires: Wires, caller: str) -> None:
    """With every limit on: REQUEST alone, and one script for all limits."""
    secrets = {"key in the settings": KEY, "user token": token()}
    secret = secrets.get(caller) or key_for("withdraw")
    create(wires, secret, 2)
    wires.reset()
    create(wires, secret)
    wires.assert_each(sql=1, redis={"EVALSHA": 1})
    assert all(statement.startswith("WITH taken AS") for statement in wires.sql.statements), str(wires)


def test_a_create_with_an_idempotency_key_keeps_its_response(wires: Wires) -> None:
    """The key is taken, the withdrawal created, the response stored."""
    create(wires, KEY, 2)
    create(wires, KEY, 1, **{"Idempotency-Key": "first"})
    wires.reset()
    for number in range(REQUESTS):
        create(wires, KEY, 1, **{"Idempotency-Key": f"key-{number}"})
    wires.assert_each(sql=3, redis={"EVALSHA": 1})


def test_a_create_that_is_refused_for_its_body_costs_no_statement(wires: Wires) -> None:
    create(wires, KEY, 2)
    wires.reset()
    for _ in range(REQUESTS):
        answer = wires.client.post(WITHDRAW, json={}, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 400
    wires.assert_each(sql=0, redis={"EVALSHA": 1})


def test_a_request_above_its_limit_costs_no_statement(
    wires: Wires, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT_PER_USER", "3/hour")
    forget_settings()
    wires.client = create_app().test_client()
    create(wires, KEY, 3)
    wires.reset()
    for _ in range(REQUESTS):
        answer = wires.client.post(WITHDRAW, json=GOOD, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 429
    wires.assert_each(sql=0, redis={"EVALSHA": 1})


def test_an_unknown_key_costs_no_statement_and_two_scripts(wires: Wires) -> None:
    """One counts before the key is compared, one counts the failure."""
    for number in range(REQUESTS + 1):
        if number == 1:
            wires.reset()
        answer = wires.client.post(WITHDRAW, json=GOOD, headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 401
    wires.assert_each(sql=0, redis={"EVALSHA": 2})


def test_a_new_webhook_is_one_round_trip_to_the_database(wires: Wires) -> None:
    send_webhook(wires, "first")
    wires.reset()
    for number in range(REQUESTS):
        send_webhook(wires, f"event-{number}")
    wires.assert_each(sql=1, redis={})
    assert all(statement.startswith("INSERT INTO webhook_events") for statement in wires.sql.statements)


def test_a_burst_of_webhooks_and_creates_is_few_messages(wires: Wires) -> None:
    """All that come within a moment share a message, and no message waits twice."""
    create(wires, KEY, 2)
    send_webhook(wires, "first")
    wires.reset()
    for number in range(50):
        send_webhook(wires, f"burst-{number}")
    create(wires, KEY, 50)
    soon.flush()
    # No worker takes them here: the first of each task waits, the others find it waiting.
    assert wires.redis.statements["LPUSH"] <= 2, str(wires)


def send_webhook(wires: Wires, event_id: str) -> None:
    body = event_body("payout.processed", {"id": f"pout_{event_id}", "status": "processed"})
    headers = {"X-Razorpay-Signature": sign(body), "X-Razorpay-Event-Id": event_id}
    answer = wires.client.post(WEBHOOK, data=body, headers=headers)
    assert answer.get_json() == {"success": True, "message": "Received"}
