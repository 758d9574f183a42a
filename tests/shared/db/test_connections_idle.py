"""Connections that broke while idle are replaced, so the next request succeeds."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from flask.testing import FlaskClient

from shared.db import connections
from shared.db.engines import engine
from shared.queues import messages, redis_broker
from shared.queues.names import WEBHOOKS
from tests.e2e.relay import Relay, relay
from tests.shared.withdrawals.test_apply_report_failures import deliver
from tests.support.api import CREDIT, WALLET
from tests.support.world import World

CLOSE_ALL = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def credit(client: FlaskClient, reference: str) -> int:
    body = {"user_id": "user123", "coins": 700, "reference": reference, "reason": "Won a quiz"}
    return client.post(CREDIT, json=body).status_code


def close_all_connections() -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
        other.execute(CLOSE_ALL)


def open_connections() -> None:
    """Open three connections, which then wait in the pool."""
    opened = [engine().connect() for _ in range(3)]
    for connection in opened:
        connection.close()


@contextmanager
def through_a_relay(patch: pytest.MonkeyPatch, world: World, name: str) -> Iterator[Relay]:
    """Route every client through a proxy that the test controls."""
    url = os.environ[name]
    with relay(url.replace("redis", "http", 1)) as relay_:
        patch.setenv(name, url.replace(f":{urlsplit(url).port}/", f":{urlsplit(relay_.url).port}/"))
        world.forget_settings()
        try:
            yield relay_
        finally:
            engine().dispose()
            patch.setenv(name, url)
            world.forget_settings()


def test_connections_that_the_server_closed_while_idle_are_replaced_silently(
    world: World, client: FlaskClient
) -> None:
    """After a restart or `idle_session_timeout`, the first query succeeds."""
    payout = {"id": "pout_1", "reference_id": "none", "status": "processed", "amount": 1}
    requests = {
        "credit": lambda: credit(client, "r1") == 201,
        "webhook": lambda: deliver(client, "ev_1", "payout.processed", payout) == 200,
        "wallet": lambda: client.get(WALLET, query_string={"user_id": "user123"}).status_code == 200,
        "readyz": lambda: client.get("/readyz").status_code == 200,
    }
    for name, request in requests.items():
        open_connections()
        close_all_connections()
        assert request(), name


def test_connections_that_a_firewall_dropped_are_replaced_within_seconds(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PING_TIMEOUT_SECONDS", 0.3)
    with through_a_relay(monkeypatch, world, "DATABASE_URL") as relay_:
        open_connections()
        relay_.forget()
        monkeypatch.setattr(connections, "PING_AFTER_SECONDS", 0.0)  # as if time had passed
        started = time.monotonic()
        assert credit(client, "r1") == 201
        assert time.monotonic() - started < connections.RESPONSE_TIMEOUT_SECONDS / 2
        assert credit(client, "r2") == 201


def test_a_connection_in_use_is_not_pinged(world: World) -> None:
    """The hot path costs nothing: between two requests no extra query is sent."""
    pings = (
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT 1'"
    )
    for _ in range(3):
        world.sql("SELECT 2")
        with psycopg.connect(os.environ["DATABASE_URL"]) as other:
            assert other.execute(pings).fetchone() == (0,)


def test_closed_redis_connections_are_replaced_silently(world: World) -> None:
    broker = redis_broker.client()
    assert messages.nudge(messages.APPLY, "first") and redis_broker.state() == "ok"
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    assert messages.nudge(messages.APPLY, "second") and redis_broker.state() == "ok"
    assert broker.llen(WEBHOOKS) == 2


def test_redis_connections_that_a_firewall_dropped_are_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_broker, "PING_AFTER_SECONDS", 0.01)  # as if time had passed
    with through_a_relay(monkeypatch, world, "REDIS_URL") as relay_:
        assert messages.nudge(messages.APPLY, "first") and redis_broker.state() == "ok"
        relay_.forget()
        time.sleep(0.02)
        assert messages.nudge(messages.APPLY, "second") and redis_broker.state() == "ok"
