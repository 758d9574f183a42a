"""`payouts check` finds what is wrong: each thing is planted by hand, past everything that would refuse it."""

import pytest
from click.testing import CliRunner

from shared import checks, db, sealing
from shared.cli import main
from tests.plants import FOUND_BY_BOTH, FOUND_BY_THE_WHOLE, Plant, plant
from tests.world import World

EVERY_PLANT = (*FOUND_BY_BOTH, *FOUND_BY_THE_WHOLE)


@pytest.fixture
def eventful(world: World) -> World:
    world.paid()
    world.paid(upi_id="fail.bank_account_closed@sim")
    world.request()
    sealing.seal()
    return world


@pytest.mark.parametrize("planted", EVERY_PLANT, ids=lambda one: one.truth)
def test_a_planted_fault_is_found(eventful: World, planted: Plant) -> None:
    assert checks.run().holds
    with db.engine().begin() as connection:
        plant(connection, planted)
    eventful.broken_on_purpose = True
    assert planted.truth in [finding.check.truth for finding in checks.run().findings]


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert {planted.truth for planted in EVERY_PLANT} == {check.truth for check in checks.EVERY}


def test_a_promise_without_a_time_is_given_one_by_the_migration(world: World) -> None:
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


def test_the_command_proves_and_counts(eventful: World) -> None:
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0, result.output
    numbers = dict(line.split() for line in result.output.splitlines()[:6])
    assert numbers == {
        "credited": "4,000", "balances": "3,000", "held": "500", "paid": "500", "refunded": "500", "withdrawals": "3"
    }  # fmt: skip
    assert "BROKEN" not in result.output


def test_the_command_names_what_does_not_add_up(eventful: World) -> None:
    eventful.sql_without_rules("UPDATE wallets SET balance_coins = balance_coins + 1")
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1
    assert "BROKEN  promise 1: every balance is the sum of its journal" in result.output
    assert "not so for user123" in result.output
    eventful.broken_on_purpose = True


def test_the_command_says_so_when_the_database_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.point_database_at_nothing(monkeypatch)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1 and "cannot be reached" in result.output
    world.point_database_back(monkeypatch)


def test_the_migrations_and_the_models_tell_the_same(world: World) -> None:
    from alembic import command

    from shared.migrations import config
    from shared.settings import settings

    command.check(config(settings().database_url.get_secret_value()))


def test_a_migration_can_be_taken_back_only_while_there_is_no_money(world: World) -> None:
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
