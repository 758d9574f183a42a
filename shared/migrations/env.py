"""Run by Alembic for every command.

Each migration is a transaction of its own, and one may build an index outside of any
(`op.get_context().autocommit_block()`), so that the table stays usable meanwhile.
"""

from alembic import context
from sqlalchemy import text

from shared.db.engines import unbounded_engine
from shared.models import Base

# Any number will do, as long as every migrator takes the same one.
ONE_MIGRATOR_AT_A_TIME = 0x9A1D


def run() -> None:
    engine = unbounded_engine(context.config.attributes["database_url"])
    # A transaction that does nothing else holds the lock: behind a connection pooler, a lock of the session
    # would outlive us.
    with engine.begin() as guard, engine.connect() as connection:
        guard.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ONE_MIGRATOR_AT_A_TIME})
        context.configure(
            connection=connection, target_metadata=Base.metadata, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()


run()
