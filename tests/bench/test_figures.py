"""Medians, percentiles and ratios."""

import pytest

from bench import figures


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert figures.percentile(values, 50) == 50
    assert figures.percentile(values, 99) == 99
    assert figures.percentile(values, 100) == 100
    assert figures.percentile([7.0], 99) == figures.percentile([7.0], 0) == 7


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError):
        figures.percentile([], 50)


def test_a_slow_round_slows_both_and_leaves_the_ratio() -> None:
    assert figures.median_ratio([100, 10, 90], [50, 5, 45]) == 2
    assert figures.median_ratio([1, 2, 3], [1, 1, 1]) == 2


def test_rounds_are_compared_one_by_one() -> None:
    with pytest.raises(ValueError):
        figures.median_ratio([1, 2], [1])


def test_calls_exactly_a_second_apart_are_not_in_one_second() -> None:
    assert figures.most_in_a_second([0.0, 1.0, 2.0]) == 1
    assert figures.most_in_a_second([0.5, 0.0, 0.999]) == 3
    assert figures.most_in_a_second([]) == 0


def test_the_rate_is_between_the_first_and_the_last() -> None:
    assert figures.per_second([0.0, 0.5, 1.0]) == 2
    assert figures.per_second([1.0]) == 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (12_345.6, "12,300"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.0, "1.00"),
        (0.01234, "0.012"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers_are_shown_with_three_digits(value: float, shown: str) -> None:
    assert figures.rounded(value) == shown
