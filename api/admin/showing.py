"""How things look on a page: times in India, rupees, masked UPI ids, names of details in words."""

import re
from datetime import datetime
from typing import Any

from flask import Flask
from markupsafe import Markup

from api.admin import door
from shared.clock import INDIA, from_iso, iso
from shared.money import rupees_text
from shared.states import PaidVia
from shared.upi import mask, mask_within

PAISE = "_paise"
# Names of details that say too little as they are.
LABELS = {
    "answered_with_none": "Look-ups that found none",
    "awaits_approval": "To be approved because of",
    "checks": "Look-ups",
    "exceptions": "Exceptions found",
    "exceptions_paise": "Explained by exceptions",
    "in_doubt": "May have been paid",
    "key": "Idempotency key",
    "looks": "Look-ups",
    "remainder_paise": "Explained by nothing",
    "sends": "Times sent",
    "to": "Told to",
}
WRITTEN = {"upi": "UPI", "utr": "UTR", "http": "HTTP", "url": "URL", "smtp": "SMTP", "razorpayx": "RazorpayX"}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def prepare(panel: Flask) -> None:
    """Give the templates their words."""
    panel.jinja_env.filters.update(ist=ist, rupees=rupees_text, mask=mask, told=told)
    panel.jinja_env.filters.update(span=span, percent=percent, label=label, way=way)
    panel.jinja_env.globals.update(who=door.who, loads_itself=door.loads_itself)
    panel.jinja_env.trim_blocks = panel.jinja_env.lstrip_blocks = True


def ist(moment: datetime | None) -> Markup | str:
    """A time as people in India read it, and as machines do."""
    if moment is None:
        return ""
    shown = moment.astimezone(INDIA).strftime("%d %b %Y, %H:%M:%S")
    return Markup('<time datetime="{}">{}</time>').format(iso(moment), shown)


def span(seconds: float | None) -> str:
    """A length of time, short: `45 s`, `12 min`, `3 h 20 min`, `2 days 5 h`."""
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


def many(number: int, word: str) -> str:
    """A number with its word: `1 withdrawal`, `2 withdrawals`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def way(via: str) -> str:
    """By which way it was paid, as people write it."""
    return PaidVia(via).label


def percent(share: float | None) -> str:
    """A part of a whole, to a tenth of a percent; nothing where there was no whole."""
    return "" if share is None else f"{share:.1%}"


def label(name: str) -> str:
    """The name of a detail in words: `payout_id` -> `Payout id`; paise are told as rupees, and not named."""
    if name in LABELS:
        return LABELS[name]
    words = [WRITTEN.get(word, word) for word in name.removesuffix(PAISE).split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def told(value: Any, name: str = "") -> Any:
    """A detail of a story in one line, without a UPI id in full; in rupees where its name says paise."""
    if isinstance(value, datetime):
        return ist(value)
    if isinstance(value, dict):
        # Sums by kind: what is paise as a whole is paise in each part.
        each = {of: name if name.endswith(PAISE) else of for of in value}
        known = ((label(of), told(one, each[of])) for of, one in value.items() if one not in (None, ""))
        return Markup(", ").join(Markup("{}: {}").format(*pair) for pair in known)
    if isinstance(value, list):
        return Markup("; ").join(told(one, name) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith(PAISE) and isinstance(value, int):
        return rupees_text(value)
    return _moment(str(value)) or mask_within(str(value))


def _moment(text: str) -> Markup | str:
    """A time that is kept as text; nothing for any other text."""
    try:
        return ist(from_iso(text)) if _MOMENT.fullmatch(text) else ""
    except ValueError:
        return ""
