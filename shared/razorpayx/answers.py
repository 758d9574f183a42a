"""What RazorpayX said, as small values. Pure: bytes in, meaning out, nothing raised.

The rule of this file: what we do not understand is Unknown. A payment may hide behind it.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

MAX_RETRY_AFTER_SECONDS = 3600
CURRENCY = "INR"

# Provider's word -> how far that is; a report never moves a payout to a smaller number (razorpayx.md §2).
PROGRESS = {"pending": 2, "scheduled": 2, "queued": 3, "processing": 4}
PAID = "processed"
NOT_PAID = frozenset({"failed", "rejected", "cancelled"})
REVERSED = "reversed"

# `pout_` and 14 letters or digits today (razorpayx.md §1); twice as long is still an id, a novel is not.
PAYOUT_ID = re.compile(r"pout_[A-Za-z0-9]{1,35}")

# Fields of a payout that come from our settings: refused for one of them, the user has done nothing wrong.
# `mode` may still be refused for a single payee ("not valid for the fund account type").
OURS = frozenset({"account_number", "purpose", "narration", "mode", "currency", "queue_if_low_balance"})

Outcome = Literal["waiting", "paid", "not_paid", "reversed"]
ALIVE: frozenset[Outcome] = frozenset({"waiting", "paid"})  # the rupees arrived, or may still


def outcome_of(status: str) -> Outcome:
    """A payout's status in the four kinds that matter to us."""
    if status == PAID:
        return "paid"
    if status == REVERSED:
        return "reversed"
    return "not_paid" if status in NOT_PAID else "waiting"


@dataclass(frozen=True, slots=True)
class PayoutReport:
    """What the provider says of one payout now, whichever way it reached us. Money in paise."""

    payout_id: str
    status: str
    amount_paise: int
    reference_id: str | None = None
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    utr: str | None = None
    fees_paise: int | None = None
    tax_paise: int | None = None

    @property
    def outcome(self) -> Outcome:
        """The status in the four kinds that matter to us."""
        return outcome_of(self.status)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the payout."""

    report: PayoutReport


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider looked at this request and did not take it: nothing came of it."""

    reason: str
    description: str
    http_status: int


@dataclass(frozen=True, slots=True)
class Throttled:
    """The provider did not look at it: the same key and body may go again later.

    `refuses_us`: our key or address. `refuses_request`: for a field that our settings fill in, or without a
    reason; then the settings are wrong, or this request is.
    """

    because: Literal["busy", "refuses_us", "refuses_request", "unreachable", "paced"]
    description: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer that we understand. It may have been paid."""

    description: str
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """The provider knows the payee."""

    contact_id: str
    fund_account_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """Every payout that a look-up by `reference_id` brought; none is an answer too."""

    reports: tuple[PayoutReport, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer as it came."""

    status: int
    body: bytes
    retry_after: str | None = None


NotTaken = Refused | Throttled | Unknown
Answer = Accepted | Prepared | Found | NotTaken


def read_payout(reply: Reply, *, reference_id: str | None, amount_paise: int) -> Accepted | NotTaken:
    """The answer to a create or a fetch of the payout that we asked for, and of no other."""
    if not 200 <= reply.status < 300:
        return read_error(reply)
    report = parse_report(read_json(reply.body))
    if report is None:
        return Unknown("The answer is not a payout", reply.status)
    if report.amount_paise != amount_paise or (reference_id and report.reference_id != reference_id):
        return Unknown("The answer is about another payout", reply.status)
    return Accepted(report)


def read_id(reply: Reply, *, prefix: str) -> str | NotTaken:
    """The id of the contact (`cont_`) or fund account (`fa_`) that a create answered with."""
    if not 200 <= reply.status < 300:
        return read_error(reply)
    entity = read_json(reply.body)
    found = entity.get("id") if isinstance(entity, dict) else None
    if isinstance(found, str) and found.startswith(prefix):
        return found
    return Unknown(f"The answer names no {prefix}…", reply.status)


