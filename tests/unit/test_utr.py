"""What a bank's reference looks like, and when a payment can have been made."""

from datetime import UTC, datetime, timedelta

import pytest

from shared import utr
from shared.clock import INDIA
from shared.errors import BadRequest
from shared.states import PaidVia

REQUESTED = datetime(2026, 11, 29, 8, 35, 30, tzinfo=UTC)
NOW = REQUESTED + timedelta(hours=1)


@pytest.mark.parametrize(
    ("via", "typed", "kept"),
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
def test_a_utr_is_kept_in_capitals_and_without_blanks(via: str, typed: str, kept: str) -> None:
    assert utr.clean(typed, PaidVia(via)) == kept


@pytest.mark.parametrize(
    ("via", "typed"),
    [
        ("upi", "1"),
        ("upi", "paid, see the statement"),
        ("upi", "43321234567"),
        ("upi", "4332123456789"),
        ("upi", "٤٣٣٢١٢٣٤٥٦٧٨"),  # digits, and none that a bank writes
        ("upi", "000000000000"),
        ("imps", "SBIN426333123456"),
        ("neft", "433212345678"),
        ("neft", "SEEINTHESTATEMEN"),
        ("rtgs", "SBIN426333123456"),
        ("rtgs", "HDFCN52026112900012345"),
        ("razorpayx", "see the dashboard"),
    ],
)
def test_what_is_no_utr_of_that_way_is_refused(via: str, typed: str) -> None:
    with pytest.raises(BadRequest) as refused:
        utr.clean(typed, PaidVia(via))
    assert refused.value.code == "invalid_utr"


def test_a_time_is_indias_unless_it_names_its_zone() -> None:
    assert utr.moment("2026-11-29 14:05") == datetime(2026, 11, 29, 14, 5, tzinfo=INDIA)
    assert utr.moment("2026-11-29T14:05:10") == datetime(2026, 11, 29, 8, 35, 10, tzinfo=UTC)
    assert utr.moment("2026-11-29T08:35:00Z") == datetime(2026, 11, 29, 8, 35, tzinfo=UTC)


@pytest.mark.parametrize(
    "typed", ["", "yesterday", "2026-11-29", "2026-11-31 10:00", "9999-12-31T23:59-23:00"]
)
def test_what_is_no_time_is_refused(typed: str) -> None:
    with pytest.raises(BadRequest) as refused:
        utr.moment(typed)
    assert refused.value.code == "invalid_paid_at"


def test_a_payment_is_neither_in_the_future_nor_before_the_request() -> None:
    assert utr.plausible(NOW - timedelta(minutes=5), REQUESTED, NOW) == NOW - timedelta(minutes=5)
    # A statement tells no seconds: within the minute of the request it is not before it.
    assert utr.plausible(REQUESTED.replace(second=0), REQUESTED, NOW) == REQUESTED
    for paid_at, code in (
        (NOW + timedelta(seconds=1), "paid_in_the_future"),
        (REQUESTED.replace(second=0) - timedelta(minutes=1), "paid_before_the_request"),
    ):
        with pytest.raises(BadRequest) as refused:
            utr.plausible(paid_at, REQUESTED, NOW)
        assert refused.value.code == code
