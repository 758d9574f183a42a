"""The filters of lists, which are in the query of the address."""

from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session
from wtforms import BooleanField

from api import query_parameters
from api.admin.fields import (
    MAX_FILTER_PAISE,
    ChoiceField,
    DayField,
    FilterForm,
    RupeesField,
    TextField,
)
from shared.clock import from_iso
from shared.db.transactions import transaction
from shared.errors import BadRequest
from shared.ids import parse_id
from shared.models import Wallet
from shared.people.severities import Severity
from shared.states import Status
from shared.withdrawals import search
from shared.withdrawals.search import Filters, Position

ORDERS = {
    search.NEWEST: "newest first",
    search.OLDEST: "oldest first",
    search.LARGEST: "largest first",
    search.SMALLEST: "smallest first",
}


class DayRangeForm(FilterForm):
    """A range of days in India; both ends are included."""

    since = DayField("From (IST)", name="from")
    until = DayField("To (IST)", name="to", hint="Included")

    def require_valid(self) -> None:
        """Raises BadRequest, also for a range that ends before it begins."""
        super().require_valid()
        if self.since.data and self.until.data and self.since.data > self.until.data:
            raise BadRequest("Invalid range", "From (IST) must not be after To (IST)", code="bad_range")


class WithdrawalFilters(DayRangeForm):
    """The filters of withdrawals. Blanks in a user id count."""

    q = TextField(
        "Search",
        hint="Withdrawal id, user id, UPI id, UTR or payout id, in full",
        attributes={"type": "search"},
    )
    user = TextField("User", verbatim=True)
    status = ChoiceField("Status", {str(status): str(status) for status in Status}, empty="any")
    reason = TextField("Reason")
    hold = TextField("Hold", hint=f"A kind of hold, or {search.ANY_HOLD}")
    since = DayField("From (IST)", name="from")
    until = DayField("To (IST)", name="to", hint="Included", is_end=True)
    min_paise = RupeesField("From ₹", name="min", render_kw={"inputmode": "decimal"})
    max_paise = RupeesField("To ₹", name="max", render_kw={"inputmode": "decimal"})
    order = ChoiceField("Order", ORDERS)

    def require_valid(self) -> None:
        """Raises BadRequest, also for ranges that end before they begin."""
        super().require_valid()
        low = self.min_paise.data
        high = self.max_paise.data
        if low is not None and high is not None and low > high:
            raise BadRequest("Invalid range", "From ₹ must not be above To ₹", code="bad_range")

    def filters(self) -> Filters:
        """The filters for the search. Raises BadRequest, Unavailable."""
        self.require_valid()
        filters: dict[str, Any] = {
            "user_id": None,
            "status": self.status.data or None,
            "reason": self.reason.data or None,
            "hold": self.hold.data or None,
            "since": self.since.midnight,
            "until": self.until.midnight,
            "min_paise": self.min_paise.data,
            "max_paise": self.max_paise.data,
            "order": self.order.data or search.NEWEST,
        }
        with transaction() as session:
            if self.user.data.strip():
                filters["user_id"] = existing_user_id(session, self.user.data)
            if self.q.data:
                filters |= search.parse_query(session, self.q.data)
        return Filters(**filters)


class AuditLogFilters(DayRangeForm):
    """The filters of the audit log."""

    operator = TextField("Operator")
    action = TextField("Action")
    subject = TextField("Subject")
    since = DayField("From (IST)", name="from")
    until = DayField("To (IST)", name="to", hint="Included", is_end=True)


class ExceptionFilters(FilterForm):
    """The filters of exception records."""

    severity = ChoiceField("Severity", {str(severity): str(severity) for severity in Severity}, empty="any")
    kind = TextField("Kind")
    closed = BooleanField("Include closed")


class UserSearch(FilterForm):
    """The search for a user by id. Blanks in it count."""

    user = TextField("User id", verbatim=True, required=True, attributes={"type": "search"})


def existing_user_id(session: Session, typed: str) -> str:
    """The id if it exists, else the id without surrounding blanks, because ids are pasted."""
    return typed if session.get(Wallet, typed) else typed.strip()


def audit_details(filters: Filters) -> dict[str, str]:
    """The filters for the audit log, which holds no UPI id."""
    details = {name: str(value) for name, value in asdict(filters).items() if value is not None}
    return details | ({"upi_id": "given"} if "upi_id" in details else {})


def position(filters: Filters) -> Position | None:
    """The position after which this page begins. Raises BadRequest for a cursor that we did not make."""
    decoded = query_parameters.decoded_cursor()
    if decoded is None:
        return None
    value, _, id_text = decoded.partition("|")
    withdrawal_id = parse_id(id_text)
    try:
        if withdrawal_id is not None:
            is_amount = filters.order in (search.LARGEST, search.SMALLEST)
            return _paise(value) if is_amount else from_iso(value), withdrawal_id
    except (ValueError, OverflowError):
        pass
    raise query_parameters.invalid_cursor()


def _paise(text: str) -> int:
    paise = int(text)
    if not 0 <= paise <= MAX_FILTER_PAISE:
        raise ValueError(text)
    return paise
