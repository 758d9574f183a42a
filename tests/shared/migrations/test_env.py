"""The migrations, while the system is in use."""

import subprocess
import sys

from alembic import command

from shared.db.engines import engine
from shared.migrations import config, migrate
from shared.settings import settings
from tests.support.world import World

STORAGE = (
    "SELECT relname, reloptions FROM pg_class WHERE relname IN ('wallets', 'withdrawals') ORDER BY relname"
)


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
        migrate(url())
        busy.exec_driver_sql("UPDATE wallets SET name = 'Asha Rao'")
    options = {row.relname: row.reloptions for row in world.sql(STORAGE)}
    assert options["wallets"] == ["fillfactor=70"]
    assert "autovacuum_vacuum_scale_factor=0.02" in options["withdrawals"]
    assert world.finish(withdrawal_id) == "completed"


def test_two_migrators_at_once_are_one(world: World) -> None:
    world.altered = True
    command.downgrade(config(url()), "0028")
    migrators = [subprocess.Popen([sys.executable, "-m", "cli", "migrate"]) for _ in range(2)]
    assert [migrator.wait(60) for migrator in migrators] == [0, 0]
    assert world.sql("SELECT version_num FROM alembic_version")[0].version_num == "0031"
