"""The migrations, while the system is in use."""

import subprocess
import sys

from alembic import command

from sandbox.keeper import wait_until
from shared.db.engines import engine
from shared.migrations import config, migrate
from shared.settings import settings
from tests.support.world import World

STORAGE = (
    "SELECT relname, reloptions FROM pg_class WHERE relname IN ('wallets', 'withdrawals') ORDER BY relname"
)
BUILDING = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%' AND wait_event_type = 'Lock'"
INDEX = "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_withdrawals_begun'"


def url() -> str:
    return settings().database_url.get_secret_value()


def test_the_storage_settings_wait_for_no_transaction_and_stop_none(world: World) -> None:
    world.altered = True
    world.credit()
    withdrawal_id = world.request()
    command.downgrade(config(url()), "0030")
    assert [row.reloptions for row in world.sql(STORAGE)] == [None, None]
    with engine().begin() as busy:  # has changed both tables, and has not committed
        busy.exec_driver_sql("UPDATE wallets SET name = 'Asha'")
        busy.exec_driver_sql(f"UPDATE withdrawals SET updated_at = now() WHERE id = '{withdrawal_id}'")
        command.upgrade(config(url()), "0031")
        busy.exec_driver_sql("UPDATE wallets SET name = 'Asha Rao'")
    migrate(url())
    options = {row.relname: row.reloptions for row in world.sql(STORAGE)}
    assert options["wallets"] == ["fillfactor=70"]
    assert "autovacuum_vacuum_scale_factor=0.02" in options["withdrawals"]
    assert world.finish(withdrawal_id) == "completed"


def test_an_index_is_built_while_withdrawals_change(world: World) -> None:
    world.altered = True
    world.credit()
    withdrawal_id = world.request()
    command.downgrade(config(url()), "0028")
    with engine().begin() as busy:
        busy.exec_driver_sql(f"UPDATE withdrawals SET updated_at = now() WHERE id = '{withdrawal_id}'")
        migrator = subprocess.Popen([sys.executable, "-m", "cli", "migrate"])
        wait_until(lambda: world.sql(BUILDING), 60)  # it waits for this transaction
        other_id = world.request()
        busy.exec_driver_sql("SELECT 1")  # it still holds the lock
    assert migrator.wait(60) == 0
    assert [world.finish(id) for id in (withdrawal_id, other_id)] == ["completed"] * 2


def test_an_index_whose_build_was_killed_is_built_anew(world: World) -> None:
    world.altered = True
    command.downgrade(config(url()), "0028")
    world.sql("CREATE INDEX ix_withdrawals_begun ON withdrawals (id)")
    migrate(url())
    assert "(due_at)" in world.sql(INDEX)[0].indexdef


def test_two_migrators_at_once_are_one(world: World) -> None:
    world.altered = True
    command.downgrade(config(url()), "0028")
    migrators = [subprocess.Popen([sys.executable, "-m", "cli", "migrate"]) for _ in range(2)]
    assert [migrator.wait(60) for migrator in migrators] == [0, 0]
    assert world.sql("SELECT version_num FROM alembic_version")[0].version_num == "0033"
