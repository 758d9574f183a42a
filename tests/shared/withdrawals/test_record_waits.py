"""How long each withdrawal waits and why, by the times in its row."""

import time
from dataclasses import replace

import pytest

from shared import withdrawals
from shared.providers.answers import Answer, Found, Throttled, Unknown
from shared.providers.steps import LookUp, Send
from shared.settings import settings
from tests.support.steps import claim, record_answer
from tests.support.world import World

HOUR_SECONDS = 3600
MINUTE_SECONDS = 60


@pytest.fixture
def funded(world: World) -> World:
    world.credit(coins=100_000)
    return world


def wait_seconds(world: World, send: Send) -> float:
    """From the last update until it is due."""
    sql = "SELECT extract(epoch FROM due_at - updated_at)::float8 AS s FROM withdrawals WHERE id = :id"
    return world.sql(sql, id=send.withdrawal_id)[0].s  # type: ignore[no-any-return]


def claim_resend(world: World, send: Send) -> Send:
    world.advance()
    step = claim(send.withdrawal_id)
    assert isinstance(step, Send)
    return step


def test_each_send_without_an_answer_is_followed_by_a_longer_wait(funded: World) -> None:
    send = funded.first_send()
    waits = []
    for _ in range(3):
        record_answer(send, Unknown("timed out"))
        waits.append(wait_seconds(funded, send))
        send = claim_resend(funded, send)
    record_answer(send, Unknown("timed out"))
    assert [*waits, wait_seconds(funded, send)] == [
        1 * MINUTE_SECONDS,
        2 * MINUTE_SECONDS,
        5 * MINUTE_SECONDS,
        5 * MINUTE_SECONDS,
    ]
    funded.advance()
    assert isinstance(claim(send.withdrawal_id), LookUp)


def test_the_next_send_waits_as_long_as_retry_after_says(funded: World) -> None:
    send = funded.first_send()
    record_answer(send, Throttled("busy", "Too many", 60))
    assert 60 <= wait_seconds(funded, send) <= 75


def test_each_429_doubles_the_wait_up_to_ten_minutes(funded: World) -> None:
    send = funded.first_send()
    waits = []
    for _ in range(9):
        record_answer(send, Throttled("busy", "Too many"))
        waits.append(wait_seconds(funded, send))
        send = claim_resend(funded, send)
    for wait, least in zip(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600], strict=True):
        assert least <= wait <= 1.25 * least


def test_payouts_throttled_together_are_retried_at_different_times(funded: World) -> None:
    sends = [funded.first_send(coins=100) for _ in range(3)]
    for send in sends:
        record_answer(send, Throttled("busy", "Too many", 60))
    assert len({wait_seconds(funded, send) for send in sends}) > 1


def test_the_expected_time_is_not_before_the_next_try(funded: World) -> None:
    """The provider asks for an hour; the random spread makes it more."""
    send = funded.first_send()
    record_answer(send, Throttled("busy", "Too many", HOUR_SECONDS))
    assert wait_seconds(funded, send) > HOUR_SECONDS
    row = funded.read(send.withdrawal_id)
    assert row.expected_by and row.due_at
    # expected_by counts from the first try, a moment earlier.
    assert (row.due_at - row.expected_by).total_seconds() < 30


@pytest.mark.parametrize(
    ("reason", "minutes"),
    [("server_error_temporary", 5), ("gateway_timeout", 30), ("insufficient_funds", 30)],
)
def test_a_temporary_failure_is_retried_after_the_time_in_the_table(
    funded: World, reason: str, minutes: int
) -> None:
    send = funded.first_send()
    payout = {"id": "pout_00000000000009", "amount": 5000, "reference_id": str(send.attempt_id)}
    failed = {**payout, "status": "failed", "status_details": {"reason": reason}}
    assert funded.receive_report(failed) == "fail"
    assert funded.read(send.withdrawal_id).status_reason == "retry_later"
    assert wait_seconds(funded, send) == minutes * MINUTE_SECONDS


def test_an_unanswered_payout_is_flagged_after_an_hour_and_not_before(funded: World) -> None:
    send = funded.first_send()
    for minutes, hold in ((59, None), (2, "unanswered")):
        funded.sql(f"UPDATE payout_attempts SET created_at = created_at - interval '{minutes} minutes'")
        funded.sql("UPDATE payout_attempts SET sends = 9")  # no resend is left: it is looked up
        funded.advance()
        look_up = claim(send.withdrawal_id)
        assert isinstance(look_up, LookUp)
        record_answer(look_up, Unknown("no answer"))
        assert funded.read(send.withdrawal_id).hold == hold


def test_a_call_never_starts_so_late_that_it_outlasts_its_lease(funded: World) -> None:
    timeout_seconds = settings().razorpayx_connect_seconds + settings().razorpayx_read_seconds
    started = time.time()
    send = funded.first_send()
    assert started < send.deadline <= time.time() + settings().lease_seconds - timeout_seconds
    late: Answer = funded.perform(replace(send, deadline=time.time() - 0.1))
    assert isinstance(late, Throttled) and funded.simulator.calls() == []


def test_absence_before_a_resend_does_not_count_after_it(
    funded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked up during a pause of nearly an hour, then resent: the resend may still arrive."""
    send = _unanswered_during_a_pause(funded, monkeypatch)
    for _ in range(8):
        _look_up_finds_none(funded, send)
    funded.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '59 minutes'")
    withdrawals.resume("payouts", reason="seen", actor="operator:asha")
    record_answer(claim_resend(funded, send), Unknown("the reply is lost"))
    funded.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '2 minutes'")
    _look_up_finds_none(funded, send)
    assert funded.read(send.withdrawal_id).status == "processing"
    assert funded.refunds(send.withdrawal_id) == 0


def _unanswered_during_a_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> Send:
    monkeypatch.setenv("RESEND_SECONDS", "60")
    world.forget_settings()
    send = world.first_send()
    record_answer(send, Unknown("the wire broke"))
    withdrawals.pause("payouts", reason="to look", actor="operator:asha")
    return send


def _look_up_finds_none(world: World, send: Send) -> None:
    world.advance()
    look_up = claim(send.withdrawal_id)
    assert isinstance(look_up, LookUp)
    record_answer(look_up, Found(()))


def test_a_look_up_from_before_a_resend_is_ignored(funded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up found none in a pause and its worker froze; the pause ended and another worker resends."""
    send = _unanswered_during_a_pause(funded, monkeypatch)
    funded.advance()
    look_up = claim(send.withdrawal_id)
    assert isinstance(look_up, LookUp)
    withdrawals.resume("payouts", reason="seen", actor="operator:asha")
    claim_resend(funded, send)
    due_at = funded.read(send.withdrawal_id).due_at
    record_answer(look_up, Found(()))
    [attempt] = funded.attempts(send.withdrawal_id)
    assert (attempt.state, attempt.absent_replies, attempt.absent_since) == ("sending", 0, None)
    assert funded.read(send.withdrawal_id).due_at == due_at
    assert funded.story(send.withdrawal_id)[-1] == "too_late"
