"""The one door: whatever RazorpayX says, in whatever order, money moves once and only forward."""

import itertools
import json
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from shared import checks, db, exception_records, inbox, queues, withdrawals
from shared.errors import Unavailable
from shared.razorpayx.answers import Accepted, PayoutReport, Refused, Unknown
from shared.states import LIVE, AttemptState
from shared.steps import Send
from shared.withdrawals import apply_report, record_answer
from shared.withdrawals.meaning import MEANING
from tests.world import World

PAYOUT = "pout_00000000000001"
STATUS = {"waiting": "processing", "paid": "processed", "not_paid": "failed", "reversed": "reversed"}


def report_on(send: Send, status: str, **about: object) -> PayoutReport:
    fields = {
        "amount_paise": 5000,
        "reference_id": str(send.attempt_id),
        "reason": "bank_account_closed",
        "utr": "412345678901",
        **about,
    }
    return PayoutReport(PAYOUT, status, **fields)  # type: ignore[arg-type]


def tell(send: Send, status: str, **about: object) -> str:
    with db.transaction() as session:
        return apply_report(session, report_on(send, status, **about), "poll")


def brought_to(world: World, state: str) -> Send:
    """A withdrawal whose attempt is in `state`."""
    send = world.first_send()
    if state == AttemptState.REFUSED:
        record_answer(send, Refused("bank_account_closed", "no", 400))
    elif state != AttemptState.SENDING:
        words = {"accepted": ["processing"], "paid": ["processed"], "failed": ["failed"]}
        for status in words.get(state, ["processed", "reversed"]):
            tell(send, status)
    return send


REACHED = ["sending", "accepted", "paid", "refused", "failed", "reversed"]


@pytest.mark.parametrize(("state", "outcome"), list(itertools.product(REACHED, STATUS)))
def test_every_report_in_every_state(world: World, state: str, outcome: str) -> None:
    world.credit(coins=2000)
    send = brought_to(world, state)
    before = world.read(send.withdrawal_id)
    effect = tell(send, STATUS[outcome])
    after = world.read(send.withdrawal_id)
    assert effect == MEANING[state, outcome]  # type: ignore[index]
    if effect in ("repeat", "late", "conflict"):
        assert (after.status, world.balance()) == (before.status, world.balance())
        assert after.completed_at == before.completed_at
    assert (after.review is not None) == (effect == "conflict")
    ended = {"pay": "completed", "fail": "failed", "reverse": "failed", "follow": "processing"}
    assert after.status == ended.get(effect, before.status)
    assert world.refunds(send.withdrawal_id) == (1 if after.status == "failed" else 0)
    assert world.balance() == (2000 if after.status == "failed" else 1500)


def test_every_pair_has_a_meaning() -> None:
    assert set(MEANING) == set(itertools.product(AttemptState, STATUS))


def test_no_report_gives_coins_back_while_a_payout_lives() -> None:
    for (state, outcome), effect in MEANING.items():
        if effect in ("fail", "reverse"):
            assert state in LIVE
            assert outcome in ("not_paid", "reversed")


@pytest.mark.failure(9)
@pytest.mark.parametrize(
    "order", list(itertools.permutations(["pending", "queued", "processing", "processed"]))
)
def test_paid_whatever_the_order(world: World, order: tuple[str, ...]) -> None:
    world.credit()
    send = world.first_send()
    for status in order:
        tell(send, status)
    assert world.read(send.withdrawal_id).status == "completed"
    assert world.story(send.withdrawal_id).count("paid") == 1


@pytest.mark.failure(10)
@pytest.mark.parametrize("order", list(itertools.permutations(["processing", "processed", "reversed"])))
def test_reversed_whatever_the_order(world: World, order: tuple[str, ...]) -> None:
    world.credit()
    send = world.first_send()
    for status in order:
        tell(send, status)
    assert world.read(send.withdrawal_id).status == "failed"
    assert (world.refunds(send.withdrawal_id), world.balance()) == (1, 2000)


def paid_and_to_be_sent_back(world: World) -> UUID:
    """A completed withdrawal that the bank sends back in a moment of the simulator, whose clock stands still."""
    world.simulator.post("speed", {"speed": 0.001})
    world.credit()
    withdrawal_id = world.request(upi_id="reversed@sim")
    assert world.step(withdrawal_id) == "processing"
    world.simulator.post("advance", {"seconds": 1.5})
    assert world.finish(withdrawal_id) == "completed"
    return withdrawal_id


