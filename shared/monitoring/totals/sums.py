"""Sums of counted rows: numbers, rates, and the time from request to paid."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from shared.monitoring.totals.counts import (
    CANCELLED,
    FAILED,
    PAID,
    REJECTED,
    REQUESTED,
    REVERSED,
    STEPS_PER_OCTAVE,
    TotalsRow,
)

OTHERS = "others"
REFUNDED_OUTCOMES = (FAILED, REVERSED, CANCELLED, REJECTED)

Key = TypeVar("Key", bound=Hashable)


class WithdrawalTotals:
    """Totals of several rows. Paise and seconds; counters are by outcome."""

    def __init__(self) -> None:
        self.number: Counter[str] = Counter()
        self.coins: Counter[str] = Counter()
        self.paise: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()  # of failed and reversed ones
        self.times: Counter[int] = Counter()
        self.fees_paise = self.tax_paise = 0

    def add(self, row: TotalsRow) -> None:
        """Add a row."""
        outcome = row.outcome
        self.number[outcome] += row.number
        self.coins[outcome] += row.coins
        self.paise[outcome] += row.paise
        self.fees_paise += row.fees_paise
        self.tax_paise += row.tax_paise
        if row.reason and outcome != REJECTED:
            self.reasons[row.reason] += row.number
        self.add_times(row.times)

    def add_times(self, times: dict[str, int]) -> None:
        """Add durations from request to paid: step -> number of withdrawals."""
        for step, number in times.items():
            self.times[int(step)] += number

    def merge(self, other: "WithdrawalTotals") -> None:
        """Add other totals to these."""
        for name in ("number", "coins", "paise", "reasons", "times"):
            getattr(self, name).update(getattr(other, name))
        self.fees_paise += other.fees_paise
        self.tax_paise += other.tax_paise

    @property
    def requested(self) -> int:
        return self.number[REQUESTED]

    @property
    def paid(self) -> int:
        return self.number[PAID]

    @property
    def not_paid(self) -> int:
        """Payments that failed before they were made, or were reversed after it."""
        return self.number[FAILED] + self.number[REVERSED]

    @property
    def refunded(self) -> int:
        """Withdrawals that ended unpaid or were reversed: each refunds its coins in the same transaction."""
        return self.not_paid + self.number[CANCELLED] + self.number[REJECTED]

    @property
    def refunded_coins(self) -> int:
        return sum(self.coins[outcome] for outcome in REFUNDED_OUTCOMES)

    @property
    def refunded_paise(self) -> int:
        return sum(self.paise[outcome] for outcome in REFUNDED_OUTCOMES)

    @property
    def tried(self) -> int:
        """Payments that were made or failed. Rejected withdrawals were never tried."""
        return self.paid + self.number[FAILED]

    @property
    def failure_rate(self) -> float | None:
        """The failed share of tried payments. None if none were tried."""
        return _share(self.number[FAILED], self.tried)

    @property
    def refund_rate(self) -> float | None:
        """The refunded share of ended withdrawals, reversed ones included. None if none ended."""
        ended = self.tried + self.number[CANCELLED] + self.number[REJECTED]
        return _share(self.refunded, ended)

    @property
    def p50_seconds(self) -> float | None:
        return self.percentile_seconds(0.5)

    @property
    def p95_seconds(self) -> float | None:
        return self.percentile_seconds(0.95)

    def percentile_seconds(self, share: float) -> float | None:
        """The seconds within which this share of paid withdrawals was paid, exact to 2.2 %. None
        if none was.
        """
        target = share * sum(self.times.values())
        cumulative = 0
        for step in sorted(self.times):
            cumulative += self.times[step]
            if cumulative >= target:
                return float(2 ** ((step + 0.5) / STEPS_PER_OCTAVE))
        return None


def group_totals(rows: Iterable[TotalsRow], key: Callable[[TotalsRow], Key]) -> dict[Key, WithdrawalTotals]:
    """Totals for each key."""
    groups: dict[Key, WithdrawalTotals] = defaultdict(WithdrawalTotals)
    for row in rows:
        groups[key(row)].add(row)
    return dict(groups)


def total(rows: Iterable[TotalsRow]) -> WithdrawalTotals:
    """Totals of all rows."""
    return group_totals(rows, lambda _: None).get(None) or WithdrawalTotals()


def largest(groups: dict[str, WithdrawalTotals], most: int) -> list[tuple[str, WithdrawalTotals]]:
    """The groups with the most withdrawals, and the rest merged as OTHERS."""
    names = sorted(groups, key=lambda name: (-groups[name].number.total(), name))
    shown = [(name, groups[name]) for name in names[:most]]
    rest = WithdrawalTotals()
    for name in names[most:]:
        rest.merge(groups[name])
    return [*shown, (OTHERS, rest)] if rest.number else shown


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
