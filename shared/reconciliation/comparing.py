"""A payout's two sides, held against each other. Pure: nothing is read, nothing is written.

Each cause is one finding: what follows from it is not told a second time.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shared.clock import iso
from shared.ids import parse_id
from shared.razorpayx.answers import ALIVE, PayoutReport
from shared.razorpayx.statements import Line, ListedPayout
from shared.states import UNSETTLED, AttemptState, PaidVia, Status
from shared.withdrawals.meaning import Effect, contradiction, meaning

# What can differ. The subject of a record is the payout's id unless it is said otherwise.
AMOUNT, STATUS, UTR, FEES = "amount_differs", "status_differs", "utr_differs", "fees_differ"
REFERENCE = "reference_differs"
NOT_REFUNDED = "reversed_not_refunded"
REFUNDED_BUT_ALIVE = "refunded_but_alive"  # the withdrawal's id: it is held until people have looked
UNKNOWN_TO_US = "unknown_to_us"
UNKNOWN_TO_THEM = "unknown_to_them"  # the attempt's id
TWO_PAYOUTS = "two_payouts"  # the withdrawal's id, as everywhere where this word is used
UTR_TWICE = "utr_twice"  # the UTR
NO_DEBIT, DEBIT, CREDIT, NO_CREDIT = (
    "payout_without_debit",
    "debit_differs",
    "credit_differs",
    "credit_missing",
)
DEBIT_ALONE, CREDIT_ALONE = "debit_without_payout", "credit_unexplained"  # the line's id

# The statement may be a little behind a payout that has just begun.
FRESH = timedelta(minutes=15)
# A failed payout's debit may take three working days to come back (razorpayx.md §2); five cover a weekend.
SLOW_CREDIT = timedelta(days=5)
NOT_TAKEN_YET = frozenset({"pending", "scheduled", "queued"})


@dataclass(frozen=True, slots=True)
class Ours:
    """One attempt as our books have it. Paise."""

    attempt_id: UUID
    withdrawal_id: UUID
    state: str
    payout_id: str | None
    amount_paise: int
    utr: str | None
    withdrawal_utr: str | None
    fees_paise: int | None
    tax_paise: int | None
    status: str
    on_peoples_word: bool  # completed, and no attempt of it was paid
    is_refunded: bool  # its user has the coins
    sent_as: str
    last_sent_at: datetime
    is_taken_back: bool = False  # people took the coins again, for this one was paid after its refund
    paid_via: str = PaidVia.RAZORPAYX
    unconfirmed: bool = False  # paid, by a webhook's word alone
    provider_status: str | None = None  # as RazorpayX told it last

    @property
    def cost_paise(self) -> int:
        """What a payment of it costs, as far as we know."""
        return self.amount_paise + (self.fees_paise or 0)


@dataclass(slots=True)
class Pair:
    """A payout on both sides, as far as either side has it, with its lines of the statement."""

    theirs: ListedPayout | None
    ours: Ours | None
    lines: list[Line] = field(default_factory=list)
    whole: bool = True  # made in the period: then all its lines are here, and a missing one is missing
    beside: tuple[str, ...] = ()  # other payouts under the same reference

    @property
    def report(self) -> PayoutReport | None:
        """What the provider says."""
        return self.theirs.report if self.theirs else None

    @property
    def debit_paise(self) -> int:
        """Everything that the statement took for it."""
        return sum(line.debit_paise for line in self.lines)

    @property
    def credit_paise(self) -> int:
        """Everything that the statement gave back."""
        return sum(line.credit_paise for line in self.lines)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that differs: what a record will hold."""

    kind: str
    subject: str
    ours: dict[str, Any]
    theirs: dict[str, Any]
    withdrawal_id: UUID | None = None
    stops: bool = False  # nothing more may be sent for this withdrawal until people have looked
    report: PayoutReport | None = None  # what RazorpayX says of it


