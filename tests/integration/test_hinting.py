"""A webhook is a hint: whatever it says, only the answer to a question of ours moves coins or ends anything."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from shared import db, exception_records, ids, pace, queues, withdrawals
from shared.razorpayx.answers import Accepted, PayoutReport, Refused, Throttled, Unknown
from shared.states import Decision
from shared.steps import LookUp, Poll, Send
from shared.withdrawals import record_answer
from tests.world import World

SAID = ("processing", "processed", "failed", "reversed", "rejected", "cancelled")
INVENTED = "pout_invented0000001"
# Everything that a webhook could have changed, but for its own row, its hint, and the line that tells of it.
WHAT_COUNTS = """
    SELECT (SELECT json_agg(w) FROM (SELECT id, status, status_reason, review, utr, due_at, expected_by, failure_reason
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
    """It has arrived, and the reply is lost."""
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


def ended(*statuses: str, reason: str | None = None) -> Callable[[World], UUID]:
    """A payout that RazorpayX ended so, as our own polls were told."""

    def made(world: World) -> UUID:
        withdrawal_id = accepted(world)
        for status in statuses:
            why = reason if status == "failed" else None
            world.hears(world.becomes(world.attempts(withdrawal_id)[0].payout_id, status, why))
        return withdrawal_id

    return made


def on_hold(world: World) -> UUID:
    withdrawal_id = accepted(world)
    [attempt] = world.attempts(withdrawal_id)
    other = {"id": "pout_00000000000077", "amount": 5000, "reference_id": str(attempt.id)}
    assert world.hears({**other, "status": "processing"}, "lookup") == "conflict"
    return withdrawal_id


STATES = {
    "pending": pending,
    "sending": sending,
    "throttled": throttled,
    "unknown": unknown,
    "accepted": accepted,
    "paid": ended("processed"),
    "failed, to be tried anew": ended("failed", reason="beneficiary_psp_offline"),
    "failed": ended("failed", reason="bank_account_closed"),
    "refused": refused,
    "reversed": ended("processed", "reversed"),
    "cancelled": cancelled,
    "on hold": on_hold,
}


def forged(world: World, withdrawal_id: UUID, payout_id: str, status: str, **about: Any) -> str | None:
    """What a signed webhook did that says so under the withdrawal's first reference."""
    reference = str(ids.attempt_id(withdrawal_id, 1))
    payout = {"id": payout_id, "amount": 5000, "reference_id": reference, "status": status, "utr": "4" * 12}
    payout |= {"status_details": {"reason": "beneficiary_psp_offline"}, "fees": 7, **about}
    return world.webhook(f"payout.{status}", payout, str(ids.new_id()))


def questions(world: World) -> int:
    """How many payouts, and lists of them, RazorpayX was asked for."""
    calls = world.simulator.get("calls")["items"]
    return sum(call["method"] == "GET" and call["path"].startswith("/v1/payouts") for call in calls)


def answer_all(world: World) -> None:
    """Let every question that a hint provoked be asked, as time goes by."""
    due = "UPDATE hints SET due_at = now() WHERE due_at IS NOT NULL RETURNING withdrawal_id"
    while hinted := world.sql(due):
        for hint in hinted:
            world.bring_on(hint.withdrawal_id)


def kinds(world: World) -> list[str]:
    with db.transaction() as session:
        return [record.kind for record in exception_records.listing(session)]


@pytest.mark.parametrize("state", STATES)
def test_no_coin_moves_on_a_webhooks_word(world: World, state: str) -> None:
    """The attack: who holds the secret says anything, of a payout that they know, invent, or know of another."""
    world.simulator.scenario("never", default=True)
    world.credit(coins=5000)
    others = world.attempts(accepted(world))[0].payout_id
    withdrawal_id = STATES[state](world)
    theirs = world.simulator.payouts(str(ids.attempt_id(withdrawal_id, 1)))
    known = theirs[0]["id"] if theirs else "pout_unknown00000001"
    before, asked = world.sql(WHAT_COUNTS), questions(world)
    for payout_id in (known, INVENTED, others):
        for status in SAID:
            if (state, payout_id, status) != ("accepted", known, "processed"):  # the next test's
                forged(world, withdrawal_id, payout_id, status)
                assert world.sql(WHAT_COUNTS) == before, f"{status}, {payout_id}"
    forged(world, withdrawal_id, known, "processed", amount=4999)
    forged(world, withdrawal_id, known, "failed", reference_id=None)
    assert world.sql(WHAT_COUNTS) == before
    assert questions(world) == asked
    # Now we ask, and RazorpayX says how it is.
    answer_all(world)
    assert questions(world) - asked <= 4
    [was], [now] = before, world.sql(WHAT_COUNTS)
    assert (now.wallets, now.switches, now.lines, now.records) == (
        was.wallets, was.switches, was.lines, was.records,
    )  # fmt: skip
    ends = ("id", "status", "review", "utr", "failure_reason")
    assert [[row[name] for name in ends] for row in now.withdrawals] == [
        [row[name] for name in ends] for row in was.withdrawals
    ]
    if state != "unknown":  # of that our own question has now told which payout it has
        assert [(row["id"], row["state"], row["payout_id"]) for row in now.attempts] == [
            (row["id"], row["state"], row["payout_id"]) for row in was.attempts
        ]


def test_processed_counts_at_once_where_our_own_call_named_the_payout_and_is_confirmed(world: World) -> None:
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    told = world.becomes(payout_id, "processed")
    assert world.webhook("payout.processed", {**told, "utr": "400000000000"}, "event-1") == "pay"
    row, [attempt] = world.read(withdrawal_id), world.attempts(withdrawal_id)
    assert (row.status, row.utr, attempt.state, attempt.unconfirmed) == (
        "completed", "400000000000", "paid", True,
    )  # fmt: skip
    seconds = world.sql("SELECT extract(epoch FROM recheck_at - now())::int AS s FROM payout_attempts")[0].s
    assert 60 < seconds <= 120
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    assert isinstance(withdrawals.claim(withdrawal_id), Poll)  # and its worker dies
    assert withdrawals.claim(withdrawal_id) is None  # until the lease is over
    world.sql("UPDATE payout_attempts SET recheck_at = recheck_at - interval '90 seconds'")
    world.bring_on(withdrawal_id)
    row, [attempt] = world.read(withdrawal_id), world.attempts(withdrawal_id)
    assert (row.status, row.utr, attempt.utr, attempt.unconfirmed) == (
        "completed", told["utr"], told["utr"], False,
    )  # fmt: skip
    assert (world.story(withdrawal_id)[-1], kinds(world)) == ("confirmed", [])


@pytest.mark.parametrize(("truth", "records"), [("failed", ["webhook_untrue"]), ("reversed", [])])
def test_a_forged_processed_is_put_right_by_our_own_question(
    world: World, truth: str, records: list[str]
) -> None:
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    assert forged(world, withdrawal_id, payout_id, "processed") == "pay"
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    world.bring_on(withdrawal_id)  # RazorpayX: it is on its way
    row, [attempt] = world.read(withdrawal_id), world.attempts(withdrawal_id)
    assert (row.status, attempt.unconfirmed, kinds(world)) == ("completed", True, ["not_confirmed"])
    seconds = world.sql("SELECT extract(epoch FROM recheck_at - now())::int AS s FROM payout_attempts")[0].s
    assert 60 < seconds <= 120  # asked again, however often it must be
    told = world.becomes(payout_id, truth, "bank_account_closed" if truth == "failed" else None)
    assert world.webhook(f"payout.{truth}", told, "event-2") == "hinted"
    world.bring_on(withdrawal_id)
    row = world.read(withdrawal_id)
    assert (row.status, world.refunds(withdrawal_id), world.balance()) == ("failed", 1, 2000)
    assert kinds(world) == records
    words = {
        "failed": "The bank account behind this UPI id is closed.",
        "reversed": "Your bank sent the payment back.",
    }
    assert row.failure_reason == words[truth]


def test_an_honest_failure_refunds_with_one_question_and_at_once(world: World) -> None:
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    told = world.becomes(world.attempts(withdrawal_id)[0].payout_id, "failed", "bank_account_closed")
    before = questions(world)
    assert world.webhook("payout.failed", told, "event-1") == "hinted"
    assert (world.refunds(withdrawal_id), queues.depth(queues.POLLS)) == (0, 1)
    world.bring_on(withdrawal_id)  # that message; its poll would have been due a minute later
    assert (world.read(withdrawal_id).status, world.refunds(withdrawal_id), world.balance()) == (
        "failed", 1, 2000,
    )  # fmt: skip
    assert questions(world) == before + 1
    assert "hinted" in world.story(withdrawal_id)


def test_news_that_comes_before_our_reply_is_asked_for_by_its_reference(world: World) -> None:
    """The reply to the create is on its way still, and the webhook is here."""
    world.simulator.scenario("never", default=True)
    world.credit()
    send = world.first_send()
    reply = world.perform(send)
    told = world.becomes(world.simulator.payouts()[0]["id"], "processed")
    assert world.webhook("payout.processed", told, "event-1") == "hinted"
    step = withdrawals.claim(send.withdrawal_id)
    assert isinstance(step, LookUp)
    record_answer(step, world.perform(step))
    row, [attempt] = world.read(send.withdrawal_id), world.attempts(send.withdrawal_id)
    assert (row.status, attempt.unconfirmed) == ("completed", False)
    record_answer(send, reply)
    assert world.read(send.withdrawal_id).status == "completed"


def test_who_dies_with_a_question_in_hand_asks_nothing_away(world: World) -> None:
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    told = world.becomes(world.attempts(withdrawal_id)[0].payout_id, "failed", "bank_account_closed")
    world.webhook("payout.failed", told, "event-1")
    assert isinstance(withdrawals.claim(withdrawal_id), Poll)
    assert withdrawals.claim(withdrawal_id) is None
    world.sql("UPDATE hints SET due_at = due_at - interval '90 seconds'")
    assert withdrawals.sweep().polls == 1
    world.bring_on(withdrawal_id)
    assert world.refunds(withdrawal_id) == 1


def test_what_comes_while_a_question_is_asked_is_asked_for_again(world: World) -> None:
    """The answer was on its way already when it ended."""
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    assert forged(world, withdrawal_id, payout_id, "reversed") == "hinted"
    step = withdrawals.claim(withdrawal_id)
    assert isinstance(step, Poll)
    old = world.perform(step)
    told = world.becomes(payout_id, "failed", "bank_account_closed")
    world.webhook("payout.failed", told, "event-1")
    record_answer(step, old)
    world.sql("UPDATE hints SET due_at = due_at - interval '5 seconds'")
    answer_all(world)
    assert world.refunds(withdrawal_id) == 1


def test_a_forged_webhook_all_hour_costs_a_few_questions_and_puts_nothing_off(world: World) -> None:
    world.simulator.scenario("never", default=True)
    world.credit()
    withdrawal_id = accepted(world)
    payout_id, due_at = world.attempts(withdrawal_id)[0].payout_id, world.read(withdrawal_id).due_at
    before = questions(world)
    for _ in range(60):
        forged(world, withdrawal_id, payout_id, "failed")
        world.bring_on(withdrawal_id)
        world.sql(
            "UPDATE hints SET due_at = due_at - make_interval(mins => 1), asked_at = asked_at - make_interval(mins => 1)"
        )
    assert 3 < questions(world) - before <= 10
    assert world.story(withdrawal_id).count("hinted") <= 10
    # Each answer was "on its way", from which the next poll is counted as always.
    now_due = world.read(withdrawal_id).due_at
    assert due_at and now_due and (now_due - due_at).total_seconds() < 60


def test_a_flood_of_hints_leaves_the_pace_to_payouts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "8")
    world.forget_settings()
    world.simulator.scenario("never", default=True)
    world.credit(coins=5000)
    withdrawal_id, other = accepted(world), accepted(world)
    with db.transaction() as session:
        turns = [pace.take_hint_turn(session) for _ in range(pace.HINTS_AT_ONCE + 8)]
    assert turns[: pace.HINTS_AT_ONCE] == [0.0] * pace.HINTS_AT_ONCE
    assert turns[-1] == pytest.approx(8 * pace.HINT_SHARE * pace.SPARE / 8, rel=0.3)
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    assert forged(world, withdrawal_id, payout_id, "failed") == "hinted"
    assert world.sql("SELECT due_at > now() + interval '2 seconds' AS waits FROM hints")[0].waits
    world.sql("UPDATE pace SET next_at = now() + interval '11 minutes' WHERE name = 'hints'")
    assert forged(world, other, world.attempts(other)[0].payout_id, "failed") == "crowded"
    assert (
        world.sql("SELECT FROM hints WHERE attempt_id <> :id", id=world.attempts(withdrawal_id)[0].id) == []
    )
    world.advance(60)
    assert isinstance(withdrawals.claim(other), Poll)  # the schedule goes on, and so does everybody else's


@pytest.mark.failure(21)
@pytest.mark.usefixtures("people")
def test_a_reply_that_names_anothers_payout_can_be_acted_on_at_once(world: World) -> None:
    """The call is over: nobody is on the wire, whatever the lease says."""
    world.simulator.scenario("never", default=True)
    world.credit(coins=5000)
    others = world.attempts(accepted(world))[0].payout_id
    send = world.first_send()
    record_answer(send, Accepted(PayoutReport(others, "processing", 5000, str(send.attempt_id))))
    row, [attempt] = world.read(send.withdrawal_id), world.attempts(send.withdrawal_id)
    assert (row.review, row.status_reason) == ("payout_of_another", "in_review")
    assert (attempt.state, attempt.in_doubt, attempt.payout_id) == ("unknown", True, None)
    made = withdrawals.propose(send.withdrawal_id, Decision.REFUND, evidence="seen", actor="operator:asha")
    withdrawals.approve(made.id, actor="operator:ravi")
    assert world.refunds(send.withdrawal_id) == 1


@pytest.mark.failure(21)
@pytest.mark.usefixtures("people")
def test_what_was_flagged_while_a_worker_died_on_the_wire_waits_for_its_lease_and_no_longer(
    world: World,
) -> None:
    world.credit()
    send = world.first_send()
    told = {"id": INVENTED, "amount": 4999, "reference_id": str(send.attempt_id), "status": "processing"}
    assert world.hears(told, "reconciliation") == "conflict"
    row = world.read(send.withdrawal_id)
    assert row.review == "wrong_amount" and row.due_at is not None
    assert (row.due_at - world.clock()).total_seconds() <= 80
    world.sql("UPDATE payout_attempts SET last_sent_at = last_sent_at - interval '81 seconds'")
    withdrawals.propose(send.withdrawal_id, Decision.REFUND, evidence="seen", actor="operator:asha")
    world.advance(81)
    assert isinstance(withdrawals.claim(send.withdrawal_id), LookUp)
    assert isinstance(send, Send)
