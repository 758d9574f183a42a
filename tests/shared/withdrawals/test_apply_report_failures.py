"""Failures that need no killed process: untrue providers, late reports, concurrent decisions."""

import json
import random
import time
from base64 import b64decode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
import requests
from flask.testing import FlaskClient
from sqlalchemy.exc import IntegrityError

from shared import withdrawals
from shared.db.transactions import transaction
from shared.errors import Conflict, PayoutsError
from shared.ids import attempt_id
from shared.models import ExceptionRecord
from shared.people import exception_records
from shared.providers.answers import Unknown
from shared.providers.razorpayx.client import RazorpayXClient
from shared.providers.steps import Send
from shared.queues import redis_broker
from shared.queues.names import BACKLOG, PAYOUTS
from shared.settings import settings
from shared.states import Decision
from shared.withdrawals import blocks
from tests.support import steps
from tests.support.api import STATUS
from tests.support.backlog import insert_backlog
from tests.support.simulator import KEY_ID, KEY_SECRET
from tests.support.steps import claim, record_answer
from tests.support.world import World, sign
from worker import tasks

pytestmark = pytest.mark.usefixtures("people")

HOOK = "/api/razorpay/webhook/"
ASHA = "operator:asha"
RAVI = "operator:ravi"
HOUR_SECONDS = 3600
DAY_SECONDS = 86_400


def records(world: World) -> list[ExceptionRecord]:
    """The open exception records."""
    with transaction() as session:
        return exception_records.listing(session)


def payout_of(send: Send, status: str, **changes: Any) -> dict[str, Any]:
    """The payout of a send, as a webhook reports it."""
    entity = {"id": "pout_00000000000009", "amount": 5000, "reference_id": str(send.attempt_id)}
    return {**entity, "status": status, **changes}


def deliver(client: FlaskClient, event_id: str, event: str, payout: dict[str, Any]) -> int:
    """Post a signed webhook to the API; returns the status code."""
    body = json.dumps({"event": event, "payload": {"payout": {"entity": payout}}}).encode()
    headers = {"X-Razorpay-Signature": sign(body), "X-Razorpay-Event-Id": event_id}
    return client.post(HOOK, data=body, headers=headers).status_code


def outcome(world: World, event_id: str) -> str | None:
    """The outcome of a stored webhook."""
    rows = world.sql("SELECT outcome FROM webhook_events WHERE event_id = :id", id=event_id)
    return str(rows[0].outcome) if rows and rows[0].outcome else None


def in_doubt(world: World) -> Send:
    """A withdrawal that was sent and whose result is unknown."""
    send = world.first_send()
    record_answer(send, Unknown("the wire broke"))
    return send


# --- nothing found for the documented hour


@pytest.mark.failure(2)
def test_a_payment_reported_after_an_hour_without_a_payout_is_left_to_people(
    world: World, client: FlaskClient
) -> None:
    world.simulator.scenario("500.always", default=True)
    world.credit()
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=11)
    assert (world.read(withdrawal_id).status, world.refunds(withdrawal_id)) == ("processing", 0)
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '61 minutes'")
    assert world.step(withdrawal_id) == "failed"
    late = world.arrive_late(withdrawal_id)
    assert deliver(client, "ev_late", "payout.processed", late) == 200
    assert steps.apply("ev_late") == "hinted"
    assert world.read(withdrawal_id).hold is None  # a webhook alone opens no record
    world.bring_on(withdrawal_id)
    assert world.read(withdrawal_id).hold == "processed_after_refused"
    record = records(world)[0]
    assert (record.kind, record.ours["status"], record.theirs["payout_id"]) == (
        "processed_after_refused", "failed", late["id"],
    )  # fmt: skip
    world.finish(withdrawal_id, steps=3)
    assert (world.read(withdrawal_id).status, world.balance(), world.refunds(withdrawal_id)) == (
        "failed", 2000, 1,
    )  # fmt: skip
    # Paid and refunded by the provider: the check at the end judges only what we did.
    world.simulator.post("reset", {})


# --- webhooks in any order


