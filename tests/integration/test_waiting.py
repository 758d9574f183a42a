"""How long each waits, and what for: by the times that the rows are given."""

import time
from dataclasses import replace

import pytest

from shared import withdrawals
from shared.razorpayx.answers import Answer, Found, Throttled, Unknown
from shared.settings import settings
from shared.steps import LookUp, Send
from shared.withdrawals import claim, record_answer
from tests.world import World

HOUR, MINUTE = 3600, 60


@pytest.fixture
def rich(world: World) -> World:
    world.credit(coins=100_000)
    return world


def waits_seconds(world: World, send: Send) -> float:
    """From when it was written down until it is due."""
    sql = "SELECT extract(epoch FROM due_at - updated_at)::float8 AS s FROM withdrawals WHERE id = :id"
    return world.sql(sql, id=send.withdrawal_id)[0].s  # type: ignore[no-any-return]


def sent_again(world: World, send: Send) -> Send:
    world.advance()
    step = claim(send.withdrawal_id)
    assert isinstance(step, Send)
    return step


def test_each_send_without_an_answer_is_followed_by_a_longer_wait(rich: World) -> None:
    send, waited = rich.first_send(), []
    for _ in range(3):
        record_answer(send, Unknown("timed out"))
        waited.append(waits_seconds(rich, send))
        send = sent_again(rich, send)
    record_answer(send, Unknown("timed out"))
    assert [*waited, waits_seconds(rich, send)] == [1 * MINUTE, 2 * MINUTE, 5 * MINUTE, 5 * MINUTE]
    rich.advance()
    assert isinstance(claim(send.withdrawal_id), LookUp)


def test_retry_after_is_waited_for(rich: World) -> None:
    send = rich.first_send()
    record_answer(send, Throttled("busy", "Too many", 60))
    assert 60 <= waits_seconds(rich, send) <= 75


def test_each_429_doubles_the_wait_up_to_ten_minutes(rich: World) -> None:
    send, waited = rich.first_send(), []
    for _ in range(9):
        record_answer(send, Throttled("busy", "Too many"))
        waited.append(waits_seconds(rich, send))
        send = sent_again(rich, send)
    for seconds, least in zip(waited, [5, 10, 20, 40, 80, 160, 320, 600, 600], strict=True):
        assert least <= seconds <= 1.25 * least


def test_who_was_sent_away_together_does_not_come_back_together(rich: World) -> None:
    sends = [rich.first_send(coins=100) for _ in range(3)]
    for send in sends:
        record_answer(send, Throttled("busy", "Too many", 60))
    assert len({waits_seconds(rich, send) for send in sends}) > 1


def test_nobody_is_told_to_expect_it_before_it_is_tried_again(rich: World) -> None:
    """The provider asks for an hour; with the spread it is more."""
    send = rich.first_send()
    record_answer(send, Throttled("busy", "Too many", HOUR))
    assert waits_seconds(rich, send) > HOUR
    row = rich.read(send.withdrawal_id)
    assert row.expected_by and row.due_at
    # What is promised counts from the first try, which was a moment before.
    assert (row.due_at - row.expected_by).total_seconds() < 30


@pytest.mark.parametrize(
    ("reason", "minutes"),
    [("server_error_temporary", 5), ("gateway_timeout", 30), ("insufficient_funds", 30)],
)
def test_a_passing_failure_is_tried_anew_when_the_table_says(rich: World, reason: str, minutes: int) -> None:
    send = rich.first_send()
    told = {"id": "pout_00000000000009", "amount": 5000, "reference_id": str(send.attempt_id)}
    failed = {**told, "status": "failed", "status_details": {"reason": reason}}
    assert rich.hears(failed) == "fail"
    assert rich.read(send.withdrawal_id).status_reason == "retry_later"
    assert waits_seconds(rich, send) == minutes * MINUTE


def test_a_person_is_told_that_nobody_answers_after_an_hour_and_not_before(rich: World) -> None:
    send = rich.first_send()
    for minutes, told in ((59, None), (2, "unanswered")):
        rich.sql(f"UPDATE payout_attempts SET created_at = created_at - interval '{minutes} minutes'")
        rich.sql("UPDATE payout_attempts SET sends = 9")  # as often as it may: from here on it is looked up
        rich.advance()
        look_up = claim(send.withdrawal_id)
        assert isinstance(look_up, LookUp)
        record_answer(look_up, Unknown("no answer"))
        assert rich.read(send.withdrawal_id).review == told


def test_a_call_does_not_begin_so_late_that_it_outlasts_its_lease(rich: World) -> None:
    patience = settings().razorpayx_connect_seconds + settings().razorpayx_read_seconds
    began = time.time()
    send = rich.first_send()
    assert began < send.until <= time.time() + settings().lease_seconds - patience
    late: Answer = rich.perform(replace(send, until=time.time() - 0.1))
    assert isinstance(late, Throttled) and rich.simulator.calls() == []


def test_absent_before_it_was_sent_again_says_nothing_after_it(
    rich: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked for in a pause of nearly an hour, and then sent again: that one may be on its way."""
    send = _unanswered_in_a_pause(rich, monkeypatch)
    for _ in range(8):
        _finds_none(rich, send)
    rich.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '59 minutes'")
    withdrawals.resume("payouts", reason="seen", actor="operator:asha")
    record_answer(sent_again(rich, send), Unknown("the reply is lost"))
    rich.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '2 minutes'")
    _finds_none(rich, send)
    assert rich.read(send.withdrawal_id).status == "processing"
    assert rich.refunds(send.withdrawal_id) == 0


def _unanswered_in_a_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> Send:
    monkeypatch.setenv("RESEND_SECONDS", "60")
    world.forget_settings()
    send = world.first_send()
    record_answer(send, Unknown("the wire broke"))
    withdrawals.pause("payouts", reason="to look", actor="operator:asha")
    return send


def _finds_none(world: World, send: Send) -> None:
    world.advance()
    look_up = claim(send.withdrawal_id)
    assert isinstance(look_up, LookUp)
    record_answer(look_up, Found(()))


def test_a_look_that_slept_while_it_was_sent_again_says_nothing(
    rich: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found none in a pause, and its worker froze; the pause ended, and another worker is on the wire."""
    send = _unanswered_in_a_pause(rich, monkeypatch)
    rich.advance()
    slept = claim(send.withdrawal_id)
    assert isinstance(slept, LookUp)
    withdrawals.resume("payouts", reason="seen", actor="operator:asha")
    sent_again(rich, send)
    due_at = rich.read(send.withdrawal_id).due_at
    record_answer(slept, Found(()))
    [attempt] = rich.attempts(send.withdrawal_id)
    assert (attempt.state, attempt.absent_looks, attempt.absent_since) == ("sending", 0, None)
    assert rich.read(send.withdrawal_id).due_at == due_at
    assert rich.story(send.withdrawal_id)[-1] == "too_late"
