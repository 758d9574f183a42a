"""The commands of operators: explain, pause, resume, status, exceptions, resolve."""

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

from cli.token_file import ENVIRONMENT_VARIABLE
from shared import withdrawals
from shared.monitoring import watchdog
from shared.providers.clients import client
from shared.reconciliation.days import nightly, period, run
from tests.support import steps
from tests.support.shell import invoke, token_of
from tests.support.world import World, this_minute
from worker import tasks


def payouts(*arguments: object) -> Result:
    return invoke(*arguments)


def output_of(*arguments: object) -> str:
    done = payouts(*arguments)
    assert done.exit_code == 0, done.output
    return done.output


def contains_in_order(text: str, *parts: str) -> bool:
    return re.search(".*".join(map(re.escape, parts)), text, re.S) is not None


def test_explain_shows_the_whole_timeline_in_order(world: World) -> None:
    world.credit()
    world.simulator.scenario("504.json", next=1)
    send = world.first_send()
    steps.record_answer(send, world.perform(send))
    assert world.finish(send.withdrawal_id) == "completed"
    payout = world.simulator.payouts()[0]
    body = {key: payout[key] for key in ("id", "amount", "reference_id", "status", "utr")}
    world.webhook("payout.processed", body, "event-17")
    timeline = output_of("explain", send.withdrawal_id)
    assert contains_in_order(
        timeline, "completed", "withdrawal -500 coins", "attempt 1", "claimed", "request_sha256", "unanswered",
        "http_status: 504", "sent_again", "processing → completed: paid", "payout.processed received: repeat",
        "event-17",
    )  # fmt: skip
    times = re.findall(r"^(\d{4}-\S+Z)  ", timeline, re.M)
    assert times == sorted(times) and len(times) >= 8


def test_explain_shows_no_upi_id(world: World) -> None:
    assert "secretname" not in output_of("explain", world.paid(upi_id="secretname@okaxis"))


def test_explain_of_an_unknown_id_prints_an_error(world: World) -> None:
    done = payouts("explain", "01a20a05-9d4e-77da-b748-75df5672da03")
    assert done.exit_code == 1 and "No withdrawal has this id" in done.output
    assert payouts("explain", "no-id").exit_code == 2


def test_status_names_the_operator_who_paused_payouts(world: World) -> None:
    output_of("pause", "--reason", "bank holiday", "--as", "asha")
    assert "payouts: OFF" in output_of("status") and "operator:asha (bank holiday)" in output_of("status")
    output_of("resume", "--as", "ravi")
    assert "payouts: on" in output_of("status")


