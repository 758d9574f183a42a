"""Payments that operators enter: the UTR, the way and the time. They are validated before they count."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, func, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.clock import iso
from shared.db.batches import Query, value
from shared.errors import BadRequest, Conflict
from shared.models import PayoutAttempt, Resolution, Withdrawal
from shared.states import Decision, PaidVia, Status
from shared.text import utr as utrs

# Kind of hold: the provider reports a UTR under which another withdrawal was paid.
UTR_OF_ANOTHER = "utr_of_another"
ONE_UTR = "uq_withdrawals_utr"  # the index that keeps a UTR to one withdrawal


KNOWN = "utrs"
_utrs = func.unnest(value("utrs", ARRAY(Text))).table_valued("utr").render_derived("asked")
WITHDRAWALS_OF = Query(
    union_all(
        select(_utrs.c.utr, Withdrawal.id).where(func.upper(Withdrawal.utr) == func.upper(_utrs.c.utr)),
        select(_utrs.c.utr, PayoutAttempt.withdrawal_id).where(PayoutAttempt.utr == _utrs.c.utr),
    )
)


@dataclass(frozen=True, slots=True)
class Payment:
    """How the rupees arrived, as operators entered it; all empty if they entered no payment."""

    utr: str | None = None
    via: PaidVia | None = None
    at: datetime | None = None

    def columns(self) -> dict[str, Any]:
        """Return the columns of a proposal."""
        return {"utr": self.utr, "paid_via": self.via, "paid_at": self.at}

    def event_data(self) -> dict[str, str]:
        """Return the data of an event."""
        return (
            {"utr": self.utr, "paid_via": self.via, "paid_at": iso(self.at) or ""}
            if self.utr and self.via
            else {}
        )


NO_PAYMENT = Payment()


def proposed_payment(resolution: Resolution) -> Payment:
    """Return the payment that a proposal holds."""
    via = PaidVia(resolution.paid_via) if resolution.paid_via else None
    return Payment(resolution.utr, via, resolution.paid_at)


def validate(session: Session, withdrawal: Withdrawal, decision: Decision, payment: Payment) -> Payment:
    """Return the payment in the form in which it is stored.

    A completed withdrawal has a UTR and a time already, so it needs no payment. Raises BadRequest, Conflict
    (the UTR belongs to another withdrawal).
    """
    if decision != Decision.PAID:
        return NO_PAYMENT
    is_required = withdrawal.status == Status.PROCESSING
    if is_required and not payment.utr:
        raise BadRequest("A UTR is required", "Enter the UTR of the payment", code="utr_required")
    if payment.via is None and (is_required or payment.utr or payment.at):
        ways = ", ".join(utrs.FORMS)
        raise BadRequest("The way of payment is required", f"Enter one of {ways}", code="paid_via_required")
    if payment.at is None and (is_required or payment.utr or payment.via):
        raise BadRequest(
            "The time of payment is required",
            "Enter the time from the bank statement, in IST",
            code="paid_at_required",
        )
    if payment.via is None or payment.at is None:
        return NO_PAYMENT
    if payment.via not in utrs.FORMS:
        ways = ", ".join(utrs.FORMS)
        raise BadRequest("Invalid way of payment", f"Enter one of {ways}", code="invalid_paid_via")
    utr = utrs.normalize(payment.utr or withdrawal.utr or "", payment.via)
    if is_utr_of_another(session, withdrawal, utr):
        raise utr_used_error(utr)
    now = session.scalars(select(func.now())).one()
    return Payment(utr, payment.via, utrs.validate_paid_at(payment.at, withdrawal.created_at, now))


def is_utr_of_another(session: Session, withdrawal: Withdrawal, utr: str) -> bool:
    """True if another withdrawal, or an attempt of one, has this UTR."""
    known: dict[str, set[UUID]] = session.info.get(KNOWN, {})
    if utr in known:
        return bool(known[utr] - {withdrawal.id})
    others = union_all(
        select(Withdrawal.id).where(
            func.upper(Withdrawal.utr) == utr.upper(), Withdrawal.id != withdrawal.id
        ),
        select(PayoutAttempt.withdrawal_id).where(
            PayoutAttempt.utr == utr, PayoutAttempt.withdrawal_id != withdrawal.id
        ),
    )
    return session.scalar(others.limit(1)) is not None


def remember(session: Session, utrs: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Keep the rows of WITHDRAWALS_OF for these UTRs for this transaction."""
    known: dict[str, set[UUID]] = {utr: set() for utr in utrs}
    for utr, withdrawal_id in rows:
        known[utr].add(withdrawal_id)
    session.info[KNOWN] = known


def utr_used_error(utr: str) -> Conflict:
    """Return the error for a UTR that another withdrawal has."""
    return Conflict(
        "UTR already used", f"Another withdrawal was paid under {utr}. Search for it", code="utr_used"
    )


@contextmanager
def map_utr_conflict(paid: Payment) -> Iterator[None]:
    """Raise Conflict if another withdrawal got this UTR at the same moment."""
    try:
        yield
    except IntegrityError as error:
        if getattr(getattr(error.orig, "diag", None), "constraint_name", None) == ONE_UTR:
            raise utr_used_error(paid.utr or "") from error
        raise