def read_error(reply: Reply) -> NotTaken:
    """What an answer that is no success means (razorpayx.md §4). HTTP status first, words last."""
    if reply.status == 429:
        return Throttled("busy", "Too many requests", retry_after(reply.retry_after))
    envelope = read_json(reply.body)
    error = envelope.get("error") if isinstance(envelope, dict) else None
    if not isinstance(error, dict):
        return Unknown("Not an answer of RazorpayX", reply.status)
    description = word(error.get("description")) or "No description"
    if reply.status == 401:
        return Throttled("refuses_us", description)
    if reply.status == 403:
        return Throttled("refuses_request", description)
    if reply.status == 400 and error.get("code") == "BAD_REQUEST_ERROR":
        return _read_refusal(error, description)
    # A 409 says that this key is in flight or was used: there may be a payout.
    return Unknown(description, reply.status)


def _read_refusal(error: dict[str, Any], description: str) -> NotTaken:
    reason, where = word(error.get("reason")), word(error.get("field"))
    words = description.lower()
    if "idempotency" in words:
        # Whatever went wrong with the key, something may stand behind it: look before anything else.
        return Unknown(description, 400)
    if "not found on the server" in words or "from this ip" in words:
        return Throttled("refuses_us", description)
    if where in OURS:
        return Throttled("refuses_request", description)
    if where == "fund_account_id":
        reason = "fund_account_invalid"
    if "enough balance" in words:
        reason = "insufficient_funds"
    return Refused(reason or "input_validation_failed", description, 400)


def parse_report(entity: Any) -> PayoutReport | None:
    """A payout entity, or None when it lacks what we need. Unknown keys and odd nulls are usual there."""
    if not isinstance(entity, dict) or entity.get("entity") not in (None, "payout"):
        return None
    payout_id, status, amount = word(entity.get("id")), word(entity.get("status")), entity.get("amount")
    if not payout_id or not PAYOUT_ID.fullmatch(payout_id) or type(amount) is not int:
        return None
    if status not in PROGRESS and status not in NOT_PAID | {PAID, REVERSED}:
        return None
    if word(entity.get("currency")) not in (None, CURRENCY):
        return None  # so many of something else
    details = entity.get("status_details")
    details = details if isinstance(details, dict) else {}
    return PayoutReport(
        payout_id=payout_id,
        status=status,
        amount_paise=amount,
        reference_id=word(entity.get("reference_id")),
        reason=word(details.get("reason")),
        details={key: word(details.get(key)) for key in ("reason", "source", "description")},
        utr=word(entity.get("utr")),
        fees_paise=paise(entity.get("fees")),
        tax_paise=paise(entity.get("tax")),
    )


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """One webhook: its name, the report that it carries (a payout event's), and when it happened."""

    name: str
    report: PayoutReport | None
    occurred_at: datetime | None


def parse_event(body: bytes) -> ProviderEvent | None:
    """What a webhook says. None when the body is no event at all."""
    event = read_json(body)
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    payload = event.get("payload")
    payout = payload.get("payout") if isinstance(payload, dict) else None
    report = parse_report(payout.get("entity") if isinstance(payout, dict) else None)
    return ProviderEvent(event["event"], report, moment(event.get("created_at")))


def read_json(body: bytes) -> Any:
    """What the bytes say, or None when they are no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def word(value: Any) -> str | None:
    """A text that says something: RazorpayX also writes null as `"null"`, `"NA"` and `""`."""
    if not isinstance(value, str) or value in ("", "null", "NA"):
        return None
    # NUL cannot be stored, a lone surrogate cannot be written; both would turn an answer into a crash.
    return value.replace("\x00", "").encode("utf-8", "replace").decode()[:1000]


def paise(value: Any) -> int | None:
    """An amount of money that we can store, or None."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def moment(value: Any) -> datetime | None:
    """A time as RazorpayX writes it: Unix seconds."""
    if type(value) is not int or not 0 < value < 2**33:
        return None
    return datetime.fromtimestamp(value, UTC)


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date (RFC 9110 §10.2.3); None when it is neither."""
    if not value:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else _seconds_until(value)
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _seconds_until(date: str) -> float:
    return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