def test_a_command_prints_its_result_on_stdout_and_logs_on_stderr(world: World) -> None:
    """In its own process: in this one, other tests have set up the logs of the API."""
    command = [sys.executable, "-m", "cli", "pause", "--reason", "bank holiday", "--as", "asha"]
    env = os.environ | {ENVIRONMENT_VARIABLE: token_of("asha")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "payouts is paused: bank holiday\n"
    assert "[PAYOUT] paused" in done.stderr


def test_pause_needs_a_reason(world: World) -> None:
    assert payouts("pause").exit_code == 2


def test_one_upi_handle_can_be_paused_and_resumed(world: World) -> None:
    output_of("pause", "--handle", "@OkAxis", "--reason", "their night")
    assert "handle:okaxis: OFF" in output_of("status")
    output_of("resume", "--handle", "okaxis")
    assert "handle:okaxis: on" in output_of("status")


def test_status_shows_pending_withdrawals_missing_money_and_results_by_handle(world: World) -> None:
    world.paid(upi_id="asha@okaxis")
    world.paid(upi_id="fail.bank_account_closed@sim")
    world.credit(coins=5000, reference="more")
    world.request(coins=5000)
    watchdog.record_balance(20_000)
    status = output_of("status")
    for line in (
        "pending, cancel_window: 1, ₹500.00",
        "to be paid: ₹500.00", "balance: ₹200.00", "missing: ₹300.00",
        "@okaxis: 1 paid, 0 failed", "@sim: 0 paid, 1 failed",
        "1 × low_balance",
    ):  # fmt: skip
        assert line in status, status


def contradicted(world: World) -> UUID:
    world.credit()
    send = world.first_send()
    steps.record_answer(send, world.perform(send))
    payout = world.simulator.payouts()[0]
    report: dict[str, Any] = {"id": payout["id"], "reference_id": payout["reference_id"], "amount": 7}
    assert world.receive_report({**report, "status": "processed"}) == "conflict"
    return send.withdrawal_id


def test_an_exception_record_is_listed_assigned_and_closed(world: World) -> None:
    withdrawal_id = contradicted(world)
    listed = output_of("exceptions", "list")
    assert "wrong_amount" in listed and str(withdrawal_id) in listed and "unassigned" in listed
    assert '"amount_paise": 5000' in listed and "ours" in listed and "theirs" in listed
    number = re.findall(r"#(\d+)", listed)[0]
    output_of("exceptions", "take", number, "--as", "ravi")
    assert "assigned to operator:ravi" in output_of("exceptions", "list")
    output_of("exceptions", "close", number, "--resolution", "explained by RazorpayX", "--as", "ravi")
    assert "No exception records." in output_of("exceptions", "list")
    assert "explained by RazorpayX" in output_of("exceptions", "list", "--all")
    again = payouts("exceptions", "close", number, "--resolution", "again")
    assert again.exit_code == 1 and "Already closed" in again.output
    assert payouts("exceptions", "take", "9999").exit_code == 1


def test_an_exception_record_cannot_be_deleted(world: World) -> None:
    contradicted(world)
    with pytest.raises(Exception, match="never deleted"):
        world.sql("DELETE FROM exception_records")


PAID = ("--utr", "5000 0000 0001", "--paid-via", "upi")


def test_a_resolution_needs_a_second_person(world: World) -> None:
    withdrawal_id = contradicted(world)
    evidence = ("--evidence", "RazorpayX confirmed ₹50.00, ticket 4711")
    proposed = output_of(
        "resolve",
        "propose",
        withdrawal_id,
        "paid",
        *evidence,
        *PAID,
        "--paid-at",
        this_minute(),
        "--as",
        "asha",
    )
    proposal = proposed.split()[-1]
    alone = payouts("resolve", "approve", proposal, "--as", "asha")
    assert alone.exit_code == 1 and "second person" in alone.output
    assert "is completed" in output_of("resolve", "approve", proposal, "--as", "ravi")
    assert "operator:ravi approved it" in output_of("explain", withdrawal_id)


@pytest.mark.failure(12)
def test_missing_webhooks_are_reported_until_one_arrives(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_SILENCE_SECONDS", "0.001")
    world.forget_settings()
    for _ in range(3):
        world.paid()
    assert watchdog.warn_of_silence() is True
    assert "webhooks_silent" in output_of("exceptions", "list")
    assert "100.0% of payouts ended without a webhook first" in output_of("status")
    payout = world.simulator.payouts()[0]
    report = {key: payout[key] for key in ("id", "amount", "reference_id", "status")}
    world.webhook("payout.processed", report, "event-1")
    assert watchdog.warn_of_silence() is False
    assert "webhooks_silent" not in output_of("exceptions", "list")


def test_two_payouts_without_a_webhook_are_not_reported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_SILENCE_SECONDS", "0.001")
    world.forget_settings()
    for _ in range(2):
        world.paid()
    assert watchdog.warn_of_silence() is False


def test_the_watch_task_stores_the_provider_balance(world: World) -> None:
    world.simulator.post("balance", {"paise": 123_456})
    client.cache_clear()
    tasks.watch.run()
    assert world.sql("SELECT available_paise FROM provider_balances")[0].available_paise == 123_456


def test_a_failing_duty_of_the_watch_task_does_not_stop_the_others(world: World) -> None:
    world.altered = True
    world.sql("ALTER TABLE webhook_events RENAME TO gone")  # the check for missing webhooks fails
    world.simulator.post("balance", {"paise": 123_456})
    client.cache_clear()
    with pytest.raises(ProgrammingError, match="webhook_events"):
        tasks.watch.run()
    world.sql("ALTER TABLE gone RENAME TO webhook_events")
    assert world.sql("SELECT available_paise FROM provider_balances")[0].available_paise == 123_456


def test_the_nightly_reconciliation_compares_yesterday_once(world: World) -> None:
    world.sql("SELECT 1")
    first = nightly(client())
    if first is None:  # it is too early between 00:00 and 02:00 IST: run it by hand
        begins, ends = period(None, None)
        first = run(client(), begins, ends)
    assert first.outcome == "clean"
    assert nightly(client()) is None
    runs = world.sql("SELECT to_at - from_at AS long, outcome FROM reconciliation_runs")
    assert [(run.long.days, run.outcome) for run in runs] == [(1, "clean")]


def test_a_comparison_made_before_the_day_ended_is_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison made at noon does not cover the afternoon."""
    monkeypatch.setattr("shared.reconciliation.days.SETTLED_SECONDS", 0)
    begins, ends = period(None, None)
    run(client(), begins, ends)
    world.sql("UPDATE reconciliation_runs SET started_at = to_at - interval '12 hours'")
    again = nightly(client())
    assert again is not None and (again.since, again.outcome) == (begins, "clean")
    assert nightly(client()) is None


def test_a_comparison_of_a_week_covers_each_of_its_days(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.reconciliation.days.SETTLED_SECONDS", 0)
    world.paid()
    world.sql("UPDATE withdrawals SET created_at = created_at - interval '5 days'")
    _, ends = period(None, None)
    run(client(), ends - timedelta(days=7), ends)
    assert nightly(client()) is None


def test_an_incomplete_comparison_is_retried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.providers.razorpayx.listing.FIRST_WAIT_SECONDS", 0.01)
    world.simulator.settings(down="500")
    begins, ends = period(None, None)
    assert run(client(), begins, ends).outcome == "incomplete"
    world.simulator.settings(down=None)
    again = nightly(client()) or run(client(), begins, ends)
    assert again.outcome == "clean"


def test_an_overdue_withdrawal_is_reported_until_it_moves_on(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    assert watchdog.warn_of_overdue() == 0
    world.sql("UPDATE withdrawals SET expected_by = now() - interval '1 second'")
    assert watchdog.warn_of_overdue() == watchdog.warn_of_overdue() == 1
    assert output_of("exceptions", "list").count("overdue") == 1
    assert str(withdrawal_id) in output_of("exceptions", "list")
    assert world.finish(withdrawal_id) == "completed"
    assert watchdog.warn_of_overdue() == 0
    assert "No exception records." in output_of("exceptions", "list")


def test_a_step_that_keeps_raising_is_reported_and_still_retried(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    for _ in range(3):
        withdrawals.postpone_after_error(withdrawal_id, ValueError("our own fault"))
    assert world.read(withdrawal_id).hold == "worker_error"
    assert "our own fault" in output_of("exceptions", "list")
    assert world.finish(withdrawal_id) == "completed"
    assert world.read(withdrawal_id).hold is None
    assert "No exception records." in output_of("exceptions", "list")


def test_days_without_a_comparison_are_reported_and_compared_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker ran for three days, and then the provider's lists are unreadable."""
    monkeypatch.setattr("shared.providers.razorpayx.listing.FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("shared.reconciliation.days.SETTLED_SECONDS", 0)
    world.paid()
    world.sql("UPDATE withdrawals SET created_at = created_at - interval '3 days'")
    world.simulator.settings(down="500")
    open_records = "SELECT subject FROM exception_records WHERE kind = 'not_reconciled' AND resolved_at IS NULL ORDER BY 1"
    incomplete = nightly(client())
    assert incomplete is not None and incomplete.outcome == "incomplete"
    late = [row.subject for row in world.sql(open_records)]
    assert len(late) == 2, "yesterday is not overdue yet"
    world.simulator.settings(down=None)
    days = []
    while (comparison := nightly(client())) is not None:
        days.append(comparison.since)
    assert len(days) == len(set(days)) == 3
    assert days[-1] == incomplete.since, "the day that was just tried comes last"
    assert world.sql(open_records) == []


def test_taking_over_an_exception_record_is_audited(world: World) -> None:
    contradicted(world)
    number = re.findall(r"#(\d+)", output_of("exceptions", "list"))[0]
    for name in ("ravi", "ravi", "asha"):
        output_of("exceptions", "take", number, "--as", name)
    [line] = world.sql("SELECT * FROM audit_log WHERE action = 'exception_taken_over'")
    assert (line.operator, line.data["before"]) == ("asha", {"owner": "operator:ravi"})
