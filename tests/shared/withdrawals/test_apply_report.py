"""The only entry for reports: whatever the provider reports, in any order, money moves once and only forward."""

import itertools
import json
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from sandbox.processes import wait_until
from shared import withdrawals
from shared.db.engines import engine
from shared.db.transactions import transaction
from shared.errors import Unavailable
from shared.people import exception_records
from shared.proof import checks
from shared.providers.answers import Accepted, PayoutReport, Refused, Unknown
from shared.providers.razorpayx.answers import build_report as report_of
from shared.providers.steps import Send
from shared.queues import redis_broker, soon
from shared.queues.names import WEBHOOKS
from shared.states import LIVE, AttemptState
from shared.withdrawals import apply_report, inbox
from shared.withdrawals.report_meaning import MEANING
from tests.support import steps
from tests.support.steps import record_answer
from tests.support.world import World

PAYOUT = "pout_00000000000001"
STATUS = {"waiting": "processing", "paid": "processed", "not_paid": "failed", "reversed": "reversed"}


def report_on(send: Send, status: str, **changes: object) -> PayoutReport:
    fields = {
        "amount_paise": 5000,
        "reference_id": str(send.attempt_id),
        "reason": "bank_account_closed",
        "utr": "412345678901",
        **changes,
    }
    return report_of(PAYOUT, status, **fields)  # type: ignore[arg-type]


def apply(send: Send, status: str, **changes: object) -> str:
    with transaction() as session:
        return apply_report(session, report_on(send, status, **changes), "poll")


def bring_to(world: World, state: str) -> Send:
    """A withdrawal whose attempt is in `state`."""
    send = world.first_send()
    if state == AttemptState.REFUSED:
        record_answer(send, Refused("bank_account_closed", "no", 400))
    elif state != AttemptState.SENDING:
        statuses = {"accepted": ["processing"], "paid": ["processed"], "failed": ["failed"]}
        for status in statuses.get(state, ["processed", "reversed"]):
            apply(send, status)
    return send


REACHABLE = ["sending", "accepted", "paid", "refused", "failed", "reversed"]


@pytest.mark.parametrize(("state", "outcome"), list(itertools.product(REACHABLE, STATUS)))
def test_the_effect_of_every_report_in_every_state(world: World, state: str, outcome: str) -> None:
    world.credit(coins=2000)
    send = bring_to(world, state)
    before = world.read(send.withdrawal_id)
    effect = apply(send, STATUS[outcome])
    after = world.read(send.withdrawal_id)
    assert effect == MEANING[state, outcome]  # type: ignore[index]
    if effect in ("repeat", "late", "conflict"):
        assert (after.status, world.balance()) == (before.status, world.balance())
        assert after.completed_at == before.completed_at
    assert (after.hold is not None) == (effect == "conflict")
    status_after = {"pay": "completed", "fail": "failed", "reverse": "failed", "follow": "processing"}
    assert after.status == status_after.get(effect, before.status)
    assert world.refunds(send.withdrawal_id) == (1 if after.status == "failed" else 0)
    assert world.balance() == (2000 if after.status == "failed" else 1500)


def test_every_pair_of_state_and_outcome_has_a_meaning() -> None:
    assert set(MEANING) == set(itertools.product(AttemptState, STATUS))


def test_only_reports_that_end_a_live_payout_refund() -> None:
    for (state, outcome), effect in MEANING.items():
        if effect in ("fail", "reverse"):
            assert state in LIVE
            assert outcome in ("not_paid", "reversed")


@pytest.mark.failure(9)
@pytest.mark.parametrize(
    "order", list(itertools.permutations(["pending", "queued", "processing", "processed"]))
)
def test_a_payout_is_paid_in_any_order_of_reports(world: World, order: tuple[str, ...]) -> None:
    world.credit()
    send = world.first_send()
    for status in order:
        apply(send, status)
    assert world.read(send.withdrawal_id).status == "completed"
    assert world.story(send.withdrawal_id).count("paid") == 1


