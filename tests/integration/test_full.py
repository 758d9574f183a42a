"""No room: on the database's disk, in its memory, in Redis. Callers come again, nothing is half done."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from flask.testing import FlaskClient

from sandbox.services import Redis
from shared import db, queues, withdrawals
from shared.errors import Unavailable
from tests.integration.app import CREDIT, GOOD, WITHDRAW, assert_refused
from tests.integration.test_failures import HOOK
from tests.world import World, sign

PLANT = """
    CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file "base/5/1": No space left on device' USING ERRCODE = '{}';
    END $$;
    CREATE TRIGGER no_room BEFORE INSERT ON coin_transactions EXECUTE FUNCTION no_room();
    CREATE TRIGGER no_room BEFORE INSERT ON withdrawal_events EXECUTE FUNCTION no_room();
    CREATE TRIGGER no_room BEFORE INSERT ON webhook_events EXECUTE FUNCTION no_room()
"""


@contextmanager
def no_room(world: World, state: str = "53100") -> Iterator[None]:
    """What the server says when a table cannot grow."""
    world.altered = True
    with db.engine().begin() as connection:
        connection.exec_driver_sql(PLANT.format(state))
    yield
    with db.engine().begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION no_room CASCADE")


@pytest.mark.parametrize("state", ["53100", "53200", "53400", "58030"])
def test_without_room_the_answer_is_503_and_readiness_says_so(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Disk, memory, a limit, a disk that fails. All goes on by itself when there is room."""
    world.credit()
    with no_room(world, state):
        body = {"user_id": "user123", "coins": 5, "reference": "r", "reason": "x"}
        hook = b'{"event": "payout.processed", "payload": {}}'
        for answer in (
            client.post(WITHDRAW, json=GOOD),
            client.post(CREDIT, json=body),
            client.post(HOOK, data=hook, headers={"X-Razorpay-Signature": sign(hook)}),
        ):
            assert assert_refused(answer, 503, "Service unavailable")["code"] == "database_full"
            assert int(answer.headers["Retry-After"]) == db.FULL_SECONDS
        ready = client.get("/readyz")
        assert (ready.status_code, ready.get_json()["database"]) == (503, "full")
        assert world.balance() == 2000 and not world.sql("SELECT FROM withdrawals")
    monkeypatch.setattr(db, "FULL_SECONDS", 0)  # it is later
    assert client.post(WITHDRAW, json=GOOD).status_code == 201
    assert client.get("/readyz").status_code == 200


def test_a_disk_that_fills_up_during_a_call_pays_once(world: World) -> None:
    """The answer cannot be written down: the attempt keeps its key, and is asked for when there is room."""
    world.credit()
    send = world.first_send()
    answer = world.perform(send)
    with no_room(world), pytest.raises(Unavailable):
        withdrawals.record_answer(send, answer)
    assert [attempt.state for attempt in world.attempts(send.withdrawal_id)] == ["sending"]
    assert world.finish(send.withdrawal_id) == "completed"
    assert len(world.simulator.payouts()) == 1


def test_with_redis_full_withdrawals_are_taken_and_readiness_says_so(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    with Redis() as server, redis.Redis.from_url(server.url) as admin:
        monkeypatch.setenv("REDIS_URL", server.url)
        world.forget_settings()
        admin.config_set("maxmemory", 1)
        assert queues.nudge(queues.APPLY, "lost") is False
        assert client.post(WITHDRAW, json=GOOD).status_code == 201
        ready = client.get("/readyz").get_json()
        assert (ready["status"], ready["broker"]) == ("degraded", "full")
        withdrawals.sweep()  # it cannot nudge, and says so in the log only
        admin.config_set("maxmemory", 0)
        queues._quiet_until = 0.0  # it is later
        assert queues.nudge(queues.APPLY, "kept") and queues.state() == "ok"