@pytest.mark.failure(10)
def test_a_reversal_after_completion_gives_the_coins_back_and_says_so(world: World) -> None:
    withdrawal_id = paid_and_to_be_sent_back(world)
    payout = world.simulator.payouts()[0]
    world.simulator.post("advance", {"seconds": 7 * 86_400})
    entity = {**payout, "status": "reversed", "entity": "payout"}
    assert world.webhook("payout.reversed", entity, "ev_reversed") == "hinted"
    assert world.read(withdrawal_id).status == "completed"  # not by a webhook's word
    world.bring_on(withdrawal_id)
    assert world.webhook("payout.reversed", entity, "ev_reversed_again") == "repeat"
    failed = world.read(withdrawal_id)
    assert (failed.status, failed.completed_at) == ("failed", None)
    assert failed.failure_reason == "Your bank sent the payment back."
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


def test_a_report_with_another_amount_or_another_payout_moves_nothing(world: World) -> None:
    world.credit()
    send = world.first_send()
    wrong = PayoutReport(PAYOUT, "processed", 4999, reference_id=str(send.attempt_id))
    with db.transaction() as session:
        assert apply_report(session, wrong, "poll") == "conflict"
    assert world.read(send.withdrawal_id).review == "wrong_amount"
    record_answer(send, Accepted(report_on(send, "processing")))
    other = PayoutReport("pout_00000000000002", "processed", 5000, reference_id=str(send.attempt_id))
    with db.transaction() as session:
        assert apply_report(session, other, "poll") == "conflict"
    assert world.read(send.withdrawal_id).status == "processing"


@pytest.mark.parametrize("ending", ["failed", "reversed", "rejected"])
def test_what_contradicts_itself_is_neither_sent_anew_nor_refunded(world: World, ending: str) -> None:
    """Two payouts under one reference, one of them paid: the end of the other gives no coins back."""
    world.credit(coins=2000)
    send = world.first_send()
    tell(send, "processing")
    with db.transaction() as session:
        apply_report(
            session, PayoutReport("pout_00000000000002", "processed", 5000, str(send.attempt_id)), "poll"
        )
    tell(send, ending, reason="gateway_down")
    held = world.read(send.withdrawal_id)
    assert (held.status, held.status_reason, held.review) == ("processing", "in_review", "two_payouts")
    assert world.finish(send.withdrawal_id, steps=5) == "processing"
    assert len(world.attempts(send.withdrawal_id)) == 1
    assert (world.refunds(send.withdrawal_id), world.balance()) == (0, 1500)


def test_paid_by_one_of_two_payouts_and_that_one_reversed_is_left_to_people(world: World) -> None:
    world.credit(coins=2000)
    send = world.first_send()
    tell(send, "processed")
    with db.transaction() as session:
        apply_report(
            session, PayoutReport("pout_00000000000002", "processed", 5000, str(send.attempt_id)), "poll"
        )
    assert tell(send, "reversed") == "conflict"
    assert world.read(send.withdrawal_id).status == "completed"
    assert (world.refunds(send.withdrawal_id), world.balance()) == (0, 1500)


def test_a_first_attempt_that_was_paid_after_all_stops_the_second(world: World) -> None:
    """Failed, tried anew, and then the first one turns out paid: the second one's failure refunds nothing."""
    world.credit(coins=2000)
    first = world.first_send()
    tell(first, "failed", reason="gateway_timeout")
    world.advance()
    second = withdrawals.claim(first.withdrawal_id)
    assert isinstance(second, Send) and second.attempt_id != first.attempt_id
    assert tell(first, "processed") == "conflict"
    other = PayoutReport(
        "pout_00000000000002", "failed", 5000, str(second.attempt_id), reason="bank_account_closed"
    )
    with db.transaction() as session:
        apply_report(session, other, "poll")
    assert world.read(first.withdrawal_id).status == "processing"
    assert (world.refunds(first.withdrawal_id), world.balance()) == (0, 1500)