@pytest.mark.failure(10)
@pytest.mark.parametrize("order", list(itertools.permutations(["processing", "processed", "reversed"])))
def test_a_payout_is_reversed_in_any_order_of_reports(world: World, order: tuple[str, ...]) -> None:
    world.credit()
    send = world.first_send()
    for status in order:
        apply(send, status)
    assert world.read(send.withdrawal_id).status == "failed"
    assert (world.refunds(send.withdrawal_id), world.balance()) == (1, 2000)


def completed_before_its_reversal(world: World) -> UUID:
    """A completed withdrawal that the bank reverses later; the simulator's clock moves only when advanced."""
    world.simulator.post("speed", {"speed": 0.001})
    world.credit()
    withdrawal_id = world.request(upi_id="reversed@sim")
    assert world.step(withdrawal_id) == "processing"
    world.simulator.post("advance", {"seconds": 1.5})
    assert world.finish(withdrawal_id) == "completed"
    return withdrawal_id


@pytest.mark.failure(10)
def test_a_reversal_after_completion_refunds_and_says_why(world: World) -> None:
    withdrawal_id = completed_before_its_reversal(world)
    payout = world.simulator.payouts()[0]
    world.simulator.post("advance", {"seconds": 7 * 86_400})
    reversed_payout = {**payout, "status": "reversed", "entity": "payout"}
    assert world.webhook("payout.reversed", reversed_payout, "ev_reversed") == "hinted"
    assert world.read(withdrawal_id).status == "completed"  # a webhook alone changes nothing
    world.bring_on(withdrawal_id)
    assert world.webhook("payout.reversed", reversed_payout, "ev_reversed_again") == "repeat"
    failed = world.read(withdrawal_id)
    assert (failed.status, failed.completed_at) == ("failed", None)
    assert failed.failure_reason == "Your bank sent the payment back."
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


def test_a_report_with_another_amount_or_another_payout_moves_nothing(world: World) -> None:
    world.credit()
    send = world.first_send()
    wrong = report_of(PAYOUT, "processed", 4999, reference_id=str(send.attempt_id))
    with transaction() as session:
        assert apply_report(session, wrong, "poll") == "conflict"
    assert world.read(send.withdrawal_id).hold == "wrong_amount"
    record_answer(send, Accepted(report_on(send, "processing")))
    other = report_of("pout_00000000000002", "processed", 5000, reference_id=str(send.attempt_id))
    with transaction() as session:
        assert apply_report(session, other, "poll") == "conflict"
    assert world.read(send.withdrawal_id).status == "processing"


@pytest.mark.parametrize("ending", ["failed", "reversed", "rejected"])
def test_a_contradictory_withdrawal_is_neither_retried_nor_refunded(world: World, ending: str) -> None:
    """Two payouts under one reference, one of them paid: the end of the other one refunds nothing."""
    world.credit(coins=2000)
    send = world.first_send()
    apply(send, "processing")
    with transaction() as session:
        apply_report(
            session, report_of("pout_00000000000002", "processed", 5000, str(send.attempt_id)), "poll"
        )
    apply(send, ending, reason="gateway_down")
    withdrawal = world.read(send.withdrawal_id)
    assert (withdrawal.status, withdrawal.status_reason, withdrawal.hold) == (
        "processing",
        "in_review",
        "two_payouts",
    )
    assert world.finish(send.withdrawal_id, steps=5) == "processing"
    assert len(world.attempts(send.withdrawal_id)) == 1
    assert (world.refunds(send.withdrawal_id), world.balance()) == (0, 1500)


def test_a_reversal_of_one_of_two_payouts_is_left_to_people(world: World) -> None:
    world.credit(coins=2000)
    send = world.first_send()
    apply(send, "processed")
    with transaction() as session:
        apply_report(
            session, report_of("pout_00000000000002", "processed", 5000, str(send.attempt_id)), "poll"
        )
    assert apply(send, "reversed") == "conflict"
    assert world.read(send.withdrawal_id).status == "completed"
    assert (world.refunds(send.withdrawal_id), world.balance()) == (0, 1500)


