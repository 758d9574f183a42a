"""Indexes of tables that are in use."""

from alembic import op


def create(name: str, definition: str, *, unique: bool = False) -> None:
    """Create an index on `definition` (the table and what is indexed) while others write to the table.

    Call it first in a migration: what was done before is committed, and is done again after a kill. The
    invalid index that PostgreSQL then leaves behind is replaced ("Building Indexes Concurrently" in its
    manual).
    """
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE {'UNIQUE ' if unique else ''}INDEX CONCURRENTLY {name} ON {definition}")
