"""The base of all tables: naming convention, column types, mixins, and SQL for common checks."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, LargeBinary, MetaData, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.ids import new_id

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def one_of(column: str, values: Any) -> str:
    """Return SQL: `column` is one of `values`, in a fixed order."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in sorted(values))})"


def is_another(first: str, second: str) -> str:
    """Return SQL: two columns name different people, in any spelling (`names.fold`)."""
    return " <> ".join(f"lower(btrim(normalize({column}, NFKC)))" for column in (first, second))


NOW = func.now()


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar = {
        datetime: DateTime(timezone=True),
        int: BigInteger,
        str: Text,
        bytes: LargeBinary,
        dict: JSONB,
    }


class EventCursor:
    """A reader's position in an append-only table (`notifications/event_cursor.py`)."""

    followed_to: Mapped[int] = mapped_column()
    mark_to: Mapped[int | None] = mapped_column()
    mark_xid: Mapped[int | None] = mapped_column()


class Proposal:
    """A proposal by one person that a second one decides (`people/maker_checker.py`)."""

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    proposed_by: Mapped[str] = mapped_column()
    proposed_at: Mapped[datetime] = mapped_column(server_default=NOW)
    decided_by: Mapped[str | None] = mapped_column()
    decided_at: Mapped[datetime | None] = mapped_column()
    outcome: Mapped[str | None] = mapped_column()
