"""The totals of each day (IST), stored so that a chart of a year is fast. All can be recounted."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, one_of

TOTAL_KINDS = ("asked", "completed", "failed", "reversed", "cancelled")


class CountedDay(Base):
    """A finished day that is counted. If its row is deleted, the day is counted again."""

    __tablename__ = "counted_days"

    day: Mapped[date] = mapped_column(primary_key=True)
    counted_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class DayTotal(Base):
    """The totals of one day, UPI handle, kind and reason."""

    __tablename__ = "day_totals"
    __table_args__ = (
        CheckConstraint(one_of("what", TOTAL_KINDS), name="what"),
        CheckConstraint("number > 0", name="number_positive"),
    )

    day: Mapped[date] = mapped_column(ForeignKey("counted_days.day", ondelete="CASCADE"), primary_key=True)
    handle: Mapped[str] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)  # why it failed or was reversed; else empty
    number: Mapped[int]
    coins: Mapped[int]
    paise: Mapped[int]
    fees_paise: Mapped[int]  # of paid withdrawals, including tax; as reported so far
    tax_paise: Mapped[int]
    times: Mapped[dict[str, Any]] = mapped_column(JSONB)  # of paid withdrawals: time step (sums.py) -> number