@pytest.mark.failure(10)
def test_a_reversal_whose_webhook_is_lost_is_found_by_looking_again(world: World) -> None:
    withdrawal_id = paid_and_to_be_sent_back(world)
    world.simulator.post("advance", {"seconds": 7 * 86_400})
    world.bring_on(withdrawal_id)
    assert world.read(withdrawal_id).status == "completed"  # not yet: nobody asks all the time
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    world.bring_on(withdrawal_id)
    assert world.read(withdrawal_id).status == "failed"
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


def test_a_completed_payout_is_looked_at_for_eight_days_and_then_left(world: World) -> None:
    world.credit()
    withdrawal_id = world.paid()
    for looks in range(1, 6):
        seconds = "SELECT ceil(extract(epoch FROM recheck_at - now())) AS s FROM payout_attempts"
        left = world.sql(seconds)[0].s
        world.sql_without_rules(
            f"UPDATE withdrawals SET completed_at = completed_at - interval '{left} seconds'"
        )
        world.sql("UPDATE payout_attempts SET recheck_at = now()")
        world.bring_on(withdrawal_id)
        assert (
            len(world.simulator.calls("GET", f"/v1/payouts/{world.attempts(withdrawal_id)[0].payout_id}"))
            >= looks
        )
    assert world.attempts(withdrawal_id)[0].recheck_at is None
    assert world.read(withdrawal_id).status == "completed"


@pytest.mark.failure(9)
def test_an_earlier_word_that_comes_late_does_not_set_it_back(world: World) -> None:
    world.credit()
    send = world.first_send()
    tell(send, "processing")
    assert tell(send, "queued") == "follow"
    assert world.attempts(send.withdrawal_id)[0].provider_status == "processing"
    assert world.read(send.withdrawal_id).status_reason == "bank_processing"


def test_a_utr_learnt_later_is_recorded(world: World) -> None:
    world.credit()
    send = world.first_send()
    tell(send, "processed", utr=None)
    assert tell(send, "processed", utr="412345678901") == "repeat"
    assert world.read(send.withdrawal_id).utr == "412345678901"
    assert "learnt" in world.story(send.withdrawal_id)


def test_another_body_under_a_known_event_id_is_another_event(world: World) -> None:
    """The id stands in a header that nobody signs; the body is signed."""
    world.credit()
    send = world.first_send()
    tell(send, "processing")
    entity = {"id": PAYOUT, "status": "processed", "amount": 5000, "reference_id": str(send.attempt_id)}
    assert world.webhook("payout.processed", entity, "ev_same") == "pay"
    body = json.dumps(
        {"event": "payout.reversed", "payload": {"payout": {"entity": {**entity, "status": "reversed"}}}}
    )
    assert inbox.receive("ev_same", body.encode())
    assert not inbox.receive("ev_same", body.encode())
    key = world.sql("SELECT event_id FROM webhook_events WHERE applied_at IS NULL")[0].event_id
    assert inbox.apply(key) == "hinted"


def test_a_report_about_nothing_of_ours_is_unmatched(world: World) -> None:
    for reference in (None, "order-17", "01a208a5-b724-779f-a85a-7688d7fa28bd"):
        with db.transaction() as session:
            assert (
                apply_report(session, PayoutReport(PAYOUT, "processed", 1, reference), "poll") == "unmatched"
            )


def test_the_same_webhook_a_hundred_times(world: World) -> None:
    world.credit()
    send = world.first_send()
    tell(send, "processing")
    entity = {"id": PAYOUT, "status": "processed", "amount": 5000, "reference_id": str(send.attempt_id)}
    outcomes = [world.webhook("payout.processed", entity, "ev_one") for _ in range(100)]
    assert outcomes == ["pay"] + [None] * 99
    assert world.story(send.withdrawal_id).count("paid") == 1


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"not json", "unreadable"),
        (b"[]", "unreadable"),
        (b'{"event": 5}', "unreadable"),
        (b'{"event": "payout.processed"}', "unreadable"),
        (b'{"event": "payout.processed", "payload": {"payout": {"entity": {"id": "pout_1"}}}}', "unreadable"),
        (b'{"event": "payout.downtime.started", "payload": {}}', "ignored"),
        (b'{"event": "transaction.created", "payload": {}}', "ignored"),
        (b"[" * 100_000, "unreadable"),
    ],
)
def test_webhooks_that_say_nothing_to_us_are_kept(world: World, body: bytes, outcome: str) -> None:
    assert inbox.receive("ev_odd", body)
    inbox.apply("ev_odd")
    [kept] = world.sql("SELECT body, outcome, applied_at FROM webhook_events")
    assert (bytes(kept.body), kept.outcome) == (body, outcome)
    assert kept.applied_at


