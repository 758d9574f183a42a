"""Parse RazorpayX's answers. Pure: bytes in, values out, nothing raised.

The rule: an answer that we do not understand is Unknown, because the payout may have been paid.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from shared.providers.answers import (
    Accepted,
    NotAccepted,
    Outcome,
    PayoutReport,
    ProviderEvent,
    Refused,
    Throttled,
    Unknown,
)

MAX_RETRY_AFTER_SECONDS = 3600
CURRENCY = "INR"

# Status -> progress; a report never moves a payout back to a smaller number (razorpayx.md §2).
PROGRESS = {"pending": 2, "scheduled": 2, "queued": 3, "processing": 4}
PAID = "processed"
NOT_PAID = frozenset({"failed", "rejected", "cancelled"})
REVERSED = "reversed"

# `pout_` and 14 letters or digits today (razorpayx.md §1); longer ids are accepted, within bounds.
PAYOUT_ID = re.compile(r"pout_[A-Za-z0-9]{1,35}")

# Fields of a payout that come from our settings: a refusal for one of them is not the user's fault.
# `mode` may still be refused for a single payee ("not valid for the fund account type").
SETTINGS_FIELDS = frozenset(
    {"account_number", "purpose", "narration", "mode", "currency", "queue_if_low_balance"}
)

STATUSES = frozenset({*PROGRESS, PAID, *NOT_PAID, REVERSED})


def outcome_of(status: str) -> Outcome:
    """Return the outcome that a payout status means."""
    if status == PAID:
        return "paid"
    if status == REVERSED:
        return "reversed"
    return "not_paid" if status in NOT_PAID else "waiting"


def build_report(
    payout_id: str, status: str, amount_paise: int, reference_id: str | None = None, **more: Any
) -> PayoutReport:
    """Build the report on one payout, with the outcome and progress of its status."""
    return PayoutReport(
        payout_id, status, amount_paise, outcome_of(status), PROGRESS.get(status, 0), reference_id, **more
    )


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP response, as received."""

    status: int
    body: bytes
    retry_after: str | None = None


def read_payout(reply: Reply, *, reference_id: str | None, amount_paise: int) -> Accepted | NotAccepted:
    """Parse the response to creating or fetching a payout; a response about another payout is Unknown."""
    if not 200 <= reply.status < 300:
        return read_error(reply)
    payout = parse_report(read_json(reply.body))
    if payout is None:
        return Unknown("The answer is not a payout", reply.status)
    if payout.amount_paise != amount_paise or (reference_id and payout.reference_id != reference_id):
        return Unknown("The answer is about another payout", reply.status)
    return Accepted(payout)


def read_id(reply: Reply, *, prefix: str) -> str | NotAccepted:
    """Return the id of the created contact (`cont_`) or fund account (`fa_`)."""
    if not 200 <= reply.status < 300:
        return read_error(reply)
    entity = read_json(reply.body)
    entity_id = entity.get("id") if isinstance(entity, dict) else None
    if isinstance(entity_id, str) and entity_id.startswith(prefix):
        return entity_id
    return Unknown(f"The answer has no id that begins with {prefix}", reply.status)


def read_error(reply: Reply) -> NotAccepted:
    """Parse an error response (razorpayx.md §4): by the HTTP status first, by its texts last."""
    if reply.status == 429:
        return Throttled("busy", "Too many requests", retry_after(reply.retry_after))
    envelope = read_json(reply.body)
    error = envelope.get("error") if isinstance(envelope, dict) else None
    if not isinstance(error, dict):
        return Unknown("The answer is not from RazorpayX", reply.status)
    description = clean_text(error.get("description")) or "No description"
    if reply.status == 401:
        return Throttled("refuses_us", description)
    if reply.status == 403:
        return Throttled("refuses_request", description)
    if reply.status == 400 and error.get("code") == "BAD_REQUEST_ERROR":
        return _read_refusal(error, description)
    # A 409 means that this key is in flight or was used: there may be a payout.
    return Unknown(description, reply.status)


def _read_refusal(error: dict[str, Any], description: str) -> NotAccepted:
    reason = clean_text(error.get("reason"))
    field = clean_text(error.get("field"))
    text = description.lower()
    if "idempotency" in text:
        # Whatever is wrong with the key, a payout may exist under it: look it up first.
        return Unknown(description, 400)
    if "not found on the server" in text or "from this ip" in text:
        return Throttled("refuses_us", description)
    if field in SETTINGS_FIELDS:
        return Throttled("refuses_request", description)
    if field == "fund_account_id":
        reason = "fund_account_invalid"
    if "enough balance" in text:
        reason = "insufficient_funds"
    return Refused(reason or "input_validation_failed", description, 400)


def parse_report(entity: Any) -> PayoutReport | None:
    """Parse a payout entity; None if it lacks what we need. Unknown keys and odd nulls are common."""
    if not isinstance(entity, dict) or entity.get("entity") not in (None, "payout"):
        return None
    payout_id = clean_text(entity.get("id"))
    status = clean_text(entity.get("status"))
    amount = entity.get("amount")
    if not payout_id or not PAYOUT_ID.fullmatch(payout_id) or type(amount) is not int:
        return None
    if status not in STATUSES:
        return None
    if clean_text(entity.get("currency")) not in (None, CURRENCY):
        return None  # an amount in another currency
    details = entity.get("status_details")
    details = details if isinstance(details, dict) else {}
    return build_report(
        payout_id=payout_id,
        status=status,
        amount_paise=amount,
        reference_id=clean_text(entity.get("reference_id")),
        reason=clean_text(details.get("reason")),
        details={key: clean_text(details.get(key)) for key in ("reason", "source", "description")},
        utr=clean_text(entity.get("utr")),
        fees_paise=paise(entity.get("fees")),
        tax_paise=paise(entity.get("tax")),
        created_at=unix_time(entity.get("created_at")),
    )


def parse_event(body: bytes) -> ProviderEvent | None:
    """Parse a webhook; None if the body is not an event."""
    event = read_json(body)
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    payload = event.get("payload")
    payout = payload.get("payout") if isinstance(payload, dict) else None
    entity = payout.get("entity") if isinstance(payout, dict) else None
    name = event["event"]
    # payout.downtime.* has no payout in it.
    is_about_payout = name.startswith("payout.") and not name.startswith("payout.downtime")
    return ProviderEvent(name, is_about_payout, parse_report(entity), unix_time(event.get("created_at")))


def read_json(body: bytes) -> Any:
    """Parse JSON; None if the bytes are not valid JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def clean_text(value: Any) -> str | None:
    """Return a text, or None: RazorpayX also writes null as `"null"`, `"NA"` and `""`."""
    if not isinstance(value, str) or value in ("", "null", "NA"):
        return None
    # NUL cannot be stored and a lone surrogate cannot be encoded; both would raise later.
    return value.replace("\x00", "").encode("utf-8", "replace").decode()[:1000]


def paise(value: Any) -> int | None:
    """Return an amount in paise that we can store, or None."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def unix_time(value: Any) -> datetime | None:
    """Parse a time in Unix seconds, as RazorpayX writes it; None if it is not one."""
    if type(value) is not int or not 0 < value < 2**33:
        return None
    return datetime.fromtimestamp(value, UTC)


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header: a number or a date (RFC 9110 §10.2.3), otherwise None."""
    if not value:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else _seconds_until(value)
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _seconds_until(date: str) -> float:
    return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