def test_a_failed_attempt_that_was_paid_after_all_blocks_the_refund_of_its_retry(world: World) -> None:
    """The first attempt failed, was retried, and then is reported paid: the retry's failure refunds nothing."""
    world.credit(coins=2000)
    first = world.first_send()
    apply(first, "failed", reason="gateway_timeout")
    world.advance()
    second = steps.claim(first.withdrawal_id)
    assert isinstance(second, Send) and second.attempt_id != first.attempt_id
    assert apply(first, "processed") == "conflict"
    other = report_of(
        "pout_00000000000002", "failed", 5000, str(second.attempt_id), reason="bank_account_closed"
    )
    with transaction() as session:
        apply_report(session, other, "poll")
    assert world.read(first.withdrawal_id).status == "processing"
    assert (world.refunds(first.withdrawal_id), world.balance()) == (0, 1500)


@pytest.mark.failure(10)
def test_a_recheck_finds_a_reversal_whose_webhook_was_lost(world: World) -> None:
    withdrawal_id = completed_before_its_reversal(world)
    world.simulator.post("advance", {"seconds": 7 * 86_400})
    world.bring_on(withdrawal_id)
    assert world.read(withdrawal_id).status == "completed"  # the next recheck is not due yet
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    world.bring_on(withdrawal_id)
    assert world.read(withdrawal_id).status == "failed"
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


def test_a_completed_payout_is_rechecked_for_eight_days(world: World) -> None:
    world.credit()
    withdrawal_id = world.paid()
    for rechecks in range(1, 6):
        query = "SELECT ceil(extract(epoch FROM recheck_at - now())) AS s FROM payout_attempts"
        left_seconds = world.sql(query)[0].s
        world.sql_without_rules(
            f"UPDATE withdrawals SET completed_at = completed_at - interval '{left_seconds} seconds'"
        )
        world.sql("UPDATE payout_attempts SET recheck_at = now()")
        world.bring_on(withdrawal_id)
        assert (
            len(world.simulator.calls("GET", f"/v1/payouts/{world.attempts(withdrawal_id)[0].payout_id}"))
            >= rechecks
        )
    assert world.attempts(withdrawal_id)[0].recheck_at is None
    assert world.read(withdrawal_id).status == "completed"


@pytest.mark.failure(9)
def test_an_outdated_report_does_not_move_a_payout_back(world: World) -> None:
    world.credit()
    send = world.first_send()
    apply(send, "processing")
    assert apply(send, "queued") == "follow"
    assert world.attempts(send.withdrawal_id)[0].provider_status == "processing"
    assert world.read(send.withdrawal_id).status_reason == "bank_processing"


def test_a_utr_that_is_reported_later_is_recorded(world: World) -> None:
    world.credit()
    send = world.first_send()
    apply(send, "processed", utr=None)
    assert apply(send, "processed", utr="412345678901") == "repeat"
    assert world.read(send.withdrawal_id).utr == "412345678901"
    assert "learnt" in world.story(send.withdrawal_id)


def test_a_different_body_under_a_known_event_id_is_a_different_event(world: World) -> None:
    """The id is in a header that is not signed; the body is signed."""
    world.credit()
    send = world.first_send()
    apply(send, "processing")
    entity = {"id": PAYOUT, "status": "processed", "amount": 5000, "reference_id": str(send.attempt_id)}
    assert world.webhook("payout.processed", entity, "ev_same") == "pay"
    body = json.dumps(
        {"event": "payout.reversed", "payload": {"payout": {"entity": {**entity, "status": "reversed"}}}}
    )
    assert inbox.receive("ev_same", body.encode())
    assert not inbox.receive("ev_same", body.encode())
    key = world.sql("SELECT event_id FROM webhook_events WHERE applied_at IS NULL")[0].event_id
    assert steps.apply(key) == "hinted"


def test_a_report_about_an_unknown_payout_is_unmatched(world: World) -> None:
    for reference in (None, "order-17", "01a208a5-b724-779f-a85a-7688d7fa28bd"):
        with transaction() as session:
            assert apply_report(session, report_of(PAYOUT, "processed", 1, reference), "poll") == "unmatched"


def test_the_same_webhook_a_hundred_times_applies_once(world: World) -> None:
    world.credit()
    send = world.first_send()
    apply(send, "processing")
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
def test_unreadable_and_ignored_webhooks_are_stored(world: World, body: bytes, outcome: str) -> None:
    assert inbox.receive("ev_odd", body)
    steps.apply("ev_odd")
    [kept] = world.sql("SELECT body, outcome, applied_at FROM webhook_events")
    assert (bytes(kept.body), kept.outcome) == (body, outcome)
    assert kept.applied_at


