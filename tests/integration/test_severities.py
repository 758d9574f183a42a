"""The worst is the loudest: where exception records are listed, counted and mailed, it comes first."""

import pytest
from click.testing import CliRunner

from shared import db, exception_records, gauges, severities
from shared.cli import main
from shared.notifications.mail import letters, operators
from shared.severities import Severity, of_kind
from tests.integration.mailing import tell, turn_on
from tests.mailbox import serving
from tests.world import World

# As they are found: the worst is neither first nor last.
FOUND = ("fees_differ", "overdue", "processed_after_failed", "promise_broken", "held:reason", "mail")
WORST_FIRST = ("processed_after_failed", "promise_broken", "overdue", "held:reason", "fees_differ", "mail")


@pytest.fixture
def found(world: World) -> World:
    for number, kind in enumerate(FOUND):
        with db.transaction() as session:
            exception_records.open_record(
                session, kind=kind, subject=f"number {number}", source="test", ours={}, theirs={}
            )
        world.sql("UPDATE exception_records SET opened_at = opened_at - interval '1 second'")
    return world


def listed(**about: object) -> list[str]:
    with db.transaction() as session:
        return [one.kind for one in exception_records.listing(session, **about)]  # type: ignore[arg-type]


def test_records_are_listed_worst_first_and_then_oldest_first(found: World) -> None:
    assert listed() == list(WORST_FIRST)
    assert listed(severity=Severity.CRITICAL) == list(WORST_FIRST[:2])
    assert listed(severity=Severity.NOTICE) == list(WORST_FIRST[4:])


def test_a_page_goes_on_behind_the_last_of_the_one_before(found: World) -> None:
    seen: list[str] = []
    after = None
    while True:
        with db.transaction() as session:
            page = exception_records.listing(session, after=after, limit=2)
        if not page:
            break
        seen += [one.kind for one in page]
        after = exception_records.position_of(page[-1])
    assert seen == list(WORST_FIRST)


def test_the_database_ranks_as_the_code_does(world: World) -> None:
    kinds = [*severities.CRITICAL, *severities.NOTICE, "failed_after_paid", "overdue", "held:x", "new_one"]
    for kind in kinds:
        [row] = world.sql(
            f"SELECT {severities.RANK} AS rank FROM (SELECT CAST(:kind AS text) AS kind) k", kind=kind
        )
        assert row.rank == of_kind(kind).rank, kind


def test_the_shell_lists_and_filters_them(found: World) -> None:
    shown = CliRunner().invoke(main, ["exceptions", "list", "--severity", "critical"]).output
    assert [line.split("  ")[1:3] for line in shown.splitlines() if line.startswith("#")] == [
        ["critical", kind] for kind in WORST_FIRST[:2]
    ]
    only = CliRunner().invoke(main, ["exceptions", "list", "--kind", "overdue"]).output
    assert only.count("#") == 1 and "warning  overdue" in only
    assert CliRunner().invoke(main, ["exceptions", "list", "--severity", "bad"]).exit_code == 2


def test_status_begins_with_the_promises_and_names_the_worst_first(found: World) -> None:
    lines = CliRunner().invoke(main, ["status"]).output.splitlines()
    assert lines[0] == "Promises" and "not checked" in lines[1]
    for_a_person = lines[lines.index("For a person") + 1 :]
    assert [line.split(":")[0].strip() for line in for_a_person[:3]] == ["critical", "critical", "warning"]
    found.sql("INSERT INTO spot_checks (truth, promise, faults, asked_at) VALUES ('x', 1, 3, now())")
    assert "BROKEN: promise 1, 3 rows" in CliRunner().invoke(main, ["status"]).output.splitlines()[1]


def test_prometheus_reads_the_severity(found: World) -> None:
    told = dict(gauges.books()[gauges.EXCEPTIONS_OPEN])
    assert (
        told[("promise_broken", "critical")] == told[("overdue", "warning")] == told[("mail", "notice")] == 1
    )


def test_a_mail_shows_the_worst_first_and_says_so(found: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "MOST_SHOWN", 3)
    with serving() as server:
        turn_on(found, monkeypatch, server.port, OPERATOR_EMAILS="asha@example.com")
        with db.transaction() as session:
            for number, kind in enumerate(FOUND):
                exception_records.open_record(
                    session, kind=kind, subject=f"new {number}", source="test", ours={}, theirs={}
                )
        tell()
        [letter] = server.to("asha@example.com")
    subject, words = str(letter.message["Subject"]), letter.part("plain")
    first = letters.kind_in_words("processed_after_failed")
    assert subject.startswith(f"[Quiz] CRITICAL: {first}, ")
    shown = [line for line in words.splitlines() if line.startswith("#")]
    assert [line.split(" ")[1] for line in shown] == ["critical,", "critical,", "warning,"]
    assert "… and 2 more." in words
