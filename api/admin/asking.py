"""What the list of withdrawals is asked for, as it stands in the address."""

from dataclasses import asdict
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from flask import request
from sqlalchemy.orm import Session

from api import parameters
from shared.clock import INDIA, from_iso
from shared.db import transaction
from shared.errors import BadRequest
from shared.ids import parse_id
from shared.models import Wallet
from shared.money import PAISE_PER_RUPEE
from shared.states import Status
from shared.withdrawals import searching
from shared.withdrawals.searching import NEWEST, ORDERS, Position, Wanted

MAX_TYPED = 500
MOST_PAISE = 2**53  # far above what can be paid, and what every number here can hold
NAMES = {"from": "From (IST)", "to": "To (IST)", "min": "From ₹", "max": "To ₹"}  # as they stand on the page
FILTERS = ("q", "user", "status", "reason", "review", "from", "to", "min", "max", "order")


def typed() -> dict[str, str]:
    """The filters as typed, without the empty ones: for the form, and for links to the same list."""
    given = {name: request.args.get(name, "") for name in FILTERS}
    # In an id of the app's a blank counts.
    return {name: text if name == "user" else text.strip() for name, text in given.items() if text.strip()}


def user_meant(session: Session, typed: str) -> str:
    """The user with this id. Ids are pasted: where nobody has it, the one without the blanks around it."""
    return typed if session.get(Wallet, typed) else typed.strip()


def wanted() -> Wanted:
    """What the list shows. Raises BadRequest, Unavailable."""
    asked = typed()
    if any(len(text) > MAX_TYPED or "\x00" in text for text in asked.values()):
        raise BadRequest("Invalid filter", f"At most {MAX_TYPED} characters each", code="bad_filter")
    filters: dict[str, Any] = {
        "user_id": None,
        "status": _one_of("status", asked.get("status"), tuple(Status)),
        "reason": asked.get("reason"),
        "review": asked.get("review"),
        "since": day("from", asked.get("from")),
        "until": day("to", asked.get("to"), is_end=True),
        "min_paise": _paise("min", asked.get("min")),
        "max_paise": _paise("max", asked.get("max")),
        "order": _one_of("order", asked.get("order"), ORDERS) or NEWEST,
    }
    in_order(filters["since"], filters["until"])
    if None not in (low := filters["min_paise"], high := filters["max_paise"]) and low > high:
        raise BadRequest("Invalid range", f"{NAMES['min']} is above {NAMES['max']}", code="bad_range")
    with transaction() as session:
        if "user" in asked:
            filters["user_id"] = user_meant(session, asked["user"])
        if "q" in asked:
            filters |= searching.meant(session, asked["q"])
    return Wanted(**filters)


def in_words(what: Wanted) -> dict[str, Any]:
    """The filters for the audit log. Whose UPI id was looked for stays out of it."""
    told = {name: str(value) for name, value in asdict(what).items() if value is not None}
    return told | ({"upi_id": "given"} if "upi_id" in told else {})


def after(what: Wanted) -> Position | None:
    """Behind which row this page goes on. Raises BadRequest for a cursor that was not made by us."""
    decoded = parameters.given_cursor()
    if decoded is None:
        return None
    value, _, text = decoded.partition("|")
    withdrawal_id = parse_id(text)
    try:
        if withdrawal_id is not None:
            is_amount = what.order in (searching.LARGEST, searching.SMALLEST)
            return _amount(value) if is_amount else from_iso(value), withdrawal_id
    except (ValueError, OverflowError):
        pass
    raise parameters.bad_cursor()


def day(name: str, text: str | None, *, is_end: bool = False) -> datetime | None:
    """The midnight in India at which this day begins, or ends. Raises BadRequest."""
    if text is None:
        return None
    try:
        found = date.fromisoformat(text) + timedelta(days=1 if is_end else 0)
        moment = datetime.combine(found, time(), INDIA)
        moment.astimezone()  # the calendar's ends have no time in other zones
    except (ValueError, OverflowError):
        raise BadRequest(
            "Invalid date", f"{NAMES[name]} is a day like 2026-11-24", code="bad_filter"
        ) from None
    return moment


def in_order(since: datetime | None, until: datetime | None) -> None:
    """Nothing lies in a range that ends before it begins: it is refused, not searched. Raises BadRequest."""
    if since is not None and until is not None and since >= until:
        raise BadRequest("Invalid range", f"{NAMES['from']} is after {NAMES['to']}", code="bad_range")


def _amount(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MOST_PAISE:
        raise ValueError(text)
    return number


def _paise(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        paise = Decimal(text.replace(",", "").removeprefix("₹")) * PAISE_PER_RUPEE
    except ArithmeticError:  # no number, or one with too many digits
        paise = Decimal(-1)
    if not paise.is_finite() or not 0 <= paise <= MOST_PAISE or paise != int(paise):
        raise BadRequest("Invalid amount", f"{NAMES[name]} is rupees like 500 or 99.50", code="bad_filter")
    return int(paise)


def _one_of(name: str, text: str | None, words: tuple[str, ...]) -> str | None:
    if text is not None and text not in words:
        raise BadRequest(
            f"Invalid {name}", f"{name.capitalize()} is one of {', '.join(words)}", code="bad_filter"
        )
    return text
