"""Connections that went away while nobody used them: the next request is answered as if nothing had been."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from flask.testing import FlaskClient

from shared import db, queues, sessions
from tests.e2e.relay import Relay, relay
from tests.integration.app import CREDIT, WALLET
from tests.integration.test_failures import deliver
from tests.world import World

END_ALL = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def credit(client: FlaskClient, reference: str) -> int:
    body = {"user_id": "user123", "coins": 700, "reference": reference, "reason": "Won a quiz"}
    return client.post(CREDIT, json=body).status_code


def end_all_connections() -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
        other.execute(END_ALL)


def several_connections() -> None:
    """Open some that then wait in the pool."""
    held = [db.engine().connect() for _ in range(3)]
    for one in held:
        one.close()


@contextmanager
def through_a_relay(patch: pytest.MonkeyPatch, world: World, name: str) -> Iterator[Relay]:
    """Everybody who reads the setting goes through a wire that the test holds."""
    url = os.environ[name]
    with relay(url.replace("redis", "http", 1)) as wire:
        patch.setenv(name, url.replace(f":{urlsplit(url).port}/", f":{urlsplit(wire.url).port}/"))
        world.forget_settings()
        try:
            yield wire
        finally:
            db.engine().dispose()
            patch.setenv(name, url)
            world.forget_settings()


def test_connections_that_the_server_ended_while_idle_are_replaced_unseen(
    world: World, client: FlaskClient
) -> None:
    """A restart, `idle_session_timeout`: whatever is asked for first is answered."""
    payout = {"id": "pout_1", "reference_id": "none", "status": "processed", "amount": 1}
    asked = {
        "credit": lambda: credit(client, "r1") == 201,
        "webhook": lambda: deliver(client, "ev_1", "payout.processed", payout) == 200,
        "wallet": lambda: client.get(WALLET, query_string={"user_id": "user123"}).status_code == 200,
        "readyz": lambda: client.get("/readyz").status_code == 200,
    }
    for name, ask in asked.items():
        several_connections()
        end_all_connections()
        assert ask(), name


def test_connections_that_a_firewall_dropped_are_replaced_within_seconds(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "TRY_SECONDS", 0.3)
    with through_a_relay(monkeypatch, world, "DATABASE_URL") as wire:
        several_connections()
        wire.forget()
        monkeypatch.setattr(sessions, "TRY_AFTER_SECONDS", 0.0)  # it is later
        begun = time.monotonic()
        assert credit(client, "r1") == 201
        assert time.monotonic() - begun < sessions.ANSWER_SECONDS / 2
        assert credit(client, "r2") == 201


def test_a_connection_in_use_is_not_tried(world: World) -> None:
    """The hot path pays nothing: between two requests nothing is sent that nobody asked for."""
    sent = (
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT 1'"
    )
    for _ in range(3):
        world.sql("SELECT 2")
        with psycopg.connect(os.environ["DATABASE_URL"]) as other:
            assert other.execute(sent).fetchone() == (0,)


def test_redis_connections_that_were_ended_are_replaced_unseen(world: World) -> None:
    broker = queues.broker()
    assert queues.nudge(queues.APPLY, "first") and queues.state() == "ok"
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    assert queues.nudge(queues.APPLY, "second") and queues.state() == "ok"
    assert broker.llen(queues.WEBHOOKS) == 2


def test_redis_connections_that_a_firewall_dropped_are_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "TRY_AFTER_SECONDS", 0.01)  # it is later
    with through_a_relay(monkeypatch, world, "REDIS_URL") as wire:
        assert queues.nudge(queues.APPLY, "first") and queues.state() == "ok"
        wire.forget()
        time.sleep(0.02)
        assert queues.nudge(queues.APPLY, "second") and queues.state() == "ok"
