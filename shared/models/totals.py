"""What each day in India came to: kept, so that a year is not read anew. It may all be counted again."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, one_of

WHAT = ("asked", "completed", "failed", "reversed", "cancelled")


class CountedDay(Base):
    """A day that is over and counted. Without its row it is counted again."""

    __tablename__ = "counted_days"

    day: Mapped[date] = mapped_column(primary_key=True)
    counted_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class DayTotal(Base):
    """How many withdrawals of one UPI handle came to one thing on one day, and what they come to."""

    __tablename__ = "day_totals"
    __table_args__ = (
        CheckConstraint(one_of("what", WHAT), name="what"),
        CheckConstraint("number > 0", name="number_positive"),
    )

    day: Mapped[date] = mapped_column(ForeignKey("counted_days.day", ondelete="CASCADE"), primary_key=True)
    handle: Mapped[str] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)  # why it failed or was reversed; else empty
    number: Mapped[int]
    coins: Mapped[int]
    paise: Mapped[int]
    fees_paise: Mapped[int]  # of paid ones, with the tax; as told so far
    tax_paise: Mapped[int]
    times: Mapped[dict[str, Any]] = mapped_column(
        JSONB
    )  # of paid ones: step of time (summing.py) -> how many
