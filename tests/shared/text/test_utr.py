"""The forms of a bank's reference, and valid times of payment."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.clock import INDIA
from shared.errors import BadRequest
from shared.states import PaidVia
from shared.text import utr

REQUESTED = datetime(2026, 11, 29, 8, 35, 30, tzinfo=UTC)
NOW = REQUESTED + timedelta(hours=1)


@pytest.mark.parametrize(
    ("via", "text", "stored"),
    [
        ("upi", " 4332 1234 5678 ", "433212345678"),
        ("imps", "433212345678", "433212345678"),
        ("neft", "sbin426333123456", "SBIN426333123456"),
        ("neft", "N098261234567890", "N098261234567890"),
        ("neft", "HDFCN52026112900012345"[:22], "HDFCN52026112900012345"),
        ("rtgs", "hdfcr5 2026112900012345", "HDFCR52026112900012345"),
        ("razorpayx", "433212345678", "433212345678"),
    ],
)
def test_a_utr_is_stored_in_capitals_and_without_spaces(via: str, text: str, stored: str) -> None:
    assert utr.normalize(text, PaidVia(via)) == stored


@pytest.mark.parametrize(
    ("via", "text"),
    [
        ("upi", "1"),
        ("upi", "paid, see the statement"),
        ("upi", "43321234567"),
        ("upi", "4332123456789"),
        ("upi", "٤٣٣٢١٢٣٤٥٦٧٨"),  # digits that no bank uses
        ("upi", "000000000000"),
        ("imps", "SBIN426333123456"),
        ("neft", "433212345678"),
        ("neft", "SEEINTHESTATEMEN"),
        ("rtgs", "SBIN426333123456"),
        ("rtgs", "HDFCN52026112900012345"),
        ("razorpayx", "see the dashboard"),
    ],
)
def test_a_utr_in_the_wrong_form_for_its_channel_is_refused(via: str, text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        utr.normalize(text, PaidVia(via))
    assert refused.value.code == "invalid_utr"


def test_a_time_without_a_zone_is_in_indian_time() -> None:
    assert utr.parse_paid_at("2026-11-29 14:05") == datetime(2026, 11, 29, 14, 5, tzinfo=INDIA)
    assert utr.parse_paid_at("2026-11-29T14:05:10") == datetime(2026, 11, 29, 8, 35, 10, tzinfo=UTC)
    assert utr.parse_paid_at("2026-11-29T08:35:00Z") == datetime(2026, 11, 29, 8, 35, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-11-29", "2026-11-31 10:00", "9999-12-31T23:59-23:00"]
)
def test_an_invalid_time_of_payment_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        utr.parse_paid_at(text)
    assert refused.value.code == "invalid_paid_at"


def test_a_payment_is_neither_in_the_future_nor_before_the_request() -> None:
    assert utr.validate_paid_at(NOW - timedelta(minutes=5), REQUESTED, NOW) == NOW - timedelta(minutes=5)
    # A statement shows no seconds: a payment in the minute of the request counts as after it.
    assert utr.validate_paid_at(REQUESTED.replace(second=0), REQUESTED, NOW) == REQUESTED
    for paid_at, code in (
        (NOW + timedelta(seconds=1), "paid_in_the_future"),
        (REQUESTED.replace(second=0) - timedelta(minutes=1), "paid_before_the_request"),
    ):
        with pytest.raises(BadRequest) as refused:
            utr.validate_paid_at(paid_at, REQUESTED, NOW)
        assert refused.value.code == code
