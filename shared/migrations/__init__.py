"""The database's history. `payouts migrate` brings it up to date."""

from alembic import command
from alembic.config import Config


def config(database_url: str) -> Config:
    """Alembic's configuration for these migrations; no file of its own."""
    config = Config()
    config.set_main_option("script_location", "shared:migrations")  # Alembic wants its name
    config.attributes["database_url"] = database_url
    return config


def migrate(database_url: str, revision: str = "head") -> None:
    """Bring the database at `database_url` to `revision`. Safe to run by several processes at once.

    Each migration is a transaction of its own, so that an index can be built concurrently; after a kill, the
    next run continues. A downgrade is one transaction: if it is refused, nothing has changed.
    """
    upgrade = config(database_url)
    upgrade.attributes["transaction_per_migration"] = True
    command.upgrade(upgrade, revision)
