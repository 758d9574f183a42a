"""Compare the two sides of a payout. Pure: it reads and writes nothing.

Each cause is one finding; its consequences are not reported separately.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shared.clock import iso
from shared.ids import parse_id
from shared.providers.answers import ALIVE, ListedPayout, PayoutReport, StatementLine
from shared.states import UNSETTLED, AttemptState, PaidVia, Status
from shared.withdrawals.report_meaning import Effect, contradiction, meaning

# The kinds of mismatches. A record's subject is the payout's id unless stated otherwise.
AMOUNT_DIFFERS = "amount_differs"
STATUS_DIFFERS = "status_differs"
UTR_DIFFERS = "utr_differs"
FEES_DIFFER = "fees_differ"
REFERENCE_DIFFERS = "reference_differs"
REVERSED_NOT_REFUNDED = "reversed_not_refunded"
REFUNDED_BUT_ALIVE = "refunded_but_alive"  # subject: the withdrawal's id, which is put on hold
UNKNOWN_TO_US = "unknown_to_us"
UNKNOWN_TO_THEM = "unknown_to_them"  # subject: the attempt's id
TWO_PAYOUTS = "two_payouts"  # subject: the withdrawal's id
UTR_TWICE = "utr_twice"  # subject: the UTR
PAYOUT_WITHOUT_DEBIT = "payout_without_debit"
DEBIT_DIFFERS = "debit_differs"
CREDIT_DIFFERS = "credit_differs"
CREDIT_MISSING = "credit_missing"
DEBIT_WITHOUT_PAYOUT = "debit_without_payout"  # subject: the statement line's id
CREDIT_UNEXPLAINED = "credit_unexplained"  # subject: the statement line's id

# The statement may lag a little behind a payout that has just started.
DEBIT_GRACE = timedelta(minutes=15)
# A failed payout is credited back within three working days (provider reference §2); five days cover a
# weekend.
CREDIT_GRACE = timedelta(days=5)
NOT_DEBITED_YET = frozenset({"pending", "scheduled", "queued"})


@dataclass(frozen=True, slots=True)
class OurAttempt:
    """One attempt as our ledger has it. Paise."""

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
    is_paid_by_decision: bool  # the withdrawal is completed without a paid attempt
    is_refunded: bool  # the user has the coins
    sent_as: str
    last_sent_at: datetime
    is_taken_back: bool = False  # people took the coins back, because this attempt was paid after its refund
    paid_via: str = PaidVia.PROVIDER
    unconfirmed: bool = False  # paid according to a webhook only
    provider_status: str | None = None  # last reported status

    @property
    def cost_paise(self) -> int:
        """The amount and its known fees."""
        return self.amount_paise + (self.fees_paise or 0)


@dataclass(slots=True)
class Pair:
    """A payout on both sides, or on the one side that has it, with its statement lines."""

    theirs: ListedPayout | None
    ours: OurAttempt | None
    lines: list[StatementLine] = field(default_factory=list)
    is_complete: bool = True  # created in the period, so `lines` holds all of its statement lines
    other_payout_ids: tuple[str, ...] = ()  # with the same reference

    @property
    def report(self) -> PayoutReport | None:
        """The provider's report, if it has the payout."""
        return self.theirs.report if self.theirs else None

    @property
    def debit_paise(self) -> int:
        """The sum of its debits in the statement."""
        return sum(line.debit_paise for line in self.lines)

    @property
    def credit_paise(self) -> int:
        """The sum of its credits in the statement."""
        return sum(line.credit_paise for line in self.lines)


@dataclass(frozen=True, slots=True)
class Finding:
    """A mismatch, with the contents of its exception record."""

    kind: str
    subject: str
    ours: dict[str, Any]
    theirs: dict[str, Any]
    withdrawal_id: UUID | None = None
    needs_hold: bool = False  # put the withdrawal on hold until people decide
    report: PayoutReport | None = None  # the provider's report


def compare(pair: Pair, now: datetime) -> list[Finding]:
    """The mismatches between the two sides. A payout in progress on both sides has none."""
    if pair.theirs is None and pair.ours is None:
        return [_unmatched_line(pair, line) for line in pair.lines]
    if pair.theirs is None:
        assert pair.ours is not None
        return [_finding(pair, UNKNOWN_TO_THEM, str(pair.ours.attempt_id))]
    if pair.ours is None:
        return [_finding(pair, UNKNOWN_TO_US)]
    if pair.other_payout_ids:
        return [_finding(pair, TWO_PAYOUTS, str(pair.ours.withdrawal_id), needs_hold=True)]
    return [*_compare_facts(pair, pair.theirs.report, pair.ours), *_compare_statement(pair, pair.theirs, now)]


def has_update(pair: Pair) -> bool:
    """True if `apply_report` may learn something from the provider's report."""
    ours = pair.ours
    report = pair.report
    if ours is None or report is None or _is_doubtful_match(pair, report, ours):
        return False
    effect = _effect(report, ours)
    if effect == "repeat":
        missing_facts = [report.utr and not ours.utr, report.fees_paise and ours.fees_paise is None]
        return ours.state == AttemptState.PAID and any(missing_facts)
    if effect == "follow":
        return ours.state != AttemptState.ACCEPTED
    return effect in ("pay", "fail", "reverse", "confirm", "undo")


def conflict_kind(report: PayoutReport, state: str) -> str:
    """The kind under which `apply_report` records a contradiction."""
    return f"{report.status}_after_{state}"


def _effect(report: PayoutReport, ours: OurAttempt) -> Effect:
    return meaning(
        ours.state,
        report.outcome,
        completed_by_people=ours.is_paid_by_decision,
        unconfirmed=ours.unconfirmed,
        reported_status=ours.provider_status,
    )


