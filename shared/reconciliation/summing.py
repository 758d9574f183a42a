"""The day in money: what the provider's statement took, and what our books and the named exceptions explain.

Pure. What is left between the two must be zero.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shared.razorpayx.statements import Line
from shared.reconciliation.comparing import NOT_TAKEN_YET, Pair
from shared.states import UNSETTLED, AttemptState, PaidVia


@dataclass(slots=True)
class Judged:
    """A pair after everything that could be done for it."""

    pair: Pair
    kinds: list[str] = field(default_factory=list)  # what differs
    records: list[int] = field(default_factory=list)
    explained: list[str] = field(default_factory=list)  # what differs, and people have said why
    was_applied: bool = False

    @property
    def verdict(self) -> str:
        """In a word, for the list."""
        if self.kinds or self.explained:
            return "; ".join([*self.kinds, *(f"explained: {kind}" for kind in self.explained)])
        report = self.pair.report
        if report and report.outcome == "waiting":
            return "on its way on both sides"
        return "agrees, news was applied" if self.was_applied else "agrees"


@dataclass(slots=True)
class Totals:
    """Paise, but for the counts."""

    payouts: int = 0
    debits: int = 0
    credits: int = 0
    paid: int = 0
    reversed: int = 0
    on_the_way: int = 0
    not_paid: int = 0
    deposits: int = 0
    deposit_count: int = 0
    outside: Counter[str] = field(default_factory=Counter)  # by way: what people paid, beside RazorpayX
    outside_counts: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)  # by kind: what the exceptions explain
    counts: Counter[str] = field(default_factory=Counter)  # by kind: how many

    def add_outside(self, via: str, count: int, paise: int) -> None:
        """What was paid by another way: no statement of RazorpayX's has it."""
        self.outside[via] += paise
        self.outside_counts[via] += count

    @property
    def net(self) -> int:
        """What left the account for payouts."""
        return self.debits - self.credits

    @property
    def explained(self) -> int:
        """What our books say of it."""
        return self.paid - self.reversed + self.on_the_way + self.not_paid

    @property
    def remainder(self) -> int:
        """What nobody explains."""
        return self.net - self.explained - sum(self.effects.values())

    def as_json(self) -> dict[str, Any]:
        """For the run's row."""
        return {
            "payouts": self.payouts,
            "debits_paise": self.debits,
            "credits_paise": self.credits,
            "paid_paise": self.paid,
            "reversed_paise": self.reversed,
            "on_the_way_paise": self.on_the_way,
            "not_paid_paise": self.not_paid,
            "deposits_paise": self.deposits,
            "paid_outside_paise": dict(self.outside),
            "paid_outside": dict(self.outside_counts),
            "exceptions_paise": dict(self.effects),
            "exceptions": dict(self.counts),
            "remainder_paise": self.remainder,
        }


def add_up(judged: Iterable[Judged], deposits: Iterable[Line]) -> Totals:
    """The totals of a period. A line counts once, and so does an attempt."""
    totals = Totals()
    lines: dict[str, Line] = {}
    records: set[int] = set()
    for one in judged:
        lines |= {line.id: line for line in one.pair.lines}
        totals.payouts += one.pair.theirs is not None
        explained = _add_ours(totals, one)
        named = [*one.kinds, *(f"explained: {kind}" for kind in one.explained)]
        new = [kind for kind, record in zip(one.kinds, one.records, strict=True) if record not in records]
        totals.counts.update([*new, *named[len(one.kinds) :]])
        records |= set(one.records)
        if named:
            # Where several differ, the first names what the money does.
            totals.effects[named[0]] += sum(line.net_paise for line in one.pair.lines) - explained
    totals.debits = sum(line.debit_paise for line in lines.values())
    totals.credits = sum(line.credit_paise for line in lines.values())
    for line in deposits:
        totals.deposits += line.credit_paise
        totals.deposit_count += 1
    return totals


def _add_ours(totals: Totals, one: Judged) -> int:
    """What our books say that this pair took from the account."""
    pair, ours = one.pair, one.pair.ours
    if ours is None or pair.beside:
        return 0  # nothing of ours, or the other payout under its reference is the one that we know
    before = totals.explained
    if ours.state == AttemptState.PAID and ours.paid_via != PaidVia.RAZORPAYX:
        return 0  # people paid it another way: whatever its payout took is not what we say was paid
    if ours.state in (AttemptState.PAID, AttemptState.REVERSED) and (pair.whole or pair.debit_paise):
        totals.paid += ours.cost_paise
    if ours.state == AttemptState.REVERSED and (pair.whole or pair.credit_paise):
        totals.reversed += ours.cost_paise
    if ours.state in UNSETTLED and _is_taken(pair):
        totals.on_the_way += ours.amount_paise + (pair.report.fees_paise or 0 if pair.report else 0)
    if ours.is_taken_back and pair.report is not None and pair.report.outcome == "paid":
        # Paid after it had ended here, and its coins are spent again.
        if pair.whole or pair.debit_paise:
            totals.paid += ours.amount_paise + (pair.report.fees_paise or 0)
    elif ours.state in (AttemptState.FAILED, AttemptState.REFUSED) and not one.kinds and not one.explained:
        # Debited and credited back, or not credited back yet; on an earlier day's payout, one of the two.
        totals.not_paid += pair.debit_paise - pair.credit_paise
    return totals.explained - before


def _is_taken(pair: Pair) -> bool:
    is_taken = pair.report is not None and pair.report.status not in NOT_TAKEN_YET
    return is_taken and bool(pair.whole or pair.debit_paise)
