"""Claim, call, record: every answer of the provider, and its effect on coins and rupees."""

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from sandbox.processes import wait_until
from shared import withdrawals
from shared.db.engines import engine
from shared.providers.answers import Refused, Unknown
from shared.providers.failures import POLICIES, policy_for
from shared.providers.razorpayx.client import RazorpayXClient
from shared.providers.steps import Prepare
from shared.settings import settings
from tests.support.receiver import webhook_receiver
from tests.support.slow_peer import SlowPeer
from tests.support.steps import claim, record_answer
from tests.support.world import World
from worker import tasks

# Simulator scenario -> (final status, payouts that exist, refunds)
PAID = ("completed", 1, 0)
BACK = ("failed", 1, 1)
NEVER = ("failed", 0, 1)
SCENARIOS = {
    "success": PAID,
    "drop": PAID,
    "drop.before": PAID,
    "504": PAID,
    "504.before": PAID,
    "500": PAID,
    "429": PAID,
    "401": PAID,
    "409": PAID,
    "garbage": PAID,
    "empty": PAID,
    "wrong": PAID,
    "silent.after": PAID,
    "silent.before": PAID,
    "queued": PAID,
    "pending": PAID,
    "rejected": BACK,
    "cancelled": BACK,
    "refuse.invalid_vpa": NEVER,
    "refuse.fund_account": NEVER,
    "500.fund_account": PAID,
    **{
        f"fail.{reason}": BACK
        for reason in POLICIES
        if policy_for(reason).action == "refund"
        and reason.startswith(("beneficiary_vpa", "bank_", "transaction"))
    },
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_result_of_every_answer_of_the_provider(
    world: World, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, payouts, refunds = SCENARIOS[scenario]
    if scenario.startswith("silent"):
        world.shorten_timeouts(monkeypatch)
    world.credit(coins=2000)
    withdrawal_id = world.request(coins=500, upi_id=f"{scenario}@sim")
    assert world.finish(withdrawal_id) == status, world.story(withdrawal_id)
    assert len(world.simulator.payouts()) == payouts
    assert world.refunds(withdrawal_id) == refunds
    assert world.balance() == (1500 if status == "completed" else 2000)
    assert (world.read(withdrawal_id).failure_reason is None) == (status == "completed")


@pytest.mark.parametrize(
    "reason", [reason for reason, policy in POLICIES.items() if policy.action == "retry"][:9]
)
def test_a_temporary_failure_is_retried_with_new_keys_and_finally_refunded(world: World, reason: str) -> None:
    world.credit()
    withdrawal_id = world.request(upi_id=f"fail.{reason}@sim")
    assert world.finish(withdrawal_id) == "failed"
    keys = [payout["idempotency_key"] for payout in world.simulator.payouts()]
    assert len(keys) == len(set(keys)) == policy_for(reason).max_attempts
    assert {attempt.state for attempt in world.attempts(withdrawal_id)} == {"failed"}
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


@pytest.mark.failure(17)
def test_a_temporary_failure_is_retried_and_paid_once(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.simulator.scenario("fail.beneficiary_bank_offline", next=1)
    assert world.finish(withdrawal_id) == "completed"
    assert [attempt.state for attempt in world.attempts(withdrawal_id)] == ["failed", "paid"]
    assert len(world.simulator.live_payouts()) == 1


def test_a_payee_that_the_provider_no_longer_knows_is_registered_again(world: World) -> None:
    world.credit()
    world.sql(
        "INSERT INTO destinations (id, user_id, upi_id, contact_id, fund_account_id, known_to) VALUES"
        " (gen_random_uuid(), 'user123', 'user@okhdfcbank', 'cont_00000000000000', 'fa_00000000000000', :known_to)",
        known_to=settings().razorpayx_identity,
    )
    assert world.read(world.paid()).status == "completed"
    rows = world.sql("SELECT fund_account_id, ended_at FROM destinations ORDER BY created_at")
    assert [row.ended_at is None for row in rows] == [False, True]
    assert rows[0].fund_account_id == "fa_00000000000000" != rows[1].fund_account_id


def test_a_late_refusal_does_not_end_the_destination_that_replaced_it(world: World) -> None:
    """Two withdrawals used the old destination; the provider refuses both sends."""
    world.credit()
    first, second = world.first_send(), world.first_send()
    invalid = Refused("fund_account_invalid", "The id provided does not exist", 400)
    record_answer(first, invalid)
    world.sql(
        "INSERT INTO destinations (id, user_id, upi_id, contact_id, fund_account_id, known_to)"
        " SELECT gen_random_uuid(), user_id, upi_id, contact_id, 'fa_next', known_to FROM destinations"
    )
    record_answer(second, invalid)
    rows = world.sql("SELECT fund_account_id FROM destinations WHERE ended_at IS NULL")
    assert [row.fund_account_id for row in rows] == ["fa_next"]


def test_unanswered_polls_are_recorded_and_do_not_change_the_expected_time(world: World) -> None:
    world.credit()
    withdrawal_id = world.request(upi_id="never@sim")
    world.step(withdrawal_id)
    expected_by = world.read(withdrawal_id).expected_by
    world.simulator.settings(down="500")
    for _ in range(3):
        world.step(withdrawal_id)
    assert world.story(withdrawal_id).count("polled:no_answer") == 3
    assert world.read(withdrawal_id).expected_by == expected_by


def test_failing_payee_registrations_back_off_exponentially(world: World) -> None:
    world.simulator.settings(down="500")
    world.credit()
    withdrawal_id = world.request()
    assert world.finish(withdrawal_id, steps=3) == "pending"
    assert world.story(withdrawal_id) == ["requested", *["preparing", "not_prepared"] * 3]
    for tries in (3, 4, 5):
        before = world.clock()
        world.step(withdrawal_id)
        [row] = world.sql("SELECT due_at, clock_timestamp() AS after FROM withdrawals")
        longest_seconds, shortest_seconds = ((row.due_at - at).total_seconds() for at in (before, row.after))
        # The wait doubles each time, plus a random quarter.
        assert 5 * 2**tries <= longest_seconds and shortest_seconds <= 5 * 2**tries * 1.25


@pytest.mark.parametrize(
    "drip", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"]
)
def test_a_peer_that_sends_one_byte_at_a_time_is_disconnected(
    world: World, drip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single bytes keep every read short, but the call as a whole has a deadline."""
    world.credit()
    send = world.first_send()
    world.shorten_timeouts(monkeypatch)
    with SlowPeer(drip) as peer:
        slow = settings().model_copy(update={"razorpayx_base_url": peer.url})
        started = time.monotonic()
        assert isinstance(RazorpayXClient(slow).perform(send), Unknown)
        assert time.monotonic() - started < 15  # the peer never stops by itself


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_counts_as_unknown_and_is_not_followed(world: World, status: int) -> None:
    """A followed POST could become a GET whose 200 looks like success, or reach another server."""
    world.credit()
    send = world.first_send()
    redirect = (
        f"HTTP/1.1 {status} There\r\nLocation: {world.simulator.url}/v1/payouts\r\nContent-Length: 0\r\n\r\n"
    )
    calls_before = len(world.simulator.calls()) + len(world.simulator.calls("GET"))
    with SlowPeer(redirect.encode()) as peer:
        elsewhere = settings().model_copy(update={"razorpayx_base_url": peer.url})
        assert isinstance(RazorpayXClient(elsewhere).perform(send), Unknown)
    assert len(world.simulator.calls()) + len(world.simulator.calls("GET")) == calls_before
    assert world.simulator.payouts() == []


def test_the_exact_payout_request_to_the_provider(world: World) -> None:
    world.credit()
    send = world.first_send()
    assert json.loads(send.body) == {
        "account_number": settings().razorpayx_account_number,
        "fund_account_id": world.sql("SELECT fund_account_id FROM destinations")[0].fund_account_id,
        "amount": 5000,
        "currency": "INR",
        "mode": "UPI",
        "purpose": "payout",
        "queue_if_low_balance": True,
        "reference_id": str(send.attempt_id),
        "narration": "Coin withdrawal",
    }


@pytest.mark.failure(4)
def test_of_eight_workers_one_claims_a_withdrawal(world: World) -> None:
    world.credit(coins=2000)
    world.paid()
    withdrawal_id = world.request()
    world.advance()
    with ThreadPoolExecutor(8) as threads:
        steps = list(threads.map(lambda _: claim(withdrawal_id), range(8)))
    assert len([step for step in steps if step]) == 1


@pytest.mark.failure(23)
def test_nothing_is_claimed_within_the_cancel_window(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    assert claim(withdrawal_id) is None
    world.advance(8)
    assert claim(withdrawal_id) is None
    world.advance(3)
    assert claim(withdrawal_id) is not None


@pytest.mark.failure(20)
def test_a_withdrawal_cancelled_while_its_payee_is_registered_is_not_sent(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.advance()
    step = claim(withdrawal_id)
    assert isinstance(step, Prepare)
    withdrawals.cancel(withdrawal_id, reason="just in time", actor="app:test")
    assert record_answer(step, world.perform(step)) is None
    assert world.simulator.payouts() == []
    assert world.balance() == 2000


def test_a_payee_is_registered_once(world: World) -> None:
    for _ in range(3):
        world.paid()
    contacts = world.simulator.calls(path="/v1/contacts")
    assert len(contacts) == len(world.simulator.calls(path="/v1/fund_accounts")) == 1
    assert len(world.sql("SELECT FROM destinations")) == 1


def test_no_transaction_is_open_during_a_call_to_the_provider(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    send = world.first_send()
    world.shorten_timeouts(monkeypatch)
    with ThreadPoolExecutor(1) as threads:
        world.simulator.scenario("silent.before", default=True)
        call = threads.submit(world.perform, send)
        wait_until(world.simulator.calls, 15)  # the call's statement for its rate limit slot is done
        # Ignore the server's own work, such as autovacuum.
        busy = """SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()
                  AND backend_type = 'client backend' AND xact_start < now()"""
        while not call.done():
            assert world.sql(busy)[0].n == 0
            assert engine().pool.checkedout() == 0  # type: ignore[attr-defined]
    assert isinstance(call.result(), Unknown)


@pytest.mark.failure(26)
def test_a_withdrawal_whose_step_always_raises_is_postponed_and_blocks_no_other(world: World) -> None:
    """A row that our own code cannot handle: its coins stay held and it is retried later."""
    world.credit(coins=2000)
    world.paid()
    faulty, healthy = world.request(), world.request()
    world.advance()
    world.sql_without_rules(
        f"UPDATE withdrawals SET amount_paise = 99 + 1, version = 1 WHERE id = '{faulty}'"
    )
    world.sql_without_rules(
        f"UPDATE withdrawal_events SET data = data || '{{\"amount_paise\": 100}}' WHERE withdrawal_id = '{faulty}'"
    )
    world.sql(
        "ALTER TABLE payout_attempts ADD CONSTRAINT ours CHECK (request_body NOT LIKE '%\"amount\": 100,%'::bytea)"
    )
    with pytest.raises(IntegrityError):
        tasks.submit_withdrawal.run(str(faulty))
    tasks.submit_withdrawal.run(str(healthy))
    assert world.read(faulty).status == "pending"
    assert "worker_error" in world.story(faulty)
    assert claim(faulty) is None
    assert len(world.attempts(healthy)) == 1


def test_the_event_of_a_claim_has_the_hash_of_the_bytes_that_were_sent(world: World) -> None:
    world.credit()
    send = world.first_send()
    with webhook_receiver() as receiver:
        address = receiver.url.removesuffix("/hook")
        RazorpayXClient(settings().model_copy(update={"razorpayx_base_url": address})).perform(send)
    [received] = receiver.messages
    [claimed] = world.sql("SELECT data FROM withdrawal_events WHERE reason = 'claimed'")
    assert claimed.data["request_sha256"] == hashlib.sha256(received.body).hexdigest()