def lacks_statement_line(pair: Pair) -> bool:
    """True if the statement should have a line for this payout that it lacks."""
    report = pair.report
    if report is None or not pair.is_complete:
        return False
    is_taken = report.outcome in ("paid", "reversed") or report.status == "processing"
    if not pair.debit_paise:
        return is_taken
    return report.outcome in ("not_paid", "reversed") and not pair.credit_paise


def _is_doubtful_match(pair: Pair, report: PayoutReport, ours: OurAttempt) -> bool:
    """True if the two sides may not be the same payout."""
    return (
        bool(pair.other_payout_ids)
        or report.amount_paise != ours.amount_paise
        or _reference_differs(report, ours)
    )


def _reference_differs(report: PayoutReport, ours: OurAttempt) -> bool:
    return report.reference_id is not None and parse_id(report.reference_id) != ours.attempt_id


def _compare_facts(pair: Pair, report: PayoutReport, ours: OurAttempt) -> list[Finding]:
    findings = []
    if _reference_differs(report, ours):
        findings.append(_finding(pair, REFERENCE_DIFFERS))
    if report.amount_paise != ours.amount_paise:
        findings.append(_finding(pair, AMOUNT_DIFFERS))
    findings += _compare_status(pair, report, ours)
    if report.outcome == "paid" and ours.state == AttemptState.PAID:
        if report.utr != ours.utr or report.utr != ours.withdrawal_utr:
            findings.append(_finding(pair, UTR_DIFFERS))
        if (report.fees_paise or 0, report.tax_paise or 0) != (ours.fees_paise or 0, ours.tax_paise or 0):
            findings.append(_finding(pair, FEES_DIFFER))
    return findings


def _compare_status(pair: Pair, report: PayoutReport, ours: OurAttempt) -> list[Finding]:
    is_alive = report.outcome in ALIVE
    is_open = ours.state in UNSETTLED
    is_paid = ours.state == AttemptState.PAID
    is_over = not is_open and not is_paid
    if ours.is_taken_back and report.outcome == "paid" == contradiction(ours.state, ours.provider_status):
        return []  # two people decided on exactly this contradiction
    if (
        _effect(report, ours) == "conflict"
        or (is_paid and report.outcome == "reversed")
        # Reversed, then paid after all: the user has both coins and rupees.
        or (ours.state == AttemptState.REVERSED and is_alive)
        # Ended here, alive there, and the coins still held: the next attempt would pay twice.
        or (is_over and is_alive and not ours.is_refunded)
    ):
        kind = conflict_kind(report, ours.state)
        return [_finding(pair, kind, str(ours.withdrawal_id), needs_hold=True)]
    if is_alive and ours.is_refunded:
        return [_finding(pair, REFUNDED_BUT_ALIVE, str(ours.withdrawal_id), needs_hold=True)]
    if (is_open and report.outcome != "waiting") or (is_paid and report.outcome == "waiting"):
        return [_finding(pair, STATUS_DIFFERS)]
    withdrawal_is_over = ours.status in (Status.FAILED, Status.CANCELLED)
    if is_over and not is_alive and withdrawal_is_over and not ours.is_refunded:
        return [_finding(pair, REVERSED_NOT_REFUNDED)]
    return []


def _compare_statement(pair: Pair, theirs: ListedPayout, now: datetime) -> list[Finding]:
    """Compare the provider's payout with the provider's own statement: expected and actual movements."""
    report = theirs.report
    cost_paise = report.amount_paise + (report.fees_paise or 0)
    debit_paise = pair.debit_paise
    credit_paise = pair.credit_paise
    is_not_paid = report.outcome in ("not_paid", "reversed")
    expected_debit_paise = 0 if report.status in NOT_DEBITED_YET else cost_paise
    if debit_paise and debit_paise - credit_paise == (0 if is_not_paid else expected_debit_paise):
        return []  # the net amount is right, even if it was credited back and debited again
    findings = []
    is_fresh = report.status == "processing" and theirs.created_at > now - DEBIT_GRACE
    if not debit_paise and lacks_statement_line(pair) and not is_fresh:
        findings.append(_finding(pair, PAYOUT_WITHOUT_DEBIT))
    if debit_paise and debit_paise != expected_debit_paise:
        findings.append(_finding(pair, DEBIT_DIFFERS))
    if credit_paise and not is_not_paid:
        findings += [_finding(pair, CREDIT_UNEXPLAINED, line.id) for line in pair.lines if line.credit_paise]
    elif credit_paise and credit_paise != cost_paise:
        findings.append(_finding(pair, CREDIT_DIFFERS))
    is_credit_due = report.outcome == "reversed" or theirs.created_at < now - CREDIT_GRACE
    if debit_paise and lacks_statement_line(pair) and is_credit_due:
        findings.append(_finding(pair, CREDIT_MISSING))
    return findings


def _unmatched_line(pair: Pair, line: StatementLine) -> Finding:
    return _finding(pair, DEBIT_WITHOUT_PAYOUT if line.debit_paise else CREDIT_UNEXPLAINED, line.id)


def _finding(pair: Pair, kind: str, subject: str | None = None, *, needs_hold: bool = False) -> Finding:
    subject = subject or (pair.theirs.id if pair.theirs else "")
    withdrawal_id = pair.ours.withdrawal_id if pair.ours else None
    return Finding(kind, subject, our_side(pair), their_side(pair), withdrawal_id, needs_hold, pair.report)


def our_side(pair: Pair) -> dict[str, Any]:
    """Our side of a finding, as stored in its record."""
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
    """The provider's side of a finding, as stored in its record."""
    side: dict[str, Any] = {
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
        return side
    report = pair.theirs.report
    side |= {
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
    return side | ({"beside": sorted(pair.other_payout_ids)} if pair.other_payout_ids else {})
