"""A webhook is a hint: whatever it reports, only the answer to our own query moves coins or ends a withdrawal."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from shared import ids, withdrawals
from shared.db.transactions import transaction
from shared.people import exception_records
from shared.providers import rate_limit
from shared.providers.answers import Accepted, Refused, Throttled, Unknown
from shared.providers.razorpayx.answers import build_report as report_of
from shared.providers.steps import LookUp, Poll
from shared.queues import redis_broker
from shared.queues.names import POLLS
from shared.states import Decision
from tests.support import steps
from tests.support.steps import record_answer
from tests.support.world import World

STATUSES = ("processing", "processed", "failed", "reversed", "rejected", "cancelled")
INVENTED = "pout_invented0000001"
# Everything that a webhook could change, except its own row, its hint and the event about it.
SNAPSHOT = """
    SELECT (SELECT json_agg(w) FROM (SELECT id, status, status_reason, hold, utr, due_at, expected_by, failure_reason
              FROM withdrawals ORDER BY id) w) AS withdrawals,
           (SELECT json_agg(a) FROM (SELECT * FROM payout_attempts ORDER BY id) a) AS attempts,
           (SELECT json_agg(w) FROM (SELECT user_id, balance_coins, is_frozen FROM wallets ORDER BY 1) w) AS wallets,
           (SELECT json_agg(s) FROM (SELECT name, is_on, strikes FROM switches ORDER BY 1) s) AS switches,
           (SELECT count(*) FROM coin_transactions) AS lines, (SELECT count(*) FROM exception_records) AS records
"""


def pending(world: World) -> UUID:
    return world.request()


def cancelled(world: World) -> UUID:
    withdrawal_id = world.request()
    withdrawals.cancel(withdrawal_id, reason="changed my mind", actor="app:test")
    return withdrawal_id


def sending(world: World) -> UUID:
    return world.first_send().withdrawal_id


def throttled(world: World) -> UUID:
    send = world.first_send()
    record_answer(send, Throttled("busy", "429"))
    return send.withdrawal_id


def unknown(world: World) -> UUID:
    """The payout arrived, and the reply is lost."""
    send = world.first_send()
    world.perform(send)
    record_answer(send, Unknown("the wire broke"))
    return send.withdrawal_id


def accepted(world: World) -> UUID:
    send = world.first_send()
    record_answer(send, world.perform(send))
    return send.withdrawal_id


def refused(world: World) -> UUID:
    send = world.first_send()
    record_answer(send, Refused("bank_account_closed", "no", 400))
    return send.withdrawal_id


def ended_at_the_provider(*statuses: str, reason: str | None = None) -> Callable[[World], UUID]:
    """A payout with these statuses, each reported by our own polls."""

    def create(world: World) -> UUID:
        withdrawal_id = accepted(world)
        for status in statuses:
            status_reason = reason if status == "failed" else None
            world.receive_report(
                world.set_status(world.attempts(withdrawal_id)[0].payout_id, status, status_reason)
            )
        return withdrawal_id

    return create


def on_hold(world: World) -> UUID:
    withdrawal_id = accepted(world)
    [attempt] = world.attempts(withdrawal_id)
    other = {"id": "pout_00000000000077", "amount": 5000, "reference_id": str(attempt.id)}
    assert world.receive_report({**other, "status": "processing"}, "lookup") == "conflict"
    return withdrawal_id


STATES = {
    "pending": pending,
    "sending": sending,
    "throttled": throttled,
    "unknown": unknown,
    "accepted": accepted,
    "paid": ended_at_the_provider("processed"),
    "failed, to be tried anew": ended_at_the_provider("failed", reason="beneficiary_psp_offline"),
    "failed": ended_at_the_provider("failed", reason="bank_account_closed"),
    "refused": refused,
    "reversed": ended_at_the_provider("processed", "reversed"),
    "cancelled": cancelled,
    "on hold": on_hold,
}


def forge_webhook(
    world: World, withdrawal_id: UUID, payout_id: str, status: str, **changes: Any
) -> str | None:
    """Apply a forged but signed webhook about the withdrawal's first attempt; returns the outcome."""
    reference = str(ids.attempt_id(withdrawal_id, 1))
    payout = {"id": payout_id, "amount": 5000, "reference_id": reference, "status": status, "utr": "4" * 12}
    payout |= {"status_details": {"reason": "beneficiary_psp_offline"}, "fees": 7, **changes}
    return world.webhook(f"payout.{status}", payout, str(ids.new_id()))


