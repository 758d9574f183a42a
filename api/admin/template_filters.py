"""Template filters: times in IST, rupees, durations, masked UPI ids, and details with their labels."""

import re
from datetime import datetime
from typing import Any

from flask import Flask
from markupsafe import Markup

from api.admin import sessions
from shared.clock import INDIA, from_iso, iso
from shared.money import grouped, rupees_text
from shared.states import PaidVia
from shared.text.upi import mask, mask_all

PAISE = "_paise"
# Labels of details whose names say too little.
LABELS = {
    "awaits_approval": "Approval needed for",
    "exceptions": "Exceptions found",
    "exceptions_paise": "Explained by exceptions",
    "in_doubt": "May have been paid",
    "key": "Idempotency key",
    "remainder_paise": "Unexplained",
    "sends": "Times sent",
    "to": "Sent to",
}
SPELLINGS = {
    "upi": "UPI",
    "utr": "UTR",
    "http": "HTTP",
    "url": "URL",
    "smtp": "SMTP",
    "razorpayx": "RazorpayX",
}
_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def prepare(panel: Flask) -> None:
    """Add the filters and functions that templates use."""
    environment = panel.jinja_env
    environment.filters.update(
        ist=ist, rupees=rupees_text, mask=mask, counted=counted, grouped=grouped, signed=signed
    )
    environment.filters.update(duration=duration, percent=percent, label=label, detail=detail, via=via_label)
    environment.globals.update(
        current_operator=sessions.current_operator, is_auto_refresh=sessions.is_auto_refresh
    )
    environment.trim_blocks = environment.lstrip_blocks = True


def ist(moment: datetime | None) -> Markup | str:
    """A time in IST, also readable by machines."""
    if moment is None:
        return ""
    text = moment.astimezone(INDIA).strftime("%d %b %Y, %H:%M:%S")
    return Markup('<time datetime="{}">{}</time>').format(iso(moment), text)


def duration(seconds: float | None) -> str:
    """A duration: `45 s`, `12 min`, `3 h 20 min`, `2 days 5 h`."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days:,} days {hours} h" if hours else f"{days:,} days"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 withdrawal`, `2 withdrawals`."""
    return f"{number} {noun}" if number == 1 else f"{grouped(number)} {noun}s"


def signed(number: int) -> str:
    """A change with its sign: `+1,500`, `-500`."""
    return f"+{grouped(number)}" if number > 0 else grouped(number)


def via_label(via: str) -> str:
    """The name of the channel of a payment: `IMPS`, `UPI`."""
    return PaidVia(via).label


def percent(share: float | None) -> str:
    """A share to a tenth of a percent; empty if there was nothing to share."""
    return "" if share is None else f"{share:.1%}"


def label(name: str) -> str:
    """The label of a detail: `payout_id` -> `Payout id`. `_paise` is left out, because rupees are shown."""
    if name in LABELS:
        return LABELS[name]
    words = [SPELLINGS.get(word, word) for word in name.removesuffix(PAISE).split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def detail(value: Any, name: str = "") -> Any:
    """A detail in one line, with masked UPI ids; in rupees if its name ends with `_paise`."""
    if isinstance(value, datetime):
        return ist(value)
    if isinstance(value, dict):
        # In a sum by kind, each part has the unit of the whole.
        units = {key: name if name.endswith(PAISE) else key for key in value}
        pairs = (
            (label(key), detail(item, units[key])) for key, item in value.items() if item not in (None, "")
        )
        return Markup(", ").join(Markup("{}: {}").format(*pair) for pair in pairs)
    if isinstance(value, list):
        return Markup("; ").join(detail(item, name) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith(PAISE) and isinstance(value, int):
        return rupees_text(value)
    return _time(str(value)) or mask_all(str(value))


def _time(text: str) -> Markup | str:
    """The time if the text is one, else an empty text."""
    try:
        return ist(from_iso(text)) if _ISO_TIME.fullmatch(text) else ""
    except ValueError:
        return ""
