"""More faults of a running system: leases, a broker wiped with 1,000 pending, no webhooks, a killed database."""

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
from shared.providers.calls import CALLS_AT_ONCE
from shared.settings import Settings
from tests.e2e.conftest import QUICK
from tests.e2e.system import FINAL_SECONDS, System
from tests.support.backlog import insert_backlog
from tests.support.world import sign

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),
]  # a start, and waits of FINAL_SECONDS on a busy machine
LEASE_SECONDS = float(QUICK["LEASE_SECONDS"])
SWEEP_SECONDS = float(QUICK["SWEEP_SECONDS"])
SWEEP_DEFAULT_SECONDS = float(Settings.model_fields["sweep_seconds"].default)
SLACK_SECONDS = 2.0  # a busy worker on a busy machine
DAY_SECONDS = 86_400


def rows(system: System, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a query; an empty list if the statement returns none."""
    with psycopg.connect(system.info["database_url"]) as connection:
        cursor = connection.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.failure(3)
def test_withdrawals_of_a_killed_worker_continue_within_a_lease_and_a_sweep(fresh: System) -> None:
    user_id = fresh.user(3000)
    with fresh.without_webhooks():
        fresh.provider.scenario("silent.before", next=6)
        with fresh.frozen(fresh.worker):  # so that it claims them all at once when it continues
            ids = fresh.withdraw_many(user_id, 6)
        sending = "SELECT withdrawal_id::text FROM payout_attempts WHERE state = 'sending'"
        wait_until(lambda: len(rows(fresh, sending)) >= 3 and fresh.open_call(), FINAL_SECONDS)
        fresh.worker.kill()
        [[killed_at]] = rows(fresh, "SELECT clock_timestamp()")
        claimed = {row[0] for row in rows(fresh, sending)}
        fresh.worker.start()
        fresh.worker.wait_ready()
        [[up_at]] = rows(fresh, "SELECT clock_timestamp()")
        assert fresh.wait_for_all(user_id, 6) == {"completed": 6}
    resent = rows(
        fresh,
        "SELECT withdrawal_id::text, min(created_at) FROM withdrawal_events WHERE reason = 'sent_again'"
        " AND created_at > %s GROUP BY 1",
        killed_at,
    )
    waited = {key: (moment - killed_at).total_seconds() for key, moment in resent if key in claimed}
    assert waited.keys() == claimed
    start = (up_at - killed_at).total_seconds()  # on a slow machine a start may take longer than the lease
    slack = max(SLACK_SECONDS, start)  # and the machine stays slow after it
    assert max(waited.values()) < max(LEASE_SECONDS, start) + SWEEP_SECONDS + slack
    fresh.assert_paid_once(ids)


@pytest.mark.failure(5)
def test_after_redis_is_wiped_1000_withdrawals_are_queued_again_within_two_sweeps(fresh: System) -> None:
    """Only sweeps are consumed here, so the payouts queue shows which messages were sent."""
    fresh.worker.stop()
    argv = [sys.executable, "-m", "cli", "worker", "--queues", "sweeps"]
    log = fresh.stack.directory / "sweeper.log"
    # The mark of a queued message expires after a third of a lease: here that is longer than a sweep.
    env = {**fresh.stack.env, "LEASE_SECONDS": "60"}
    sweeper = fresh.stack.parts["sweeper"] = Part("sweeper", argv, env, log, cwd=ROOT)
    sweeper.start()
    fresh.restart_with(fresh.stack.parts["beat"], SWEEP_SECONDS=str(SWEEP_DEFAULT_SECONDS))
    ids = set(insert_backlog(fresh.info["database_url"], users=100, each=10))
    with redis.Redis.from_url(fresh.info["redis_url"]) as broker:
        wait_until(lambda: queued_ids(broker) == ids, FINAL_SECONDS)
        with fresh.frozen(sweeper):  # a sweep that it already runs would queue messages at once
            broker.flushall()
            wiped_at = time.monotonic()
            assert queued_ids(broker) == set()
        wait_until(lambda: queued_ids(broker) == ids, FINAL_SECONDS)
        assert time.monotonic() - wiped_at < 2 * SWEEP_DEFAULT_SECONDS + SLACK_SECONDS
        assert broker.llen("payouts") == 1000  # each once
    # Later tests use the same database: postpone these withdrawals.
    rows(fresh, "UPDATE withdrawals SET due_at = now() + interval '1 day' WHERE user_id LIKE 'crowd%%'")


def queued_ids(broker: redis.Redis) -> set[str]:
    """The ids of the withdrawals with a message in the queue."""
    messages = [json.loads(message) for message in broker.lrange("payouts", 0, -1)]
    return {json.loads(base64.b64decode(message["body"]))[0][0] for message in messages}


@pytest.mark.failure(4)
def test_a_message_delivered_50_times_sends_one_payout(shared: System) -> None:
    user_id = shared.user()
    known = shared.withdraw(user_id)
    assert shared.wait_for(known) == "completed"
    celery = Celery(broker=shared.info["redis_url"])
    shared.provider.settings(latency_ms=300)  # so that the others arrive during the first call
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
def test_a_webhook_received_1000_times_at_once_is_applied_once(shared: System) -> None:
    user_id = shared.user()
    withdrawal_id = shared.withdraw(user_id, "never-thousand@sim")
    wait_until(lambda: shared.payouts_of(withdrawal_id), FINAL_SECONDS)
    shared.wait_for(withdrawal_id, "processing")
    with shared.without_webhooks():  # only our webhook reports the result
        payout = shared.payouts_of(withdrawal_id)[0]
        shared.provider.post(f"payouts/{payout['id']}/status", {"status": "processed"})
        entity = {key: payout[key] for key in ("id", "amount", "reference_id")} | {"status": "processed"}
        body = json.dumps({"event": "payout.processed", "payload": {"payout": {"entity": entity}}}).encode()
        answers = Counter(deliver_often(shared, body, "ev_thousand", 1000))
        assert shared.wait_for(withdrawal_id) == "completed"
    assert answers == {200: 1000}
    assert rows(shared, "SELECT count(*) FROM webhook_events WHERE event_id = 'ev_thousand'") == [(1,)]
    moves = "SELECT count(*) FROM withdrawal_events WHERE withdrawal_id = %s AND to_status = 'completed'"
    assert rows(shared, moves, withdrawal_id) == [(1,)]
    assert (shared.refunds(user_id), shared.balance(user_id)) == (0, 1500)


def deliver_often(system: System, body: bytes, event_id: str, times: int) -> list[int]:
    """Send one signed webhook this many times, eight at once; returns the HTTP statuses."""
    headers = {
        "X-Razorpay-Signature": sign(body, system.info["webhook_secret"]),
        "X-Razorpay-Event-Id": event_id,
        "Content-Type": "application/json",
    }

    def send(number: int) -> list[int]:
        with requests.Session() as session:
            return [
                session.post(system.url + "webhook/", data=body, headers=headers, timeout=10).status_code
                for _ in range(number)
            ]

    with ThreadPoolExecutor(8) as threads:
        return [status for answers in threads.map(send, [times // 8] * 8) for status in answers]


@pytest.mark.failure(8, 12)
def test_a_day_without_webhooks_is_reported_and_polling_finds_the_results(
    fresh: System,
) -> None:
    """The provider gives up after 24 hours and disables the webhook; an operator enables it again."""
    user_id = fresh.user(2000)
    api = fresh.stack.parts["api"]
    fresh.restart_with(fresh.worker, WEBHOOK_SILENCE_SECONDS="0.1", POLL_MAX_SECONDS="1")
    fresh.restart_with(fresh.stack.parts["beat"], WATCH_SECONDS="0.5")
    fresh.provider.scenario("never", default=True)
    ids = [fresh.withdraw(user_id, f"asha{number}@okaxis") for number in range(3)]
    wait_until(lambda: len(fresh.provider.payouts()) == 3, FINAL_SECONDS)
    api.stop()  # from here on no webhook arrives
    for payout in fresh.provider.payouts():
        fresh.provider.post(f"payouts/{payout['id']}/status", {"status": "processed"})

    def has_given_up() -> bool:
        # In steps: a delivery in progress starts its wait only when it ends.
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
    replayed = replay_all(fresh)
    assert replayed >= 3 * 3
    wait_until(lambda: rows(fresh, silent) == [(0,)], FINAL_SECONDS)
    waiting = "SELECT count(*) FROM webhook_events WHERE applied_at IS NULL"
    wait_until(lambda: rows(fresh, waiting) == [(0,)], FINAL_SECONDS)
    fresh.provider.post("advance", {"seconds": 2 * DAY_SECONDS})
    replayed += replay_all(fresh)  # all of them again, days later
    wait_until(lambda: delivered(fresh) >= replayed, FINAL_SECONDS)
    assert Counter(item["status"] for item in fresh.history(user_id)) == {"completed": 3}
    assert (fresh.balance(user_id), fresh.refunds(user_id)) == (500, 0)
    fresh.assert_paid_once(ids)


def replay_all(system: System) -> int:
    """Let the provider send every event again with its first id; returns their number."""
    ids = [payout["id"] for payout in system.provider.payouts()]
    return sum(system.provider.post("webhooks/replay", {"payout_id": id_})["replayed"] for id_ in ids)


def delivered(system: System) -> int:
    """The number of webhooks that got a 200."""
    items = system.provider.get("webhooks")["items"]
    return sum((item["state"], item["last_status"]) == ("delivered", 200) for item in items)


@pytest.mark.failure(16)
def test_one_users_burst_does_not_delay_another_user(fresh: System) -> None:
    fresh.provider.settings(latency_ms=100)
    backlog = insert_backlog(fresh.info["database_url"], users=1, each=400, name="burst")
    wait_until(lambda: len(fresh.provider.payouts()) >= 10, FINAL_SECONDS)
    user_id = fresh.user()
    withdrawal_id = fresh.withdraw(user_id)
    assert fresh.wait_for(withdrawal_id) == "completed"
    # By the recorded times: the burst continues during this query.
    paid = (
        "SELECT count(*) FROM withdrawals WHERE user_id = 'burst1' AND status = 'completed'"
        " AND completed_at <= (SELECT completed_at FROM withdrawals WHERE id = %s)"
    )
    [[before]] = rows(fresh, paid, withdrawal_id)
    assert before < len(backlog) / 2
    # The rest of the backlog is not needed: postpone it, and wait for the started ones.
    fresh.provider.settings(latency_ms=0)
    started = "status = 'processing' OR (status = 'pending' AND status_reason = 'preparing')"
    rest = f"status = 'pending' AND NOT ({started})"
    rows(fresh, f"UPDATE withdrawals SET due_at = now() + interval '1 day' WHERE {rest}")
    wait_until(lambda: not rows(fresh, f"SELECT id FROM withdrawals WHERE {started}"), FINAL_SECONDS)


@pytest.mark.failure(16)
def test_a_provider_that_throttles_fails_no_withdrawal(fresh: System) -> None:
    """Our rate limit is far above theirs: they answer 429, and each payout waits with its one key."""
    user_id = fresh.user(3000)
    ids = [fresh.withdraw(user_id)]  # registers the payee: each of the others is one call
    fresh.wait_for(ids[0])
    fresh.provider.settings(rate_limit_per_second=1)
    ids += [fresh.withdraw(user_id) for _ in range(5)]
    assert fresh.wait_for_all(user_id, 6) == {"completed": 6}
    assert 429 in {call["status"] for call in fresh.provider.calls()}
    keys = fresh.keys()
    assert Counter(withdrawal_id for withdrawal_id in keys.values() if withdrawal_id in ids) == dict.fromkeys(
        ids, 1
    )
    fresh.assert_paid_once(ids)
    assert fresh.refunds(user_id) == 0


@pytest.mark.failure(24)
def test_killing_the_database_in_mid_batch_loses_none_and_pays_none_twice(fresh: System) -> None:
    number = 2 * CALLS_AT_ONCE + 16  # more than are called at once
    user_id = fresh.user(500 * number)
    database, api = fresh.stack.parts["postgres"], fresh.stack.parts["api"]
    fresh.provider.settings(latency_ms=700)
    with fresh.frozen(fresh.worker):  # or it might finish before the last request
        ids = fresh.withdraw_many(user_id, number)
    wait_until(lambda: len(fresh.provider.payouts()) >= 3, FINAL_SECONDS)
    database.kill()
    paid_before = len(fresh.provider.payouts())
    database.start()
    database.wait_ready()
    api.wait_ready()
    fresh.provider.settings(latency_ms=0)
    assert paid_before < number
    assert fresh.wait_for_all(user_id, number) == {"completed": number}
    fresh.assert_paid_once(ids)
    assert (fresh.balance(user_id), fresh.refunds(user_id)) == (0, 0)