def count_queries(world: World) -> int:
    """How often the provider was queried for payouts or lists of them."""
    calls = world.simulator.get("calls")["items"]
    return sum(call["method"] == "GET" and call["path"].startswith("/v1/payouts") for call in calls)


def work_on_all_hints(world: World) -> None:
    """Make every query that a hint asked for, as time passes."""
    due = "UPDATE hints SET due_at = now() WHERE due_at IS NOT NULL RETURNING withdrawal_id"
    while hinted := world.sql(due):
        for hint in hinted:
            world.bring_on(hint.withdrawal_id)


def kinds(world: World) -> list[str]:
    with transaction() as session:
        return [record.kind for record in exception_records.listing(session)]


@pytest.mark.parametrize("state", STATES)
def test_a_webhook_alone_moves_no_coins(world: World, state: str) -> None:
    """The attack: someone who has the secret reports anything about a known, invented or foreign payout."""
    world.simulator.scenario("never", default=True)
    world.credit(coins=5000)
    foreign = world.attempts(accepted(world))[0].payout_id
    withdrawal_id = STATES[state](world)
    known_payouts = world.simulator.payouts(str(ids.attempt_id(withdrawal_id, 1)))
    known = known_payouts[0]["id"] if known_payouts else "pout_unknown00000001"
    before = world.sql(SNAPSHOT)
    queries = count_queries(world)
    for payout_id in (known, INVENTED, foreign):
        for status in STATUSES:
            if (state, payout_id, status) != ("accepted", known, "processed"):  # the next test covers this
                forge_webhook(world, withdrawal_id, payout_id, status)
                assert world.sql(SNAPSHOT) == before, f"{status}, {payout_id}"
    forge_webhook(world, withdrawal_id, known, "processed", amount=4999)
    forge_webhook(world, withdrawal_id, known, "failed", reference_id=None)
    assert world.sql(SNAPSHOT) == before
    assert count_queries(world) == queries
    # Now we query the provider, and it reports the true status.
    work_on_all_hints(world)
    assert count_queries(world) - queries <= 4
    [earlier] = before
    [later] = world.sql(SNAPSHOT)
    assert (later.wallets, later.switches, later.lines, later.records) == (
        earlier.wallets, earlier.switches, earlier.lines, earlier.records,
    )  # fmt: skip
    columns = ("id", "status", "hold", "utr", "failure_reason")
    assert [[row[name] for name in columns] for row in later.withdrawals] == [
        [row[name] for name in columns] for row in earlier.withdrawals
    ]
    if state != "unknown":  # there our own query has now found its payout
        assert [(row["id"], row["state"], row["payout_id"]) for row in later.attempts] == [
            (row["id"], row["state"], row["payout_id"]) for row in earlier.attempts
        ]


def test_a_processed_webhook_completes_a_payout_known_from_our_call_and_is_confirmed(world: World) -> None:
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    payout = world.set_status(payout_id, "processed")
    assert world.webhook("payout.processed", {**payout, "utr": "400000000000"}, "event-1") == "pay"
    row = world.read(withdrawal_id)
    [attempt] = world.attempts(withdrawal_id)
    assert (row.status, row.utr, attempt.state, attempt.unconfirmed) == (
        "completed", "400000000000", "paid", True,
    )  # fmt: skip
    seconds = world.sql("SELECT extract(epoch FROM recheck_at - now())::int AS s FROM payout_attempts")[0].s
    assert 60 < seconds <= 120
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    assert isinstance(steps.claim(withdrawal_id), Poll)  # its worker dies
    assert steps.claim(withdrawal_id) is None  # until the lease expires
    world.sql("UPDATE payout_attempts SET recheck_at = recheck_at - interval '90 seconds'")
    world.bring_on(withdrawal_id)
    row = world.read(withdrawal_id)
    [attempt] = world.attempts(withdrawal_id)
    assert (row.status, row.utr, attempt.utr, attempt.unconfirmed) == (
        "completed", payout["utr"], payout["utr"], False,
    )  # fmt: skip
    assert (world.story(withdrawal_id)[-1], kinds(world)) == ("confirmed", [])


