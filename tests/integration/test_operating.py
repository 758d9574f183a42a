"""What operators type: explain, pause, resume, status, exceptions, resolve."""

import os
import re
import subprocess
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from click.testing import Result
from sqlalchemy.exc import ProgrammingError

from shared import watching, withdrawals
from shared.cli.token_file import VARIABLE
from tests.shell import invoke, token_of
from tests.world import World, this_minute
from worker import tasks
from worker.reconcile import nightly, period, run


def payouts(*words: object) -> Result:
    return invoke(*words)


def said(*words: object) -> str:
    done = payouts(*words)
    assert done.exit_code == 0, done.output
    return done.output


def in_order(text: str, *parts: str) -> bool:
    return re.search(".*".join(map(re.escape, parts)), text, re.S) is not None


def test_explain_tells_the_whole_story_in_order_of_time(world: World) -> None:
    world.credit()
    world.simulator.scenario("504.json", next=1)
    send = world.first_send()
    withdrawals.record_answer(send, world.perform(send))
    assert world.finish(send.withdrawal_id) == "completed"
    payout = world.simulator.payouts()[0]
    body = {key: payout[key] for key in ("id", "amount", "reference_id", "status", "utr")}
    world.webhook("payout.processed", body, "event-17")
    story = said("explain", send.withdrawal_id)
    assert in_order(
        story, "completed", "withdrawal -500 coins", "attempt 1", "claimed", "request_sha256", "unanswered",
        "http_status: 504", "sent_again", "processing → completed: paid", "payout.processed came: repeat",
        "event-17",
    )  # fmt: skip
    times = re.findall(r"^(\d{4}-\S+Z)  ", story, re.M)
    assert times == sorted(times) and len(times) >= 8


def test_explain_shows_no_upi_id(world: World) -> None:
    assert "secretname" not in said("explain", world.paid(upi_id="secretname@okaxis"))


def test_explain_of_nothing_is_a_sentence(world: World) -> None:
    done = payouts("explain", "01a20a05-9d4e-77da-b748-75df5672da03")
    assert done.exit_code == 1 and "No withdrawal has this id" in done.output
    assert payouts("explain", "no-id").exit_code == 2


def test_pause_and_resume_name_who_did_it(world: World) -> None:
    said("pause", "--reason", "bank holiday", "--as", "asha")
    assert "payouts: OFF" in said("status") and "operator:asha (bank holiday)" in said("status")
    said("resume", "--as", "ravi")
    assert "payouts: on" in said("status")


