"""Run by Alembic for every command."""

import time

from alembic import context
from sqlalchemy import Connection

from shared.db.engines import unbounded_engine
from shared.models import Base

# Any number will do, as long as every migrator takes the same one.
ONE_MIGRATOR_AT_A_TIME = 0x9A1D
SECONDS_BETWEEN_TRIES = 0.2


def run() -> None:
    engine = unbounded_engine(context.config.attributes["database_url"])
    with engine.connect() as turn, engine.connect() as connection:
        _wait_for_turn(turn)
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transaction_per_migration=context.config.attributes.get("transaction_per_migration", False),
        )
        with context.begin_transaction():
            context.run_migrations()


def _wait_for_turn(connection: Connection) -> None:
    """Take the lock, which this connection's open transaction keeps.

    An index that is built concurrently waits for every older snapshot, so this must hold none: it tries
    instead of waiting, and passes no parameter, because a statement with one keeps its snapshot.
    """
    query = f"SELECT pg_try_advisory_xact_lock({ONE_MIGRATOR_AT_A_TIME})"
    while not connection.exec_driver_sql(query).scalar_one():
        connection.rollback()
        time.sleep(SECONDS_BETWEEN_TRIES)


run()
