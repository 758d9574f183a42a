"""More that happens to a running system: leases, a wiped broker with a thousand waiting, silence, a lost database."""

import base64
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import redis
import requests
from celery import Celery

from sandbox.processes import Part, wait_until
from sandbox.stack import ROOT
from shared.settings import Settings
from tests.crowd import crowd
from tests.e2e.conftest import QUICK
from tests.e2e.system import FINAL_SECONDS, System
from tests.world import sign

pytestmark = pytest.mark.timeout(300)  # a start, and waits of FINAL_SECONDS on a busy machine
LEASE_SECONDS, SWEEP_SECONDS = float(QUICK["LEASE_SECONDS"]), float(QUICK["SWEEP_SECONDS"])
SWEEP_DEFAULT_SECONDS = float(Settings.model_fields["sweep_seconds"].default)
SLACK_SECONDS = 2.0  # a worker that is busy, on a machine that is
DAY = 86_400


def rows(system: System, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the database says."""
    with psycopg.connect(system.info["database_url"]) as connection:
        cursor = connection.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.failure(3)
def test_what_a_killed_worker_held_moves_again_within_its_lease_and_a_sweep(fresh: System) -> None:
    user_id = fresh.user(3000)
    with fresh.without_webhooks():
        fresh.provider.scenario("silent.before", next=6)
        with fresh.frozen(
            fresh.worker
        ):  # what comes one by one is cut off one by one, and is not held at once
            ids = fresh.withdraw_many(user_id, 6)
        sending = "SELECT withdrawal_id::text FROM payout_attempts WHERE state = 'sending'"
        wait_until(lambda: len(rows(fresh, sending)) >= 3 and fresh.open_call(), FINAL_SECONDS)
        fresh.worker.kill()
        [[killed_at]] = rows(fresh, "SELECT clock_timestamp()")
        held = {row[0] for row in rows(fresh, sending)}
        fresh.worker.start()
        fresh.worker.wait_ready()
        [[up_at]] = rows(fresh, "SELECT clock_timestamp()")
        assert fresh.wait_for_all(user_id, 6) == {"completed": 6}
    again = rows(
        fresh,
        "SELECT withdrawal_id::text, min(created_at) FROM withdrawal_events WHERE reason = 'sent_again'"
        " AND created_at > %s GROUP BY 1",
        killed_at,
    )
    waited = {key: (moment - killed_at).total_seconds() for key, moment in again if key in held}
    assert waited.keys() == held
    start = (up_at - killed_at).total_seconds()  # on a slow machine a worker may start longer than the lease
    slack = max(SLACK_SECONDS, start)  # and what takes long at the start takes long after it
    assert max(waited.values()) < max(LEASE_SECONDS, start) + SWEEP_SECONDS + slack
    fresh.assert_paid_once(ids)


@pytest.mark.failure(5)
def test_redis_wiped_with_a_thousand_pending_nudges_all_again_within_two_sweeps(fresh: System) -> None:
    """Nobody takes a message here but the sweep, so that the queue itself shows what was nudged."""
    fresh.worker.stop()
    argv = [sys.executable, "-m", "shared.cli", "worker", "--queues", "sweeps"]
    log = fresh.stack.directory / "sweeper.log"
    # The mark that a message waits lives for a third of a lease: here for longer than a sweep may take.
    env = {**fresh.stack.env, "LEASE_SECONDS": "60"}
    sweeper = fresh.stack.parts["sweeper"] = Part("sweeper", argv, env, log, cwd=ROOT)
    sweeper.start()
    fresh.restart_with(fresh.stack.parts["beat"], SWEEP_SECONDS=str(SWEEP_DEFAULT_SECONDS))
    ids = set(crowd(fresh.info["database_url"], users=100, each=10))
    with redis.Redis.from_url(fresh.info["redis_url"]) as broker:
        wait_until(lambda: nudged(broker) == ids, FINAL_SECONDS)
        with fresh.frozen(sweeper):  # it may have the next sweep in hand, and nudge at once
            broker.flushall()
            wiped = time.monotonic()
            assert nudged(broker) == set()
        wait_until(lambda: nudged(broker) == ids, FINAL_SECONDS)
        assert time.monotonic() - wiped < 2 * SWEEP_DEFAULT_SECONDS + SLACK_SECONDS
        assert broker.llen("payouts") == 1000  # each of them once
    # The others after us have their own: these wait on, and are none of theirs.
    rows(fresh, "UPDATE withdrawals SET due_at = now() + interval '1 day' WHERE user_id LIKE 'crowd%%'")


def nudged(broker: redis.Redis) -> set[str]:
    """The withdrawals whose messages wait."""
    messages = [json.loads(message) for message in broker.lrange("payouts", 0, -1)]
    return {json.loads(base64.b64decode(message["body"]))[0][0] for message in messages}


@pytest.mark.failure(4)
def test_a_message_delivered_fifty_times_is_one_send(shared: System) -> None:
    user_id = shared.user()
    known = shared.withdraw(user_id)
    assert shared.wait_for(known) == "completed"
    celery = Celery(broker=shared.info["redis_url"])
    shared.provider.settings(latency_ms=300)  # so that the others come while the first is on the wire
    try:
        withdrawal_id = shared.withdraw(user_id)
        while shared.status(withdrawal_id)["status"] == "pending":
            for _ in range(10):
                celery.send_task("submit_withdrawal", [withdrawal_id], queue="payouts", ignore_result=True)
        for _ in range(50):
            celery.send_task("submit_withdrawal", [withdrawal_id], queue="payouts", ignore_result=True)
        assert shared.wait_for(withdrawal_id) == "completed"
    finally:
        shared.provider.settings(latency_ms=0)
    with redis.Redis.from_url(shared.info["redis_url"]) as broker:
        wait_until(lambda: not broker.llen("payouts"), FINAL_SECONDS)
    assert 1 <= len(shared.sends_of(withdrawal_id)) <= 1 + shared.lost_answers(withdrawal_id)
    shared.assert_paid_once([withdrawal_id])


@pytest.mark.failure(8)
def test_the_same_webhook_a_thousand_times_at_once_changes_one_thing(shared: System) -> None:
    user_id = shared.user()
    withdrawal_id = shared.withdraw(user_id, "never-thousand@sim")
    wait_until(lambda: shared.payouts_of(withdrawal_id), FINAL_SECONDS)
    shared.wait_for(withdrawal_id, "processing")
    with shared.without_webhooks():  # the only word of it is ours
        payout = shared.payouts_of(withdrawal_id)[0]
        shared.provider.post(f"payouts/{payout['id']}/status", {"status": "processed"})
        told = {key: payout[key] for key in ("id", "amount", "reference_id")} | {"status": "processed"}
        body = json.dumps({"event": "payout.processed", "payload": {"payout": {"entity": told}}}).encode()
        answers = Counter(deliver_often(shared, body, "ev_thousand", 1000))
        assert shared.wait_for(withdrawal_id) == "completed"
    assert answers == {200: 1000}
    assert rows(shared, "SELECT count(*) FROM webhook_events WHERE event_id = 'ev_thousand'") == [(1,)]
    moves = "SELECT count(*) FROM withdrawal_events WHERE withdrawal_id = %s AND to_status = 'completed'"
    assert rows(shared, moves, withdrawal_id) == [(1,)]
    assert (shared.refunds(user_id), shared.balance(user_id)) == (0, 1500)


def deliver_often(system: System, body: bytes, event_id: str, times: int) -> list[int]:
    """Bring one signed webhook so often, eight at once; what each was answered."""
    headers = {
        "X-Razorpay-Signature": sign(body, system.info["webhook_secret"]),
        "X-Razorpay-Event-Id": event_id,
        "Content-Type": "application/json",
    }

    def some(number: int) -> list[int]:
        with requests.Session() as session:
            return [
                session.post(system.url + "webhook/", data=body, headers=headers, timeout=10).status_code
                for _ in range(number)
            ]

    with ThreadPoolExecutor(8) as threads:
        return [status for answers in threads.map(some, [times // 8] * 8) for status in answers]


@pytest.mark.failure(8, 12)
def test_a_webhook_address_that_is_down_for_a_day_is_noticed_polled_around_and_caught_up(
    fresh: System,
) -> None:
    """The provider gives up after 24 hours and switches the webhook off; somebody switches it on again."""
    user_id = fresh.user(2000)
    api = fresh.stack.parts["api"]
    fresh.restart_with(fresh.worker, WEBHOOK_SILENCE_SECONDS="0.1", POLL_MAX_SECONDS="1")
    fresh.restart_with(fresh.stack.parts["beat"], WATCH_SECONDS="0.5")
    fresh.provider.scenario("never", default=True)
    ids = [fresh.withdraw(user_id, f"asha{number}@okaxis") for number in range(3)]
    wait_until(lambda: len(fresh.provider.payouts()) == 3, FINAL_SECONDS)
    api.stop()  # from here on no webhook reaches us
    for payout in fresh.provider.payouts():
        fresh.provider.post(f"payouts/{payout['id']}/status", {"status": "processed"})

    def has_given_up() -> bool:
        # Not a day at once: a try that is just being made counts its wait from its own end.
        fresh.provider.post("advance", {"seconds": 7200})
        return fresh.provider.get("health")["settings"]["webhooks_enabled"] is False

    wait_until(has_given_up, FINAL_SECONDS)
    paid = "SELECT count(*) FROM withdrawals WHERE user_id = %s AND status = 'completed'"
    wait_until(lambda: rows(fresh, paid, user_id) == [(3,)], FINAL_SECONDS)
    silent = "SELECT count(*) FROM exception_records WHERE kind = 'webhooks_silent' AND resolved_at IS NULL"
    wait_until(lambda: rows(fresh, silent) == [(1,)], FINAL_SECONDS)
    api.start()
    api.wait_ready()
    fresh.provider.settings(webhooks_enabled=True)
    told = replay_all(fresh)
    assert told >= 3 * 3
    wait_until(lambda: rows(fresh, silent) == [(0,)], FINAL_SECONDS)
    waiting = "SELECT count(*) FROM webhook_events WHERE applied_at IS NULL"
    wait_until(lambda: rows(fresh, waiting) == [(0,)], FINAL_SECONDS)
    fresh.provider.post("advance", {"seconds": 2 * DAY})
    told += replay_all(fresh)  # and all of it again, days later
    wait_until(lambda: delivered(fresh) >= told, FINAL_SECONDS)
    assert Counter(item["status"] for item in fresh.history(user_id)) == {"completed": 3}
    assert (fresh.balance(user_id), fresh.refunds(user_id)) == (500, 0)
    fresh.assert_paid_once(ids)


def replay_all(system: System) -> int:
    """Let the provider tell every event again, under the ids of the first time; how many those are."""
    ids = [payout["id"] for payout in system.provider.payouts()]
    return sum(system.provider.post("webhooks/replay", {"payout_id": one})["replayed"] for one in ids)


def delivered(system: System) -> int:
    """How many webhooks were answered with 200."""
    items = system.provider.get("webhooks")["items"]
    return sum((one["state"], one["last_status"]) == ("delivered", 200) for one in items)


@pytest.mark.failure(16)
def test_one_users_burst_does_not_keep_another_waiting(fresh: System) -> None:
    fresh.provider.settings(latency_ms=100)
    many = crowd(fresh.info["database_url"], users=1, each=400, name="burst")
    wait_until(lambda: len(fresh.provider.payouts()) >= 10, FINAL_SECONDS)
    user_id = fresh.user()
    one = fresh.withdraw(user_id)
    assert fresh.wait_for(one) == "completed"
    # As the books tell it: while we look, the burst goes on.
    paid = (
        "SELECT count(*) FROM withdrawals WHERE user_id = 'burst1' AND status = 'completed'"
        " AND completed_at <= (SELECT completed_at FROM withdrawals WHERE id = %s)"
    )
    [[before]] = rows(fresh, paid, one)
    assert before < len(many) / 2
    # Enough is seen: what was not begun yet need not be, and what was comes to its end.
    fresh.provider.settings(latency_ms=0)
    begun = "status = 'processing' OR (status = 'pending' AND status_reason = 'preparing')"
    rest = f"status = 'pending' AND NOT ({begun})"
    rows(fresh, f"UPDATE withdrawals SET due_at = now() + interval '1 day' WHERE {rest}")
    wait_until(lambda: not rows(fresh, f"SELECT id FROM withdrawals WHERE {begun}"), FINAL_SECONDS)


@pytest.mark.failure(16)
def test_a_provider_that_throttles_fails_nobody(fresh: System) -> None:
    """Our pace is set far above theirs: they answer 429, and each payout waits under its one key."""
    user_id = fresh.user(3000)
    ids = [fresh.withdraw(user_id)]  # makes the payee known: each of the others is one call
    fresh.wait_for(ids[0])
    fresh.provider.settings(rate_limit_per_second=1)
    ids += [fresh.withdraw(user_id) for _ in range(5)]
    assert fresh.wait_for_all(user_id, 6) == {"completed": 6}
    assert 429 in {call["status"] for call in fresh.provider.calls()}
    keys = fresh.keys()
    assert Counter(keys[one] for one in keys if keys[one] in ids) == dict.fromkeys(ids, 1)
    fresh.assert_paid_once(ids)
    assert fresh.refunds(user_id) == 0


@pytest.mark.failure(24)
def test_a_database_killed_in_mid_batch_loses_none_and_pays_none_twice(fresh: System) -> None:
    user_id = fresh.user(12_000)
    database, api = fresh.stack.parts["postgres"], fresh.stack.parts["api"]
    fresh.provider.settings(latency_ms=700)
    with fresh.frozen(fresh.worker):  # or it might be done before the last was asked for
        ids = fresh.withdraw_many(user_id, 24)
    wait_until(lambda: len(fresh.provider.payouts()) >= 3, FINAL_SECONDS)
    database.kill()
    paid_before = len(fresh.provider.payouts())
    database.start()
    database.wait_ready()
    api.wait_ready()
    fresh.provider.settings(latency_ms=0)
    assert paid_before < 24
    assert fresh.wait_for_all(user_id, 24) == {"completed": 24}
    fresh.assert_paid_once(ids)
    assert (fresh.balance(user_id), fresh.refunds(user_id)) == (0, 0)
