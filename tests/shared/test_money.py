"""Coins, paise and rupees: exact, and written as in India."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import money


@given(st.integers(0, 10**9), st.integers(1, 1000))
def test_coins_convert_to_paise_exactly(coins: int, value: int) -> None:
    paise = money.coins_to_paise(coins, value)
    assert paise == coins * value
    assert round(money.paise_to_rupees(paise) * 100) == paise


@pytest.mark.parametrize(
    ("paise", "text"),
    [
        (0, "₹0.00"),
        (5, "₹0.05"),
        (5000, "₹50.00"),
        (12345678, "₹1,23,456.78"),
        (100000000, "₹10,00,000.00"),
        (-150, "-₹1.50"),
    ],
)
def test_rupees_are_grouped_as_in_india(paise: int, text: str) -> None:
    assert money.rupees_text(paise) == text
