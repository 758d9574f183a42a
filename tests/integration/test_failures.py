"""Failures to survive that need no killed process: a provider that lies, words that come late, people who race."""

import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
import requests
from flask.testing import FlaskClient
from sqlalchemy.exc import IntegrityError

from shared import blocks, db, exception_records, inbox, queues, withdrawals
from shared.errors import Conflict, PayoutsError
from shared.ids import attempt_id
from shared.models import ExceptionRecord
from shared.razorpayx.answers import Unknown
from shared.razorpayx.client import RazorpayX
from shared.settings import settings
from shared.states import Decision
from shared.steps import Send
from shared.withdrawals import claim, record_answer
from tests.crowd import crowd
from tests.integration.app import STATUS
from tests.simulator import KEY_ID, KEY_SECRET
from tests.world import World, sign
from worker import tasks

pytestmark = pytest.mark.usefixtures("people")

HOOK = "/api/razorpay/webhook/"
ASHA, RAVI = "operator:asha", "operator:ravi"
HOUR, DAY = 3600, 86_400


def records(world: World) -> list[ExceptionRecord]:
    """What an operator finds to look at."""
    with db.transaction() as session:
        return exception_records.listing(session)


def payout_of(send: Send, status: str, **about: Any) -> dict[str, Any]:
    """What a webhook says of the send's payout."""
    entity = {"id": "pout_00000000000009", "amount": 5000, "reference_id": str(send.attempt_id)}
    return {**entity, "status": status, **about}


def deliver(client: FlaskClient, event_id: str, event: str, payout: dict[str, Any]) -> int:
    """Bring a signed webhook to our door; what it was answered."""
    body = json.dumps({"event": event, "payload": {"payout": {"entity": payout}}}).encode()
    headers = {"X-Razorpay-Signature": sign(body), "X-Razorpay-Event-Id": event_id}
    return client.post(HOOK, data=body, headers=headers).status_code


def outcome(world: World, event_id: str) -> str | None:
    """What became of a webhook that was kept."""
    rows = world.sql("SELECT outcome FROM webhook_events WHERE event_id = :id", id=event_id)
    return str(rows[0].outcome) if rows and rows[0].outcome else None


def in_doubt(world: World) -> Send:
    """A withdrawal that was sent and of which nobody knows how it ended."""
    send = world.first_send()
    record_answer(send, Unknown("the wire broke"))
    return send


# --- nothing found for the documented hour


@pytest.mark.failure(2)
def test_a_webhook_after_the_hour_of_none_is_kept_and_a_person_decides(
    world: World, client: FlaskClient
) -> None:
    world.simulator.scenario("500.always", default=True)
    world.credit()
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=11)
    assert (world.read(withdrawal_id).status, world.refunds(withdrawal_id)) == ("processing", 0)
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '61 minutes'")
    assert world.step(withdrawal_id) == "failed"
    late = world.arrives_after_all(withdrawal_id)
    assert deliver(client, "ev_late", "payout.processed", late) == 200
    assert inbox.apply("ev_late") == "hinted"
    assert world.read(withdrawal_id).review is None  # nobody is called by a webhook's word
    world.bring_on(withdrawal_id)
    assert world.read(withdrawal_id).review == "processed_after_refused"
    record = records(world)[0]
    assert (record.kind, record.ours["status"], record.theirs["payout_id"]) == (
        "processed_after_refused", "failed", late["id"],
    )  # fmt: skip
    world.finish(withdrawal_id, steps=3)
    assert (world.read(withdrawal_id).status, world.balance(), world.refunds(withdrawal_id)) == (
        "failed", 2000, 1,
    )  # fmt: skip
    # Paid and refunded: what the promises are asked of is what we did.
    world.simulator.post("reset", {})


# --- webhooks in any order


