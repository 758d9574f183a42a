"""Validate the provider's fields. Pure: values in, values or `ApiError` out.

Sources: `MD:api/x/contacts/create.md`, `MD:api/x/fund-accounts/create/vpa.md`,
`MD:api/x/fund-accounts/create/bank-account.md`, `MD:api/x/payouts/create/vpa.md`,
`MD:api/x/payout-composite/create/vpa.md`, `MD:api/x/payout-idempotency/make-request.md`.
Texts that are not documented are plausible ones: clients must not match on descriptions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ApiError, required
from .scenarios import SIM_HANDLE

MIN_PAISE = 100
MAX_PAISE = {"UPI": 1_00_000_00, "IMPS": 5_00_000_00}
MODES_FOR = {"vpa": ("UPI",), "bank_account": ("IMPS", "NEFT", "RTGS")}
PURPOSES = ("refund", "cashback", "payout", "salary", "utility bill", "vendor bill")
CONTACT_TYPES = ("vendor", "customer", "employee", "self")

_KEY = re.compile(r"[A-Za-z0-9\-_ ]{4,36}")
_NAME = re.compile(r"[A-Za-z0-9 ’\-_/().]*[A-Za-z0-9.]")
_VPA = re.compile(r"[A-Za-z0-9.\-]+@[A-Za-z0-9.\-]+")
_VPA_UNDERSCORE = re.compile(r"[A-Za-z0-9._\-]+@[A-Za-z0-9._\-]+")
_NARRATION = re.compile(r"[A-Za-z0-9 ]*")
_PHONE = re.compile(r"\+?[0-9]{8,14}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_IFSC = re.compile(r"[A-Z]{4}0[A-Z0-9]{6}")
_ACCOUNT = re.compile(r"[A-Za-z0-9]{5,35}")


def idempotency_key(value: str | None) -> str:
    """Mandatory since 15 Mar 2025 (`MD:errors/x.md` has exactly this error, including the string "null")."""
    if not value:
        raise ApiError(
            "Idempotency key is missing. Include idempotency header and key in the request.",
            reason="null",
            field="X-Payout-Idempotency",
        )
    if not _KEY.fullmatch(value):
        raise ApiError(
            "The idempotency key must be 4 to 36 letters, digits, hyphens, underscores or spaces.",
            field="X-Payout-Idempotency",
        )
    return value


def json_object(content_type: str, raw: bytes) -> dict[str, Any]:
    """The request body. Anything but a JSON object of valid Unicode text is rejected, never a 500."""
    if content_type != "application/json":
        raise ApiError("The request body must be JSON (Content-Type: application/json).")
    try:
        body = json.loads(raw)
        if b"\\ud" in raw.lower():
            json.dumps(body, ensure_ascii=False).encode()  # a lone surrogate does not encode
    except (ValueError, RecursionError):
        raise ApiError("The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise ApiError("The request body must be a JSON object.")
    return body


def known_fields(body: Mapping[str, Any], allowed: Iterable[str], inside: str = "") -> None:
    """Reject unknown fields: a misspelt one would otherwise be ignored silently."""
    extra = sorted(set(body) - set(allowed))
    if extra:
        raise ApiError(
            f"{', '.join(inside + name for name in extra)} is/are not required and should not be sent",
            field=inside + extra[0],
        )


def text(
    body: Mapping[str, Any],
    field: str,
    *,
    low: int = 0,
    high: int,
    is_required: bool = False,
    inside: str = "",
) -> str | None:
    """A string of bounded length. Null and empty count as absent."""
    value = body.get(field)
    where = inside + field
    if value is None or value == "":
        if is_required:
            raise required(where)
        return None
    if not isinstance(value, str):
        raise ApiError(f"The {field.replace('_', ' ')} must be a string.", field=where)
    if not low <= len(value) <= high:
        raise ApiError(
            f"The {field.replace('_', ' ')} must be between {low} and {high} characters.", field=where
        )
    return value


def nested(body: Mapping[str, Any], field: str, inside: str = "") -> dict[str, Any]:
    """A required JSON object inside the body."""
    value = body.get(field)
    if value is None:
        raise required(inside + field)
    if not isinstance(value, dict):
        raise ApiError(f"The {field.replace('_', ' ')} must be an array.", field=inside + field)
    return value


def boolean(body: Mapping[str, Any], field: str) -> bool:
    """A JSON boolean, default false."""
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise ApiError(f"The {field.replace('_', ' ')} field must be true or false.", field=field)
    return bool(value)


def notes(body: Mapping[str, Any]) -> dict[str, Any]:
    """At most 15 pairs of at most 256 characters; `[]` is how PHP writes an empty object."""
    value = body.get("notes")
    if value in (None, [], {}):
        return {}
    if not isinstance(value, dict):
        raise ApiError("The notes must be an object.", field="notes")
    if len(value) > 15:
        raise ApiError("The notes may not have more than 15 pairs.", field="notes")
    for name, note in value.items():
        if not isinstance(note, str | int) or len(str(note)) > 256 or len(name) > 256:
            raise ApiError("The notes' keys and values may not be longer than 256 characters.", field="notes")
    return value


def person_name(body: Mapping[str, Any], low: int, high: int, inside: str = "") -> str:
    """Letters, digits, space and ’ - _ / ( ) . ; ends in a letter, a digit or a full stop."""
    value = text(body, "name", low=low, high=high, is_required=True, inside=inside)
    assert value is not None
    if not _NAME.fullmatch(value):
        raise ApiError("The name format is invalid.", field=inside + "name")
    return value


def contact(body: Mapping[str, Any], inside: str = "") -> dict[str, Any]:
    """The fields of a new contact (`MD:api/x/contacts/create.md`)."""
    known_fields(body, ("name", "email", "contact", "type", "reference_id", "notes"), inside)
    fields: dict[str, Any] = {
        "name": person_name(body, 3, 50, inside),
        "email": text(body, "email", high=254, inside=inside),
        "contact": text(body, "contact", high=15, inside=inside),
        "type": text(body, "type", high=40, inside=inside),
        "reference_id": text(body, "reference_id", high=40, inside=inside),
        "notes": notes(body),
    }
    if fields["email"] and not _EMAIL.fullmatch(fields["email"]):
        raise ApiError("The email must be a valid email address.", field=inside + "email")
    if fields["contact"] and not _PHONE.fullmatch(fields["contact"]):
        raise ApiError("The contact format is invalid.", field=inside + "contact")
    if fields["type"] and fields["type"] not in CONTACT_TYPES:
        raise ApiError(f"Invalid type: {fields['type']}", field=inside + "type")
    return fields


def vpa_address(body: Mapping[str, Any], underscore_ok: bool, inside: str = "") -> str:
    """3-100 of letters, digits, `.`, `-` and one `@` (`MD:api/x/fund-accounts/create/vpa.md`).

    Underscore is not in the documented set, so it is refused; the @sim handle is ours and allows it.
    """
    vpa = nested(body, "vpa", inside)
    known_fields(vpa, ("address",), inside + "vpa.")
    address = text(vpa, "address", low=3, high=100, is_required=True, inside=inside + "vpa.")
    assert address is not None
    ours = address.lower().endswith("@" + SIM_HANDLE)
    if not (_VPA_UNDERSCORE if underscore_ok or ours else _VPA).fullmatch(address):
        raise ApiError("The VPA address format is invalid.", field=inside + "vpa.address")
    return address


def bank_account(body: Mapping[str, Any], inside: str = "") -> dict[str, Any]:
    """`MD:api/x/fund-accounts/create/bank-account.md`."""
    bank = nested(body, "bank_account", inside)
    inside += "bank_account."
    known_fields(bank, ("name", "ifsc", "account_number"), inside)
    name = person_name(bank, 3, 120, inside)
    ifsc = text(bank, "ifsc", high=255, is_required=True, inside=inside)
    account = text(bank, "account_number", low=5, high=35, is_required=True, inside=inside)
    if not _IFSC.fullmatch(ifsc or ""):
        raise ApiError("The IFSC must be 11 characters.", field=inside + "ifsc")
    if not _ACCOUNT.fullmatch(account or ""):
        raise ApiError("The account number format is invalid.", field=inside + "account_number")
    return {"ifsc": ifsc, "name": name, "account_number": account}


def destination(body: Mapping[str, Any], underscore_ok: bool, inside: str = "") -> tuple[str, Any]:
    """`("vpa", address)` or `("bank_account", {...})` of a new fund account."""
    kind = text(body, "account_type", high=40, is_required=True, inside=inside)
    if kind == "vpa":
        return "vpa", vpa_address(body, underscore_ok, inside)
    if kind == "bank_account":
        return "bank_account", bank_account(body, inside)
    raise ApiError(f"Invalid account type: {kind}", field=inside + "account_type")


def amount_paise(body: Mapping[str, Any], mode: str, exclusive: bool) -> int:
    """Whole paise; UPI up to one lakh rupees (`MD:x/payouts.md`; "below" it by `MD:x/glossary.md`)."""
    value = body.get("amount")
    if value is None:
        raise required("amount")
    if not isinstance(value, int) or isinstance(value, bool):
        raise ApiError("The amount must be an integer.", field="amount")
    if value < MIN_PAISE:
        raise ApiError("The amount must be at least INR 1.00", field="amount")
    limit = MAX_PAISE.get(mode, 10**12)
    if value > limit or (exclusive and mode == "UPI" and value == limit):
        raise ApiError("The amount exceeds the maximum allowed for this mode.", field="amount")
    return value


def payout(body: Mapping[str, Any], account_number: str, upi_limit_exclusive: bool) -> dict[str, Any]:
    """The fields of a payout, except its destination (`MD:api/x/payouts/create/vpa.md`)."""
    known_fields(
        body,
        (
            "account_number",
            "fund_account_id",
            "fund_account",
            "amount",
            "currency",
            "mode",
            "purpose",
            "queue_if_low_balance",
            "reference_id",
            "narration",
            "notes",
        ),
    )
    if text(body, "account_number", high=255, is_required=True) != account_number:
        raise ApiError(
            "The RazorpayX Account number is invalid.", field="account_number", reason=None, source=None
        )
    if text(body, "currency", high=255, is_required=True) != "INR":
        raise ApiError("The currency is not supported.", field="currency")
    mode = text(body, "mode", high=255, is_required=True)
    if mode is None or mode not in ("UPI", "IMPS", "NEFT", "RTGS"):
        raise ApiError("Payout mode is invalid", field="mode")
    purpose = text(body, "purpose", high=255, is_required=True)
    if purpose not in PURPOSES:
        raise ApiError(f"Invalid purpose: {purpose}", field="purpose")
    narration = text(body, "narration", high=30)
    if narration is not None and not _NARRATION.fullmatch(narration):
        raise ApiError("The narration may only contain letters, digits and spaces.", field="narration")
    return {
        "amount": amount_paise(body, mode, upi_limit_exclusive),
        "currency": "INR",
        "mode": mode,
        "purpose": purpose,
        "queue_if_low_balance": boolean(body, "queue_if_low_balance"),
        "reference_id": text(body, "reference_id", high=40),
        "narration": narration,
        "notes": notes(body),
    }