def compare(pair: Pair, now: datetime) -> list[Finding]:
    """What differs between the two sides; nothing for what is on its way on both."""
    if pair.theirs is None and pair.ours is None:
        return [_line_alone(pair, line) for line in pair.lines]
    if pair.theirs is None:
        assert pair.ours is not None
        return [_finding(pair, UNKNOWN_TO_THEM, str(pair.ours.attempt_id))]
    if pair.ours is None:
        return [_finding(pair, UNKNOWN_TO_US)]
    if pair.beside:
        return [_finding(pair, TWO_PAYOUTS, str(pair.ours.withdrawal_id), stops=True)]
    return [*_facts(pair, pair.theirs.report, pair.ours), *_statement(pair, pair.theirs, now)]


def has_news(pair: Pair) -> bool:
    """Whether the one door may learn something from the provider's side."""
    ours, report = pair.ours, pair.report
    if ours is None or report is None or _is_odd(pair, report, ours):
        return False
    effect = _effect(report, ours)
    if effect == "repeat":
        unlearnt = [report.utr and not ours.utr, report.fees_paise and ours.fees_paise is None]
        return ours.state == AttemptState.PAID and any(unlearnt)
    if effect == "follow":
        return ours.state != AttemptState.ACCEPTED
    return effect in ("pay", "fail", "reverse", "confirm", "undo")


def conflict_word(report: PayoutReport, state: str) -> str:
    """The word under which the one door flags a contradiction."""
    return f"{report.status}_after_{state}"


def _effect(report: PayoutReport, ours: Ours) -> Effect:
    return meaning(
        ours.state,
        report.outcome,
        on_peoples_word=ours.on_peoples_word,
        unconfirmed=ours.unconfirmed,
        told=ours.provider_status,
    )


def lacks_a_line(pair: Pair) -> bool:
    """Whether the statement should hold more about this payout than it does."""
    report = pair.report
    if report is None or not pair.whole:
        return False
    is_taken = report.outcome in ("paid", "reversed") or report.status == "processing"
    if not pair.debit_paise:
        return is_taken
    return report.outcome in ("not_paid", "reversed") and not pair.credit_paise


def _is_odd(pair: Pair, report: PayoutReport, ours: Ours) -> bool:
    """Whether it is not clear at all that these two are the same payout."""
    return bool(pair.beside) or report.amount_paise != ours.amount_paise or _other_reference(report, ours)


def _other_reference(report: PayoutReport, ours: Ours) -> bool:
    return report.reference_id is not None and parse_id(report.reference_id) != ours.attempt_id


def _facts(pair: Pair, report: PayoutReport, ours: Ours) -> list[Finding]:
    found = []
    if _other_reference(report, ours):
        found.append(_finding(pair, REFERENCE))
    if report.amount_paise != ours.amount_paise:
        found.append(_finding(pair, AMOUNT))
    found += _status(pair, report, ours)
    if report.outcome == "paid" and ours.state == AttemptState.PAID:
        if report.utr != ours.utr or report.utr != ours.withdrawal_utr:
            found.append(_finding(pair, UTR))
        if (report.fees_paise or 0, report.tax_paise or 0) != (ours.fees_paise or 0, ours.tax_paise or 0):
            found.append(_finding(pair, FEES))
    return found


def _status(pair: Pair, report: PayoutReport, ours: Ours) -> list[Finding]:
    is_alive = report.outcome in ALIVE
    is_open, is_paid = ours.state in UNSETTLED, ours.state == AttemptState.PAID
    is_over = not is_open and not is_paid
    if ours.is_taken_back and report.outcome == "paid" == contradiction(ours.state, ours.provider_status):
        return []  # two people saw just that
    if (
        _effect(report, ours) == "conflict"
        or (is_paid and report.outcome == "reversed")
        # Sent back, and paid after all: the user has coins and rupees.
        or (ours.state == AttemptState.REVERSED and is_alive)
        # Given up here and alive there, with the coins still held: the next attempt would pay twice.
        or (is_over and is_alive and not ours.is_refunded)
    ):
        word = conflict_word(report, ours.state)
        return [_finding(pair, word, str(ours.withdrawal_id), stops=True)]
    if is_alive and ours.is_refunded:
        return [_finding(pair, REFUNDED_BUT_ALIVE, str(ours.withdrawal_id), stops=True)]
    if (is_open and report.outcome != "waiting") or (is_paid and report.outcome == "waiting"):
        return [_finding(pair, STATUS)]
    withdrawal_is_over = ours.status in (Status.FAILED, Status.CANCELLED)
    if is_over and not is_alive and withdrawal_is_over and not ours.is_refunded:
        return [_finding(pair, NOT_REFUNDED)]
    return []


