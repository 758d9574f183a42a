"""Parsing RazorpayX's responses: anything unclear is Unknown, and nothing raises."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.providers.answers import Accepted, Found, Refused, Throttled, Unknown
from shared.providers.razorpayx import answers, bodies, pages, statements
from shared.providers.razorpayx.answers import Reply
from shared.providers.razorpayx.signature import is_signed
from tests.support.world import sign

REFERENCE = "01a208a5-b724-779f-a85a-7688d7fa28bd"
PAYOUT = {"id": "pout_00000000000001", "status": "processing", "amount": 5000, "reference_id": REFERENCE}


def read(status: int, body: Any, retry_after: str | None = None) -> object:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answers.read_payout(Reply(status, raw, retry_after), reference_id=REFERENCE, amount_paise=5000)


def error(description: str = "No", code: str = "BAD_REQUEST_ERROR", **more: Any) -> dict[str, Any]:
    return {
        "error": {
            "code": code,
            "description": description,
            "step": None,
            "reason": None,
            "field": None,
            **more,
        }
    }


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, PAYOUT, Accepted),
        (201, PAYOUT, Accepted),
        (
            200,
            {**PAYOUT, "new_field": {"a": 1}, "utr": "null", "notes": [], "status_details": None},
            Accepted,
        ),
        (200, {**PAYOUT, "status": "processed"}, Accepted),
        (200, {**PAYOUT, "status": "something_new"}, Unknown),
        (200, {**PAYOUT, "status": None}, Unknown),
        (200, {**PAYOUT, "amount": 5001}, Unknown),
        (200, {**PAYOUT, "amount": "5000"}, Unknown),
        (200, {**PAYOUT, "amount": True}, Unknown),
        (200, {**PAYOUT, "reference_id": "another"}, Unknown),
        (200, {**PAYOUT, "reference_id": None}, Unknown),
        (200, {**PAYOUT, "id": "cont_1"}, Unknown),
        (200, {**PAYOUT, "id": None}, Unknown),
        (200, {}, Unknown),
        (200, [], Unknown),
        (200, b"", Unknown),
        (200, b"<html>", Unknown),
        (200, b"[" * 100_000, Unknown),
        (204, b"", Unknown),
        (302, b"", Unknown),
        (400, error(), Refused),
        (400, error(reason="input_validation_failed", field="vpa"), Refused),
        (400, error(code="SERVER_ERROR"), Unknown),
        (400, error(code="SOMETHING_NEW"), Unknown),
        (400, {"message": "Bad"}, Unknown),
        (400, {"error": None}, Unknown),
        (400, b"<html>", Unknown),
        (400, error("Different request body sent for the same Idempotency Header"), Unknown),
        (400, error("Idempotency key is missing", field="X-Payout-Idempotency"), Unknown),
        (400, error("The RazorpayX Account number is invalid.", field="account_number"), Throttled),
        (400, error("The selected purpose is invalid.", field="purpose"), Throttled),
        (400, error("The requested URL was not found on the server."), Throttled),
        (400, error("Transactions from this IP are not allowed. Contact support for help."), Throttled),
        (401, error("Authentication failed"), Throttled),
        (401, b"<html>", Unknown),
        (403, error("no"), Throttled),
        (400, error("Payout mode is not valid for the fund account type.", field="mode"), Throttled),
        (404, error("no"), Unknown),
        (409, error("Another request is in progress"), Unknown),
        (422, error("no"), Unknown),
        (429, b"slow down", Throttled),
        (500, error(code="SERVER_ERROR"), Unknown),
        (500, error(), Unknown),
        (502, b"<html>", Unknown),
        (503, error(), Unknown),
        (504, b"<html>", Unknown),
    ],
)
def test_each_response_is_classified(status: int, body: Any, kind: type) -> None:
    assert isinstance(read(status, body), kind)


@given(st.integers(100, 599), st.binary(max_size=200), st.none() | st.text(max_size=40))
def test_random_bytes_raise_nothing_and_are_never_a_refusal(
    status: int, body: bytes, retry_after: str | None
) -> None:
    """Random bytes are never accepted and never a refusal, which would return coins."""
    assert isinstance(read(status, body, retry_after), Unknown | Throttled)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from([*PAYOUT, "status_details", "utr", "fees", "tax"]), JSON))
def test_a_malformed_payout_raises_nothing(fields: dict[str, Any]) -> None:
    answer = read(200, json.dumps({**PAYOUT, **fields}).encode())
    if isinstance(answer, Accepted):
        assert answer.report.amount_paise == 5000
        assert answer.report.reference_id == REFERENCE
        assert answer.report.utr != "null"
        json.dumps(answer.report.details).encode()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("", None), ("1", 1), ("0", 0), ("-5", None), ("soon", None), ("99999999", 3600),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 21 Oct 2999 07:28:00 GMT", 3600)],
)  # fmt: skip
def test_retry_after_is_parsed_and_capped_at_an_hour(header: str | None, seconds: float | None) -> None:
    answer = read(429, b"", header)
    assert isinstance(answer, Throttled)
    assert answer.retry_after_seconds == seconds


def page(*items: Any, **other: Any) -> dict[str, Any]:
    return {"entity": "collection", "count": len(items), "items": list(items), **other}


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (page(), 0),
        (page(has_more=False, error=None), 0),
        (page(PAYOUT), 1),
        (page(PAYOUT, {**PAYOUT, "id": "pout_2"}), 2),
        (page({**PAYOUT, "reference_id": "another"}), None),
        (page({**PAYOUT, "entity": "reversal"}), None),
        (page({}), None),
        (page(items=None), None),
        ({}, None),
        ([], None),
    ],
)
def test_a_look_up_accepts_only_complete_lists_of_our_payouts(body: Any, count: int | None) -> None:
    answer = pages.read_list(Reply(200, json.dumps(body).encode()), reference_id=REFERENCE)
    assert (
        isinstance(answer, Unknown)
        if count is None
        else isinstance(answer, Found) and len(answer.reports) == count
    )


CONTRADICTIONS = [
    page(count=1),
    page(PAYOUT, count=0),
    page(count=None),
    page(count="0"),
    page(count=False),
    page(entity="error"),
    page(error={"code": "SERVER_ERROR"}),
    page(error="partial"),
    page(has_more=True),
    page(PAYOUT, PAYOUT),
    {"items": []},
    {"entity": "collection", "items": []},
    {"count": 0, "items": []},
]


@pytest.mark.parametrize("body", CONTRADICTIONS)
def test_a_list_that_contradicts_itself_is_no_answer(body: Any) -> None:
    """An hour of empty look-ups returns coins, so only a complete, consistent, empty list counts as empty."""
    reply = Reply(200, json.dumps(body).encode())
    assert isinstance(pages.read_list(reply, reference_id=REFERENCE), Unknown)
    assert isinstance(statements.read_page(reply, statements.parse_payout), Unknown)
    assert isinstance(pages.read_balance(reply, account_number="1"), Unknown)


def test_has_more_is_allowed_in_a_page_of_a_long_list_and_not_in_a_look_up() -> None:
    row = {**PAYOUT, "created_at": 1767000101}
    reply = Reply(200, json.dumps(page(row, has_more=True)).encode())
    assert isinstance(statements.read_page(reply, statements.parse_payout), list)
    assert isinstance(pages.read_list(reply, reference_id=REFERENCE), Unknown)


BALANCE = {"account_number": "1", "available_amount": 500}


@pytest.mark.parametrize(
    ("items", "balance"),
    [
        ([BALANCE], 500),
        ([{**BALANCE, "account_number": "2"}, BALANCE], 500),
        ([BALANCE, {**BALANCE, "available_amount": 0}], None),
        ([{**BALANCE, "available_amount": "500"}], None),
        ([], None),
    ],
)
def test_the_balance_is_known_only_if_our_account_is_listed_once(
    items: list[Any], balance: int | None
) -> None:
    answer = pages.read_balance(Reply(200, json.dumps(page(*items)).encode()), account_number="1")
    assert isinstance(answer, Unknown) if balance is None else answer == balance


@given(st.binary(max_size=300))
def test_random_webhook_bytes_raise_nothing(body: bytes) -> None:
    event = answers.parse_event(body)
    assert event is None or event.report is None


def test_only_a_signature_with_one_of_our_secrets_is_valid() -> None:
    body = b'{"event": "payout.processed"}'
    assert is_signed(body, sign(body, "new"), ["new", "old"])
    assert is_signed(body, sign(body, "old").upper(), ["new", "old"])
    for wrong in (None, "", "é", sign(body, "other"), sign(body + b"\n", "new"), sign(body, "new")[:-1]):
        assert not is_signed(body, wrong, ["new", "old"])
    assert not is_signed(body, sign(body, "new"), [])


@given(st.text(min_size=1, max_size=500), st.none() | st.text(max_size=100))
def test_any_user_becomes_a_contact_that_the_provider_accepts(user_id: str, name: str | None) -> None:
    user_id = user_id.encode("utf-8", "replace").decode()
    contact = json.loads(bodies.contact(user_id, name))
    assert 3 <= len(contact["name"]) <= 50
    assert not bodies.NAME_CHARACTERS.search(contact["name"])
    assert contact["name"][-1].isalnum() or contact["name"][-1] == "."
    assert 1 <= len(contact["reference_id"]) <= 40
    assert bodies.contact(user_id, name) == bodies.contact(user_id, name)
