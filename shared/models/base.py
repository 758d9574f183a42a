"""What every table stands on: naming, types, and SQL for "one of these words"."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, DateTime, LargeBinary, MetaData, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def one_of(column: str, words: Any) -> str:
    """SQL: `column` is one of `words`, in a fixed order."""
    return f"{column} IN ({', '.join(repr(str(word)) for word in sorted(words))})"


def is_another(one: str, other: str) -> str:
    """SQL: two columns name two people, however they are spelt (`names.folded`)."""
    return " <> ".join(f"lower(btrim(normalize({column}, NFKC)))" for column in (one, other))


NOW = func.now()


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map: ClassVar = {
        datetime: DateTime(timezone=True),
        int: BigInteger,
        str: Text,
        bytes: LargeBinary,
        dict: JSONB,
    }


class Position:
    """How far somebody has followed a table (`notifications/positions.py`)."""

    followed_to: Mapped[int] = mapped_column()
    mark_to: Mapped[int | None] = mapped_column()
    mark_xid: Mapped[int | None] = mapped_column()
