"""Totals of a period: what the provider's statement debited, and what our ledger and the exceptions explain.

Pure. The remainder between the two must be zero.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shared.providers.answers import StatementLine
from shared.reconciliation.diff import NOT_DEBITED_YET, Pair
from shared.states import UNSETTLED, AttemptState, PaidVia


@dataclass(slots=True)
class ComparedPair:
    """A pair with the result of its comparison."""

    pair: Pair
    kinds: list[str] = field(default_factory=list)  # of its open exception records
    records: list[int] = field(default_factory=list)  # their ids, in the same order
    explained_kinds: list[str] = field(default_factory=list)  # mismatches that people have explained
    was_updated: bool = False

    @property
    def verdict(self) -> str:
        """The result in a few words, for the CSV list."""
        if self.kinds or self.explained_kinds:
            return "; ".join([*self.kinds, *(f"explained: {kind}" for kind in self.explained_kinds)])
        report = self.pair.report
        if report and report.outcome == "waiting":
            return "in progress on both sides"
        return "agrees after update" if self.was_updated else "agrees"


@dataclass(slots=True)
class Totals:
    """Paise, except for the counts."""

    payouts: int = 0
    debits: int = 0
    credits: int = 0
    paid: int = 0
    reversed: int = 0
    in_progress: int = 0
    not_paid: int = 0
    deposits: int = 0
    deposit_count: int = 0
    outside: Counter[str] = field(default_factory=Counter)  # by `paid_via`: paid outside the provider
    outside_counts: Counter[str] = field(default_factory=Counter)
    exceptions: Counter[str] = field(default_factory=Counter)  # by kind: the paise that exceptions explain
    counts: Counter[str] = field(default_factory=Counter)  # by kind: number of exceptions

    def add_outside(self, via: str, count: int, paise: int) -> None:
        """Add payments made outside the provider, which its statement does not contain."""
        self.outside[via] += paise
        self.outside_counts[via] += count

    @property
    def net(self) -> int:
        """The net debit for payouts."""
        return self.debits - self.credits

    @property
    def explained(self) -> int:
        """The part of the net debit that our ledger explains."""
        return self.paid - self.reversed + self.in_progress + self.not_paid

    @property
    def remainder(self) -> int:
        """The part of the net debit that nothing explains."""
        return self.net - self.explained - sum(self.exceptions.values())

    def as_json(self) -> dict[str, Any]:
        """The totals as stored with the run."""
        return {
            "payouts": self.payouts,
            "debits_paise": self.debits,
            "credits_paise": self.credits,
            "paid_paise": self.paid,
            "reversed_paise": self.reversed,
            "on_the_way_paise": self.in_progress,
            "not_paid_paise": self.not_paid,
            "deposits_paise": self.deposits,
            "paid_outside_paise": dict(self.outside),
            "paid_outside": dict(self.outside_counts),
            "exceptions_paise": dict(self.exceptions),
            "exceptions": dict(self.counts),
            "remainder_paise": self.remainder,
        }


def compute_totals(compared: Iterable[ComparedPair], deposits: Iterable[StatementLine]) -> Totals:
    """The totals of a period. Each statement line and each attempt counts once."""
    totals = Totals()
    lines: dict[str, StatementLine] = {}
    records: set[int] = set()
    for item in compared:
        lines |= {line.id: line for line in item.pair.lines}
        totals.payouts += item.pair.theirs is not None
        explained = _add_ours(totals, item)
        labels = [*item.kinds, *(f"explained: {kind}" for kind in item.explained_kinds)]
        new = [kind for kind, record in zip(item.kinds, item.records, strict=True) if record not in records]
        totals.counts.update([*new, *labels[len(item.kinds) :]])
        records |= set(item.records)
        if labels:
            # If there are several mismatches, the amount goes to the first.
            totals.exceptions[labels[0]] += sum(line.net_paise for line in item.pair.lines) - explained
    totals.debits = sum(line.debit_paise for line in lines.values())
    totals.credits = sum(line.credit_paise for line in lines.values())
    for line in deposits:
        totals.deposits += line.credit_paise
        totals.deposit_count += 1
    return totals


def _add_ours(totals: Totals, item: ComparedPair) -> int:
    """Add our side of a pair. Returns the paise that our ledger says it took from the account."""
    pair = item.pair
    ours = pair.ours
    if ours is None or pair.other_payout_ids:
        return 0  # not ours, or our attempt belongs to the other payout with the same reference
    before = totals.explained
    if ours.state == AttemptState.PAID and ours.paid_via != PaidVia.PROVIDER:
        return 0  # paid outside the provider, so a debit of its payout is not the payment we recorded
    if ours.state in (AttemptState.PAID, AttemptState.REVERSED) and (pair.is_complete or pair.debit_paise):
        totals.paid += ours.cost_paise
    if ours.state == AttemptState.REVERSED and (pair.is_complete or pair.credit_paise):
        totals.reversed += ours.cost_paise
    if ours.state in UNSETTLED and _is_debited(pair):
        totals.in_progress += ours.amount_paise + (pair.report.fees_paise or 0 if pair.report else 0)
    if ours.is_taken_back and pair.report is not None and pair.report.outcome == "paid":
        # Paid after we had refunded it, and the coins were taken back.
        if pair.is_complete or pair.debit_paise:
            totals.paid += ours.amount_paise + (pair.report.fees_paise or 0)
    elif (
        ours.state in (AttemptState.FAILED, AttemptState.REFUSED)
        and not item.kinds
        and not item.explained_kinds
    ):
        # Debited and not credited back yet, or credited back for a debit of an earlier period.
        totals.not_paid += pair.debit_paise - pair.credit_paise
    return totals.explained - before


def _is_debited(pair: Pair) -> bool:
    is_started = pair.report is not None and pair.report.status not in NOT_DEBITED_YET
    return is_started and bool(pair.is_complete or pair.debit_paise)
