"""`payouts status` and Prometheus report whether yesterday was compared."""

from datetime import date, timedelta

import pytest
from click.testing import CliRunner

from cli import main
from shared.db.transactions import transaction
from shared.monitoring import gauges
from shared.proof import certificates
from shared.reconciliation import coverage
from tests.support.world import World, forget_settings

DAY = "date_trunc('day', now() AT TIME ZONE interval '05:30') AT TIME ZONE interval '05:30'"  # begins today


def insert_run(
    world: World,
    outcome: str,
    *,
    begins: str = "- '1 day'",
    ends: str = "",
    began: str = "now()",
    exceptions: int = 0,
) -> None:
    """Insert a run over a period, relative to the midnight at which today begins."""
    finished = "NULL, NULL" if outcome == "under way" else f"now(), '{outcome}'"
    world.sql(
        "INSERT INTO reconciliation_runs (from_at, to_at, started_at, finished_at, outcome, exceptions)"
        f" VALUES ({DAY} {begins.replace('-', '- interval')}, {DAY} {ends.replace('-', '- interval')},"
        f" {began}, {finished}, {exceptions})"
    )


def status_line(title: str = "Reconciliation") -> str | None:
    """The first line under a title of `payouts status`."""
    lines = CliRunner().invoke(main, ["status"], catch_exceptions=False).output.splitlines()
    return lines[lines.index(title) + 1].strip() if title in lines else None


def status_at(world: World, hours: float) -> tuple[str, list[date]]:
    """The line and the missing days at `hours` after midnight in India."""
    [row] = world.sql(f"SELECT {DAY} + make_interval(mins => :minutes) AS now", minutes=int(60 * hours))
    with transaction() as session:
        return coverage.yesterday_summary(session, row.now), coverage.missing_days(session, row.now)


def yesterday(world: World) -> date:
    [row] = world.sql(f"SELECT (({DAY}) AT TIME ZONE interval '05:30')::date - 1 AS day")
    day: date = row.day
    return day


def test_a_day_that_was_not_compared_is_reported(world: World) -> None:
    day = yesterday(world)
    assert status_at(world, 12) == (f"yesterday, {day}: NOT compared; no day was compared yet", [day])
    insert_run(world, "incomplete")
    insert_run(world, "under way")
    insert_run(world, "clean", ends="- '1 second'")  # not the whole day
    insert_run(world, "clean", began=f"{DAY} - interval '9 hours'")  # before the day was over
    assert status_at(world, 12) == (f"yesterday, {day}: NOT compared; no day was compared yet", [day])
    insert_run(world, "clean", begins="- '2 days'", ends="- '1 day'")
    before = day - timedelta(days=1)
    assert status_at(world, 12) == (f"yesterday, {day}: NOT compared; last compared day: {before}", [day])


@pytest.mark.parametrize("hours", [0, 1, 1.99, 2.5, 2.99])
def test_a_day_that_is_not_due_is_not_called_missing(world: World, hours: float) -> None:
    insert_run(world, "clean", begins="- '2 days'", ends="- '1 day'")
    assert status_at(world, hours) == (f"yesterday, {yesterday(world)}: due at 02:00 IST", [])
    assert status_at(world, 3.01)[1] == [yesterday(world)]


def test_a_day_that_was_due_before_is_called_missing_at_night_too(world: World) -> None:
    world.credit()
    world.request()
    world.sql("UPDATE withdrawals SET created_at = created_at - interval '2 days'")
    day = yesterday(world)
    line, days = status_at(world, 1)
    assert days == [day - timedelta(days=1)]
    assert line == f"yesterday, {day}: due at 02:00 IST; NOT compared: {day - timedelta(days=1)}"


def test_status_and_prometheus_say_the_same(world: World) -> None:
    with transaction() as session:
        line = coverage.yesterday_summary(session)
        days = coverage.missing_days(session)
    assert status_line() == line
    assert gauges.query_database()[gauges.DAYS_NOT_RECONCILED] == [((), len(days))]
    insert_run(world, "clean")
    assert gauges.query_database()[gauges.DAYS_NOT_RECONCILED] == [((), 0)]


def test_the_last_run_over_yesterday_is_summarized(world: World) -> None:
    for outcome, exceptions, line in (
        ("exceptions", 3, "3 exceptions"),
        ("exceptions", 1, "1 exception"),
        ("clean", 0, "clean"),
    ):
        insert_run(world, outcome, exceptions=exceptions)
        assert str(status_line()).endswith(f": {line}")
    insert_run(world, "exceptions", begins="- '8 days'", exceptions=2)  # a week that ends with it
    assert str(status_line()).endswith(": 2 exceptions")


def test_prometheus_gets_the_age_of_the_last_compared_day(world: World) -> None:
    assert gauges.query_database()[gauges.RECONCILED_AGO] == []
    insert_run(world, "clean", begins="- '2 days'", ends="- '1 day'")
    [(_, ago)] = gauges.query_database()[gauges.RECONCILED_AGO]
    [row] = world.sql(f"SELECT extract(epoch FROM now() - ({DAY} - interval '1 day')) AS seconds")
    assert 0 <= float(row.seconds) - ago < 60


def test_the_last_closed_day_is_reported_where_days_are_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status_line("Closed days") is None
    monkeypatch.setenv("CERTIFICATE_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    forget_settings()
    assert status_line("Closed days") == "NONE yet"
    world.credit()
    world.sql_without_rules("UPDATE coin_transactions SET created_at = created_at - interval '3 days'")
    [row] = world.sql(f"SELECT (({DAY}) AT TIME ZONE interval '05:30')::date - 2 AS day")
    certificates.close_day(row.day)
    assert status_line("Closed days") == f"last: {row.day}"
