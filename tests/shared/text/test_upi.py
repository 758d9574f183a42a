"""UPI ids: which are valid, and how they are masked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.text import upi

GOOD = [
    "user@okhdfcbank",
    "john@ybl",
    "mobile@airtel",
    "name_123@ibl",
    "contact@upi",
    "a.b-c_d@1",
    "a@bcd",
    "u" * 95 + "@upi1",
]
BAD = [
    "",
    "invalid-upi",
    "username#bank",
    "@bank",
    "user@",
    "a@b",
    "a@b@c",
    "u ser@bank",
    "user@ba.nk",
    "ü@bank",
    "u" * 96 + "@bank",
    ".user@bank",
    "user.@bank",
    "us..er@bank",
    ".@bank",
    "50100012345678@HDFC0000001.ifsc.npci",
]


@pytest.mark.parametrize("upi_id", GOOD)
def test_valid_upi_ids_are_accepted(upi_id: str) -> None:
    assert upi.normalize(f"  {upi_id}\t") == upi_id


@pytest.mark.parametrize("upi_id", BAD)
def test_invalid_upi_ids_are_refused(upi_id: str) -> None:
    assert upi.normalize(upi_id) is None


@given(st.text())
def test_any_text_is_refused_or_becomes_a_valid_upi_id(text: str) -> None:
    cleaned = upi.normalize(text)
    assert cleaned is None or (cleaned.isascii() and cleaned.count("@") == 1 and 5 <= len(cleaned) <= 100)


@pytest.mark.parametrize("upi_id", GOOD)
def test_a_masked_upi_id_hides_the_name(upi_id: str) -> None:
    name, _, handle = upi_id.partition("@")
    masked = upi.mask(upi_id)
    assert name not in masked.partition("@")[0]
    assert masked.endswith(f"…@{handle}")
