"""Looking at the broker, and nudging through it."""

import time

import fakeredis
import pytest
import redis

from shared import queues
from worker.app import celery
from worker.turns import UrgentFirst


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


def test_depth_counts_what_waits(server: fakeredis.FakeServer) -> None:
    client = fakeredis.FakeRedis(server=server)
    assert queues.depth(queues.PAYOUTS, client) == 0
    client.lpush(queues.PAYOUTS, "one", "two")
    assert queues.depth(queues.PAYOUTS, client) == 2
    assert queues.depth(queues.WEBHOOKS, client) == 0


def test_an_absent_broker_is_told_and_not_raised(server: fakeredis.FakeServer) -> None:
    client = fakeredis.FakeRedis(server=server)
    assert queues.state(client) == "ok"
    server.connected = False
    assert queues.state(client) == "unavailable"
    with pytest.raises(redis.RedisError):
        queues.depth(queues.PAYOUTS, client)


def test_every_task_has_its_queue() -> None:
    assert set(queues.QUEUE_OF.values()) | {queues.BACKLOG} == set(queues.EVERY_QUEUE)


def test_a_worker_tells_no_app_anything_unless_it_is_told_to() -> None:
    assert queues.NOTIFICATIONS not in queues.QUEUES


def test_sweeps_and_webhooks_come_first_and_the_others_in_turns() -> None:
    turns = UrgentFirst()
    turns.update(list(queues.QUEUES))
    assert turns.consume(9) == ["sweeps", "webhooks", "payouts", "polls", "maintenance", "backlog"]
    for used in ("payouts", "webhooks", "sweeps"):
        turns.rotate(used)
    assert turns.consume(9)[2:] == ["polls", "maintenance", "backlog", "payouts"]
    assert set(turns.consume(9)[:2]) == {"sweeps", "webhooks"}


def test_the_worker_takes_late_rejects_on_loss_and_keeps_no_results(worker_settings: None) -> None:
    import worker.tasks  # noqa: F401  registers them

    assert set(queues.QUEUE_OF) <= set(celery.tasks)
    assert celery.conf.task_acks_late and celery.conf.task_reject_on_worker_lost
    assert celery.conf.accept_content == ["json"] and celery.conf.task_serializer == "json"
    assert celery.conf.result_backend is None and celery.conf.task_ignore_result
    assert celery.conf.worker_send_task_events
    assert celery.conf.beat_schedule["sweep"]["task"] == queues.SWEEP


def test_an_absent_broker_costs_a_request_nearly_nothing(worker_settings: None) -> None:
    """After one failure it is left alone for a while: the sweep finds the row."""
    begun = time.monotonic()
    assert queues.nudge(queues.SUBMIT, "an-id") is False
    assert time.monotonic() - begun < 1.5  # kombu left to itself tries for six seconds
    assert queues._quiet_until > 0
    assert queues.nudge(queues.SUBMIT, "an-id") is False


@pytest.fixture
def worker_settings(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    from tests.unit.test_settings import REQUIRED
    from tests.world import forget_settings

    for name, value in {**REQUIRED, "REDIS_URL": "redis://127.0.0.1:1/0"}.items():
        monkeypatch.setenv(name, value)
    forget_settings()
    yield
    forget_settings()
