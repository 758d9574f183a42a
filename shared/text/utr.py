"""A bank's reference of a payment (UTR), as people copy it from a statement. Its form depends on the channel.

UPI and IMPS use 12 digits (RRN). NEFT uses 16 characters that start with a letter, or the 22 characters of
RTGS with an N: bank, N or R, channel, date, number.
"""

import re
from datetime import datetime, timedelta

from shared.clock import INDIA
from shared.errors import BadRequest
from shared.states import PaidVia

_DIGITS = r"\d{12}"
_NEFT = r"[A-Z](?=[A-Z]*\d)[A-Z0-9]{15}"
_NEFT_LONG = r"[A-Z]{4}N[A-Z0-9]\d{16}"
_RTGS = r"[A-Z]{4}R[A-Z0-9]\d{16}"
_TWELVE = "12 digits, such as 433212345678"
# Channel -> the pattern of its UTRs, and its description.
FORMS: dict[PaidVia, tuple[str, str]] = {
    PaidVia.PROVIDER: (f"{_DIGITS}|{_NEFT}|{_NEFT_LONG}|{_RTGS}", "12 digits, or 16 or 22 characters"),
    PaidVia.UPI: (_DIGITS, _TWELVE),
    PaidVia.IMPS: (_DIGITS, _TWELVE),
    PaidVia.NEFT: (f"{_NEFT}|{_NEFT_LONG}", "16 characters, such as SBIN426333123456, or 22 with an N"),
    PaidVia.RTGS: (_RTGS, "22 characters, such as HDFCR52026112900012345"),
}
_ASCII_ONLY = re.ASCII


def normalize(text: str, via: PaidVia) -> str:
    """Return the UTR in capitals and without blanks. Raises BadRequest if it does not fit the channel."""
    utr = "".join(text.split()).upper()
    pattern, description = FORMS[via]
    if not re.fullmatch(pattern, utr, _ASCII_ONLY) or not utr.strip("0"):
        raise BadRequest("Invalid UTR", f"A UTR of {via.label} has {description}", code="invalid_utr")
    return utr


def parse_paid_at(text: str) -> datetime:
    """Parse a time of payment such as `2026-11-29 14:05`, in IST unless it has a zone. Raises BadRequest."""
    try:
        paid_at = datetime.fromisoformat(text.strip())
        if len(text.strip()) <= len("2026-11-29"):
            raise ValueError("a day is not a time")
        paid_at = paid_at if paid_at.tzinfo else paid_at.replace(tzinfo=INDIA)
        paid_at.astimezone(INDIA)  # fails at the ends of the calendar
    except (ValueError, OverflowError):
        raise BadRequest(
            "Invalid time of payment",
            "Use a day and a time in IST such as 2026-11-29 14:05",
            code="invalid_paid_at",
        ) from None
    return paid_at


def validate_paid_at(paid_at: datetime, requested_at: datetime, now: datetime) -> datetime:
    """Return the time of payment if it is between the request and now. Raises BadRequest.

    Statements show minutes only, so a payment in the minute of the request counts as after it.
    """
    if paid_at > now:
        raise BadRequest(
            "Invalid time of payment",
            f"{_ist(paid_at)} is in the future. Now it is {_ist(now)}",
            code="paid_in_the_future",
        )
    if paid_at < requested_at and paid_at + timedelta(minutes=1) <= requested_at:
        raise BadRequest(
            "Invalid time of payment",
            f"{_ist(paid_at)} is before the request at {_ist(requested_at)}",
            code="paid_before_the_request",
        )
    return max(paid_at, requested_at)


def _ist(moment: datetime) -> str:
    return moment.astimezone(INDIA).strftime("%Y-%m-%d %H:%M IST")