def test_a_webhook_that_is_not_about_a_payout_is_not_queued(world: World) -> None:
    assert inbox.receive("ev_other", b'{"event": "transaction.created", "payload": {}}')
    soon.flush()
    assert redis_broker.depth(WEBHOOKS) == 0
    assert inbox.receive("ev_payout", b'{"event": "payout.processed", "payload": {}}')
    wait_until(lambda: redis_broker.depth(WEBHOOKS) == 1, 15)


def test_a_payout_of_one_attempt_reported_for_another_puts_it_on_hold(world: World) -> None:
    world.credit(coins=5000)
    first, second = world.first_send(coins=500), world.first_send(coins=500)
    apply(first, "processing")
    stolen = report_of(PAYOUT, "processed", 5000, str(second.attempt_id))
    with transaction() as session:
        assert apply_report(session, stolen, "poll") == "conflict"
    assert world.read(second.withdrawal_id).hold == "payout_of_another"
    assert apply(first, "processed") == "pay"


@pytest.mark.failure(26)
def test_a_webhook_that_always_raises_is_set_aside_and_blocks_no_other(world: World) -> None:
    """Our own database refuses it each time; `payouts check` shows it."""
    world.credit(coins=5000)
    faulty, healthy = world.first_send(coins=500), world.first_send(coins=500)
    world.sql("ALTER TABLE hints ADD CONSTRAINT ours CHECK (said <> 'failed')")
    entity = {"id": PAYOUT, "status": "failed", "amount": 5000}
    body = json.dumps(
        {
            "event": "payout.updated",
            "payload": {"payout": {"entity": {**entity, "reference_id": str(faulty.attempt_id)}}},
        }
    ).encode()
    inbox.receive("ev_poison", body)
    for _ in range(inbox.MAX_TRIES):
        with pytest.raises(IntegrityError, match="ours"):
            steps.apply("ev_poison")
    assert steps.apply("ev_poison") is None
    assert world.sql("SELECT outcome FROM webhook_events")[0].outcome == "poison"
    assert checks.run().unread_webhooks == ["ev_poison"]
    assert apply(healthy, "processed") == "pay"


def test_a_busy_database_does_not_count_as_a_failed_try_of_a_webhook(world: World) -> None:
    world.credit()
    send = world.first_send()
    apply(send, "processing")
    entity = {"id": PAYOUT, "status": "processed", "amount": 5000, "reference_id": str(send.attempt_id)}
    body = json.dumps({"event": "payout.processed", "payload": {"payout": {"entity": entity}}}).encode()
    inbox.receive("ev_locked", body)
    with engine().connect() as blocker:
        blocker.execute(text("SELECT FROM withdrawals FOR UPDATE"))
        with pytest.raises(Unavailable):
            steps.apply("ev_locked")
    assert world.sql("SELECT tries FROM webhook_events")[0].tries == 0
    assert steps.apply("ev_locked") == "pay"


def test_a_report_with_our_payouts_id_and_a_foreign_reference_moves_nothing(world: World) -> None:
    world.credit()
    send = world.first_send()
    apply(send, "processing")
    assert apply(send, "failed", reference_id="11111111-1111-4111-8111-111111111111") == "conflict"
    row = world.read(send.withdrawal_id)
    assert (row.status, row.hold, world.refunds(send.withdrawal_id)) == (
        "processing",
        "reference_differs",
        0,
    )


def test_an_exception_record_has_the_values_of_both_sides(world: World) -> None:
    world.credit()
    send = world.first_send()
    assert apply(send, "processed", amount_paise=999_999) == "conflict"
    with transaction() as session:
        [record] = exception_records.listing(session)
    assert (record.kind, record.ours["amount_paise"], record.theirs["amount_paise"]) == (
        "wrong_amount", 5000, 999_999
    )  # fmt: skip