@pytest.mark.parametrize(("truth", "records"), [("failed", ["webhook_untrue"]), ("reversed", [])])
def test_our_own_query_corrects_a_forged_processed_webhook(
    world: World, truth: str, records: list[str]
) -> None:
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    assert forge_webhook(world, withdrawal_id, payout_id, "processed") == "pay"
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    world.bring_on(withdrawal_id)  # the provider reports processing
    row = world.read(withdrawal_id)
    [attempt] = world.attempts(withdrawal_id)
    assert (row.status, attempt.unconfirmed, kinds(world)) == ("completed", True, ["not_confirmed"])
    seconds = world.sql("SELECT extract(epoch FROM recheck_at - now())::int AS s FROM payout_attempts")[0].s
    assert 60 < seconds <= 120  # it is queried again until it is certain
    payout = world.set_status(payout_id, truth, "bank_account_closed" if truth == "failed" else None)
    assert world.webhook(f"payout.{truth}", payout, "event-2") == "hinted"
    world.bring_on(withdrawal_id)
    row = world.read(withdrawal_id)
    assert (row.status, world.refunds(withdrawal_id), world.balance()) == ("failed", 1, 2000)
    assert kinds(world) == records
    messages = {
        "failed": "The bank account behind this UPI id is closed.",
        "reversed": "Your bank sent the payment back.",
    }
    assert row.failure_reason == messages[truth]


def test_a_true_failure_webhook_refunds_at_once_after_one_query(world: World) -> None:
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    payout = world.set_status(world.attempts(withdrawal_id)[0].payout_id, "failed", "bank_account_closed")
    before = count_queries(world)
    assert world.webhook("payout.failed", payout, "event-1") == "hinted"
    assert (world.refunds(withdrawal_id), redis_broker.depth(POLLS)) == (0, 1)
    world.bring_on(withdrawal_id)  # the message of the hint; the scheduled poll is due a minute later
    assert (world.read(withdrawal_id).status, world.refunds(withdrawal_id), world.balance()) == (
        "failed", 1, 2000,
    )  # fmt: skip
    assert count_queries(world) == before + 1
    assert "hinted" in world.story(withdrawal_id)


def test_a_webhook_before_the_reply_triggers_a_look_up_by_reference(world: World) -> None:
    """The webhook arrives before the reply to the create."""
    world.simulator.scenario("never", default=True)
    world.credit()
    send = world.first_send()
    reply = world.perform(send)
    payout = world.set_status(world.simulator.payouts()[0]["id"], "processed")
    assert world.webhook("payout.processed", payout, "event-1") == "hinted"
    step = steps.claim(send.withdrawal_id)
    assert isinstance(step, LookUp)
    record_answer(step, world.perform(step))
    row = world.read(send.withdrawal_id)
    [attempt] = world.attempts(send.withdrawal_id)
    assert (row.status, attempt.unconfirmed) == ("completed", False)
    record_answer(send, reply)
    assert world.read(send.withdrawal_id).status == "completed"


def test_a_worker_that_dies_during_a_query_does_not_lose_the_hint(world: World) -> None:
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    payout = world.set_status(world.attempts(withdrawal_id)[0].payout_id, "failed", "bank_account_closed")
    world.webhook("payout.failed", payout, "event-1")
    assert isinstance(steps.claim(withdrawal_id), Poll)
    assert steps.claim(withdrawal_id) is None
    world.sql("UPDATE hints SET due_at = due_at - interval '90 seconds'")
    assert withdrawals.sweep().polls == 1
    world.bring_on(withdrawal_id)
    assert world.refunds(withdrawal_id) == 1


def test_a_webhook_during_a_query_triggers_another_query(world: World) -> None:
    """The payout ended while the answer to our query was on its way."""
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    assert forge_webhook(world, withdrawal_id, payout_id, "reversed") == "hinted"
    step = steps.claim(withdrawal_id)
    assert isinstance(step, Poll)
    outdated = world.perform(step)
    payout = world.set_status(payout_id, "failed", "bank_account_closed")
    world.webhook("payout.failed", payout, "event-1")
    record_answer(step, outdated)
    world.sql("UPDATE hints SET due_at = due_at - interval '5 seconds'")
    work_on_all_hints(world)
    assert world.refunds(withdrawal_id) == 1


