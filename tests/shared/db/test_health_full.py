"""No space on the database's disk, in its memory or in Redis: callers retry, and nothing is half done."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from flask.testing import FlaskClient

from sandbox.services import Redis
from shared import withdrawals
from shared.db import engines
from shared.db.engines import FULL_RETRY_SECONDS, engine
from shared.errors import Unavailable
from shared.queues import messages, redis_broker
from tests.shared.withdrawals.test_apply_report_failures import HOOK
from tests.support import steps
from tests.support.api import CREDIT, GOOD, WITHDRAW, assert_refused
from tests.support.world import World, sign

CREATE_TRIGGERS = """
    CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file "base/5/1": No space left on device' USING ERRCODE = '{}';
    END $$;
    CREATE TRIGGER no_room BEFORE INSERT ON coin_transactions EXECUTE FUNCTION no_room();
    CREATE TRIGGER no_room BEFORE INSERT ON withdrawal_events EXECUTE FUNCTION no_room();
    CREATE TRIGGER no_room BEFORE INSERT ON webhook_events EXECUTE FUNCTION no_room()
"""


@contextmanager
def no_room(world: World, state: str = "53100") -> Iterator[None]:
    """Raise the server's error for a table that cannot grow."""
    world.altered = True
    with engine().begin() as connection:
        connection.exec_driver_sql(CREATE_TRIGGERS.format(state))
    yield
    with engine().begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION no_room CASCADE")


@pytest.mark.parametrize("state", ["53100", "53200", "53400", "58030"])
def test_a_full_database_answers_503_and_readiness_reports_it(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """For the disk, the memory, a limit and a failing disk. Everything continues when there is space again."""
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
            assert int(answer.headers["Retry-After"]) == FULL_RETRY_SECONDS
        ready = client.get("/readyz")
        assert (ready.status_code, ready.get_json()["database"]) == (503, "full")
        assert world.balance() == 2000 and not world.sql("SELECT FROM withdrawals")
    monkeypatch.setattr(engines, "FULL_RETRY_SECONDS", 0)  # as if time had passed
    assert client.post(WITHDRAW, json=GOOD).status_code == 201
    assert client.get("/readyz").status_code == 200


def test_a_withdrawal_is_paid_once_if_the_disk_fills_up_during_the_call(world: World) -> None:
    """The answer cannot be recorded: the attempt keeps its key, and is queried when there is space again."""
    world.credit()
    send = world.first_send()
    answer = world.perform(send)
    with no_room(world), pytest.raises(Unavailable):
        steps.record_answer(send, answer)
    assert [attempt.state for attempt in world.attempts(send.withdrawal_id)] == ["sending"]
    assert world.finish(send.withdrawal_id) == "completed"
    assert len(world.simulator.payouts()) == 1


def test_with_redis_full_withdrawals_are_accepted_and_readiness_reports_it(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    with Redis() as server, redis.Redis.from_url(server.url) as admin:
        monkeypatch.setenv("REDIS_URL", server.url)
        world.forget_settings()
        admin.config_set("maxmemory", 1)
        assert messages.nudge(messages.APPLY, "lost") is False
        assert client.post(WITHDRAW, json=GOOD).status_code == 201
        ready = client.get("/readyz").get_json()
        assert (ready["status"], ready["broker"]) == ("degraded", "full")
        withdrawals.sweep()  # it cannot notify workers, and only logs that
        admin.config_set("maxmemory", 0)
        messages._backoff_until = 0.0  # as if time had passed
        assert messages.nudge(messages.APPLY, "kept") and redis_broker.state() == "ok"
