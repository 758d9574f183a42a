"""The pure modules: UPI ids, money, ids, times, states, reasons."""

import re
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from shared import clock, fields, ids, money, states, upi
from shared.razorpayx import reasons
from shared.states import EDGES, FINAL, LIVE, OPEN, WAITING, AttemptState, Reason, Status

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
def test_upi_ids(upi_id: str) -> None:
    assert upi.clean(f"  {upi_id}\t") == upi_id


@pytest.mark.parametrize("upi_id", BAD)
def test_no_upi_ids(upi_id: str) -> None:
    assert upi.clean(upi_id) is None


@pytest.mark.parametrize(
    ("typed", "is_one"),
    [
        (" 50100012345678@HDFC0000001.ifsc.npci ", True),
        ("50100012345678@hdfc0000001.IFSC.npci", True),
        ("user@ba.nk", False),
        ("@HDFC0000001.ifsc.npci", False),
    ],
)
def test_a_bank_account_in_the_form_of_a_upi_id_is_told_as_such(typed: str, is_one: bool) -> None:
    with pytest.raises(PydanticCustomError) as refused:
        fields.upi_id(typed)
    assert ("names a bank account" in str(refused.value.context)) is is_one


@given(st.text())
def test_whatever_is_typed_is_a_upi_id_or_is_not(typed: str) -> None:
    cleaned = upi.clean(typed)
    assert cleaned is None or (cleaned.isascii() and cleaned.count("@") == 1 and 5 <= len(cleaned) <= 100)


@pytest.mark.parametrize("upi_id", GOOD)
def test_a_masked_upi_id_does_not_tell_the_name(upi_id: str) -> None:
    name, _, handle = upi_id.partition("@")
    masked = upi.mask(upi_id)
    assert name not in masked.partition("@")[0]
    assert masked.endswith(f"…@{handle}")


@given(st.integers(0, 10**9), st.integers(1, 1000))
def test_paise_are_exact(coins: int, value: int) -> None:
    paise = money.coins_to_paise(coins, value)
    assert paise == coins * value
    assert round(money.paise_to_rupees(paise) * 100) == paise


@pytest.mark.parametrize(
    ("paise", "words"),
    [
        (0, "₹0.00"),
        (5, "₹0.05"),
        (5000, "₹50.00"),
        (12345678, "₹1,23,456.78"),
        (100000000, "₹10,00,000.00"),
        (-150, "-₹1.50"),
    ],
)
def test_rupees_as_india_writes_them(paise: int, words: str) -> None:
    assert money.rupees_text(paise) == words


@pytest.mark.failure(19)
def test_ids_are_uuid7_fit_the_provider_and_rise() -> None:
    made = [ids.new_id() for _ in range(100)]
    assert made == sorted(made) and len(set(made)) == 100
    assert all(isinstance(one, UUID) and one.version == 7 and len(str(one)) == 36 for one in made)


@pytest.mark.parametrize("text", ["", "x", "0", None, 5, "01a208a5-b724-779f-a85a-7688d7fa28b"])
def test_no_ids(text: object) -> None:
    assert ids.parse_id(text) is None  # type: ignore[arg-type]


def test_times_end_in_z_and_come_back() -> None:
    india = datetime(2026, 1, 9, 21, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert clock.iso(india) == "2026-01-09T15:30:00Z"
    assert clock.iso(None) is None
    assert clock.from_iso("2026-01-09T15:30:00Z") == datetime(2026, 1, 9, 15, 30, tzinfo=UTC)
    with pytest.raises(ValueError):
        clock.from_iso("2026-01-09T15:30:00")


def test_the_states_fit_together() -> None:
    assert set(Status) == FINAL | OPEN and not FINAL & OPEN
    assert {source for source, _ in EDGES} == {Status.PENDING, Status.PROCESSING, Status.COMPLETED}
    assert set(AttemptState) - LIVE == {AttemptState.REFUSED, AttemptState.FAILED, AttemptState.REVERSED}


def test_every_reason_to_wait_has_its_sentence_and_its_time() -> None:
    assert set(WAITING) == set(Reason)
    for words, seconds in WAITING.values():
        assert words.endswith(".") and seconds > 0
    assert states.sentence("sending") == WAITING[Reason.SENDING][0]
    assert states.sentence("bank_account_closed") is None
    assert states.sentence(None) is None


def test_operators_read_no_words_that_are_for_users() -> None:
    for reason in Reason:
        told = states.for_operators(reason)
        assert told and not re.search(
            r"\b(You can|you can|your coins|your safety|[Yy]our UPI|An admin)\b", told
        )
    assert states.for_operators("paced") == states.sentence("paced")
    assert states.for_operators("bank_account_closed") is states.for_operators(None) is None


def test_every_reason_not_to_pay_has_plain_words() -> None:
    for reason in [*reasons.POLICIES, "something new", None]:
        assert reasons.in_plain_words(reason).endswith(".")


def test_what_is_not_in_the_table_is_lasting() -> None:
    assert {reasons.policy(reason).action for reason in ("something new", None, "")} == {"refund"}


def test_a_new_attempt_waits_and_is_not_for_ever() -> None:
    for reason, then in reasons.POLICIES.items():
        if then.action == "retry":
            assert then.minutes >= 5 and 2 <= then.attempts <= 100, reason
        else:
            assert then.attempts == 1 and then.whose == "nobody", reason
