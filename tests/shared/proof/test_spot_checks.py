"""Spot checks raise no false alarm on a healthy database, wherever a slice ends, and each check can fail."""

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

from shared import withdrawals
from shared.db.engines import engine, unbounded_engine
from shared.db.transactions import transaction
from shared.proof import checks, spot_checks
from shared.proof.checks import CHECKS, Check
from tests.support.databases import EmptyDatabases
from tests.support.healthy_rows import insert_withdrawals
from tests.support.planted_faults import FOUND_BY_BOTH, Plant, plant
from tests.support.simulator import Simulator
from tests.support.world import World

WITHDRAWALS = 5000
# Wherever a slice ends, some withdrawal has rows on both sides of the end. The first slices in use ended at a
# thousand events; the last size covers the whole database.
SIZES = (*range(1, 8), 300, 999, 1000, 1001, 10 * WITHDRAWALS)


@pytest.fixture(scope="module")
def large_world(
    empty_databases: EmptyDatabases, redis_url: str, simulator_process: Simulator
) -> Iterator[World]:
    """A healthy system after 5,000 withdrawals. Tests roll back what they plant."""
    with (
        pytest.MonkeyPatch.context() as patch,
        World.create(empty_databases, redis_url, simulator_process, patch) as world,
    ):
        with unbounded_engine().begin() as connection:
            insert_withdrawals(connection, WITHDRAWALS)
        yield world


def failing_checks(session: Session) -> dict[str, list[str]]:
    """The checks that fail on the newest rows, with the ids."""
    return {check.invariant: ids for check in CHECKS if (ids := spot_checks.failing_ids(session, check))}


def slices_of_size(size: int) -> dict[str, spot_checks.Slice]:
    return {
        name: replace(rows, limits=dict.fromkeys(rows.limits, size))
        for name, rows in spot_checks.SLICES.items()
    }


def test_the_database_of_5000_withdrawals_is_healthy(large_world: World) -> None:
    result = checks.run()
    assert [finding for finding in result.findings if finding.check in CHECKS] == []
    assert result.totals["withdrawals"] == WITHDRAWALS


@pytest.mark.parametrize("size", SIZES)
def test_a_healthy_database_passes_wherever_a_slice_ends(
    large_world: World, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(spot_checks, "SLICES", slices_of_size(size))
    with transaction() as session:
        assert failing_checks(session) == {}


@pytest.mark.parametrize("planted", FOUND_BY_BOTH, ids=lambda plant: plant.invariant)
def test_a_fault_in_the_newest_rows_is_found(large_world: World, planted: Plant) -> None:
    with engine().connect() as connection, connection.begin() as outer:
        plant(connection, planted)
        assert planted.invariant in failing_checks(Session(connection))
        outer.rollback()


def test_every_spot_check_has_a_planted_fault() -> None:
    assert {planted.invariant for planted in FOUND_BY_BOTH} == {check.invariant for check in CHECKS}


# --- slices

TABLES = re.compile(r"\b(?:FROM|JOIN)\s+(?:LATERAL\s+)?(\w+)")
HIDDEN = re.compile(r"^\s+(?:WITH )?(\w+) AS (?:NOT )?MATERIALIZED", re.M)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.invariant)
def test_a_slice_limits_every_table_that_its_query_reads(check: Check) -> None:
    """A query with one table sliced and another not would compare some rows with all."""
    slice_ = spot_checks.check_slice(check)
    read = set(TABLES.findall(check.sql)) & set(_every_table())
    assert read <= set(HIDDEN.findall(slice_.ctes)) | slice_.whole_tables


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.invariant)
def test_the_rows_read_do_not_grow_with_the_database(
    large_world: World, monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    monkeypatch.setattr(spot_checks, "SLICES", slices_of_size(5))
    with transaction() as session:
        query = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {spot_checks.slice_sql(check)}")
        plan = session.execute(query, dict(spot_checks.check_slice(check).limits)).scalar_one()
    assert sum(rows_read(plan[0]["Plan"])) < 1000, json.dumps(plan, indent=1)


def rows_read(node: dict[str, Any]) -> Iterator[float]:
    """For each table scan in a plan, the number of rows that it read."""
    if "Relation Name" in node:
        skipped = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        yield (node["Actual Rows"] + skipped) * node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from rows_read(child)


def _every_table() -> list[str]:
    from shared.models import Base

    return list(Base.metadata.tables)


def test_the_newest_journal_rows_are_compared_with_the_balance_before_them(world: World) -> None:
    world.credit("other")
    lines = spot_checks.SLICES["journals"].limits["lines"]
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
    with transaction() as session:
        assert failing_checks(session) == {"every balance equals the sum of its journal entries": ["other"]}


# --- concurrent payouts


def test_concurrent_payouts_cause_no_false_alarm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot_checks, "SLICES", slices_of_size(7))
    names = ("asha", "ravi", "meera")
    stop = Event()
    for name in names:
        world.credit(name, coins=10_000)

    def request_and_cancel(name: str) -> int:
        rounds = 0
        while not stop.is_set():
            withdrawal_id = world.request(name)
            withdrawals.cancel(withdrawal_id, reason="changed my mind", actor="app:test")
            rounds += 1
        return rounds

    with ThreadPoolExecutor(len(names)) as pool:
        futures = [pool.submit(request_and_cancel, name) for name in names]
        try:
            assert [spot_checks.run() for _ in range(3)] == [0] * 3
            assert checks.run().findings == []
        finally:
            stop.set()
        assert all(future.result() > 0 for future in futures)


def test_uncommitted_work_is_not_seen(world: World) -> None:
    """A query is one statement: it sees what was committed at one moment, and nothing in between."""
    world.credit()
    withdrawal_id = world.request()
    with transaction() as session:
        withdrawals.queries.find(session, withdrawal_id, lock=True)
        session.execute(text("UPDATE wallets SET balance_coins = balance_coins + 1"))
        assert spot_checks.run() == 0
        session.rollback()


def test_a_renamed_check_is_deleted_and_its_record_closed(world: World) -> None:
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
