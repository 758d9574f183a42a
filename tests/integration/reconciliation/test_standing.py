"""Whether yesterday was compared is told where operators look, and to Prometheus."""

from datetime import date, timedelta

import pytest
from click.testing import CliRunner

from shared import certificates, db, gauges
from shared.cli import main
from shared.reconciliation import standing
from tests.world import World, forget_settings

DAY = "date_trunc('day', now() AT TIME ZONE interval '05:30') AT TIME ZONE interval '05:30'"  # begins today


def compared(
    world: World,
    outcome: str,
    *,
    begins: str = "- '1 day'",
    ends: str = "",
    began: str = "now()",
    many: int = 0,
) -> None:
    """A run over a period, told from the midnight with which today begins."""
    finished = "NULL, NULL" if outcome == "under way" else f"now(), '{outcome}'"
    world.sql(
        "INSERT INTO reconciliation_runs (from_at, to_at, started_at, finished_at, outcome, exceptions)"
        f" VALUES ({DAY} {begins.replace('-', '- interval')}, {DAY} {ends.replace('-', '- interval')},"
        f" {began}, {finished}, {many})"
    )


def said(title: str = "Reconciliation") -> str | None:
    """The line under a title of `payouts status`."""
    lines = CliRunner().invoke(main, ["status"], catch_exceptions=False).output.splitlines()
    return lines[lines.index(title) + 1].strip() if title in lines else None


def at(world: World, hours: float) -> tuple[str, list[date]]:
    """The line so many hours after midnight in India, and the days that are missing then."""
    [row] = world.sql(f"SELECT {DAY} + make_interval(mins => :minutes) AS now", minutes=int(60 * hours))
    with db.transaction() as session:
        return standing.yesterday(session, row.now), standing.missing(session, row.now)


def yesterday(world: World) -> date:
    [row] = world.sql(f"SELECT (({DAY}) AT TIME ZONE interval '05:30')::date - 1 AS day")
    day: date = row.day
    return day


def test_a_day_that_nobody_compared_is_told(world: World) -> None:
    day = yesterday(world)
    assert at(world, 12) == (f"yesterday, {day}: NOT compared, nor was any day before", [day])
    compared(world, "incomplete")
    compared(world, "under way")
    compared(world, "clean", ends="- '1 second'")  # not the whole day
    compared(world, "clean", began=f"{DAY} - interval '9 hours'")  # before it was over
    assert at(world, 12) == (f"yesterday, {day}: NOT compared, nor was any day before", [day])
    compared(world, "clean", begins="- '2 days'", ends="- '1 day'")
    before = day - timedelta(days=1)
    assert at(world, 12) == (f"yesterday, {day}: NOT compared; the last day that was: {before}", [day])


@pytest.mark.parametrize("hours", [0, 1, 1.99, 2.5, 2.99])
def test_a_day_that_is_not_due_is_not_called_missing(world: World, hours: float) -> None:
    compared(world, "clean", begins="- '2 days'", ends="- '1 day'")
    assert at(world, hours) == (f"yesterday, {yesterday(world)}: due at 02:00 IST", [])
    assert at(world, 3.01)[1] == [yesterday(world)]


def test_a_day_that_was_due_before_is_called_missing_at_night_too(world: World) -> None:
    world.credit()
    world.request()
    world.sql("UPDATE withdrawals SET created_at = created_at - interval '2 days'")
    day = yesterday(world)
    words, days = at(world, 1)
    assert days == [day - timedelta(days=1)]
    assert words == f"yesterday, {day}: due at 02:00 IST; NOT compared before it: {day - timedelta(days=1)}"


def test_status_and_prometheus_say_the_same(world: World) -> None:
    with db.transaction() as session:
        line, days = standing.yesterday(session), standing.missing(session)
    assert said() == line
    assert gauges.books()[gauges.NOT_RECONCILED] == [((), len(days))]
    compared(world, "clean")
    assert gauges.books()[gauges.NOT_RECONCILED] == [((), 0)]


def test_the_last_run_over_yesterday_tells_what_it_came_to(world: World) -> None:
    for outcome, many, words in (
        ("exceptions", 3, "3 exceptions"),
        ("exceptions", 1, "1 exception"),
        ("clean", 0, "clean"),
    ):
        compared(world, outcome, many=many)
        assert str(said()).endswith(f": {words}")
    compared(world, "exceptions", begins="- '8 days'", many=2)  # a week that ends with it
    assert str(said()).endswith(": 2 exceptions")


def test_prometheus_is_told_how_long_ago_the_last_compared_day_ended(world: World) -> None:
    assert gauges.books()[gauges.RECONCILED] == []
    compared(world, "clean", begins="- '2 days'", ends="- '1 day'")
    [(_, ago)] = gauges.books()[gauges.RECONCILED]
    [row] = world.sql(f"SELECT extract(epoch FROM now() - ({DAY} - interval '1 day')) AS seconds")
    assert 0 <= float(row.seconds) - ago < 60


def test_the_last_closed_day_is_told_where_days_are_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said("Closed days") is None
    monkeypatch.setenv("CERTIFICATE_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    forget_settings()
    assert said("Closed days") == "NONE was closed yet"
    world.credit()
    world.sql_without_rules("UPDATE coin_transactions SET created_at = created_at - interval '3 days'")
    [row] = world.sql(f"SELECT (({DAY}) AT TIME ZONE interval '05:30')::date - 2 AS day")
    certificates.close_day(row.day)
    assert said("Closed days") == f"the last one: {row.day}"