@pytest.mark.failure(8, 9, 13)
def test_five_hundred_webhooks_in_random_order_change_each_payout_once(world: World) -> None:
    """What the provider really did with 50 payouts, its last word told again and again, shuffled by a seed."""
    events = [event for payout in _ended_payouts(world, 50) for event in _told_of(payout)]
    assert len(events) == 500
    random.Random(20_261_123).shuffle(events)
    with ThreadPoolExecutor(4) as threads:
        effects = Counter(threads.map(lambda told: world.webhook(told[1], told[2], told[0]), events))
    assert effects.total() == 500 and effects["late"] and effects["repeat"]
    _answer_all_hints(world)
    assert world.sql("SELECT count(*) AS n FROM webhook_events WHERE applied_at IS NOT NULL")[0].n == 500
    theirs = {payout["reference_id"]: payout["status"] for payout in world.simulator.payouts()}
    rows = world.sql(
        "SELECT a.id::text AS id, w.status FROM payout_attempts a JOIN withdrawals w ON w.id = withdrawal_id"
    )
    ours = {row.id: row.status for row in rows}
    assert ours == {one: "completed" if status == "processed" else "failed" for one, status in theirs.items()}
    moves = "SELECT count(*) AS n FROM withdrawal_events WHERE to_status = :to AND from_status <> to_status"
    for status in ("completed", "failed"):
        assert {row.n for row in world.sql(f"{moves} GROUP BY withdrawal_id", to=status)} == {1}


