"""Medians, percentiles and ratios of measurements that were taken in turns."""

import math
import statistics
from collections.abc import Sequence

median = statistics.median


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(0, rank - 1)]


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within each round: a machine that is slow in one round slows both."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


def most_in_a_second(moments: Sequence[float]) -> int:
    """The largest number of moments, in seconds, in any interval of one second."""
    times = sorted(moments)
    most = 0
    first = 0
    for last, moment in enumerate(times):
        while times[first] <= moment - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def per_second(moments: Sequence[float]) -> float:
    """How many moments came per second, on average between the first and the last."""
    first = min(moments)
    last = max(moments)
    return (len(moments) - 1) / (last - first) if last > first else 0.0


def rounded(value: float) -> str:
    """Three significant digits, thousands in groups: 12,300, 123, 1.23, 0.012."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    value = round(value, digits)
    return f"{value:,.{max(0, min(digits, 3))}f}"
