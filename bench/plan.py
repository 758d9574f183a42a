"""What a row of the report is: its contenders, what it shows of them, and what it must show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.figures import median, median_ratio

Figures = dict[str, float]  # what one run of one contender measured
Results = Mapping[str, Sequence[Figures]]  # by contender: one for each round
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    quick: bool = False  # tiny sizes: shows that everything works, and no number
    rounds: int = 5

    def pick(self, full: T, quick: T) -> T:
        """The size for this run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Contender:
    """One of those who take turns. `run` starts it, measures it, checks its promises and stops it."""

    name: str
    run: Callable[[], Figures]
    missing: Callable[[], str | None] = lambda: None  # why it cannot run here


@dataclass(frozen=True)
class Column:
    """One figure of all contenders: the median of the rounds, unless another aggregate is given."""

    key: str
    heading: str
    aggregate: Callable[[Sequence[float]], float] = median


@dataclass(frozen=True)
class Table:
    """The contenders that have these figures, and how the first of them compares with each (`ratio_of`)."""

    heading: str
    columns: Sequence[Column]
    ratio_of: str | None = None


@dataclass(frozen=True)
class Goal:
    """A requirement: what must be at least or at most so much."""

    text: str
    value: Callable[[Results], float]  # raises KeyError if it was not measured
    least: float | None = None
    most: float | None = None

    def is_met(self, value: float) -> bool:
        """True if this value is within the bounds."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


@dataclass(frozen=True)
class Row:
    """One section of the report."""

    name: str
    title: str
    about: str
    contenders: Callable[[Options], Sequence[Contender]]
    tables: Sequence[Table]
    goals: Sequence[Goal] = ()
    max_rounds: int | None = None  # fewer for what takes an hour
    shape: Callable[[Results], Results] = lambda results: results  # before tables and goals


def by_subject(results: Results) -> Results:
    """Give each subject a line of its own: figures are named `subject|figure`, of a single contender."""
    lines: dict[str, list[Figures]] = {}
    for rounds in results.values():
        for number, figures in enumerate(rounds):
            for name, value in figures.items():
                subject, _, figure = name.partition("|")
                line = lines.setdefault(subject, [])
                if len(line) <= number:
                    line.append({})
                line[number][figure] = value
    return lines


def values(results: Results, contender: str, key: str) -> list[float]:
    """A contender's figures of this name. Raises KeyError."""
    return [figures[key] for figures in results[contender]]


def typical(
    contender: str, key: str, aggregate: Callable[[Sequence[float]], float] = median
) -> Callable[[Results], float]:
    """A goal's value: the median of a contender's figure."""
    return lambda results: aggregate(values(results, contender, key))


def ratio(ours: str, theirs: str, key: str, their_key: str | None = None) -> Callable[[Results], float]:
    """A goal's value: the median of our figure divided by theirs, round by round."""
    return lambda results: median_ratio(values(results, ours, key), values(results, theirs, their_key or key))


def take_turns(
    contenders: Sequence[Contender], rounds: int, report: Callable[[str], None]
) -> dict[str, list[Figures]]:
    """Run all contenders `rounds` times in turns; each round begins with another one.

    A contender that cannot run here is reported and left out. Raises any error of a run.
    """
    able = []
    for contender in contenders:
        if reason := contender.missing():
            report(f"left out: {contender.name}: {reason}")
        else:
            able.append(contender)
    results: dict[str, list[Figures]] = {contender.name: [] for contender in able}
    for number in range(rounds):
        first = number % len(able) if able else 0
        for contender in [*able[first:], *able[:first]]:
            figures = contender.run()
            results[contender.name].append(figures)
            shown = ", ".join(f"{key} {value:,.4g}" for key, value in figures.items())
            report(f"round {number + 1} of {rounds}: {contender.name}: {shown}")
    return results
