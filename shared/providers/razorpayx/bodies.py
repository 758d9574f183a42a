"""Request bodies for RazorpayX, as exact bytes. Pure. Limits from razorpayx.md §1.1-1.3."""

import hashlib
import json
import re

from shared.settings import Settings

NAME_CHARACTERS = re.compile(r"[^A-Za-z0-9 ’_/().-]")
MIN_NAME_LENGTH = 3
MAX_NAME_LENGTH = 50
MAX_REFERENCE_LENGTH = 40


def contact(user_id: str, name: str | None) -> bytes:
    """Build a contact. The same user and name give the same bytes, so RazorpayX returns the same contact."""
    return _bytes(
        {"name": _payee_name(name or user_id), "type": "customer", "reference_id": _reference(user_id)}
    )


def fund_account(contact_id: str, upi_id: str) -> bytes:
    """Build a fund account for a UPI id."""
    return _bytes({"contact_id": contact_id, "account_type": "vpa", "vpa": {"address": upi_id}})


def payout(*, settings: Settings, attempt_id: str, fund_account_id: str, amount_paise: int) -> bytes:
    """Build the exact bytes of a payout request (razorpayx.md §1.3): built once, stored, sent unchanged."""
    assert amount_paise >= 100, "RazorpayX pays at least one rupee"
    own_fields = {"fund_account_id": fund_account_id, "amount": amount_paise, "reference_id": attempt_id}
    return _bytes({**_settings_fields(settings), **own_fields})


def matches_settings(settings: Settings, body: bytes) -> bool:
    """True if a stored payout request matches these settings."""
    stored: dict[str, object] = json.loads(body)
    return _settings_fields(settings).items() <= stored.items()


def _settings_fields(settings: Settings) -> dict[str, object]:
    return {
        "account_number": settings.razorpayx_account_number,
        "currency": "INR",
        "mode": "UPI",
        "purpose": settings.razorpayx_purpose,
        # If the balance is too low, the payout waits at the provider instead of failing.
        "queue_if_low_balance": True,
        "narration": settings.razorpayx_narration,
    }


def _payee_name(name: str) -> str:
    """Return a name that RazorpayX accepts: 3-50 characters, no special one last (razorpayx.md §1.1)."""
    name = NAME_CHARACTERS.sub(" ", name)[:MAX_NAME_LENGTH].strip().rstrip("’_/(-) ").strip()
    return name if len(name) >= MIN_NAME_LENGTH else f"User {name}".strip()


def _reference(user_id: str) -> str:
    """Return the user's id if it fits in a `reference_id` of 40 characters, otherwise its hash."""
    if len(user_id) <= MAX_REFERENCE_LENGTH and user_id.isascii() and user_id.isprintable():
        return user_id
    return hashlib.sha256(user_id.encode()).hexdigest()[:MAX_REFERENCE_LENGTH]


def _bytes(fields: dict[str, object]) -> bytes:
    return json.dumps(fields).encode()
