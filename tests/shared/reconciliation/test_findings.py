"""Exception records over several runs, and the files for finance."""

import builtins
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.clock import INDIA
from shared.db.transactions import transaction
from shared.people import exception_records
from shared.providers.clients import client
from shared.reconciliation import days, report
from tests.shared.reconciliation.days import Day, csv_rows, kinds, make_small_day, reconcile, summary
from tests.support.shell import invoke
from tests.support.world import World

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("one_day")]


def test_a_record_is_closed_when_a_later_run_finds_agreement(day: Day) -> None:
    make_small_day(day)
    line = day.provider.line(day.payout(day.paid[0]))
    day.provider.alter_line(line, debit=line["debit"] + 1)
    day.run()
    assert kinds(day) == ["debit_differs"]
    day.provider.alter_line(line, debit=line["debit"])
    result = day.run()
    assert (result.outcome, result.closed) == ("clean", 1) and not day.open()
    assert day.rows()[0].resolved_by == "reconciliation" and "agreement" in day.rows()[0].resolution


def test_a_run_that_did_not_compare_a_payout_closes_nothing(day: Day) -> None:
    make_small_day(day)
    day.provider.alter(day.payout(day.paid[0]), utr="5")
    day.run()
    begins, ends = day.period()
    days.run(client(), begins - timedelta(days=5), ends - timedelta(days=5))
    assert kinds(day) == ["utr_differs"]


def test_a_resolved_exception_stays_resolved_until_the_facts_change(day: Day, tmp_path: Path) -> None:
    make_small_day(day)
    day.provider.alter(day.payout(day.paid[0]), utr="5")
    day.run()
    with transaction() as session:
        number = exception_records.listing(session)[0].id
        exception_records.close(session, number, resolution="their typing error", actor="operator:asha")
    assert reconcile(day, tmp_path).exit_code == 0
    assert "1 x explained: utr_differs" in summary(tmp_path)
    day.provider.alter(day.payout(day.paid[0]), utr="6")
    assert day.run().outcome == "exceptions" and kinds(day) == ["utr_differs"]


def test_a_utr_of_another_day_is_found(day: Day) -> None:
    make_small_day(day)
    first, second = day.paid
    utr = day.attempt(first).utr
    line = day.provider.line(day.payout(first))
    day.provider.alter(day.payout(second), utr=utr)
    begins = datetime.fromtimestamp(line["created_at"] + 1, INDIA)
    day.world.simulator.post(f"payouts/{day.payout(first)}/forget", {})  # so that only our ledger has it
    days.run(client(), begins, begins + timedelta(days=1))
    assert ("utr_twice", utr) in day.open()


def test_payouts_under_other_credentials_are_counted_and_not_reported(day: Day, tmp_path: Path) -> None:
    make_small_day(day)
    day.world.sql_without_rules(
        f"""INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sent_as, payout_id, ended_at)
            VALUES ('{uuid.uuid4()}', '{day.paid[0]}', 2, '', 'failed', 'old@there', 'pout_Old', now())"""
    )
    assert reconcile(day, tmp_path).exit_code == 0
    assert "Attempts sent with other credentials, not checked: 1" in summary(tmp_path)


def test_the_list_contains_no_upi_id_and_no_formula(day: Day, tmp_path: Path) -> None:
    day.world.paid(upi_id="secretname@okaxis")
    payout_id = day.payout(day.world.paid())
    day.provider.alter(payout_id, utr='=HYPERLINK("http://x")')
    reconcile(day, tmp_path)
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "secretname" not in text and "okaxis" not in text
    assert [row["utr_theirs"] for row in csv_rows(tmp_path) if row["payout"] == payout_id] == [
        '\'=HYPERLINK("http://x")'
    ]


def test_the_list_is_in_rupees(day: Day, tmp_path: Path) -> None:
    withdrawal_id = day.world.paid()
    assert reconcile(day, tmp_path).exit_code == 0
    (row,) = csv_rows(tmp_path)
    assert row["withdrawal"] == str(withdrawal_id) and row["verdict"] == "agrees"
    names = ("amount_ours", "amount_theirs", "fees_ours", "tax_theirs", "statement_debit", "statement_credit")
    assert [row[name] for name in names] == ["50.00", "50.00", "5.90", "0.90", "55.90", "0.00"]


def test_report_files_are_written_completely_or_not_at_all(
    day: Day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small_day(day)
    result = day.run()
    real_open = open

    def open_on_full_disk(path: Any, *arguments: Any, **named: Any) -> Any:
        if ".txt" not in str(path):
            return real_open(path, *arguments, **named)
        Path(path).write_text("half")
        return real_open("/dev/full", "w", encoding="utf-8")

    monkeypatch.setattr(builtins, "open", open_on_full_disk)
    with pytest.raises(OSError, match="No space"):
        report.write_files(result, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_default_period_is_yesterday_in_india(day: Day, tmp_path: Path) -> None:
    assert invoke("reconcile", "--output", tmp_path).exit_code == 0
    run = day.world.sql(
        """SELECT from_at AT TIME ZONE 'Asia/Kolkata' = date_trunc('day', now() AT TIME ZONE 'Asia/Kolkata') - interval '1 day' AS is_yesterday,
                  to_at - from_at = interval '1 day' AS is_a_day, outcome FROM reconciliation_runs"""
    )[0]
    assert tuple(run) == (True, True, "clean")


def test_a_period_that_ends_before_it_begins_is_a_plain_error(world: World) -> None:
    command = invoke("reconcile", "--from", "2026-11-02", "--to", "2026-11-01")
    assert command.exit_code == 1 and "The period must begin before it ends" in command.output