@pytest.mark.failure(8, 9, 13)
def test_five_hundred_webhooks_in_random_order_change_each_payout_once(world: World) -> None:
    """The real events of 50 payouts, the last one of each repeated, shuffled with a fixed seed."""
    events = [event for payout in _ended_payouts(world, 50) for event in _events_of(payout)]
    assert len(events) == 500
    random.Random(20_261_123).shuffle(events)
    with ThreadPoolExecutor(4) as threads:
        effects = Counter(threads.map(lambda event: world.webhook(event[1], event[2], event[0]), events))
    assert effects.total() == 500 and effects["late"] and effects["repeat"]
    _work_on_all_hints(world)
    assert world.sql("SELECT count(*) AS n FROM webhook_events WHERE applied_at IS NOT NULL")[0].n == 500
    theirs = {payout["reference_id"]: payout["status"] for payout in world.simulator.payouts()}
    rows = world.sql(
        "SELECT a.id::text AS id, w.status FROM payout_attempts a JOIN withdrawals w ON w.id = withdrawal_id"
    )
    ours = {row.id: row.status for row in rows}
    assert ours == {key: "completed" if status == "processed" else "failed" for key, status in theirs.items()}
    moves = "SELECT count(*) AS n FROM withdrawal_events WHERE to_status = :to AND from_status <> to_status"
    for status in ("completed", "failed"):
        assert {row.n for row in world.sql(f"{moves} GROUP BY withdrawal_id", to=status)} == {1}


