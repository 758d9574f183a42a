"""The runs of the reconciliation with the provider."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Identity, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import NOW, Base, one_of

OUTCOMES = ("clean", "exceptions", "incomplete")


class ReconciliationRun(Base):
    """A reconciliation of one period. Its findings are in `exception_records`."""

    __tablename__ = "reconciliation_runs"
    __table_args__ = (
        CheckConstraint("from_at < to_at", name="a_period"),
        CheckConstraint(one_of("outcome", OUTCOMES), name="outcome"),
        CheckConstraint("(finished_at IS NULL) = (outcome IS NULL)", name="finished_with_an_outcome"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    from_at: Mapped[datetime]  # inclusive
    to_at: Mapped[datetime]  # exclusive
    started_at: Mapped[datetime] = mapped_column(server_default=NOW)
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    detail: Mapped[str | None]  # why it is incomplete, for people
    compared: Mapped[int] = mapped_column(server_default=text("0"))
    exceptions: Mapped[int] = mapped_column(server_default=text("0"))
    totals: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))  # paise, counts
