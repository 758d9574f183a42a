"""What RazorpayX lists of our account: payouts, and the lines of its statement. Pure, like `answers.py`.

A row that we do not understand spoils its page: left out, it would look like something that is not there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from shared.razorpayx.answers import (
    NotTaken,
    PayoutReport,
    Reply,
    Unknown,
    moment,
    paise,
    parse_report,
    word,
)
from shared.razorpayx.lists import read_items

Source = Literal["payout", "reversal", "bank_transfer", "other"]
SOURCES: tuple[Source, ...] = ("payout", "reversal", "bank_transfer")


@dataclass(frozen=True, slots=True)
class ListedPayout:
    """A payout in the provider's list: what it says, and when the provider made it."""

    report: PayoutReport
    created_at: datetime

    @property
    def id(self) -> str:
        """The payout's id."""
        return self.report.payout_id


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the statement. Paise; either debit or credit is 0."""

    id: str
    debit_paise: int
    credit_paise: int
    source: Source
    source_id: str | None
    payout_id: str | None  # whose debit, or whose reversal; None where the line is about no payout
    created_at: datetime

    @property
    def net_paise(self) -> int:
        """What left the account."""
        return self.debit_paise - self.credit_paise


Listed = TypeVar("Listed", ListedPayout, Line)


def read_page(reply: Reply, parse: Callable[[Any], Listed | None]) -> list[Listed] | NotTaken:
    """The rows of one page of a list; Unknown when any of them is not understood."""
    items = read_items(reply)
    if not isinstance(items, list):
        return items
    rows = [row for item in items if (row := parse(item)) is not None]
    if len(rows) != len(items):
        return Unknown("The list holds a row that is not understood", reply.status)
    return rows


def parse_payout(entity: Any) -> ListedPayout | None:
    """A payout of the list, or None when it lacks what we need."""
    report = parse_report(entity)
    created_at = moment(entity.get("created_at")) if report else None
    return ListedPayout(report, created_at) if report and created_at else None


def parse_line(entity: Any) -> Line | None:
    """A transaction, or None when it lacks what we need (razorpayx.md §1.6)."""
    if not isinstance(entity, dict):
        return None
    line_id, created_at = word(entity.get("id")), moment(entity.get("created_at"))
    debit, credit = paise(entity.get("debit")), paise(entity.get("credit"))
    if line_id is None or created_at is None or debit is None or credit is None:
        return None
    source = entity.get("source")
    source = source if isinstance(source, dict) else {}
    kind: Source = next((known for known in SOURCES if known == source.get("entity")), "other")
    # A reversal is an entity of its own and names its payout; that form is the community's (§1.6).
    about = {"payout": source.get("id"), "reversal": source.get("payout_id")}.get(kind)
    return Line(line_id, debit, credit, kind, word(source.get("id")), word(about), created_at)