def test_a_report_in_another_currency_is_unreadable(world: World) -> None:
    world.credit()
    send = world.first_send()
    apply(send, "processing")
    payout = {"id": PAYOUT, "amount": 5000, "reference_id": str(send.attempt_id), "status": "processed"}
    assert world.webhook("payout.processed", {**payout, "currency": "USD"}, "event-1") == "unreadable"
    assert world.read(send.withdrawal_id).status == "processing"
    assert world.webhook("payout.processed", {**payout, "currency": "INR"}, "event-2") == "pay"


def test_a_utr_reported_before_completion_is_kept(world: World) -> None:
    world.credit()
    send = world.first_send()
    apply(send, "processing", utr="412345678901")
    apply(send, "processed", utr=None)
    assert world.read(send.withdrawal_id).utr == "412345678901"


@pytest.mark.parametrize("status", ["cancelled", "rejected"])
def test_a_cancelled_or_rejected_payout_is_not_retried(world: World, status: str) -> None:
    """Even if an earlier reason would have been retried."""
    world.credit()
    send = world.first_send()
    apply(send, "queued", reason="gateway_down")
    apply(send, status, reason="gateway_down")
    row = world.read(send.withdrawal_id)
    assert (row.status, row.status_reason, world.refunds(send.withdrawal_id)) == ("failed", status, 1)


def test_exception_records_close_when_their_withdrawal_is_paid(world: World) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Unknown("no answer"))
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '2 hours', sends = 9")
    world.advance()
    look_up = steps.claim(send.withdrawal_id)
    assert look_up is not None
    record_answer(look_up, Unknown("no answer"))
    for _ in range(3):
        withdrawals.postpone_after_error(send.withdrawal_id, ValueError("ours"))
    with transaction() as session:
        assert {record.kind for record in exception_records.listing(session)} == {
            "unanswered",
            "worker_error",
        }
    apply(send, "processed")
    with transaction() as session:
        assert exception_records.listing(session) == []


def test_an_unanswered_last_recheck_is_repeated_for_a_limited_time(world: World) -> None:
    withdrawal_id = world.paid()
    world.sql("UPDATE withdrawals SET completed_at = completed_at - interval '8 days 1 minute'")
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    recheck = steps.claim(withdrawal_id)
    assert recheck is not None
    record_answer(recheck, Unknown("503", 503))
    assert world.attempts(withdrawal_id)[0].recheck_at is not None
    world.sql("UPDATE withdrawals SET completed_at = completed_at - interval '3 days'")
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    recheck = steps.claim(withdrawal_id)
    assert recheck is not None
    record_answer(recheck, Unknown("503", 503))
    assert world.attempts(withdrawal_id)[0].recheck_at is None, "rechecks end"


def test_each_new_provider_status_is_an_event(world: World) -> None:
    world.credit()
    send = world.first_send()
    for status in ("queued", "queued", "processing", "processing"):
        assert apply(send, status, reason=None) == "follow"
    events = [reason for reason in world.story(send.withdrawal_id) if reason.startswith("payout_")]
    assert events == ["payout_queued", "payout_processing"]
    assert world.read(send.withdrawal_id).status_reason == "bank_processing"


@pytest.mark.failure(2)
@pytest.mark.parametrize("is_closed", [False, True])
def test_each_new_report_about_a_contradicted_end_opens_an_exception_record(
    world: World, is_closed: bool
) -> None:
    """Refunded as never arrived, paid late, and then reversed: people who took the coins back must see it."""
    world.credit()
    send = world.first_send()
    record_answer(send, Refused("never_arrived", "nothing came of it", 400))
    assert apply(send, "processed") == "conflict"
    if is_closed:  # people took the coins back and closed the record
        with transaction() as session:
            for record in exception_records.listing(session):
                exception_records.close(session, record.id, resolution="taken back", actor="operator:asha")
        world.sql("UPDATE withdrawals SET hold = NULL")
    assert apply(send, "reversed") == "conflict"
    with transaction() as session:
        kinds = {record.kind for record in exception_records.listing(session)}
    assert "reversed_after_refused" in kinds
    assert world.read(send.withdrawal_id).hold is not None
    assert apply(send, "reversed") == "late"  # the record is open already
    assert (world.read(send.withdrawal_id).status, world.refunds(send.withdrawal_id)) == ("failed", 1)