def test_a_webhook_that_is_not_about_a_payout_costs_no_worker_a_thought(world: World) -> None:
    assert inbox.receive("ev_other", b'{"event": "transaction.created", "payload": {}}')
    assert queues.depth(queues.WEBHOOKS) == 0
    assert inbox.receive("ev_payout", b'{"event": "payout.processed", "payload": {}}')
    assert queues.depth(queues.WEBHOOKS) == 1


def test_a_payout_of_one_attempt_reported_for_another_is_a_contradiction(world: World) -> None:
    world.credit(coins=5000)
    first, second = world.first_send(coins=500), world.first_send(coins=500)
    tell(first, "processing")
    stolen = PayoutReport(PAYOUT, "processed", 5000, str(second.attempt_id))
    with db.transaction() as session:
        assert apply_report(session, stolen, "poll") == "conflict"
    assert world.read(second.withdrawal_id).review == "payout_of_another"
    assert tell(first, "processed") == "pay"


@pytest.mark.failure(26)
def test_a_webhook_that_always_raises_is_set_aside_and_blocks_nobody(world: World) -> None:
    """Something in our own house refuses it, again and again; `payouts check` shows it."""
    world.credit(coins=5000)
    poisoned, well = world.first_send(coins=500), world.first_send(coins=500)
    world.sql("ALTER TABLE hints ADD CONSTRAINT ours CHECK (said <> 'failed')")
    entity = {"id": PAYOUT, "status": "failed", "amount": 5000}
    body = json.dumps(
        {
            "event": "payout.updated",
            "payload": {"payout": {"entity": {**entity, "reference_id": str(poisoned.attempt_id)}}},
        }
    ).encode()
    inbox.receive("ev_poison", body)
    for _ in range(inbox.MAX_TRIES):
        with pytest.raises(IntegrityError, match="ours"):
            inbox.apply("ev_poison")
    assert inbox.apply("ev_poison") is None
    assert world.sql("SELECT outcome FROM webhook_events")[0].outcome == "poison"
    assert checks.run().unread_webhooks == ["ev_poison"]
    assert tell(well, "processed") == "pay"


def test_a_database_that_is_busy_says_nothing_against_an_event(world: World) -> None:
    world.credit()
    send = world.first_send()
    tell(send, "processing")
    entity = {"id": PAYOUT, "status": "processed", "amount": 5000, "reference_id": str(send.attempt_id)}
    body = json.dumps({"event": "payout.processed", "payload": {"payout": {"entity": entity}}}).encode()
    inbox.receive("ev_locked", body)
    with db.engine().connect() as holder:
        holder.execute(text("SELECT FROM withdrawals FOR UPDATE"))
        with pytest.raises(Unavailable):
            inbox.apply("ev_locked")
    assert world.sql("SELECT tries FROM webhook_events")[0].tries == 0
    assert inbox.apply("ev_locked") == "pay"


def test_a_report_with_our_payouts_id_and_a_foreign_reference_moves_nothing(world: World) -> None:
    world.credit()
    send = world.first_send()
    tell(send, "processing")
    assert tell(send, "failed", reference_id="11111111-1111-4111-8111-111111111111") == "conflict"
    row = world.read(send.withdrawal_id)
    assert (row.status, row.review, world.refunds(send.withdrawal_id)) == (
        "processing",
        "reference_differs",
        0,
    )


def test_a_contradiction_is_told_with_what_was_said(world: World) -> None:
    world.credit()
    send = world.first_send()
    assert tell(send, "processed", amount_paise=999_999) == "conflict"
    with db.transaction() as session:
        [record] = exception_records.listing(session)
    assert (record.kind, record.ours["amount_paise"], record.theirs["amount_paise"]) == (
        "wrong_amount", 5000, 999_999
    )  # fmt: skip