def _ended_payouts(world: World, number: int) -> list[dict[str, Any]]:
    """Accepted, and ended at the provider in every way, before we heard of any of it."""
    ids = crowd(_database(), users=1, each=number, upi_id="asha@okaxis")
    for kind in ("queued", "pending", "reversed", "rejected", "fail.bank_account_closed"):
        world.simulator.scenario(kind, next=number // 5)
    provider = RazorpayX(settings())
    for one in map(UUID, ids):
        step = claim(one)
        while not isinstance(step, Send):
            assert step is not None
            step = record_answer(step, provider.perform(step))
        record_answer(step, provider.perform(step))
    world.simulator.post("advance", {"seconds": HOUR})
    return world.simulator.payouts()


def _answer_all_hints(world: World) -> None:
    """Workers ask whatever the webhooks made them ask."""
    while hinted := world.sql("SELECT withdrawal_id FROM hints WHERE due_at IS NOT NULL"):
        world.advance()
        for row in hinted:
            world.bring_on(row.withdrawal_id)


def _told_of(payout: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """The events of one payout, filled up to ten with what it says last: an id, a name and what it says."""
    said = [(one["status"], one["reason"]) for one in payout["history"]]
    said += [said[-1]] * (10 - len(said))
    entity = {key: payout[key] for key in ("id", "amount", "reference_id", "utr")}
    return [
        (
            f"{payout['id']}-{number}",
            f"payout.{status}",
            {**entity, "status": status, "status_details": {"reason": reason}},
        )
        for number, (status, reason) in enumerate(said)
    ]


@pytest.mark.failure(13)
def test_a_foreign_event_is_kept_unmatched_and_changes_nothing(world: World, client: FlaskClient) -> None:
    world.credit()
    send = world.first_send()
    before = world.story(send.withdrawal_id)
    foreign = {"id": "pout_foreign0000001", "amount": 5000, "reference_id": "order-17", "status": "failed"}
    assert deliver(client, "ev_foreign", "payout.failed", foreign) == 200
    assert inbox.apply("ev_foreign") == "unmatched"
    assert (world.story(send.withdrawal_id), world.balance()) == (before, 1500)


@pytest.mark.failure(13)
def test_an_unmatched_event_counts_once_its_reference_appears(world: World, client: FlaskClient) -> None:
    """The database was restored to yesterday: the provider speaks of an attempt that we are about to make."""
    world.credit()
    withdrawal_id = world.request(upi_id="never@sim")
    reference = str(attempt_id(withdrawal_id, 1))
    told = {"id": "pout_00000000000009", "amount": 5000, "reference_id": reference, "status": "processed"}
    assert deliver(client, "ev_early", "payout.processed", told) == 200
    assert inbox.apply("ev_early") == "unmatched"
    world.advance()
    step = claim(withdrawal_id)
    assert step is not None
    send = record_answer(step, world.perform(step))
    assert isinstance(send, Send) and str(send.attempt_id) == reference
    assert outcome(world, "ev_early") is None  # it waits to be read again
    assert inbox.apply("ev_early") == "hinted"
    world.bring_on(withdrawal_id)
    assert world.story(withdrawal_id)[-1] == "asked:no_payout"  # it was only said
    assert (world.read(withdrawal_id).status, world.simulator.payouts()) == ("processing", [])


# --- what the bank does days later


@pytest.mark.failure(10)
@pytest.mark.parametrize("first", ["processed", "failed"])
def test_a_reversal_gives_the_coins_back_once_linked_to_what_they_were_for(
    world: World, client: FlaskClient, first: str
) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, world.perform(send))
    payout = world.simulator.payouts()[0]
    entity = {key: payout[key] for key in ("id", "amount", "reference_id")}
    reason = {"status_details": {"reason": "bank_account_closed"}}
    for number, status in enumerate((first, "reversed", "reversed")):
        world.simulator.post("advance", {"seconds": 3 * DAY})
        why = "bank_account_closed" if status == "failed" else None
        world.simulator.post(f"payouts/{payout['id']}/status", {"status": status, "reason": why})
        deliver(client, f"ev_{number}", f"payout.{status}", {**entity, "status": status, **reason})
        assert inbox.apply(f"ev_{number}") is not None
        world.bring_on(send.withdrawal_id)
    lines = world.sql("SELECT kind, coins, withdrawal_id FROM coin_transactions WHERE kind = 'refund'")
    assert [(line.coins, line.withdrawal_id) for line in lines] == [(500, send.withdrawal_id)]
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
def test_a_bank_that_needs_three_working_days_is_waited_for_in_peace(
    world: World, client: FlaskClient
) -> None:
    world.credit()
    withdrawal_id = world.request(upi_id="never@sim")
    world.step(withdrawal_id)
    world.step(withdrawal_id)
    promised = world.read(withdrawal_id).expected_by
    for _ in range(12):
        assert world.step(withdrawal_id, seconds=6 * HOUR) == "processing"
        world.simulator.post("advance", {"seconds": 6 * HOUR})
    item = client.get(STATUS, query_string={"withdrawal_id": str(withdrawal_id)}).get_json()["data"]
    assert item["status_message"] == "The bank is processing the payment."
    row = world.read(withdrawal_id)
    assert promised is not None and row.expected_by == promised
    assert 3 * DAY < (promised - row.created_at).total_seconds() < 6 * DAY
    assert (len(world.simulator.calls()), len(world.attempts(withdrawal_id))) == (1, 1)
    assert (world.refunds(withdrawal_id), row.review, records(world)) == (0, None, [])
    payout = world.simulator.payouts()[0]
    world.simulator.post(f"payouts/{payout['id']}/status", {"status": "processed"})
    assert world.step(withdrawal_id) == "completed"


# --- a provider that has two payouts, or has forgotten


@pytest.mark.failure(14)
def test_a_provider_with_two_payouts_for_one_reference_stops_it_for_a_person(world: World) -> None:
    world.credit()
    world.simulator.scenario("drop", next=1)
    withdrawal_id = world.request()
    world.step(withdrawal_id)
    body = bytes(world.attempts(withdrawal_id)[0].request_body)
    headers = {"Content-Type": "application/json", "X-Payout-Idempotency": "another-key-of-somebody"}
    auth = (KEY_ID, KEY_SECRET)
    url = f"{world.simulator.url}/v1/payouts"
    assert requests.post(url, data=body, headers=headers, auth=auth, timeout=10).status_code == 200
    world.simulator.post("advance", {"seconds": HOUR})
    world.sql("UPDATE payout_attempts SET sends = 9")  # it was sent as often as it may: now it is looked up
    before = len(world.simulator.calls())
    for _ in range(4):
        assert world.step(withdrawal_id) == "processing"
    held = world.read(withdrawal_id)
    assert (held.status_reason, held.review, held.utr) == ("in_review", "two_payouts", None)
    assert (len(world.simulator.calls()), world.refunds(withdrawal_id)) == (before, 0)
    both = {payout["id"] for payout in world.simulator.payouts()}
    [record] = records(world)
    assert {one["payout_id"] for one in record.theirs["payouts"]} == both and len(both) == 2
    # Paid twice by somebody else's hand: what the promises are asked of is what we did.
    world.simulator.post("reset", {})


@pytest.mark.failure(19)
def test_a_key_that_the_provider_has_forgotten_is_not_sent_again(world: World) -> None:
    """After seven days the same key would pay a second time: look it up, and if nobody answers ask a person."""
    world.credit()
    withdrawal_id = world.request(upi_id="drop@sim")
    world.step(withdrawal_id)
    world.simulator.post("advance", {"seconds": 8 * DAY})
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
def test_want_of_money_is_told_with_its_sum_and_the_providers_own_end_of_it_refunds_once(
    world: World,
) -> None:
    world.credit()
    world.simulator.post("balance", {"paise": 2000})
    queued, waits = world.request(coins=500), world.request(coins=700)
    world.step(queued)
    tasks.watch.run()
    [low] = [record for record in records(world) if record.kind == "low_balance"]
    assert (low.ours, low.theirs) == (
        {"needed_paise": 12_000, "missing_paise": 10_000},
        {"available_paise": 2000},
    )
    world.step(waits, seconds=20)
    assert (world.read(queued).status_reason, world.read(waits).status_reason) == (
        "provider_queued",
        "paused",
    )
    assert (len(world.simulator.calls()), world.balance()) == (1, 800)
    payout = world.simulator.payouts()[0]
    world.simulator.post("advance", {"seconds": 90 * DAY})
    # "Queued payouts are auto-cancelled after 3 months": no webhook tells of it (razorpayx.md §5.2).
    world.simulator.post(f"payouts/{payout['id']}/status", {"status": "cancelled", "reason": None})
    assert world.finish(queued) == "failed"
    world.step(queued)
    assert (world.refunds(queued), world.balance()) == (1, 1300)
    assert len(world.attempts(queued)) == 1


@pytest.mark.failure(17)
def test_a_users_bank_that_is_away_is_told_to_them_and_tried_anew_only_after_it_failed(
    world: World, client: FlaskClient
) -> None:
    world.credit()
    world.simulator.scenario("fail.beneficiary_psp_offline", next=1)
    withdrawal_id = world.request()

    def told() -> dict[str, Any]:
        query = {"withdrawal_id": str(withdrawal_id)}
        return dict(client.get(STATUS, query_string=query).get_json()["data"])

    world.step(withdrawal_id)
    assert (told()["status_reason"], len(world.attempts(withdrawal_id))) == ("bank_processing", 1)
    world.simulator.post("advance", {"seconds": HOUR})
    world.step(withdrawal_id)
    assert told()["status_message"] == "The payment could not be made now; it is tried again later."
    assert told()["expected_by"]
    assert [attempt.state for attempt in world.attempts(withdrawal_id)] == ["failed"]
    assert world.finish(withdrawal_id) == "completed"
    keys = [payout["idempotency_key"] for payout in world.simulator.payouts()]
    assert (len(keys), len(set(keys)), len(world.simulator.live_payouts())) == (2, 2, 1)


@pytest.mark.failure(17)
def test_a_handle_that_waits_for_its_bank_says_so_to_its_users(world: World, client: FlaskClient) -> None:
    world.credit()
    for number in range(5):
        world.simulator.scenario("fail.beneficiary_psp_offline", vpa=f"asha{number}@okaxis")
        withdrawal_id = world.request(coins=100, upi_id=f"asha{number}@okaxis")
        world.step(withdrawal_id)
        world.simulator.post("advance", {"seconds": HOUR})
        world.step(withdrawal_id)
    waits = world.request(coins=100, upi_id="ravi@okaxis")
    world.step(waits, seconds=20)
    item = client.get(STATUS, query_string={"withdrawal_id": str(waits)}).get_json()["data"]
    assert (item["status"], item["status_reason"]) == ("pending", "handle_paused")
    assert item["status_message"].startswith("Your UPI app's bank has problems")


# --- fairness


@pytest.mark.failure(16)
def test_one_user_with_five_thousand_does_not_starve_another_with_one(world: World) -> None:
    """The sweep puts everybody's first few into the queue that all share, the others behind it."""
    many = crowd(_database(), users=1, each=5000, name="many")
    [one] = crowd(_database(), users=1, each=1, name="one")
    swept = withdrawals.sweep()
    waiting = {queue: _waiting(queue) for queue in (queues.PAYOUTS, queues.BACKLOG)}
    assert settings().payouts_per_user == 10
    assert waiting[queues.PAYOUTS] == [*many[:10], one]  # the longest due first
    assert waiting[queues.BACKLOG] == many[10 : 10 + settings().sweep_batch]
    assert swept.submits == 11 + settings().sweep_batch


def _waiting(queue: str) -> list[str]:
    """The withdrawals of the messages in a queue, the next one first."""
    messages = reversed(queues.broker().lrange(queue, 0, -1))
    return [json.loads(message)["headers"]["argsrepr"].strip("['],()") for message in messages]


# --- people, beside workers and webhooks


@pytest.mark.failure(21)
def test_a_decision_that_races_news_never_both_refunds_and_pays(world: World) -> None:
    world.credit(coins=20_000)
    won: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as threads:
        for number in range(16):
            send = in_doubt(world)
            made = withdrawals.propose(
                send.withdrawal_id, Decision.REFUND, evidence="asked RazorpayX", actor=ASHA
            )
            told = payout_of(send, "processed", id=f"pout_000000000000{number:02}")
            both = [(_approved, made.id), (world.hears, told)]
            # Either has its turn to be first, and each once without a race, so that each has won.
            race = []
            for one in both if number % 2 else reversed(both):
                race.append(threads.submit(*one))
                if number < 2:
                    race[-1].result()
            approved, effect = (one.result() for one in (race if number % 2 else reversed(race)))
            status = world.read(send.withdrawal_id).status
            assert (approved, effect, status, world.refunds(send.withdrawal_id)) in (
                (True, "conflict", "failed", 1),
                (False, "pay", "completed", 0),
            )
            won[status] += 1
            with db.transaction() as session:
                # The news after a refund froze the wallet; without it nothing is asked for anew.
                assert blocks.is_frozen(session, "user123") == (status == "failed")
                if status == "failed":
                    ended = blocks.propose_unfreeze(session, "user123", reason="seen", actor=ASHA)
                    blocks.approve(session, ended.id, actor=RAVI)
    assert won["failed"] and won["completed"]


def _approved(resolution: UUID) -> bool:
    try:
        withdrawals.approve(resolution, actor=RAVI)
    except PayoutsError:
        return False
    return True


@pytest.mark.failure(22)
@pytest.mark.parametrize("change", ["amount_paise = 5100", "upi_id = 'mallory@bank'"])
def test_an_approval_of_another_amount_or_upi_id_is_refused(world: World, change: str) -> None:
    """The database refuses such a change; here somebody made it past the database's rules."""
    world.credit()
    send = in_doubt(world)
    made = withdrawals.propose(send.withdrawal_id, Decision.REFUND, evidence="asked RazorpayX", actor=ASHA)
    world.sql_without_rules(f"UPDATE withdrawals SET {change}")
    with pytest.raises(Conflict, match="Something has changed"):
        withdrawals.approve(made.id, actor=RAVI)
    assert world.refunds(send.withdrawal_id) == 0
    world.broken_on_purpose = True


# --- clocks and versions


@pytest.mark.failure(23)
@pytest.mark.parametrize("ahead_seconds", [-DAY, DAY])
def test_a_worker_with_a_wrong_clock_keeps_the_databases_time(
    world: World, monkeypatch: pytest.MonkeyPatch, ahead_seconds: int
) -> None:
    world.credit()
    withdrawal_id = world.request()
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + ahead_seconds)
    assert claim(withdrawal_id) is None
    world.advance(11)
    assert claim(withdrawal_id) is not None
    assert claim(withdrawal_id) is None  # under its lease


@pytest.mark.failure(24)
def test_an_old_worker_does_not_pay_beside_an_attempt_in_a_state_that_it_does_not_know(
    world: World,
) -> None:
    """A newer version has migrated the database, and put an attempt into a state of its own."""
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
def test_an_old_worker_leaves_a_withdrawal_alone_whose_status_it_does_not_know(
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