def _statement(pair: Pair, theirs: ListedPayout, now: datetime) -> list[Finding]:
    """The payout against the statement, both the provider's: what should have moved, and what did."""
    report = theirs.report
    cost = report.amount_paise + (report.fees_paise or 0)
    debit, credit = pair.debit_paise, pair.credit_paise
    is_back = report.outcome in ("not_paid", "reversed")
    due = 0 if report.status in NOT_TAKEN_YET else cost
    if debit and debit - credit == (0 if is_back else due):
        return []  # taken, perhaps given back, perhaps taken again: in the end it is right
    found = []
    is_fresh = report.status == "processing" and theirs.created_at > now - FRESH
    if not debit and lacks_a_line(pair) and not is_fresh:
        found.append(_finding(pair, NO_DEBIT))
    if debit and debit != due:
        found.append(_finding(pair, DEBIT))
    if credit and not is_back:
        found += [_finding(pair, CREDIT_ALONE, line.id) for line in pair.lines if line.credit_paise]
    elif credit and credit != cost:
        found.append(_finding(pair, CREDIT))
    is_due = report.outcome == "reversed" or theirs.created_at < now - SLOW_CREDIT
    if debit and lacks_a_line(pair) and is_due:
        found.append(_finding(pair, NO_CREDIT))
    return found


def _line_alone(pair: Pair, line: Line) -> Finding:
    return _finding(pair, DEBIT_ALONE if line.debit_paise else CREDIT_ALONE, line.id)


def _finding(pair: Pair, kind: str, subject: str | None = None, *, stops: bool = False) -> Finding:
    subject = subject or (pair.theirs.id if pair.theirs else "")
    withdrawal_id = pair.ours.withdrawal_id if pair.ours else None
    return Finding(kind, subject, our_side(pair), their_side(pair), withdrawal_id, stops, pair.report)


def our_side(pair: Pair) -> dict[str, Any]:
    """What our books say, for a record."""
    ours = pair.ours
    if ours is None:
        return {}
    return {
        "attempt_id": str(ours.attempt_id),
        "payout_id": ours.payout_id,
        "withdrawal_status": ours.status,
        "attempt_state": ours.state,
        "amount_paise": ours.amount_paise,
        "utr": ours.utr,
        "withdrawal_utr": ours.withdrawal_utr,
        "fees_paise": ours.fees_paise,
        "tax_paise": ours.tax_paise,
        "refunded": ours.is_refunded,
    }


def their_side(pair: Pair) -> dict[str, Any]:
    """What the provider's list and statement say, for a record."""
    told: dict[str, Any] = {
        "statement": [
            {
                "id": line.id,
                "debit_paise": line.debit_paise,
                "credit_paise": line.credit_paise,
                "source": line.source,
                "source_id": line.source_id,
                "at": iso(line.created_at),
            }
            for line in pair.lines
        ]
    }
    if pair.theirs is None:
        return told
    report = pair.theirs.report
    told |= {
        "payout_id": report.payout_id,
        "reference_id": report.reference_id,
        "status": report.status,
        "reason": report.reason,
        "amount_paise": report.amount_paise,
        "utr": report.utr,
        "fees_paise": report.fees_paise,
        "tax_paise": report.tax_paise,
        "created_at": iso(pair.theirs.created_at),
    }
    return told | ({"beside": sorted(pair.beside)} if pair.beside else {})