def test_forged_webhooks_for_an_hour_cause_few_queries_and_delay_nothing(world: World) -> None:
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    due_at = world.read(withdrawal_id).due_at
    before = count_queries(world)
    for _ in range(60):
        forge_webhook(world, withdrawal_id, payout_id, "failed")
        world.bring_on(withdrawal_id)
        world.sql(
            "UPDATE hints SET due_at = due_at - make_interval(mins => 1), asked_at = asked_at - make_interval(mins => 1)"
        )
    assert 3 < count_queries(world) - before <= 10
    assert world.story(withdrawal_id).count("hinted") <= 10
    # Each answer was "processing", so the next poll is scheduled as usual.
    now_due = world.read(withdrawal_id).due_at
    assert due_at and now_due and (now_due - due_at).total_seconds() < 60


def test_a_flood_of_hints_does_not_slow_payouts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "8")
    world.forget_settings()
    world.simulator.scenario("never", default=True)
    world.credit(coins=5000)
    withdrawal_id, other = accepted(world), accepted(world)
    with transaction() as session:
        waits = rate_limit.take_hint_slots(session, rate_limit.HINT_BURST + 8)
    assert waits[: rate_limit.HINT_BURST] == [0.0] * rate_limit.HINT_BURST
    assert waits[-1] == pytest.approx(8 * rate_limit.HINT_SHARE * rate_limit.SLOT_MARGIN / 8, rel=0.3)
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    assert forge_webhook(world, withdrawal_id, payout_id, "failed") == "hinted"
    assert world.sql("SELECT due_at > now() + interval '2 seconds' AS waits FROM hints")[0].waits
    world.sql("UPDATE pace SET next_at = now() + interval '11 minutes' WHERE name = 'hints'")
    assert forge_webhook(world, other, world.attempts(other)[0].payout_id, "failed") == "crowded"
    assert (
        world.sql("SELECT FROM hints WHERE attempt_id <> :id", id=world.attempts(withdrawal_id)[0].id) == []
    )
    world.advance(60)
    assert isinstance(steps.claim(other), Poll)  # scheduled polls continue


@pytest.mark.failure(21)
@pytest.mark.usefixtures("people")
def test_people_can_decide_at_once_after_a_reply_that_names_another_payout(world: World) -> None:
    """The call is over, so no worker can still send, whatever the lease says."""
    world.simulator.scenario("never", default=True)
    world.credit(coins=5000)
    foreign = world.attempts(accepted(world))[0].payout_id
    send = world.first_send()
    record_answer(send, Accepted(report_of(foreign, "processing", 5000, str(send.attempt_id))))
    row = world.read(send.withdrawal_id)
    [attempt] = world.attempts(send.withdrawal_id)
    assert (row.hold, row.status_reason) == ("payout_of_another", "in_review")
    assert (attempt.state, attempt.in_doubt, attempt.payout_id) == ("unknown", True, None)
    proposal = withdrawals.propose(
        send.withdrawal_id, Decision.REFUND, evidence="seen", actor="operator:asha"
    )
    withdrawals.approve(proposal.id, actor="operator:ravi")
    assert world.refunds(send.withdrawal_id) == 1


@pytest.mark.failure(21)
@pytest.mark.usefixtures("people")
def test_a_withdrawal_flagged_during_a_lost_call_waits_only_for_its_lease(
    world: World,
) -> None:
    world.credit()
    send = world.first_send()
    payout = {"id": INVENTED, "amount": 4999, "reference_id": str(send.attempt_id), "status": "processing"}
    assert world.receive_report(payout, "reconciliation") == "conflict"
    row = world.read(send.withdrawal_id)
    assert row.hold == "wrong_amount" and row.due_at is not None
    assert (row.due_at - world.clock()).total_seconds() <= 80
    world.sql("UPDATE payout_attempts SET last_sent_at = last_sent_at - interval '81 seconds'")
    withdrawals.propose(send.withdrawal_id, Decision.REFUND, evidence="seen", actor="operator:asha")
    world.advance(81)
    assert isinstance(steps.claim(send.withdrawal_id), LookUp)
