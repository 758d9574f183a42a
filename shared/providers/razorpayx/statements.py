"""Parse the rows of RazorpayX's lists: payouts and statement lines. Pure, like `answers.py`.

A row that we do not understand makes its page Unknown: if it were left out, it would look missing.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from shared.providers.answers import ListedPayout, NotAccepted, StatementLine, Unknown
from shared.providers.razorpayx.answers import (
    Reply,
    clean_text,
    paise,
    parse_report,
    unix_time,
)
from shared.providers.razorpayx.pages import read_items

Source = Literal["payout", "reversal", "bank_transfer", "other"]
SOURCES: tuple[Source, ...] = ("payout", "reversal", "bank_transfer")


Listed = TypeVar("Listed", ListedPayout, StatementLine)


def read_page(reply: Reply, parse: Callable[[Any], Listed | None]) -> list[Listed] | NotAccepted:
    """Parse one page of a list; Unknown if one of its rows is not understood."""
    items = read_items(reply)
    if not isinstance(items, list):
        return items
    rows = [row for item in items if (row := parse(item)) is not None]
    if len(rows) != len(items):
        return Unknown("The list contains a row that we do not understand", reply.status)
    return rows


def parse_payout(entity: Any) -> ListedPayout | None:
    """Parse a payout of a list; None if it lacks what we need."""
    report = parse_report(entity)
    return ListedPayout(report, report.created_at) if report and report.created_at else None


def parse_line(entity: Any) -> StatementLine | None:
    """Parse a transaction (razorpayx.md §1.6); None if it lacks what we need."""
    if not isinstance(entity, dict):
        return None
    line_id = clean_text(entity.get("id"))
    created_at = unix_time(entity.get("created_at"))
    debit = paise(entity.get("debit"))
    credit = paise(entity.get("credit"))
    if line_id is None or created_at is None or debit is None or credit is None:
        return None
    source = entity.get("source")
    source = source if isinstance(source, dict) else {}
    kind: Source = next((known for known in SOURCES if known == source.get("entity")), "other")
    # A reversal is an entity of its own and names its payout, as the community reports (§1.6).
    payout_id = {"payout": source.get("id"), "reversal": source.get("payout_id")}.get(kind)
    return StatementLine(
        line_id, debit, credit, kind, clean_text(source.get("id")), clean_text(payout_id), created_at
    )
