"""Run by Alembic for every command."""

from alembic import context
from sqlalchemy import text

from shared.db.engines import unbounded_engine
from shared.models import Base

# Any number will do, as long as every migrator takes the same one.
ONE_MIGRATOR_AT_A_TIME = 0x9A1D


def run() -> None:
    engine = unbounded_engine(context.config.attributes["database_url"])
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ONE_MIGRATOR_AT_A_TIME})
        context.configure(connection=connection, target_metadata=Base.metadata)
        context.run_migrations()


run()
