"""The state of the broker, and the messages that notify workers through it."""

import time

import fakeredis
import pytest
import redis

from shared.queues import messages, redis_broker
from shared.queues.names import BACKLOG, EVERY_QUEUE, NOTIFICATIONS, PAYOUTS, QUEUES, WEBHOOKS
from worker.app import celery
from worker.queue_order import UrgentFirst


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


def test_depth_counts_waiting_messages(server: fakeredis.FakeServer) -> None:
    client = fakeredis.FakeRedis(server=server)
    assert redis_broker.depth(PAYOUTS, client) == 0
    client.lpush(PAYOUTS, "one", "two")
    assert redis_broker.depth(PAYOUTS, client) == 2
    assert redis_broker.depth(WEBHOOKS, client) == 0


def test_an_unavailable_broker_is_reported_and_not_raised(server: fakeredis.FakeServer) -> None:
    client = fakeredis.FakeRedis(server=server)
    assert redis_broker.state(client) == "ok"
    server.connected = False
    assert redis_broker.state(client) == "unavailable"
    with pytest.raises(redis.RedisError):
        redis_broker.depth(PAYOUTS, client)


def test_every_task_has_its_queue() -> None:
    assert set(messages.QUEUE_OF.values()) | {BACKLOG} == set(EVERY_QUEUE)


def test_a_worker_does_not_serve_notifications_by_default() -> None:
    assert NOTIFICATIONS not in QUEUES


def test_sweeps_and_webhooks_come_first_and_the_other_queues_in_turn() -> None:
    turns = UrgentFirst()
    turns.update(list(QUEUES))
    assert turns.consume(9) == ["sweeps", "webhooks", "payouts", "polls", "maintenance", "backlog"]
    for served in ("payouts", "webhooks", "sweeps"):
        turns.rotate(served)
    assert turns.consume(9)[2:] == ["polls", "maintenance", "backlog", "payouts"]
    assert set(turns.consume(9)[:2]) == {"sweeps", "webhooks"}


def test_the_worker_acknowledges_late_rejects_on_loss_and_stores_no_results(worker_settings: None) -> None:
    import worker.tasks  # noqa: F401  registers them

    assert set(messages.QUEUE_OF) <= set(celery.tasks)
    assert celery.conf.task_acks_late and celery.conf.task_reject_on_worker_lost
    assert celery.conf.accept_content == ["json"] and celery.conf.task_serializer == "json"
    assert celery.conf.result_backend is None and celery.conf.task_ignore_result
    assert celery.conf.worker_send_task_events
    assert celery.conf.beat_schedule["sweep"]["task"] == messages.SWEEP


def test_an_unavailable_broker_hardly_delays_a_request(worker_settings: None) -> None:
    """After a failure nothing is sent for a while: the sweep finds the row."""
    started = time.monotonic()
    assert messages.nudge(messages.SUBMIT, "an-id") is False
    assert time.monotonic() - started < 1.5  # by default kombu retries for six seconds
    assert messages._backoff_until > 0
    assert messages.nudge(messages.SUBMIT, "an-id") is False


@pytest.fixture
def worker_settings(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    from tests.shared.settings.test_settings import REQUIRED
    from tests.support.world import forget_settings

    for name, value in {**REQUIRED, "REDIS_URL": "redis://127.0.0.1:1/0"}.items():
        monkeypatch.setenv(name, value)
    forget_settings()
    yield
    forget_settings()
