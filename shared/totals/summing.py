"""Sums of what was counted: numbers, rates, and the time from request to paid."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from shared.totals.counting import (
    ASKED,
    CANCELLED,
    FAILED,
    PAID,
    REJECTED,
    REVERSED,
    STEPS_PER_OCTAVE,
    Line,
)

OTHERS = "others"
GIVEN_BACK = (FAILED, REVERSED, CANCELLED, REJECTED)

Key = TypeVar("Key", bound=Hashable)


class Sum:
    """What some lines come to together. Paise and seconds."""

    def __init__(self) -> None:
        self.number: Counter[str] = Counter()
        self.coins: Counter[str] = Counter()
        self.paise: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()  # of failed and reversed ones
        self.times: Counter[int] = Counter()
        self.fees_paise = self.tax_paise = 0

    def add(self, line: Line) -> None:
        """Add a line."""
        what = line.came_to
        self.number[what] += line.number
        self.coins[what] += line.coins
        self.paise[what] += line.paise
        self.fees_paise += line.fees_paise
        self.tax_paise += line.tax_paise
        if line.reason and what != REJECTED:
            self.reasons[line.reason] += line.number
        self.add_times(line.times)

    def add_times(self, times: dict[str, int]) -> None:
        """Add the times of paid ones."""
        for step, number in times.items():
            self.times[int(step)] += number

    def take(self, other: "Sum") -> None:
        """Add what another sum holds."""
        for name in ("number", "coins", "paise", "reasons", "times"):
            getattr(self, name).update(getattr(other, name))
        self.fees_paise += other.fees_paise
        self.tax_paise += other.tax_paise

    @property
    def asked(self) -> int:
        return self.number[ASKED]

    @property
    def paid(self) -> int:
        return self.number[PAID]

    @property
    def not_paid(self) -> int:
        """Payments that failed before they were made, or were reversed after it."""
        return self.number[FAILED] + self.number[REVERSED]

    @property
    def refunded(self) -> int:
        """Every withdrawal that ends and is not paid gives its coins back by the same move."""
        return self.not_paid + self.number[CANCELLED] + self.number[REJECTED]

    @property
    def refunded_coins(self) -> int:
        return sum(self.coins[what] for what in GIVEN_BACK)

    @property
    def refunded_paise(self) -> int:
        return sum(self.paise[what] for what in GIVEN_BACK)

    @property
    def tried(self) -> int:
        """Payments that were made or failed; what people rejected was never tried."""
        return self.paid + self.number[FAILED]

    @property
    def failure_rate(self) -> float | None:
        """Of those that were tried, the part that failed; None when there were none."""
        return _share(self.number[FAILED], self.tried)

    @property
    def refund_rate(self) -> float | None:
        """Of those that ended, the part whose coins went back, before or after; None when none ended."""
        ended = self.tried + self.number[CANCELLED] + self.number[REJECTED]
        return _share(self.refunded, ended)

    @property
    def p50_seconds(self) -> float | None:
        return self.time(0.5)

    @property
    def p95_seconds(self) -> float | None:
        return self.time(0.95)

    def time(self, share: float) -> float | None:
        """Within how many seconds this part of the paid ones was paid, to 2.2 %; None when none was."""
        wanted, seen = share * sum(self.times.values()), 0
        for step in sorted(self.times):
            seen += self.times[step]
            if seen >= wanted:
                return float(2 ** ((step + 0.5) / STEPS_PER_OCTAVE))
        return None


def summed(lines: Iterable[Line], key: Callable[[Line], Key]) -> dict[Key, Sum]:
    """A sum for each key."""
    sums: dict[Key, Sum] = defaultdict(Sum)
    for line in lines:
        sums[key(line)].add(line)
    return dict(sums)


def total(lines: Iterable[Line]) -> Sum:
    """The sum of all."""
    return summed(lines, lambda _: None).get(None) or Sum()


def top(sums: dict[str, Sum], most: int) -> list[tuple[str, Sum]]:
    """The sums with the most withdrawals, and all others in one, called OTHERS."""
    places = sorted(sums, key=lambda name: (-sums[name].number.total(), name))
    shown = [(name, sums[name]) for name in places[:most]]
    rest = Sum()
    for name in places[most:]:
        rest.take(sums[name])
    return [*shown, (OTHERS, rest)] if rest.number else shown


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
