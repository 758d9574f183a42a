"""Parts die, stop and come back, and callers race: every withdrawal is paid once or refunded once."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import requests

from sandbox.processes import wait_until
from shared.queues import redis_broker
from shared.queues.names import BACKLOG, PAYOUTS, SWEEPS
from tests.e2e.relay import relay
from tests.e2e.system import FINAL_SECONDS, System

# In one process the same is shown by the kills at every line, and by races of threads.
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),  # a start, and waits of FINAL_SECONDS on a busy machine
]
# The provider's response time that keeps a burst unfinished for seconds: with 8 threads and three calls for each new
# payee, fifty take 9 s, so the test finds it in the middle even on a busy machine.
SLOW_MS = 500
ACCEPT_SECONDS = 1.0  # how much longer a request may take because the broker is down


@pytest.mark.failure(5)
def test_without_redis_withdrawals_are_accepted_quickly_and_paid_when_it_returns(fresh: System) -> None:
    user_id, before = fresh.user(5000), fresh.user(5000)
    broker = fresh.stack.parts["redis"]
    baseline = slowest(
        fresh.request(before, f"success-{n}@sim") for n in range(8)
    )  # on this machine, with the broker
    assert fresh.wait_for_all(before, 8) == {"completed": 8}
    broker.stop()
    answers = [fresh.request(user_id, f"success-{n}@sim") for n in range(8)]
    assert [answer.status_code for answer in answers] == [201] * 8
    assert slowest(answers) < baseline + ACCEPT_SECONDS
    assert fresh.balance(user_id) == 1000
    assert {item["status"] for item in fresh.history(user_id)} == {"pending"}
    ready = requests.get(fresh.info["api"] + "/readyz", timeout=10)
    assert (ready.status_code, ready.json()["broker"]) == (200, "unavailable")
    broker.start()
    fresh.worker.wait_ready()  # the same process: it has waited for its broker
    assert fresh.wait_for_all(user_id, 8) == {"completed": 8}
    fresh.assert_paid_once([answer.json()["data"]["withdrawal_id"] for answer in answers])


@pytest.mark.failure(5)
def test_wiping_redis_during_50_withdrawals_loses_none_and_pays_none_twice(fresh: System) -> None:
    user_id = fresh.user(25_000)
    fresh.provider.settings(latency_ms=SLOW_MS)
    ids = fresh.withdraw_many(user_id, 40)
    with redis.Redis.from_url(fresh.info["redis_url"]) as client:
        wait_until(lambda: len(fresh.provider.payouts()) >= 5, FINAL_SECONDS)
        with fresh.frozen(fresh.worker):  # so that messages wait, whatever it has taken already
            ids += fresh.withdraw_many(user_id, 10)
            queues = (PAYOUTS, BACKLOG, SWEEPS)
            wait_until(lambda: sum(redis_broker.depth(name, client) for name in queues) > 0, FINAL_SECONDS)
            client.flushall()
    assert len(fresh.provider.payouts()) < 50
    fresh.provider.settings(latency_ms=0)
    assert fresh.wait_for_all(user_id, 50) == {"completed": 50}
    fresh.assert_paid_once(ids)
    assert fresh.balance(user_id) == 0


@pytest.mark.failure(3)
@pytest.mark.parametrize(("scenario", "accepted"), [("silent.before", 0), ("silent.after", 1)])
def test_a_worker_killed_while_the_provider_is_silent_pays_once(
    fresh: System, scenario: str, accepted: int
) -> None:
    """silent.before: killed between claim and call, for the provider. silent.after: between call and record."""
    user_id = fresh.user()
    with fresh.without_webhooks():  # so that only the worker can find the result
        withdrawal_id = fresh.withdraw(user_id, f"{scenario}@sim")
        wait_until(fresh.open_call, FINAL_SECONDS)
        fresh.worker.kill()
        assert len(fresh.provider.payouts()) == accepted
        assert fresh.status(withdrawal_id)["status"] == "processing"
        assert (fresh.refunds(user_id), fresh.balance(user_id)) == (0, 1500)
        fresh.worker.start()
        assert fresh.wait_for(withdrawal_id) == "completed"
    sends = fresh.sends_of(withdrawal_id)
    assert 2 <= len(sends) <= 2 + fresh.lost_answers(withdrawal_id)
    assert len(set(sends)) == 1, "the key must not change"
    fresh.assert_paid_once([withdrawal_id])
    assert (fresh.refunds(user_id), fresh.balance(user_id)) == (0, 1500)


@pytest.mark.failure(3)
def test_a_worker_killed_before_its_request_reaches_the_provider_pays_once(fresh: System) -> None:
    user_id = fresh.user()
    with relay(fresh.info["simulator"]) as wire:
        fresh.restart_with(fresh.worker, RAZORPAYX_BASE_URL=wire.url)
        known = fresh.withdraw(user_id)  # makes the payee known: the next call is the payout itself
        assert fresh.wait_for(known) == "completed"
        wire.cut = True
        withdrawal_id = fresh.withdraw(user_id)
        wait_until(wire.received_key, FINAL_SECONDS)
        fresh.worker.kill()
        wire.cut = False
        assert len(fresh.provider.payouts()) == 1
        assert fresh.status(withdrawal_id)["status"] == "processing"
        fresh.worker.start()
        assert fresh.wait_for(withdrawal_id) == "completed"
        sends = fresh.sends_of(withdrawal_id)
        assert set(sends) == {wire.received_key()}, "the key that was stored first"
        assert len(sends) <= 1 + fresh.lost_answers(withdrawal_id)
    fresh.assert_paid_once([known, withdrawal_id])
    assert fresh.refunds(user_id) == 0


def test_a_worker_killed_in_a_burst_leaves_nothing_unpaid_and_nothing_paid_twice(fresh: System) -> None:
    user_id = fresh.user(12_000)
    fresh.provider.settings(latency_ms=SLOW_MS)
    ids = fresh.withdraw_many(user_id, 24)
    for number in (4, 10):
        wait_until(lambda: len(fresh.provider.payouts()) >= number, FINAL_SECONDS)  # noqa: B023
        fresh.worker.kill()
        fresh.worker.start()
    fresh.provider.settings(latency_ms=0)
    assert fresh.wait_for_all(user_id, 24) == {"completed": 24}
    fresh.assert_paid_once(ids)


def test_a_stopped_worker_finishes_its_calls_and_another_worker_does_the_rest(fresh: System) -> None:
    user_id = fresh.user(15_000)
    # A low rate limit keeps the burst unfinished; a slow provider could also time out.
    fresh.restart_with(fresh.worker, PAYOUTS_PER_SECOND="4")
    ids = fresh.withdraw_many(user_id, 30)
    wait_until(lambda: len(fresh.provider.payouts()) >= 5, FINAL_SECONDS)
    fresh.worker.stop()
    assert fresh.worker.returncode == 0
    assert len(fresh.provider.payouts()) < 30
    fresh.worker.env = fresh.stack.env  # another worker, without the low rate limit
    fresh.worker.start()
    assert fresh.wait_for_all(user_id, 30) == {"completed": 30}
    fresh.assert_paid_once(ids)
    # No call was interrupted, so nothing was sent again.
    for withdrawal_id in ids:
        assert len(fresh.sends_of(withdrawal_id)) <= 1 + fresh.lost_answers(withdrawal_id)


@pytest.mark.failure(1)
def test_a_payout_accepted_without_a_reply_is_found_and_paid_once(shared: System) -> None:
    user_id = shared.user()
    with shared.without_webhooks():
        withdrawal_id = shared.withdraw(user_id, "silent.after-faults@sim")
        waiting: dict[str, Any] = {}  # a snapshot: a moment later it may be paid

        def is_confirming() -> bool:
            waiting.update(shared.status(withdrawal_id))
            return bool(waiting["status_reason"] == "confirming")

        wait_until(is_confirming, FINAL_SECONDS)
        assert waiting["status"] == "processing"
        assert waiting["expected_by"]
        assert len(shared.payouts_of(withdrawal_id)) == 1
        assert (shared.refunds(user_id), shared.balance(user_id)) == (0, 1500)
        assert shared.wait_for(withdrawal_id) == "completed"
    shared.assert_paid_once([withdrawal_id])
    sends = shared.sends_of(withdrawal_id)
    assert 2 <= len(sends) <= 1 + shared.lost_answers(withdrawal_id)
    assert len(set(sends)) == 1
    assert (shared.refunds(user_id), shared.balance(user_id)) == (0, 1500)


@pytest.mark.failure(6)
def test_fifty_concurrent_requests_never_take_more_than_the_wallet_holds(shared: System) -> None:
    user_id = shared.user(5000)
    with ThreadPoolExecutor(50) as threads:
        futures = [threads.submit(shared.request, user_id, f"success-fifty{n}@sim") for n in range(50)]
    answers = [future.result() for future in futures]
    assert Counter(answer.status_code for answer in answers) == {201: 10, 400: 40}
    assert {a.json()["error"] for a in answers if a.status_code == 400} == {"Insufficient coin balance"}
    assert shared.balance(user_id) == 0
    assert shared.wait_for_all(user_id, 10) == {"completed": 10}
    shared.assert_paid_once(a.json()["data"]["withdrawal_id"] for a in answers if a.status_code == 201)
    assert (shared.refunds(user_id), shared.balance(user_id)) == (0, 0)


@pytest.mark.failure(20)
def test_a_cancellation_that_races_a_claim_never_both_refunds_and_pays(shared: System) -> None:
    users_won = workers_won = status_calls = 0
    for _ in range(7):  # on a busy machine one side may win every time: repeat until each has won
        cancelled, paid, status_calls = _race(shared, status_calls)
        users_won = users_won + len(cancelled)
        workers_won = workers_won + len(paid)
        if users_won and workers_won:
            break
    assert users_won, "the worker won every time: this was no race"
    assert workers_won, "the user won every time: this was no race"


def _race(system: System, status_calls: int, rounds: int = 40) -> tuple[set[str], set[str], int]:
    """A user and the worker race for each of `rounds` withdrawals.

    `status_calls` delays each cancellation. Returns the cancelled ids, the paid ids and the delay to continue with.
    """
    user_id = system.user(500 * (rounds + 1))
    known = system.withdraw(user_id)  # makes the payee known, so that a claim is one step
    assert system.wait_for(known) == "completed"
    cancelled, paid = set[str](), set[str]()
    for _ in range(rounds):
        withdrawal_id = system.withdraw(user_id)
        for _ in range(status_calls):  # each takes a few ms
            system.status(withdrawal_id)
        answer = system.cancel(withdrawal_id)
        won = answer.status_code == 200
        assert won or answer.json()["current_status"] in ("processing", "completed"), answer.text
        (cancelled if won else paid).add(withdrawal_id)
        status_calls = status_calls + 2 if won else max(0, status_calls - 2)  # give the loser a head start
    expected = Counter(completed=len(paid) + 1, cancelled=len(cancelled))
    assert system.wait_for_all(user_id, rounds + 1) == expected
    system.assert_paid_once({known, *paid})
    assert not cancelled & set(system.keys().values())
    assert (system.refunds(user_id), system.balance(user_id)) == (len(cancelled), 500 * len(cancelled))
    return cancelled, paid, status_calls


@pytest.mark.failure(5)
def test_killing_the_api_in_mid_request_takes_coins_only_for_withdrawals_that_are_paid(fresh: System) -> None:
    requests_per_user = 12
    users = [fresh.user(500 * requests_per_user) for _ in range(8)]
    api = fresh.stack.parts["api"]
    accepted: dict[str, list[str]] = {user_id: [] for user_id in users}

    def is_cut_off(user_id: str) -> bool:
        """Request withdrawals until a response is missing."""
        for number in range(requests_per_user):
            withdrawal_id = _request_or_nothing(fresh, user_id, number)
            if withdrawal_id is None:
                return True
            accepted[user_id].append(withdrawal_id)
        return False

    with ThreadPoolExecutor(len(users)) as threads:
        futures = [threads.submit(is_cut_off, user_id) for user_id in users]
        wait_until(lambda: sum(map(len, accepted.values())) >= 5, FINAL_SECONDS)
        api.kill()
        cut_off = [future.result() for future in futures]
    assert any(cut_off), "all requests ended before the API was killed"
    api.start()
    api.wait_ready()
    for user_id in users:
        known = {item["id"] for item in fresh.history(user_id)}
        assert set(accepted[user_id]) <= known  # one more may have been accepted without a response
        assert fresh.wait_for_all(user_id, len(known)) == Counter(completed=len(known))
        fresh.assert_paid_once(known)
        assert fresh.balance(user_id) == 500 * (requests_per_user - len(known))


@pytest.mark.failure(24)
def test_without_the_database_requests_get_503_and_all_is_paid_when_it_returns(fresh: System) -> None:
    user_id = fresh.user(20_000)
    database, api = fresh.stack.parts["postgres"], fresh.stack.parts["api"]
    fresh.provider.settings(latency_ms=SLOW_MS)
    ids = fresh.withdraw_many(user_id, 20)
    wait_until(fresh.provider.payouts, FINAL_SECONDS)
    database.stop()
    refused = [fresh.request(user_id) for _ in range(3)]
    assert [answer.status_code for answer in refused] == [503] * 3
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert fresh.get("wallet/", user_id=user_id).status_code == 503
    database.start()
    api.wait_ready()
    assert fresh.balance(user_id) == 10_000
    assert len(fresh.history(user_id)) == 20
    ids.append(fresh.withdraw(user_id))
    fresh.provider.settings(latency_ms=0)
    assert fresh.wait_for_all(user_id, 21) == {"completed": 21}
    fresh.assert_paid_once(ids)
    assert (fresh.refunds(user_id), fresh.balance(user_id)) == (0, 9_500)


@pytest.mark.failure(4)
def test_two_workers_and_two_beats_pay_each_withdrawal_once(fresh: System) -> None:
    """Replies get lost, so that messages, sweeps and resends happen together."""
    second = fresh.add("worker2", "worker")
    fresh.add("beat2", "beat")
    second.wait_ready()  # until then the first worker would do everything
    user_id = fresh.user(50_000)
    fresh.provider.scenario("drop", next=5)
    fresh.provider.scenario("429", next=5)
    ids = fresh.withdraw_many(user_id, 40)
    # Redis chooses which worker gets a message: continue until the second worker has moved a withdrawal.
    while "[PAYOUT] moved" not in second.log_text() and len(ids) < 90:
        ids += fresh.withdraw_many(user_id, 5)
        fresh.wait_for_all(user_id, len(ids))
    assert "[PAYOUT] moved" in second.log_text()
    assert fresh.wait_for_all(user_id, len(ids)) == {"completed": len(ids)}
    fresh.assert_paid_once(ids)
    assert len(fresh.provider.payouts()) == len(ids)


def _request_or_nothing(system: System, user_id: str, number: int) -> str | None:
    try:
        answer = system.request(user_id, f"success-{number}@sim")
    except requests.RequestException:
        return None
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["withdrawal_id"])


def slowest(answers: Iterable[requests.Response]) -> float:
    """The longest response time in seconds."""
    return max(answer.elapsed.total_seconds() for answer in answers)
