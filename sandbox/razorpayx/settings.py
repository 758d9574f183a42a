"""The switches of `POST /_sim/settings` and their allowed values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LIST_FAULTS = ("ok", "count", "entity", "error", "has_more")


@dataclass(slots=True)
class Settings:
    """The simulator's behaviour where the documents contradict each other or say nothing."""

    replay_saved: bool = False  # a resend returns the saved first reply, not the latest state
    mismatch_409: bool = False  # same key, other body: 409 instead of 400
    refusal_consumes_key: bool = True  # a refused create binds its key to its body all the same
    low_balance_async: bool = False  # short of money: accepted, then failed; instead of 400
    lite: bool = False  # RazorpayX Lite: failures after debit are `reversed`
    transaction_events: bool = True  # transaction.created is sent (Lite only, by the documents)
    underscore_ok: bool = False  # underscores allowed in every VPA
    upi_limit_exclusive: bool = False  # UPI must stay below one lakh, instead of up to it
    created_201: bool = True  # a new contact or fund account answers 201, an existing one 200
    webhooks_enabled: bool = True  # switched off by 24 h of failures; only a person switches it on
    webhook_timeout_ms: int = 5000  # a slower receiver has failed
    lookups: str = "ok"  # GET /payouts and /payouts/:id: ok | 500 | empty | drop
    lists: str = "ok"  # every list: ok, or a page that contradicts itself: count | entity | error | has_more
    rate_limit_per_second: int | None = None
    down: str | None = None  # the whole API: 500 | drop | 503html
    latency_ms: int = 0
    fees_paise: int = 590  # includes the tax
    tax_paise: int = 90


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


_LIMIT = _whole(1, 1_000_000)
_LATENCY = _whole(0, 600_000)
_FEES = _whole(0, 1_000_000)

_ACCEPTED_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lookups": (lambda v: v in ("ok", "500", "empty", "drop"), "one of ok, 500, empty, drop"),
    "lists": (lambda v: v in LIST_FAULTS, f"one of {', '.join(LIST_FAULTS)}"),
    "down": (lambda v: v is None or v in ("500", "drop", "503html"), "one of 500, drop, 503html, or null"),
    "rate_limit_per_second": (lambda v: v is None or _LIMIT(v), "a whole number from 1, or null"),
    "latency_ms": (_LATENCY, "a whole number from 0 to 600000"),
    "webhook_timeout_ms": (_whole(1, 60_000), "a whole number from 1 to 60000"),
    "fees_paise": (_FEES, "a whole number from 0 to 1000000"),
    "tax_paise": (_FEES, "a whole number from 0 to 1000000"),
}


def change(settings: Settings, changes: dict[str, Any]) -> str | None:
    """Set all given switches, or none and return the error."""
    for name, value in changes.items():
        if name not in Settings.__slots__:
            return f"There is no setting {name!r}; there are: {', '.join(sorted(Settings.__slots__))}."
        is_accepted, allowed = _ACCEPTED_VALUES.get(name, (_is_bool, "true or false"))
        # An unhashable or nested value never equals an allowed word, so it is rejected too.
        if not is_accepted(value):
            return f"{name} must be {allowed}."
    fees = changes.get("fees_paise", settings.fees_paise)
    if changes.get("tax_paise", settings.tax_paise) > fees:
        return "tax_paise must not exceed fees_paise: fees include the tax."
    for name, value in changes.items():
        setattr(settings, name, value)
    return None
