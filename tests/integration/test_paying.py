"""Claim, call, record: every way in which RazorpayX answers, and what becomes of coins and rupees."""

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from sandbox.processes import wait_until
from shared import db, withdrawals
from shared.razorpayx.answers import Refused, Unknown
from shared.razorpayx.client import RazorpayX
from shared.razorpayx.reasons import POLICIES, policy
from shared.settings import settings
from shared.steps import Prepare
from shared.withdrawals import claim, record_answer
from tests.drip import Dripping
from tests.receiver import receiving
from tests.world import World
from worker import tasks

# scenario of the simulator -> (how the withdrawal ends, payouts that exist, refunds)
PAID, BACK, NEVER = ("completed", 1, 0), ("failed", 1, 1), ("failed", 0, 1)
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
        if policy(reason).action == "refund"
        and reason.startswith(("beneficiary_vpa", "bank_", "transaction"))
    },
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_answer_of_the_provider(world: World, scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, payouts, refunds = SCENARIOS[scenario]
    if scenario.startswith("silent"):
        world.impatient(monkeypatch)
    world.credit(coins=2000)
    withdrawal_id = world.request(coins=500, upi_id=f"{scenario}@sim")
    assert world.finish(withdrawal_id) == status, world.story(withdrawal_id)
    assert len(world.simulator.payouts()) == payouts
    assert world.refunds(withdrawal_id) == refunds
    assert world.balance() == (1500 if status == "completed" else 2000)
    assert (world.read(withdrawal_id).failure_reason is None) == (status == "completed")


@pytest.mark.parametrize("reason", [word for word, then in POLICIES.items() if then.action == "retry"][:9])
def test_a_passing_failure_is_tried_anew_with_a_new_key_and_refunded_in_the_end(
    world: World, reason: str
) -> None:
    world.credit()
    withdrawal_id = world.request(upi_id=f"fail.{reason}@sim")
    assert world.finish(withdrawal_id) == "failed"
    keys = [payout["idempotency_key"] for payout in world.simulator.payouts()]
    assert len(keys) == len(set(keys)) == policy(reason).attempts
    assert {attempt.state for attempt in world.attempts(withdrawal_id)} == {"failed"}
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


@pytest.mark.failure(17)
def test_a_passing_failure_that_passes_is_paid_once(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.simulator.scenario("fail.beneficiary_bank_offline", next=1)
    assert world.finish(withdrawal_id) == "completed"
    assert [attempt.state for attempt in world.attempts(withdrawal_id)] == ["failed", "paid"]
    assert len(world.simulator.live_payouts()) == 1


def test_a_payee_that_is_no_longer_known_is_made_known_anew(world: World) -> None:
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
    """Two withdrawals went to the old one; each is told that it is unknown."""
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


def test_polls_without_an_answer_leave_a_trace_and_do_not_move_the_promise(world: World) -> None:
    world.credit()
    withdrawal_id = world.request(upi_id="never@sim")
    world.step(withdrawal_id)
    promised = world.read(withdrawal_id).expected_by
    world.simulator.settings(down="500")
    for _ in range(3):
        world.step(withdrawal_id)
    assert world.story(withdrawal_id).count("polled:no_answer") == 3
    assert world.read(withdrawal_id).expected_by == promised


def test_a_payee_that_cannot_be_made_known_is_asked_for_less_and_less_often(world: World) -> None:
    world.simulator.settings(down="500")
    world.credit()
    withdrawal_id = world.request()
    assert world.finish(withdrawal_id, steps=3) == "pending"
    assert world.story(withdrawal_id) == ["requested", *["preparing", "not_prepared"] * 3]
    for tries in (3, 4, 5):
        before = world.clock()
        world.step(withdrawal_id)
        [row] = world.sql("SELECT due_at, clock_timestamp() AS after FROM withdrawals")
        longest, shortest = ((row.due_at - at).total_seconds() for at in (before, row.after))
        # Twice as long each time, whatever else it has waited for; spread out by up to a quarter.
        assert 5 * 2**tries <= longest and shortest <= 5 * 2**tries * 1.25


@pytest.mark.parametrize(
    "drip", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"]
)
def test_a_peer_that_drips_bytes_is_hung_up_on(
    world: World, drip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then keeps every single read short; the call as a whole is bounded all the same."""
    world.credit()
    send = world.first_send()
    world.impatient(monkeypatch)
    with Dripping(drip) as peer:
        slow = settings().model_copy(update={"razorpayx_base_url": peer.url})
        begun = time.monotonic()
        assert isinstance(RazorpayX(slow).perform(send), Unknown)
        assert time.monotonic() - begun < 15  # it would drip for ever


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_no_answer_and_is_not_followed(world: World, status: int) -> None:
    """Followed, a POST would become a GET whose 200 looks like success, or be sent to somebody else."""
    world.credit()
    send = world.first_send()
    there = (
        f"HTTP/1.1 {status} There\r\nLocation: {world.simulator.url}/v1/payouts\r\nContent-Length: 0\r\n\r\n"
    )
    before = len(world.simulator.calls()) + len(world.simulator.calls("GET"))
    with Dripping(there.encode()) as peer:
        elsewhere = settings().model_copy(update={"razorpayx_base_url": peer.url})
        assert isinstance(RazorpayX(elsewhere).perform(send), Unknown)
    assert len(world.simulator.calls()) + len(world.simulator.calls("GET")) == before
    assert world.simulator.payouts() == []


def test_what_is_asked_for_to_the_letter(world: World) -> None:
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
def test_two_workers_one_claim(world: World) -> None:
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
def test_cancelled_while_the_payee_is_prepared_is_not_sent(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.advance()
    step = claim(withdrawal_id)
    assert isinstance(step, Prepare)
    withdrawals.cancel(withdrawal_id, reason="just in time", actor="app:test")
    assert record_answer(step, world.perform(step)) is None
    assert world.simulator.payouts() == []
    assert world.balance() == 2000


def test_the_payee_is_made_known_once(world: World) -> None:
    for _ in range(3):
        world.paid()
    contacts = world.simulator.calls(path="/v1/contacts")
    assert len(contacts) == len(world.simulator.calls(path="/v1/fund_accounts")) == 1
    assert len(world.sql("SELECT FROM destinations")) == 1


def test_no_transaction_is_open_while_the_provider_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    send = world.first_send()
    world.impatient(monkeypatch)
    with ThreadPoolExecutor(1) as threads:
        world.simulator.scenario("silent.before", default=True)
        call = threads.submit(world.perform, send)
        wait_until(world.simulator.calls, 15)  # before it the call took its turn, which is one statement
        # The server's own work (autovacuum) is none of ours.
        busy = """SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()
                  AND backend_type = 'client backend' AND xact_start < now()"""
        while not call.done():
            assert world.sql(busy)[0].n == 0
            assert db.engine().pool.checkedout() == 0  # type: ignore[attr-defined]
    assert isinstance(call.result(), Unknown)


@pytest.mark.failure(26)
def test_a_step_that_always_raises_is_put_off_and_blocks_nobody(world: World) -> None:
    """A row that our own code cannot handle: it stays held and visible, and is looked at again later."""
    world.credit(coins=2000)
    world.paid()
    poison, well = world.request(), world.request()
    world.advance()
    world.sql_without_rules(
        f"UPDATE withdrawals SET amount_paise = 99 + 1, version = 1 WHERE id = '{poison}'"
    )
    world.sql_without_rules(
        f"UPDATE withdrawal_events SET data = data || '{{\"amount_paise\": 100}}' WHERE withdrawal_id = '{poison}'"
    )
    world.sql(
        "ALTER TABLE payout_attempts ADD CONSTRAINT ours CHECK (request_body NOT LIKE '%\"amount\": 100,%'::bytea)"
    )
    with pytest.raises(IntegrityError):
        tasks.submit_withdrawal.run(str(poison))
    tasks.submit_withdrawal.run(str(well))
    assert world.read(poison).status == "pending"
    assert "worker_error" in world.story(poison)
    assert claim(poison) is None
    assert len(world.attempts(well)) == 1


def test_the_story_holds_the_hash_of_the_bytes_that_left(world: World) -> None:
    world.credit()
    send = world.first_send()
    with receiving() as theirs:
        address = theirs.url.removesuffix("/hook")
        RazorpayX(settings().model_copy(update={"razorpayx_base_url": address})).perform(send)
    [came] = theirs.messages
    [claimed] = world.sql("SELECT data FROM withdrawal_events WHERE reason = 'claimed'")
    assert claimed.data["request_sha256"] == hashlib.sha256(came.body).hexdigest()
