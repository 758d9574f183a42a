"""The most severe exception records come first wherever they are listed, counted and mailed."""

import pytest
from click.testing import CliRunner

from cli import main
from shared.db.transactions import transaction
from shared.monitoring import gauges
from shared.notifications.mail import operator_mails, texts
from shared.people import exception_records, severities
from shared.people.severities import Severity, severity_of
from tests.support.mail_steps import run_mailer, turn_on
from tests.support.mailbox import mail_server
from tests.support.world import World

# In the order in which they are opened: the worst is neither first nor last.
KINDS = ("fees_differ", "overdue", "processed_after_failed", "promise_broken", "held:reason", "mail")
WORST_FIRST = ("processed_after_failed", "promise_broken", "overdue", "held:reason", "fees_differ", "mail")


@pytest.fixture
def world_with_records(world: World) -> World:
    for number, kind in enumerate(KINDS):
        with transaction() as session:
            exception_records.open_record(
                session, kind=kind, subject=f"number {number}", source="test", ours={}, theirs={}
            )
        world.sql("UPDATE exception_records SET opened_at = opened_at - interval '1 second'")
    return world


def listed(**about: object) -> list[str]:
    with transaction() as session:
        return [record.kind for record in exception_records.listing(session, **about)]  # type: ignore[arg-type]


def test_records_are_listed_worst_first_and_then_oldest_first(world_with_records: World) -> None:
    assert listed() == list(WORST_FIRST)
    assert listed(severity=Severity.CRITICAL) == list(WORST_FIRST[:2])
    assert listed(severity=Severity.NOTICE) == list(WORST_FIRST[4:])


def test_a_page_starts_after_the_last_record_of_the_page_before(world_with_records: World) -> None:
    seen: list[str] = []
    after = None
    while True:
        with transaction() as session:
            page = exception_records.listing(session, after=after, limit=2)
        if not page:
            break
        seen += [record.kind for record in page]
        after = exception_records.position_of(page[-1])
    assert seen == list(WORST_FIRST)


def test_the_database_ranks_severities_as_the_code_does(world: World) -> None:
    kinds = [*severities.CRITICAL, *severities.NOTICE, "failed_after_paid", "overdue", "held:x", "new_one"]
    for kind in kinds:
        [row] = world.sql(
            f"SELECT {severities.RANK} AS rank FROM (SELECT CAST(:kind AS text) AS kind) k", kind=kind
        )
        assert row.rank == severity_of(kind).rank, kind


def test_the_shell_lists_and_filters_exception_records(world_with_records: World) -> None:
    shown = CliRunner().invoke(main, ["exceptions", "list", "--severity", "critical"]).output
    assert [line.split("  ")[1:3] for line in shown.splitlines() if line.startswith("#")] == [
        ["critical", kind] for kind in WORST_FIRST[:2]
    ]
    only = CliRunner().invoke(main, ["exceptions", "list", "--kind", "overdue"]).output
    assert only.count("#") == 1 and "warning  overdue" in only
    assert CliRunner().invoke(main, ["exceptions", "list", "--severity", "bad"]).exit_code == 2


def test_status_starts_with_the_integrity_checks_and_lists_the_worst_first(world_with_records: World) -> None:
    lines = CliRunner().invoke(main, ["status"]).output.splitlines()
    assert lines[0] == "Integrity checks" and "not run" in lines[1]
    action_needed = lines[lines.index("Action needed") + 1 :]
    assert [line.split(":")[0].strip() for line in action_needed[:3]] == ["critical", "critical", "warning"]
    world_with_records.sql(
        "INSERT INTO spot_checks (truth, promise, faults, asked_at) VALUES ('x', 1, 3, now())"
    )
    assert "FAILED: promise 1, 3 rows" in CliRunner().invoke(main, ["status"]).output.splitlines()[1]


def test_prometheus_gets_the_severity_of_open_records(world_with_records: World) -> None:
    open_records = dict(gauges.query_database()[gauges.EXCEPTIONS_OPEN])
    assert (
        open_records[("promise_broken", "critical")]
        == open_records[("overdue", "warning")]
        == open_records[("mail", "notice")]
        == 1
    )


def test_a_mail_lists_the_worst_first_and_names_the_severity(
    world_with_records: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_mails, "MAX_RECORDS_SHOWN", 3)
    with mail_server() as server:
        turn_on(world_with_records, monkeypatch, server.port, OPERATOR_EMAILS="asha@example.com")
        with transaction() as session:
            for number, kind in enumerate(KINDS):
                exception_records.open_record(
                    session, kind=kind, subject=f"new {number}", source="test", ours={}, theirs={}
                )
        run_mailer()
        [letter] = server.to("asha@example.com")
    subject = str(letter.message["Subject"])
    text = letter.part("plain")
    first = texts.kind_label("processed_after_failed")
    assert subject.startswith(f"[Quiz] CRITICAL: {first}, ")
    shown = [line for line in text.splitlines() if line.startswith("#")]
    assert [line.split(" ")[1] for line in shown] == ["critical,", "critical,", "warning,"]
    assert "… and 2 more." in text