def _ended_payouts(world: World, number: int) -> list[dict[str, Any]]:
    """Payouts that the provider accepted and ended in every way, before we received any report."""
    ids = insert_backlog(_database(), users=1, each=number, upi_id="asha@okaxis")
    for kind in ("queued", "pending", "reversed", "rejected", "fail.bank_account_closed"):
        world.simulator.scenario(kind, next=number // 5)
    provider = RazorpayXClient(settings())
    for withdrawal_id in map(UUID, ids):
        step = claim(withdrawal_id)
        while not isinstance(step, Send):
            assert step is not None
            step = record_answer(step, provider.perform(step))
        record_answer(step, provider.perform(step))
    world.simulator.post("advance", {"seconds": HOUR_SECONDS})
    return world.simulator.payouts()


def _work_on_all_hints(world: World) -> None:
    """Make the queries that the webhooks asked for."""
    while hinted := world.sql("SELECT withdrawal_id FROM hints WHERE due_at IS NOT NULL"):
        world.advance()
        for row in hinted:
            world.bring_on(row.withdrawal_id)


def _events_of(payout: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Ten events of one payout, the last one repeated: an id, a name and the payout."""
    statuses = [(step["status"], step["reason"]) for step in payout["history"]]
    statuses += [statuses[-1]] * (10 - len(statuses))
    entity = {key: payout[key] for key in ("id", "amount", "reference_id", "utr")}
    return [
        (
            f"{payout['id']}-{number}",
            f"payout.{status}",
            {**entity, "status": status, "status_details": {"reason": reason}},
        )
        for number, (status, reason) in enumerate(statuses)
    ]


@pytest.mark.failure(13)
def test_an_event_about_an_unknown_payout_is_stored_unmatched_and_changes_nothing(
    world: World, client: FlaskClient
) -> None:
    world.credit()
    send = world.first_send()
    before = world.story(send.withdrawal_id)
    foreign = {"id": "pout_foreign0000001", "amount": 5000, "reference_id": "order-17", "status": "failed"}
    assert deliver(client, "ev_foreign", "payout.failed", foreign) == 200
    assert steps.apply("ev_foreign") == "unmatched"
    assert (world.story(send.withdrawal_id), world.balance()) == (before, 1500)


@pytest.mark.failure(13)
def test_an_unmatched_event_is_read_again_when_its_reference_appears(
    world: World, client: FlaskClient
) -> None:
    """The database was restored from a backup: the provider reports an attempt that we make again."""
    world.credit()
    withdrawal_id = world.request(upi_id="never@sim")
    reference = str(attempt_id(withdrawal_id, 1))
    payout = {"id": "pout_00000000000009", "amount": 5000, "reference_id": reference, "status": "processed"}
    assert deliver(client, "ev_early", "payout.processed", payout) == 200
    assert steps.apply("ev_early") == "unmatched"
    world.advance()
    step = claim(withdrawal_id)
    assert step is not None
    send = record_answer(step, world.perform(step))
    assert isinstance(send, Send) and str(send.attempt_id) == reference
    assert outcome(world, "ev_early") is None  # it is read again
    assert steps.apply("ev_early") == "hinted"
    world.bring_on(withdrawal_id)
    assert world.story(withdrawal_id)[-1] == "asked:no_payout"  # the webhook was untrue
    assert (world.read(withdrawal_id).status, world.simulator.payouts()) == ("processing", [])


# --- what the bank does days later


@pytest.mark.failure(10)
@pytest.mark.parametrize("first", ["processed", "failed"])
def test_a_reversal_refunds_once_in_an_entry_linked_to_the_withdrawal(
    world: World, client: FlaskClient, first: str
) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, world.perform(send))
    payout = world.simulator.payouts()[0]
    entity = {key: payout[key] for key in ("id", "amount", "reference_id")}
    details = {"status_details": {"reason": "bank_account_closed"}}
    for number, status in enumerate((first, "reversed", "reversed")):
        world.simulator.post("advance", {"seconds": 3 * DAY_SECONDS})
        status_reason = "bank_account_closed" if status == "failed" else None
        world.simulator.post(f"payouts/{payout['id']}/status", {"status": status, "reason": status_reason})
        deliver(client, f"ev_{number}", f"payout.{status}", {**entity, "status": status, **details})
        assert steps.apply(f"ev_{number}") is not None
        world.bring_on(send.withdrawal_id)
    entries = world.sql("SELECT kind, coins, withdrawal_id FROM coin_transactions WHERE kind = 'refund'")
    assert [(entry.coins, entry.withdrawal_id) for entry in entries] == [(500, send.withdrawal_id)]
    item = client.get(STATUS, query_string={"withdrawal_id": str(send.withdrawal_id)}).get_json()["data"]
    assert item["status"] == "failed"
    assert (
        item["failure_reason"]
        == {
            "processed": "Your bank sent the payment back.",
            "failed": "The bank account behind this UPI id is closed.",
        }[first]
    )


@pytest.mark.failure(11)
def test_a_payout_that_takes_three_working_days_is_awaited_without_alarm(
    world: World, client: FlaskClient
) -> None:
    world.credit()
    withdrawal_id = world.request(upi_id="never@sim")
    world.step(withdrawal_id)
    world.step(withdrawal_id)
    expected_by = world.read(withdrawal_id).expected_by
    for _ in range(12):
        assert world.step(withdrawal_id, seconds=6 * HOUR_SECONDS) == "processing"
        world.simulator.post("advance", {"seconds": 6 * HOUR_SECONDS})
    item = client.get(STATUS, query_string={"withdrawal_id": str(withdrawal_id)}).get_json()["data"]
    assert item["status_message"] == "The bank is processing the payment."
    row = world.read(withdrawal_id)
    assert expected_by is not None and row.expected_by == expected_by
    assert 3 * DAY_SECONDS < (expected_by - row.created_at).total_seconds() < 6 * DAY_SECONDS
    assert (len(world.simulator.calls()), len(world.attempts(withdrawal_id))) == (1, 1)
    assert (world.refunds(withdrawal_id), row.hold, records(world)) == (0, None, [])
    payout = world.simulator.payouts()[0]
    world.simulator.post(f"payouts/{payout['id']}/status", {"status": "processed"})
    assert world.step(withdrawal_id) == "completed"


# --- a provider that has two payouts, or has forgotten


@pytest.mark.failure(14)
def test_two_payouts_at_the_provider_for_one_reference_put_the_withdrawal_on_hold(world: World) -> None:
    world.credit()
    world.simulator.scenario("drop", next=1)
    withdrawal_id = world.request()
    world.step(withdrawal_id)
    body = bytes(world.attempts(withdrawal_id)[0].request_body)
    headers = {"Content-Type": "application/json", "X-Payout-Idempotency": "another-key-of-somebody"}
    auth = (KEY_ID, KEY_SECRET)
    url = f"{world.simulator.url}/v1/payouts"
    assert requests.post(url, data=body, headers=headers, auth=auth, timeout=10).status_code == 200
    world.simulator.post("advance", {"seconds": HOUR_SECONDS})
    world.sql("UPDATE payout_attempts SET sends = 9")  # no resend is left: it is looked up
    before = len(world.simulator.calls())
    for _ in range(4):
        assert world.step(withdrawal_id) == "processing"
    withdrawal = world.read(withdrawal_id)
    assert (withdrawal.status_reason, withdrawal.hold, withdrawal.utr) == ("in_review", "two_payouts", None)
    assert (len(world.simulator.calls()), world.refunds(withdrawal_id)) == (before, 0)
    both = {payout["id"] for payout in world.simulator.payouts()}
    [record] = records(world)
    assert {payout["payout_id"] for payout in record.theirs["payouts"]} == both and len(both) == 2
    # Someone else paid twice: the check at the end judges only what we did.
    world.simulator.post("reset", {})


@pytest.mark.failure(19)
def test_a_key_that_the_provider_has_forgotten_is_looked_up_and_not_sent_again(world: World) -> None:
    """After seven days the same key would pay again: look it up, and flag it if nothing answers."""
    world.credit()
    withdrawal_id = world.request(upi_id="drop@sim")
    world.step(withdrawal_id)
    world.simulator.post("advance", {"seconds": 8 * DAY_SECONDS})
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '8 days'")
    world.simulator.settings(lookups="500")
    for _ in range(6):
        assert world.step(withdrawal_id) == "processing"
    assert (len(world.simulator.calls()), world.refunds(withdrawal_id)) == (1, 0)
    assert [record.kind for record in records(world)] == ["unanswered"]
    world.simulator.settings(lookups="ok")
    assert world.finish(withdrawal_id) == "completed"
    assert (len(world.simulator.payouts()), records(world)) == (1, [])


# --- no money, no bank


@pytest.mark.failure(15)
def test_a_low_balance_is_reported_with_amounts_and_an_auto_cancelled_payout_refunds_once(
    world: World,
) -> None:
    world.credit()
    world.simulator.post("balance", {"paise": 2000})
    queued, paused = world.request(coins=500), world.request(coins=700)
    world.step(queued)
    tasks.watch.run()
    [low] = [record for record in records(world) if record.kind == "low_balance"]
    assert (low.ours, low.theirs) == (
        {"needed_paise": 12_000, "missing_paise": 10_000},
        {"available_paise": 2000},
    )
    world.step(paused, seconds=20)
    assert (world.read(queued).status_reason, world.read(paused).status_reason) == (
        "provider_queued",
        "paused",
    )
    assert (len(world.simulator.calls()), world.balance()) == (1, 800)
    payout = world.simulator.payouts()[0]
    world.simulator.post("advance", {"seconds": 90 * DAY_SECONDS})
    # "Queued payouts are auto-cancelled after 3 months", without a webhook (provider reference §5.2).
    world.simulator.post(f"payouts/{payout['id']}/status", {"status": "cancelled", "reason": None})
    assert world.finish(queued) == "failed"
    world.step(queued)
    assert (world.refunds(queued), world.balance()) == (1, 1300)
    assert len(world.attempts(queued)) == 1


@pytest.mark.failure(17)
def test_a_payout_to_an_offline_bank_is_retried_only_after_it_failed(
    world: World, client: FlaskClient
) -> None:
    world.credit()
    world.simulator.scenario("fail.beneficiary_psp_offline", next=1)
    withdrawal_id = world.request()

    def item() -> dict[str, Any]:
        query = {"withdrawal_id": str(withdrawal_id)}
        return dict(client.get(STATUS, query_string=query).get_json()["data"])

    world.step(withdrawal_id)
    assert (item()["status_reason"], len(world.attempts(withdrawal_id))) == ("bank_processing", 1)
    world.simulator.post("advance", {"seconds": HOUR_SECONDS})
    world.step(withdrawal_id)
    assert item()["status_message"] == "The payment could not be made now. We retry it later."
    assert item()["expected_by"]
    assert [attempt.state for attempt in world.attempts(withdrawal_id)] == ["failed"]
    assert world.finish(withdrawal_id) == "completed"
    keys = [payout["idempotency_key"] for payout in world.simulator.payouts()]
    assert (len(keys), len(set(keys)), len(world.simulator.live_payouts())) == (2, 2, 1)


@pytest.mark.failure(17)
def test_users_of_a_paused_handle_see_why_they_wait(world: World, client: FlaskClient) -> None:
    world.credit()
    for number in range(5):
        world.simulator.scenario("fail.beneficiary_psp_offline", vpa=f"asha{number}@okaxis")
        withdrawal_id = world.request(coins=100, upi_id=f"asha{number}@okaxis")
        world.step(withdrawal_id)
        world.simulator.post("advance", {"seconds": HOUR_SECONDS})
        world.step(withdrawal_id)
    paused = world.request(coins=100, upi_id="ravi@okaxis")
    world.step(paused, seconds=20)
    item = client.get(STATUS, query_string={"withdrawal_id": str(paused)}).get_json()["data"]
    assert (item["status"], item["status_reason"]) == ("pending", "handle_paused")
    assert item["status_message"].startswith("Your UPI app's bank has problems")


# --- fairness


@pytest.mark.failure(16)
def test_a_user_with_five_thousand_withdrawals_does_not_delay_a_user_with_one(world: World) -> None:
    """The sweep puts the first ten of each user into the shared queue and the others into the backlog."""
    many = insert_backlog(_database(), users=1, each=5000, name="many")
    [single] = insert_backlog(_database(), users=1, each=1, name="one")
    swept = withdrawals.sweep()
    waiting = {queue: _waiting(queue) for queue in (PAYOUTS, BACKLOG)}
    assert settings().payouts_per_user == 10
    assert waiting[PAYOUTS] == [*many[:10], single]  # the longest due first
    assert waiting[BACKLOG] == many[10 : 10 + settings().sweep_batch]
    assert swept.submits == 11 + settings().sweep_batch


def _waiting(queue: str) -> list[str]:
    """The withdrawals in a queue, the next one first."""
    messages = reversed(redis_broker.client().lrange(queue, 0, -1))
    return [key for message in messages for key in json.loads(b64decode(json.loads(message)["body"]))[0]]


# --- people, beside workers and webhooks


@pytest.mark.failure(21)
def test_a_decision_concurrent_with_a_report_never_refunds_and_pays(world: World) -> None:
    world.credit(coins=20_000)
    endings: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as threads:
        for number in range(16):
            send = in_doubt(world)
            proposal = withdrawals.propose(
                send.withdrawal_id, Decision.REFUND, evidence="asked RazorpayX", actor=ASHA
            )
            payout = payout_of(send, "processed", id=f"pout_000000000000{number:02}")
            calls = [(_approve, proposal.id), (world.receive_report, payout)]
            # Alternate who starts first; the first two rounds do not race, so that each side wins once.
            race = []
            for call in calls if number % 2 else reversed(calls):
                race.append(threads.submit(*call))
                if number < 2:
                    race[-1].result()
            approved, effect = (future.result() for future in (race if number % 2 else reversed(race)))
            status = world.read(send.withdrawal_id).status
            assert (approved, effect, status, world.refunds(send.withdrawal_id)) in (
                (True, "conflict", "failed", 1),
                (False, "pay", "completed", 0),
            )
            endings[status] += 1
            with transaction() as session:
                # The report after a refund froze the wallet; unfreeze it for the next round.
                assert blocks.is_frozen(session, "user123") == (status == "failed")
                if status == "failed":
                    unfreeze = blocks.propose_unfreeze(session, "user123", reason="seen", actor=ASHA)
                    blocks.approve(session, unfreeze.id, actor=RAVI)
    assert endings["failed"] and endings["completed"]


def _approve(resolution: UUID) -> bool:
    try:
        withdrawals.approve(resolution, actor=RAVI)
    except PayoutsError:
        return False
    return True


@pytest.mark.failure(22)
@pytest.mark.parametrize("change", ["amount_paise = 5100", "upi_id = 'mallory@bank'"])
def test_an_approval_is_refused_if_the_amount_or_upi_id_changed(world: World, change: str) -> None:
    """The database refuses such a change; here it bypasses the triggers."""
    world.credit()
    send = in_doubt(world)
    proposal = withdrawals.propose(
        send.withdrawal_id, Decision.REFUND, evidence="asked RazorpayX", actor=ASHA
    )
    world.sql_without_rules(f"UPDATE withdrawals SET {change}")
    with pytest.raises(Conflict, match="Something has changed"):
        withdrawals.approve(proposal.id, actor=RAVI)
    assert world.refunds(send.withdrawal_id) == 0
    world.broken_on_purpose = True


# --- clocks and versions


@pytest.mark.failure(23)
@pytest.mark.parametrize("ahead_seconds", [-DAY_SECONDS, DAY_SECONDS])
def test_a_worker_with_a_wrong_clock_uses_the_databases_time(
    world: World, monkeypatch: pytest.MonkeyPatch, ahead_seconds: int
) -> None:
    world.credit()
    withdrawal_id = world.request()
    real_time = time.time
    monkeypatch.setattr(time, "time", lambda: real_time() + ahead_seconds)
    assert claim(withdrawal_id) is None
    world.advance(11)
    assert claim(withdrawal_id) is not None
    assert claim(withdrawal_id) is None  # it is leased


@pytest.mark.failure(24)
def test_an_old_worker_does_not_pay_while_an_attempt_is_in_a_state_unknown_to_it(
    world: World,
) -> None:
    """A newer version migrated the database and put an attempt into a state of its own."""
    world.credit()
    send = in_doubt(world)
    world.sql("ALTER TABLE payout_attempts DROP CONSTRAINT ck_payout_attempts_state")
    world.sql("ALTER TABLE payout_attempts DROP CONSTRAINT ck_payout_attempts_ended_iff_not_live")
    world.sql("DROP INDEX uq_one_live_attempt_per_withdrawal")
    world.sql(
        "CREATE UNIQUE INDEX uq_one_live_attempt_per_withdrawal ON payout_attempts (withdrawal_id)"
        " WHERE state NOT IN ('refused', 'failed', 'reversed')"
    )
    world.sql("UPDATE payout_attempts SET state = 'parked'")
    world.advance()
    with pytest.raises(IntegrityError, match="uq_one_live_attempt_per_withdrawal"):
        tasks.submit_withdrawal.run(str(send.withdrawal_id))
    assert world.simulator.calls() == []
    row = world.read(send.withdrawal_id)
    assert (row.status, world.refunds(send.withdrawal_id)) == ("processing", 0)
    assert world.story(send.withdrawal_id)[-1] == "worker_error"


@pytest.mark.failure(24)
def test_an_old_worker_ignores_a_withdrawal_with_a_status_unknown_to_it(
    world: World, client: FlaskClient
) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.sql("ALTER TABLE withdrawals DROP CONSTRAINT ck_withdrawals_status")
    world.sql("ALTER TABLE withdrawals DROP CONSTRAINT ck_withdrawals_due_iff_not_final")
    world.sql_without_rules("UPDATE withdrawals SET status = 'on_hold', due_at = now() - interval '1 hour'")
    assert claim(withdrawal_id) is None
    assert withdrawals.sweep().submits == 0
    with pytest.raises(PayoutsError, match="Cannot cancel"):
        withdrawals.cancel(withdrawal_id, reason="now", actor="app:test")
    answer = client.get(STATUS, query_string={"withdrawal_id": str(withdrawal_id)})
    assert (answer.status_code, answer.get_json()["data"]["status"]) == (200, "on_hold")
    assert world.balance() == 1500
    world.broken_on_purpose = True


def _database() -> str:
    return settings().database_url.get_secret_value().replace("+psycopg", "", 1)