def test_an_answer_stands_alone_and_the_log_beside_it(world: World) -> None:
    """As a process of its own: in this one other tests have set up the log of the API."""
    command = [sys.executable, "-m", "shared.cli", "pause", "--reason", "bank holiday", "--as", "asha"]
    env = os.environ | {VARIABLE: token_of("asha")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "payouts is paused: bank holiday\n"
    assert "[PAYOUT] paused" in done.stderr


def test_pause_needs_a_reason(world: World) -> None:
    assert payouts("pause").exit_code == 2


def test_one_handle(world: World) -> None:
    said("pause", "--handle", "@OkAxis", "--reason", "their night")
    assert "handle:okaxis: OFF" in said("status")
    said("resume", "--handle", "okaxis")
    assert "handle:okaxis: on" in said("status")


def test_status_tells_what_waits_what_is_missing_and_how_handles_do(world: World) -> None:
    world.paid(upi_id="asha@okaxis")
    world.paid(upi_id="fail.bank_account_closed@sim")
    world.credit(coins=5000, reference="more")
    world.request(coins=5000)
    watching.learn_balance(20_000)
    told = said("status")
    for line in (
        "pending, cancel_window: 1, ₹500.00",
        "to be paid: ₹500.00", "balance: ₹200.00", "missing: ₹300.00",
        "@okaxis: 1 paid, 0 failed", "@sim: 0 paid, 1 failed",
        "1 × low_balance",
    ):  # fmt: skip
        assert line in told, told


def flagged(world: World) -> UUID:
    world.credit()
    send = world.first_send()
    withdrawals.record_answer(send, world.perform(send))
    payout = world.simulator.payouts()[0]
    told: dict[str, Any] = {"id": payout["id"], "reference_id": payout["reference_id"], "amount": 7}
    assert world.hears({**told, "status": "processed"}) == "conflict"
    return send.withdrawal_id


def test_an_exception_is_listed_taken_and_closed(world: World) -> None:
    withdrawal_id = flagged(world)
    listed = said("exceptions", "list")
    assert "wrong_amount" in listed and str(withdrawal_id) in listed and "nobody has it" in listed
    assert '"amount_paise": 5000' in listed and "ours" in listed and "theirs" in listed
    number = re.findall(r"#(\d+)", listed)[0]
    said("exceptions", "take", number, "--as", "ravi")
    assert "operator:ravi has it" in said("exceptions", "list")
    said("exceptions", "close", number, "--resolution", "explained by RazorpayX", "--as", "ravi")
    assert "Nothing is open." in said("exceptions", "list")
    assert "explained by RazorpayX" in said("exceptions", "list", "--all")
    again = payouts("exceptions", "close", number, "--resolution", "again")
    assert again.exit_code == 1 and "Closed already" in again.output
    assert payouts("exceptions", "take", "9999").exit_code == 1


def test_an_exception_is_never_deleted(world: World) -> None:
    flagged(world)
    with pytest.raises(Exception, match="never deleted"):
        world.sql("DELETE FROM exception_records")


PAID = ("--utr", "5000 0000 0001", "--paid-via", "upi")


def test_resolve_takes_two(world: World) -> None:
    withdrawal_id = flagged(world)
    why = ("--evidence", "RazorpayX confirmed ₹50.00, ticket 4711")
    proposed = said(
        "resolve", "propose", withdrawal_id, "paid", *why, *PAID, "--paid-at", this_minute(), "--as", "asha"
    )
    proposal = proposed.split()[-1]
    alone = payouts("resolve", "approve", proposal, "--as", "asha")
    assert alone.exit_code == 1 and "second person" in alone.output
    assert "is completed" in said("resolve", "approve", proposal, "--as", "ravi")
    assert "operator:ravi approved it" in said("explain", withdrawal_id)


@pytest.mark.failure(12)
def test_silence_of_webhooks_is_noticed_and_ends_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_SILENCE_SECONDS", "0.001")
    world.forget_settings()
    for _ in range(3):
        world.paid()
    assert watching.warn_of_silence() is True
    assert "webhooks_silent" in said("exceptions", "list")
    assert "100.0% of the ends were seen by asking first" in said("status")
    payout = world.simulator.payouts()[0]
    told = {key: payout[key] for key in ("id", "amount", "reference_id", "status")}
    world.webhook("payout.processed", told, "event-1")
    assert watching.warn_of_silence() is False
    assert "webhooks_silent" not in said("exceptions", "list")


def test_two_unheard_ends_are_no_silence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SILENCE_SECONDS", "0.001")
    world.forget_settings()
    for _ in range(2):
        world.paid()
    assert watching.warn_of_silence() is False


def test_the_watch_task_learns_the_balance(world: World) -> None:
    world.simulator.post("balance", {"paise": 123_456})
    tasks._razorpayx.cache_clear()
    tasks.watch.run()
    assert world.sql("SELECT available_paise FROM provider_balances")[0].available_paise == 123_456


def test_one_duty_of_the_watch_that_fails_keeps_nobody_from_the_others(world: World) -> None:
    world.altered = True
    world.sql("ALTER TABLE webhook_events RENAME TO gone")  # whether webhooks come cannot be asked
    world.simulator.post("balance", {"paise": 123_456})
    tasks._razorpayx.cache_clear()
    with pytest.raises(ProgrammingError, match="webhook_events"):
        tasks.watch.run()
    world.sql("ALTER TABLE gone RENAME TO webhook_events")
    assert world.sql("SELECT available_paise FROM provider_balances")[0].available_paise == 123_456


def test_the_night_compares_yesterday_once(world: World) -> None:
    world.sql("SELECT 1")
    first = nightly()
    if first is None:  # between midnight and two in India it is too early: make it later
        begins, ends = period(None, None)
        first = run(begins, ends)
    assert first.outcome == "clean"
    assert nightly() is None
    runs = world.sql("SELECT to_at - from_at AS long, outcome FROM reconciliation_runs")
    assert [(run.long.days, run.outcome) for run in runs] == [(1, "clean")]


def test_a_look_at_a_day_before_it_was_over_is_not_its_comparison(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finance looked at yesterday when it was noon: the afternoon is still to be compared."""
    monkeypatch.setattr("worker.reconcile.SETTLED_SECONDS", 0)
    begins, ends = period(None, None)
    run(begins, ends)
    world.sql("UPDATE reconciliation_runs SET started_at = to_at - interval '12 hours'")
    again = nightly()
    assert again is not None and (again.since, again.outcome) == (begins, "clean")
    assert nightly() is None


def test_a_comparison_of_a_week_is_one_of_each_of_its_days(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.reconcile.SETTLED_SECONDS", 0)
    world.paid()
    world.sql("UPDATE withdrawals SET created_at = created_at - interval '5 days'")
    _, ends = period(None, None)
    run(ends - timedelta(days=7), ends)
    assert nightly() is None


def test_a_night_that_could_not_be_read_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.razorpayx.listing.FIRST_WAIT_SECONDS", 0.01)
    world.simulator.settings(down="500")
    begins, ends = period(None, None)
    assert run(begins, ends).outcome == "incomplete"
    world.simulator.settings(down=None)
    again = nightly() or run(begins, ends)
    assert again.outcome == "clean"


def test_what_is_late_is_told_and_forgotten_when_it_goes_on(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    assert watching.warn_of_overdue() == 0
    world.sql("UPDATE withdrawals SET expected_by = now() - interval '1 second'")
    assert watching.warn_of_overdue() == watching.warn_of_overdue() == 1
    assert said("exceptions", "list").count("overdue") == 1
    assert str(withdrawal_id) in said("exceptions", "list")
    assert world.finish(withdrawal_id) == "completed"
    assert watching.warn_of_overdue() == 0
    assert "Nothing is open." in said("exceptions", "list")


def test_a_step_that_raises_again_and_again_is_told_to_a_person_and_still_tried(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    for _ in range(3):
        withdrawals.put_off(withdrawal_id, ValueError("our own fault"))
    assert world.read(withdrawal_id).review == "worker_error"
    assert "our own fault" in said("exceptions", "list")
    assert world.finish(withdrawal_id) == "completed"
    assert world.read(withdrawal_id).review is None
    assert "Nothing is open." in said("exceptions", "list")


def test_a_day_that_was_not_compared_is_told_and_compared_when_it_can_be(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker ran for three days, and then the provider's lists cannot be read."""
    monkeypatch.setattr("shared.razorpayx.listing.FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("worker.reconcile.SETTLED_SECONDS", 0)
    world.paid()
    world.sql("UPDATE withdrawals SET created_at = created_at - interval '3 days'")
    world.simulator.settings(down="500")
    told = "SELECT subject FROM exception_records WHERE kind = 'not_reconciled' AND resolved_at IS NULL ORDER BY 1"
    incomplete = nightly()
    assert incomplete is not None and incomplete.outcome == "incomplete"
    late = [row.subject for row in world.sql(told)]
    assert len(late) == 2, "yesterday is not late yet"
    world.simulator.settings(down=None)
    days = []
    while (one := nightly()) is not None:
        days.append(one.since)
    assert len(days) == len(set(days)) == 3
    assert days[-1] == incomplete.since, "what was just tried goes last"
    assert world.sql(told) == []


def test_who_takes_a_record_over_leaves_a_line(world: World) -> None:
    flagged(world)
    number = re.findall(r"#(\d+)", said("exceptions", "list"))[0]
    for name in ("ravi", "ravi", "asha"):
        said("exceptions", "take", number, "--as", name)
    [line] = world.sql("SELECT * FROM audit_log WHERE action = 'exception_taken_over'")
    assert (line.operator, line.data["before"]) == ("asha", {"owner": "operator:ravi"})
