"""Spot checks: silent on every healthy database wherever their slices end, and no one of them is blind."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import checks, db, spot_checks, withdrawals
from shared.checks import CHECKS, Check
from tests.databases import EmptyDatabases
from tests.healthy import healthy
from tests.plants import FOUND_BY_BOTH, Plant, plant
from tests.simulator import Simulator
from tests.world import World

NUMBER = 5000
# Wherever a slice ends, some withdrawal has rows on both sides of it. At a thousand events ended the first one
# that was ever in use; the last two take the whole database.
SIZES = (*range(1, 8), 300, 999, 1000, 1001, 10 * NUMBER)


@pytest.fixture(scope="module")
def of_5000(empty_databases: EmptyDatabases, redis_url: str, simulator_process: Simulator) -> Iterator[World]:
    """A healthy system after 5,000 withdrawals. Tests leave it as it is: they roll back what they plant."""
    with (
        pytest.MonkeyPatch.context() as patch,
        World.made(empty_databases, redis_url, simulator_process, patch) as world,
    ):
        with db.patient_engine().begin() as connection:
            healthy(connection, NUMBER)
        yield world


def told(session: Session) -> dict[str, list[str]]:
    """The truths that do not hold as far as spot checks see, with the ids."""
    return {check.truth: ids for check in CHECKS if (ids := spot_checks.ask(session, check))}


def sized(size: int) -> dict[str, spot_checks.Slice]:
    return {
        of: replace(rows, values=dict.fromkeys(rows.values, size)) for of, rows in spot_checks.SLICES.items()
    }


def test_the_database_of_5000_is_healthy(of_5000: World) -> None:
    result = checks.run()
    assert [one for one in result.findings if one.check in CHECKS] == []
    assert result.totals["withdrawals"] == NUMBER


@pytest.mark.parametrize("size", SIZES)
def test_on_a_healthy_database_all_are_silent_wherever_a_slice_ends(
    of_5000: World, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(spot_checks, "SLICES", sized(size))
    with db.transaction() as session:
        assert told(session) == {}


@pytest.mark.parametrize("planted", FOUND_BY_BOTH, ids=lambda one: one.truth)
def test_a_fault_that_is_planted_in_the_newest_rows_is_found(of_5000: World, planted: Plant) -> None:
    with db.engine().connect() as connection, connection.begin() as transaction:
        plant(connection, planted)
        assert planted.truth in told(Session(connection))
        transaction.rollback()


def test_every_spot_check_has_a_fault_that_it_finds() -> None:
    assert {planted.truth for planted in FOUND_BY_BOTH} == {check.truth for check in CHECKS}


# --- what a slice holds

TABLES = re.compile(r"\b(?:FROM|JOIN)\s+(?:LATERAL\s+)?(\w+)")
HIDDEN = re.compile(r"^\s+(?:WITH )?(\w+) AS (?:NOT )?MATERIALIZED", re.M)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.truth)
def test_a_slice_has_an_end_for_every_table_that_its_question_reads(check: Check) -> None:
    """A question whose one table is cut and whose other is not compares some rows with all."""
    slice_ = spot_checks.slice_of(check)
    read = set(TABLES.findall(check.sql)) & set(_every_table())
    assert read <= set(HIDDEN.findall(slice_.ctes)) | slice_.whole


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.truth)
def test_what_a_spot_check_reads_does_not_grow_with_the_database(
    of_5000: World, monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    monkeypatch.setattr(spot_checks, "SLICES", sized(5))
    with db.transaction() as session:
        asked = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {spot_checks.sql_of(check)}")
        plan = session.execute(asked, dict(spot_checks.slice_of(check).values)).scalar_one()
    assert sum(rows_read(plan[0]["Plan"])) < 1000, json.dumps(plan, indent=1)


def rows_read(node: dict[str, Any]) -> Iterator[float]:
    """Of each scan of a table in a plan, the rows that it looked at."""
    if "Relation Name" in node:
        passed_over = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        yield (node["Actual Rows"] + passed_over) * node["Actual Loops"]
    for below in node.get("Plans", ()):
        yield from rows_read(below)


def _every_table() -> list[str]:
    from shared.models import Base

    return list(Base.metadata.tables)


def test_of_a_long_journal_the_newest_lines_are_compared_with_the_balance_before_them(world: World) -> None:
    world.credit("other")
    lines = spot_checks.SLICES["journals"].values["lines"]
    world.sql_without_rules(
        "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor) SELECT 'other',"
        f" 'credit', 1, 2000 + n, 'r' || n, 'app:test' FROM generate_series(1, {5 * lines}) n"
    )
    world.broken_on_purpose = True
    world.sql_without_rules(
        f"UPDATE wallets SET (balance_coins, lifetime_coins) = ({2000 + 5 * lines}, {2000 + 5 * lines})"
    )
    assert spot_checks.run() == 0
    world.sql_without_rules("UPDATE wallets SET balance_coins = balance_coins + 1")
    with db.transaction() as session:
        assert told(session) == {"every balance is the sum of its journal": ["other"]}


# --- while payouts go on


def test_payouts_that_go_on_meanwhile_break_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot_checks, "SLICES", sized(7))
    names, over = ("asha", "ravi", "meera"), Event()
    for name in names:
        world.credit(name, coins=10_000)

    def ask_and_take_back(name: str) -> int:
        rounds = 0
        while not over.is_set():
            withdrawal_id = world.request(name)
            withdrawals.cancel(withdrawal_id, reason="changed my mind", actor="app:test")
            rounds += 1
        return rounds

    with ThreadPoolExecutor(len(names)) as pool:
        at_work = [pool.submit(ask_and_take_back, name) for name in names]
        try:
            assert [spot_checks.run() for _ in range(3)] == [0] * 3
            assert checks.run().findings == []
        finally:
            over.set()
        assert all(one.result() > 0 for one in at_work)


def test_what_is_half_done_is_not_seen(world: World) -> None:
    """A question is one statement: it sees what was committed at one moment, and nothing in between."""
    world.credit()
    withdrawal_id = world.request()
    with db.transaction() as session:
        withdrawals.reading.find(session, withdrawal_id, lock=True)
        session.execute(text("UPDATE wallets SET balance_coins = balance_coins + 1"))
        assert spot_checks.run() == 0
        session.rollback()


def test_a_truth_in_old_words_is_forgotten_and_its_record_closed(world: World) -> None:
    world.sql(
        "INSERT INTO spot_checks (truth, promise, faults, asked_at)"
        " VALUES ('old words', 1, 3, now() - interval '1 day')"
    )
    world.sql(
        "INSERT INTO exception_records (kind, subject, source, ours, theirs)"
        " VALUES ('promise_broken', 'old words', 'watch', '{}', '{}')"
    )
    assert spot_checks.run() == 0
    assert world.sql("SELECT FROM spot_checks WHERE truth = 'old words'") == []
    assert world.sql("SELECT FROM exception_records WHERE resolved_at IS NULL") == []
