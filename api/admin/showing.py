"""How things look on a page: times in India, rupees, masked UPI ids."""

from datetime import datetime
from typing import Any

from flask import Flask
from markupsafe import Markup

from api.admin import door
from shared.clock import INDIA, iso
from shared.money import rupees_text
from shared.upi import mask, mask_within


def prepare(panel: Flask) -> None:
    """Give the templates their words."""
    panel.jinja_env.filters.update(ist=ist, rupees=rupees_text, mask=mask, told=told)
    panel.jinja_env.filters.update(span=span, percent=percent)
    panel.jinja_env.globals.update(who=door.who)
    panel.jinja_env.trim_blocks = panel.jinja_env.lstrip_blocks = True


def ist(moment: datetime | None) -> Markup | str:
    """A time as people in India read it, and as machines do."""
    if moment is None:
        return ""
    shown = moment.astimezone(INDIA).strftime("%d %b %Y, %H:%M:%S")
    return Markup('<time datetime="{}">{}</time>').format(iso(moment), shown)


def span(seconds: float | None) -> str:
    """A length of time, short: `45 s`, `12 min`, `3.5 h`, `2.1 days`."""
    if seconds is None:
        return ""
    for limit, unit, digits, word in ((120, 1, 0, "s"), (7200, 60, 0, "min"), (172_800, 3600, 1, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{digits}f} {word}"
    return f"{seconds / 86_400:,.1f} days"


def many(number: int, word: str) -> str:
    """A number with its word: `1 withdrawal`, `2 withdrawals`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def percent(share: float | None) -> str:
    """A part of a whole, to a tenth of a percent; nothing where there was no whole."""
    return "" if share is None else f"{share:.1%}"


def told(value: Any) -> Any:
    """A detail of a story in one line, without a UPI id in full."""
    if isinstance(value, datetime):
        return ist(value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {told(one)}" for name, one in value.items() if one not in (None, ""))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return mask_within(str(value))
