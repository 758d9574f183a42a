"""`payouts check` finds every fault that is planted past the rules of the database."""

import pytest
from click.testing import CliRunner

from cli import main
from shared.db.engines import engine
from shared.proof import checks, sealing
from tests.support.planted_faults import FOUND_BY_BOTH, FOUND_BY_FULL_CHECK, Plant, plant
from tests.support.suspicions import QUERIES, SEALS, suspicions
from tests.support.world import World

ALL_PLANTS = (*FOUND_BY_BOTH, *FOUND_BY_FULL_CHECK)


@pytest.fixture
def small_world(world: World) -> World:
    world.paid()
    world.paid(upi_id="fail.bank_account_closed@sim")
    world.request()
    sealing.seal()
    return world


@pytest.mark.parametrize("planted", ALL_PLANTS, ids=lambda plant: plant.invariant)
def test_a_planted_fault_is_found(small_world: World, planted: Plant) -> None:
    assert checks.run().holds
    with engine().begin() as connection:
        plant(connection, planted)
    small_world.broken_on_purpose = True
    assert planted.invariant in [finding.check.invariant for finding in checks.run().findings]
    with engine().begin() as connection:  # and the check after each test leads to that one
        found = suspicions(connection)
    assert (planted.invariant if planted.invariant in dict(QUERIES) else SEALS) in found


def test_every_check_has_a_planted_fault() -> None:
    assert {planted.invariant for planted in ALL_PLANTS} == {check.invariant for check in checks.ALL_CHECKS}


def test_the_migration_sets_a_missing_expected_by(world: World) -> None:
    from alembic import command

    from shared.migrations import config, migrate
    from shared.settings import settings

    world.credit()
    world.request()
    url = settings().database_url.get_secret_value()
    command.downgrade(config(url), "0014")
    world.sql("UPDATE withdrawals SET expected_by = NULL WHERE status = 'pending'")
    migrate(url)
    [row] = world.sql("SELECT expected_by, due_at FROM withdrawals WHERE status = 'pending'")
    assert row.expected_by == row.due_at
    world.altered = True


def test_the_command_checks_and_counts(small_world: World) -> None:
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0, result.output
    numbers = dict(line.split() for line in result.output.splitlines()[:6])
    assert numbers == {
        "credited": "4,000", "balances": "3,000", "held": "500", "paid": "500", "refunded": "500", "withdrawals": "3"
    }  # fmt: skip
    assert "BROKEN" not in result.output


def test_the_command_names_the_failed_check(small_world: World) -> None:
    small_world.sql_without_rules("UPDATE wallets SET balance_coins = balance_coins + 1")
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1
    assert "BROKEN  promise 1: every balance equals the sum of its journal entries" in result.output
    assert "violated by user123" in result.output
    small_world.broken_on_purpose = True


def test_the_command_reports_an_unreachable_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.point_database_at_nothing(monkeypatch)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1 and "cannot be reached" in result.output
    world.point_database_back(monkeypatch)


def test_the_migrations_and_the_models_agree(world: World) -> None:
    from alembic import command

    from shared.migrations import config
    from shared.settings import settings

    command.check(config(settings().database_url.get_secret_value()))


def test_a_migration_can_be_reverted_only_while_there_is_no_money(world: World) -> None:
    from alembic import command

    from shared.migrations import config, migrate
    from shared.settings import settings

    url = settings().database_url.get_secret_value()
    command.downgrade(config(url), "base")
    migrate(url)
    world.credit()
    with pytest.raises(RuntimeError, match="journal"):
        command.downgrade(config(url), "base")
    assert world.balance() == 2000
