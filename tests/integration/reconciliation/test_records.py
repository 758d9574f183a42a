"""Exception records over several runs, and the papers for finance."""

import builtins
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared import exception_records
from shared.clock import INDIA
from shared.db import transaction
from shared.reconciliation import papers
from tests.integration.reconciliation.days import Day, few, kinds, ran, summary, table
from tests.shell import invoke
from tests.world import World
from worker import reconcile

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("one_day")]


def test_a_record_is_closed_when_a_later_run_finds_agreement(day: Day) -> None:
    few(day)
    line = day.provider.line(day.payout(day.paid[0]))
    day.provider.alter_line(line, debit=line["debit"] + 1)
    day.run()
    assert kinds(day) == ["debit_differs"]
    day.provider.alter_line(line, debit=line["debit"])
    result = day.run()
    assert (result.outcome, result.closed) == ("clean", 1) and not day.open()
    assert day.rows()[0].resolved_by == "reconciliation" and "agreement" in day.rows()[0].resolution


def test_a_run_that_did_not_look_closes_nothing(day: Day) -> None:
    few(day)
    day.provider.alter(day.payout(day.paid[0]), utr="5")
    day.run()
    begins, ends = day.period()
    reconcile.run(begins - timedelta(days=5), ends - timedelta(days=5))
    assert kinds(day) == ["utr_differs"]


def test_what_people_explained_stays_explained_until_the_facts_change(day: Day, tmp_path: Path) -> None:
    few(day)
    day.provider.alter(day.payout(day.paid[0]), utr="5")
    day.run()
    with transaction() as session:
        number = exception_records.listing(session)[0].id
        exception_records.close(session, number, resolution="their typing error", actor="operator:asha")
    assert ran(day, tmp_path).exit_code == 0
    assert "1 x explained: utr_differs" in summary(tmp_path)
    day.provider.alter(day.payout(day.paid[0]), utr="6")
    assert day.run().outcome == "exceptions" and kinds(day) == ["utr_differs"]


def test_a_utr_of_another_day_is_found_again(day: Day) -> None:
    few(day)
    first, second = day.paid
    utr = day.attempt(first).utr
    line = day.provider.line(day.payout(first))
    day.provider.alter(day.payout(second), utr=utr)
    begins = datetime.fromtimestamp(line["created_at"] + 1, INDIA)
    day.world.simulator.post(f"payouts/{day.payout(first)}/forget", {})  # so that only our books tell
    reconcile.run(begins, begins + timedelta(days=1))
    assert ("utr_twice", utr) in day.open()


def test_what_was_sent_under_other_credentials_is_counted_and_not_accused(day: Day, tmp_path: Path) -> None:
    few(day)
    day.world.sql_without_rules(
        f"""INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sent_as, payout_id, ended_at)
            VALUES ('{uuid.uuid4()}', '{day.paid[0]}', 2, '', 'failed', 'old@there', 'pout_Old', now())"""
    )
    assert ran(day, tmp_path).exit_code == 0
    assert "Sent under other credentials, and not known to these: 1" in summary(tmp_path)


def test_the_list_names_no_upi_id_and_no_formula(day: Day, tmp_path: Path) -> None:
    day.world.paid(upi_id="secretname@okaxis")
    payout_id = day.payout(day.world.paid())
    day.provider.alter(payout_id, utr='=HYPERLINK("http://x")')
    ran(day, tmp_path)
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "secretname" not in text and "okaxis" not in text
    assert [row["utr_theirs"] for row in table(tmp_path) if row["payout"] == payout_id] == [
        '\'=HYPERLINK("http://x")'
    ]


def test_the_list_is_in_rupees(day: Day, tmp_path: Path) -> None:
    withdrawal_id = day.world.paid()
    assert ran(day, tmp_path).exit_code == 0
    (row,) = table(tmp_path)
    assert row["withdrawal"] == str(withdrawal_id) and row["verdict"] == "agrees"
    names = ("amount_ours", "amount_theirs", "fees_ours", "tax_theirs", "statement_debit", "statement_credit")
    assert [row[name] for name in names] == ["50.00", "50.00", "5.90", "0.90", "55.90", "0.00"]


def test_papers_are_written_whole_or_not_at_all(
    day: Day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(day)
    result = day.run()
    really = open

    def full(path: Any, *arguments: Any, **named: Any) -> Any:
        if ".txt" not in str(path):
            return really(path, *arguments, **named)
        Path(path).write_text("half")
        return really("/dev/full", "w", encoding="utf-8")

    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(OSError, match="No space"):
        papers.write(result, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_by_default_it_is_yesterday_in_india(day: Day, tmp_path: Path) -> None:
    assert invoke("reconcile", "--output", tmp_path).exit_code == 0
    run = day.world.sql(
        """SELECT from_at AT TIME ZONE 'Asia/Kolkata' = date_trunc('day', now() AT TIME ZONE 'Asia/Kolkata') - interval '1 day' AS is_yesterday,
                  to_at - from_at = interval '1 day' AS is_a_day, outcome FROM reconciliation_runs"""
    )[0]
    assert tuple(run) == (True, True, "clean")


def test_a_period_that_ends_before_it_begins_is_a_sentence(world: World) -> None:
    done = invoke("reconcile", "--from", "2026-11-02", "--to", "2026-11-01")
    assert done.exit_code == 1 and "It must begin before it ends" in done.output
