"""What we ask RazorpayX, as exact bytes. Pure. Limits from razorpayx.md §1.1-1.3."""

import hashlib
import json
import re

from shared.settings import Settings

NAME_CHARACTERS = re.compile(r"[^A-Za-z0-9 ’_/().-]")
MIN_NAME, MAX_NAME, MAX_REFERENCE = 3, 50, 40


def contact(user_id: str, name: str | None) -> bytes:
    """A contact; the same user and name always give the same bytes, so that RazorpayX finds its own."""
    return _bytes(
        {"name": _payee_name(name or user_id), "type": "customer", "reference_id": _reference(user_id)}
    )


def fund_account(contact_id: str, upi_id: str) -> bytes:
    """A fund account for a UPI id."""
    return _bytes({"contact_id": contact_id, "account_type": "vpa", "vpa": {"address": upi_id}})


def payout(*, settings: Settings, attempt_id: str, fund_account_id: str, amount_paise: int) -> bytes:
    """The exact bytes of a payout request (razorpayx.md §1.3). Made once, stored, sent unchanged."""
    assert amount_paise >= 100, "RazorpayX pays no less than one rupee"
    of_this = {"fund_account_id": fund_account_id, "amount": amount_paise, "reference_id": attempt_id}
    return _bytes({**_same_for_all(settings), **of_this})


def is_of(settings: Settings, body: bytes) -> bool:
    """Whether a stored payout request says what these settings say today."""
    sent: dict[str, object] = json.loads(body)
    return _same_for_all(settings).items() <= sent.items()


def _same_for_all(settings: Settings) -> dict[str, object]:
    return {
        "account_number": settings.razorpayx_account_number,
        "currency": "INR",
        "mode": "UPI",
        "purpose": settings.razorpayx_purpose,
        # With too little balance the payout waits at the provider instead of failing.
        "queue_if_low_balance": True,
        "narration": settings.razorpayx_narration,
    }


def _payee_name(name: str) -> str:
    """A name that RazorpayX takes: 3-50 of its characters, no special one at the end (razorpayx.md §1.1)."""
    name = NAME_CHARACTERS.sub(" ", name)[:MAX_NAME].strip().rstrip("’_/(-) ").strip()
    return name if len(name) >= MIN_NAME else f"User {name}".strip()


def _reference(user_id: str) -> str:
    """The user's id if it fits in a `reference_id` of 40 characters, else its hash."""
    if len(user_id) <= MAX_REFERENCE and user_id.isascii() and user_id.isprintable():
        return user_id
    return hashlib.sha256(user_id.encode()).hexdigest()[:MAX_REFERENCE]


def _bytes(fields: dict[str, object]) -> bytes:
    return json.dumps(fields).encode()
