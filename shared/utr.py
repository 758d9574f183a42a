"""A bank's reference of a payment (UTR), as people read it off a statement: its form by the way it was paid.

UPI and IMPS have a reference of 12 digits (RRN). NEFT has 16 characters that begin with a letter, or the 22
of RTGS with an N: bank, N or R, channel, date, number.
"""

import re
from datetime import datetime, timedelta

from shared.clock import INDIA
from shared.errors import BadRequest
from shared.states import PaidVia

_DIGITS = r"\d{12}"
_NEFT, _NEFT_LONG = r"[A-Z](?=[A-Z]*\d)[A-Z0-9]{15}", r"[A-Z]{4}N[A-Z0-9]\d{16}"
_RTGS = r"[A-Z]{4}R[A-Z0-9]\d{16}"
_TWELVE = "12 digits, such as 433212345678"
# Way -> what a UTR of it looks like, and the same in words.
FORMS: dict[PaidVia, tuple[str, str]] = {
    PaidVia.RAZORPAYX: (f"{_DIGITS}|{_NEFT}|{_NEFT_LONG}|{_RTGS}", "12 digits, or 16 or 22 characters"),
    PaidVia.UPI: (_DIGITS, _TWELVE),
    PaidVia.IMPS: (_DIGITS, _TWELVE),
    PaidVia.NEFT: (f"{_NEFT}|{_NEFT_LONG}", "16 characters, such as SBIN426333123456, or 22 with an N"),
    PaidVia.RTGS: (_RTGS, "22 characters, such as HDFCR52026112900012345"),
}
_ASCII_ONLY = re.ASCII


def clean(text: str, via: PaidVia) -> str:
    """The UTR in capitals and without blanks. Raises BadRequest when no such payment has one like it."""
    utr = "".join(text.split()).upper()
    form, words = FORMS[via]
    if not re.fullmatch(form, utr, _ASCII_ONLY) or not utr.strip("0"):
        raise BadRequest("Invalid UTR", f"A UTR of {via.label} has {words}", code="invalid_utr")
    return utr


def moment(text: str) -> datetime:
    """When it was paid, as people type it: `2026-11-29 14:05`, in India unless it names its zone.

    Raises BadRequest.
    """
    try:
        typed = datetime.fromisoformat(text.strip())
        if len(text.strip()) <= len("2026-11-29"):
            raise ValueError("a day is not a time")
        typed = typed if typed.tzinfo else typed.replace(tzinfo=INDIA)
        typed.astimezone(INDIA)  # the calendar's ends have no time in other zones
    except (ValueError, OverflowError):
        raise BadRequest(
            "Invalid time of payment",
            "When it was paid is a day and a time in India like 2026-11-29 14:05",
            code="invalid_paid_at",
        ) from None
    return typed


def plausible(paid_at: datetime, requested_at: datetime, now: datetime) -> datetime:
    """The time of payment, if it can be. Statements tell minutes: the minute of the request is not before it.

    Raises BadRequest.
    """
    if paid_at > now:
        raise BadRequest(
            "Invalid time of payment",
            f"{_ist(paid_at)} is in the future; it is {_ist(now)} now",
            code="paid_in_the_future",
        )
    if paid_at < requested_at and paid_at + timedelta(minutes=1) <= requested_at:
        raise BadRequest(
            "Invalid time of payment",
            f"It was requested on {_ist(requested_at)}; {_ist(paid_at)} is before that",
            code="paid_before_the_request",
        )
    return max(paid_at, requested_at)


def _ist(moment: datetime) -> str:
    return moment.astimezone(INDIA).strftime("%Y-%m-%d %H:%M IST")