def test_so_many_dollars_are_no_rupees(world: World) -> None:
    world.credit()
    send = world.first_send()
    tell(send, "processing")
    payout = {"id": PAYOUT, "amount": 5000, "reference_id": str(send.attempt_id), "status": "processed"}
    assert world.webhook("payout.processed", {**payout, "currency": "USD"}, "event-1") == "unreadable"
    assert world.read(send.withdrawal_id).status == "processing"
    assert world.webhook("payout.processed", {**payout, "currency": "INR"}, "event-2") == "pay"


def test_a_utr_that_was_told_early_is_the_users(world: World) -> None:
    world.credit()
    send = world.first_send()
    tell(send, "processing", utr="412345678901")
    tell(send, "processed", utr=None)
    assert world.read(send.withdrawal_id).utr == "412345678901"


@pytest.mark.parametrize("status", ["cancelled", "rejected"])
def test_what_somebody_stopped_is_not_begun_anew(world: World, status: str) -> None:
    """Whatever had delayed it before, and would be tried again by itself."""
    world.credit()
    send = world.first_send()
    tell(send, "queued", reason="gateway_down")
    tell(send, status, reason="gateway_down")
    row = world.read(send.withdrawal_id)
    assert (row.status, row.status_reason, world.refunds(send.withdrawal_id)) == ("failed", status, 1)


def test_all_that_people_were_told_of_is_over_when_it_ends(world: World) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Unknown("no answer"))
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '2 hours', sends = 9")
    world.advance()
    look = withdrawals.claim(send.withdrawal_id)
    assert look is not None
    record_answer(look, Unknown("no answer"))
    for _ in range(3):
        withdrawals.put_off(send.withdrawal_id, ValueError("ours"))
    with db.transaction() as session:
        assert {one.kind for one in exception_records.listing(session)} == {"unanswered", "worker_error"}
    tell(send, "processed")
    with db.transaction() as session:
        assert exception_records.listing(session) == []


def test_the_last_look_at_a_completed_payout_is_made_again_until_it_is_answered(world: World) -> None:
    withdrawal_id = world.paid()
    world.sql("UPDATE withdrawals SET completed_at = completed_at - interval '8 days 1 minute'")
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    look = withdrawals.claim(withdrawal_id)
    assert look is not None
    record_answer(look, Unknown("503", 503))
    assert world.attempts(withdrawal_id)[0].recheck_at is not None
    world.sql("UPDATE withdrawals SET completed_at = completed_at - interval '3 days'")
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    look = withdrawals.claim(withdrawal_id)
    assert look is not None
    record_answer(look, Unknown("503", 503))
    assert world.attempts(withdrawal_id)[0].recheck_at is None, "not for ever"


def test_from_queued_to_processing_is_a_line_of_its_story(world: World) -> None:
    world.credit()
    send = world.first_send()
    for status in ("queued", "queued", "processing", "processing"):
        assert tell(send, status, reason=None) == "follow"
    told = [line for line in world.story(send.withdrawal_id) if line.startswith("payout_")]
    assert told == ["payout_queued", "payout_processing"]
    assert world.read(send.withdrawal_id).status_reason == "bank_processing"


@pytest.mark.failure(2)
@pytest.mark.parametrize("is_closed", [False, True])
def test_each_word_about_an_end_that_was_contradicted_calls_a_person(world: World, is_closed: bool) -> None:
    """Given back after an hour of "none", paid late, and then sent back: whoever took the coins must hear."""
    world.credit()
    send = world.first_send()
    record_answer(send, Refused("never_arrived", "nothing came of it", 400))
    assert tell(send, "processed") == "conflict"
    if is_closed:  # people took the coins back, and closed it
        with db.transaction() as session:
            for record in exception_records.listing(session):
                exception_records.close(session, record.id, resolution="taken back", actor="operator:asha")
        world.sql("UPDATE withdrawals SET review = NULL")
    assert tell(send, "reversed") == "conflict"
    with db.transaction() as session:
        told = {record.kind for record in exception_records.listing(session)}
    assert "reversed_after_refused" in told
    assert world.read(send.withdrawal_id).review is not None
    assert tell(send, "reversed") == "late"  # they know
    assert (world.read(send.withdrawal_id).status, world.refunds(send.withdrawal_id)) == ("failed", 1)
