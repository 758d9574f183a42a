"""Indexes of tables that are in use."""

from alembic import op


def create(name: str, definition: str) -> None:
    """Create an index on `definition` (the table and what is indexed) while others write to the table.

    It commits what the migration did before. If it is killed, the migration runs again and replaces the
    invalid index that PostgreSQL leaves behind ("Building Indexes Concurrently" in its manual).
    """
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
