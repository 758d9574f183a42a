"""What two people say of a payment: under which UTR, by which way, and when; checked before it counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, union_all
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared import utr as utrs
from shared.clock import iso
from shared.errors import BadRequest, Conflict
from shared.models import PayoutAttempt, Resolution, Withdrawal
from shared.states import Decision, PaidVia, Status

UTR_OF_ANOTHER = "utr_of_another"  # a record: RazorpayX names a UTR under which another withdrawal was paid
ONE_UTR = "uq_withdrawals_utr"  # the index that keeps a UTR to one withdrawal


@dataclass(frozen=True, slots=True)
class Payment:
    """How the rupees arrived, as people tell it; all empty where nothing is said of a payment."""

    utr: str | None = None
    via: PaidVia | None = None
    at: datetime | None = None

    def columns(self) -> dict[str, Any]:
        """As a proposal keeps it."""
        return {"utr": self.utr, "paid_via": self.via, "paid_at": self.at}

    def told(self) -> dict[str, str]:
        """As an event tells it."""
        return (
            {"utr": self.utr, "paid_via": self.via, "paid_at": iso(self.at) or ""}
            if self.utr and self.via
            else {}
        )


NOT_TOLD = Payment()


def of(made: Resolution) -> Payment:
    """What a proposal says of the payment."""
    return Payment(made.utr, PaidVia(made.paid_via) if made.paid_via else None, made.paid_at)


def checked(session: Session, withdrawal: Withdrawal, decision: Decision, told: Payment) -> Payment:
    """What is told, in the form in which it is kept.

    What is completed already keeps its own UTR and time: there, nothing need be told. Raises BadRequest,
    Conflict (the UTR is another withdrawal's).
    """
    if decision != Decision.PAID:
        return NOT_TOLD
    is_needed = withdrawal.status == Status.PROCESSING
    if is_needed and not told.utr:
        raise BadRequest("A UTR is required", "Say under which UTR it was paid", code="utr_required")
    if told.via is None and (is_needed or told.utr or told.at):
        words = ", ".join(utrs.FORMS)
        raise BadRequest("How it was paid is required", f"It is one of {words}", code="paid_via_required")
    if told.at is None and (is_needed or told.utr or told.via):
        raise BadRequest(
            "When it was paid is required", "The statement tells it; in India's time", code="paid_at_required"
        )
    if told.via is None or told.at is None:
        return NOT_TOLD
    if told.via not in utrs.FORMS:
        words = ", ".join(utrs.FORMS)
        raise BadRequest("Invalid way of payment", f"It is one of {words}", code="invalid_paid_via")
    utr = utrs.clean(told.utr or withdrawal.utr or "", told.via)
    if is_of_another(session, withdrawal, utr):
        raise used(utr)
    now = session.scalars(select(func.now())).one()
    return Payment(utr, told.via, utrs.plausible(told.at, withdrawal.created_at, now))


def is_of_another(session: Session, withdrawal: Withdrawal, utr: str) -> bool:
    """Whether a UTR is known of another withdrawal, or of an attempt of another."""
    theirs = union_all(
        select(Withdrawal.id).where(
            func.upper(Withdrawal.utr) == utr.upper(), Withdrawal.id != withdrawal.id
        ),
        select(PayoutAttempt.withdrawal_id).where(
            PayoutAttempt.utr == utr, PayoutAttempt.withdrawal_id != withdrawal.id
        ),
    )
    return session.scalar(theirs.limit(1)) is not None


def used(utr: str) -> Conflict:
    """What is said of a UTR that another withdrawal has."""
    return Conflict(
        "UTR already used", f"Another withdrawal was paid under {utr}; search for it", code="utr_used"
    )


@contextmanager
def one_utr(paid: Payment) -> Iterator[None]:
    """Say that another withdrawal got this UTR at this very moment, when it did. Raises Conflict."""
    try:
        yield
    except IntegrityError as error:
        if getattr(getattr(error.orig, "diag", None), "constraint_name", None) == ONE_UTR:
            raise used(paid.utr or "") from error
        raise
