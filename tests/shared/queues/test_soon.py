"""Nudges that leave from a thread: the first at once, a burst as few, and none may delay or fail a request."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import structlog

from sandbox.processes import wait_until
from shared.queues import messages, redis_broker, soon
from shared.queues.names import WEBHOOKS
from shared.telemetry import metrics
from tests.support.counting_proxy import Counts, counting_redis
from tests.support.world import World, forget_settings

SECONDS = 10.0
ARRIVES = messages.APPLY


@pytest.fixture
def broker(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """What is sent to Redis."""
    soon.flush()
    with counting_redis(os.environ["REDIS_URL"]) as (url, counts):
        monkeypatch.setenv("REDIS_URL", url)
        forget_settings()
        messages.nudge_once(ARRIVES)  # connects
        take()
        counts.reset()
        yield counts
        soon.flush()


def take() -> int:
    """Take all messages, as a worker does, and return how many there were."""
    with redis_broker.client().pipeline() as pipe:
        pipe.llen(WEBHOOKS)
        pipe.delete(WEBHOOKS)
        number = int(pipe.execute()[0])
    messages.clear_nudge_marks([ARRIVES])
    return number


def sets(counts: Counts) -> int:
    """How often a message was to be sent. It was not, if one waited already."""
    return counts.statements["SET"]


def test_after_a_quiet_time_a_nudge_leaves_at_once(broker: Counts) -> None:
    """Sooner than the gap between two messages; one of twenty tries shows it, however busy the machine is."""
    for _ in range(20):
        time.sleep(2 * soon.GAP_SECONDS)
        started = time.monotonic()
        soon.nudge_soon(ARRIVES)
        assert redis_broker.client().blmove(WEBHOOKS, "taken", SECONDS), "no message came"  # type: ignore[arg-type]
        if time.monotonic() - started < soon.GAP_SECONDS / 2:
            break
        take()
    else:
        raise AssertionError("every message came late")
    redis_broker.client().delete("taken")


def test_a_burst_sends_few_messages_and_one_after_its_end(broker: Counts) -> None:
    started = time.monotonic()
    for _ in range(5000):
        soon.nudge_soon(ARRIVES)
    take()  # a worker takes the message while the burst ends: what comes last needs another
    soon.nudge_soon(ARRIVES)
    wait_until(lambda: take() >= 1, SECONDS)
    time.sleep(4 * soon.GAP_SECONDS)
    assert sets(broker) <= (time.monotonic() - started) / soon.GAP_SECONDS + 2


def test_each_nudge_is_followed_by_a_message(broker: Counts) -> None:
    """Whenever a worker takes the message: what is nudged after that gets another."""
    for number in range(200):
        soon.nudge_soon(ARRIVES)
        if number % 3 == 0:
            time.sleep(0.001 * (number % 7))
        if number % 10 == 0:
            wait_until(lambda: take() >= 1, SECONDS)


def test_a_later_nudge_leaves_when_it_is_due_and_others_of_that_moment_share_its_message(
    broker: Counts,
) -> None:
    started = time.monotonic()
    for _ in range(500):
        soon.nudge_soon(ARRIVES, in_seconds=0.4)
    seconds = time.monotonic() - started
    soon.nudge_soon(ARRIVES, in_seconds=60.0)  # does not hold up what is due before it
    wait_until(lambda: take() == 1, SECONDS)
    assert time.monotonic() - started >= 0.4
    time.sleep(3 * soon.GAP_SECONDS)
    assert sets(broker) <= 2 + seconds / soon.GAP_SECONDS


def test_a_nudge_that_is_due_now_does_not_wait_for_a_later_one(broker: Counts) -> None:
    soon.nudge_soon(ARRIVES, in_seconds=60.0)
    time.sleep(2 * soon.GAP_SECONDS)
    soon.nudge_soon(ARRIVES)
    wait_until(lambda: take() == 1, SECONDS)


def test_without_the_broker_nudges_are_lost_and_requests_are_neither_delayed_nor_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon.flush()
    world.point_broker_at_nothing(monkeypatch)
    lost = metrics.NUDGES_LOST.labels(ARRIVES)
    before = lost._value.get()
    started = time.monotonic()
    for _ in range(1000):
        soon.nudge_soon(ARRIVES)
    assert time.monotonic() - started < 1.0
    wait_until(lambda: lost._value.get() > before, SECONDS)


def test_a_system_without_threads_loses_a_nudge_and_fails_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    soon.flush()
    monkeypatch.setattr(soon, "_sender", None)
    monkeypatch.setattr(soon._Sender, "start", refuse)
    with structlog.testing.capture_logs() as lines:
        soon.nudge_soon(ARRIVES)
    assert [line["event"] for line in lines] == ["[PAYOUT] nudge lost"]


def test_a_forked_child_has_a_thread_of_its_own_and_sends_nothing_of_its_parent(broker: Counts) -> None:
    soon.nudge_soon(ARRIVES, in_seconds=0.5)
    assert soon._starting.acquire()  # another thread of the parent is starting the sender
    child = os.fork()
    if child == 0:
        status = 1
        try:
            forget_settings()
            redis_broker.client.cache_clear()
            messages.sender.cache_clear()
            soon.nudge_soon(messages.SWEEP)
            soon.flush()
            status = 0
        finally:
            os._exit(status)
    soon._starting.release()
    assert os.waitpid(child, 0)[1] == 0
    assert redis_broker.depth("sweeps") == 1
    redis_broker.client().delete("sweeps", "nudged:sweep")
    wait_until(lambda: take() == 1, SECONDS)  # the parent's, once
    time.sleep(2 * soon.GAP_SECONDS)
    assert take() == 0, "the child sent it too"


def test_a_process_that_ends_sends_what_is_due(world: World) -> None:
    soon.flush()
    redis_broker.client().delete(WEBHOOKS, f"nudged:{ARRIVES}")
    code = "from shared.queues import messages, soon\nfor _ in range(100): soon.nudge_soon(messages.APPLY)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=dict(os.environ))
    assert take() == 1
