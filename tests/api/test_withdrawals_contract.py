"""CONTRACT.md, row by row, through the API."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support.api import (
    BATCH,
    CANCEL,
    CREDIT,
    GOOD,
    HISTORY,
    LINES,
    STATUS,
    WALLET,
    WITHDRAW,
    assert_refused,
)
from tests.support.world import World


def test_the_response_to_a_withdrawal_has_the_fields_of_the_contract(
    world: World, client: FlaskClient
) -> None:
    world.credit(coins=2000)
    answer = client.post(WITHDRAW, json=GOOD)
    assert answer.status_code == 201
    body = answer.get_json()
    assert body["success"] is True
    assert body["message"].startswith("Withdrawal request submitted successfully.")
    data = body["data"]
    assert set(data) == {
        "withdrawal_id", "amount", "rupees_amount", "upi_id", "status", "remaining_coins", "created_at"
    }  # fmt: skip
    expected = {"amount": 500, "rupees_amount": 50.0, "upi_id": "user@okhdfcbank", "status": "pending"}
    assert {**data, **expected, "remaining_coins": 1500} == data
    assert data["created_at"].endswith("Z")


# The table of the contract, in its order: (changes to the body, status, error, extra fields)
FAULTS: list[tuple[dict[str, Any], int, str, dict[str, Any]]] = [
    ({"user_id": None, "amount": None, "upi_id": None}, 400, "user_id is required", {}),
    ({"user_id": ""}, 400, "user_id is required", {}),
    ({"user_id": "   "}, 400, "user_id is required", {}),
    ({"user_id": 17}, 400, "Invalid user_id", {}),
    ({"user_id": "u" * 501, "amount": None}, 400, "Invalid user_id", {}),
    ({"user_id": "a\x00b"}, 400, "Invalid user_id", {}),
    ({"amount": None, "upi_id": None}, 400, "amount is required", {}),
    ({"amount": None, "upi_id": "bad"}, 400, "amount is required", {}),
    ({"amount": "abc", "upi_id": None}, 400, "upi_id is required", {"example": "user@okhdfcbank"}),
    ({"upi_id": None}, 400, "upi_id is required", {"example": "user@okhdfcbank"}),
    *[
        ({"amount": odd, "upi_id": "bad"}, 400, "Invalid amount format", {})
        for odd in (True, False, 500.5, 500.0, "abc", "1e3", "५००", "0x1F4", "5 00", [500], {"a": 1}, "500.0")
    ],
    ({"amount": 99, "upi_id": "bad"}, 400, "Withdrawal amount too low", {"min_amount": 100}),
    ({"amount": 0}, 400, "Withdrawal amount too low", {"min_amount": 100}),
    ({"amount": -500}, 400, "Withdrawal amount too low", {"min_amount": 100}),
    ({"amount": "-5"}, 400, "Withdrawal amount too low", {"min_amount": 100}),
    *[
        ({"upi_id": odd, "user_id": "nobody"}, 400, "Invalid UPI", {"example": "user@okhdfcbank"})
        for odd in (
            "invalid-upi", "username#bank", "@bank", "user@", "a@b", 5, ["user@okhdfcbank"], "two@at@bank",
            "usér@bank", "user@bank\x00", "user @bank", "u" * 95 + "@bank1", "user@ok-bank", "\ud800@bank",
        )
    ],
    ({"user_id": "nobody"}, 400, "User account not found", {"available_coins": 0}),
    ({"amount": 200_000, "user_id": "nobody"}, 400, "User account not found", {"available_coins": 0}),
    ({"amount": 2001}, 400, "Insufficient coin balance", {"available_coins": 2000}),
    ({"amount": 200_000}, 400, "Insufficient", {"available_coins": 2000}),
    ({"amount": 10**50}, 400, "Insufficient", {"available_coins": 2000}),
    ({"amount": 200_000, "user_id": "rich"}, 400, "Withdrawal amount too high", {"max_amount": 100_000}),
    ({"note": "hello"}, 400, "Unknown field", {}),
]  # fmt: skip


@pytest.mark.parametrize(("change", "status", "error", "extra"), FAULTS)
def test_the_first_error_in_the_order_of_the_contract_is_returned(
    world: World, client: FlaskClient, change: dict[str, Any], status: int, error: str, extra: dict[str, Any]
) -> None:
    world.credit(coins=2000)
    world.credit("rich", coins=10**6)
    body = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    refusal = assert_refused(client.post(WITHDRAW, json=body), status, error)
    assert {**refusal, **extra} == refusal
    assert world.balance() == 2000
    assert world.sql("SELECT FROM withdrawals") == []


def test_error_details_contain_the_phrases_of_the_contract(world: World, client: FlaskClient) -> None:
    world.credit("rich", coins=10**6)
    low = assert_refused(client.post(WITHDRAW, json={**GOOD, "amount": 50}), 400, "")
    assert "Minimum withdrawal is 100 coins" in low["details"]
    high = assert_refused(client.post(WITHDRAW, json={**GOOD, "user_id": "rich", "amount": 100_001}), 400, "")
    assert "100000" in high["details"]


@pytest.mark.parametrize(
    "upi_id",
    ["user@okhdfcbank", "john@ybl", "mobile@airtel", "name_123@ibl", "contact@upi", "  user@okhdfcbank "],
)
@pytest.mark.parametrize("amount", [500, "500"])
def test_valid_amounts_and_upi_ids_are_accepted(
    world: World, client: FlaskClient, upi_id: str, amount: Any
) -> None:
    world.credit()
    answer = client.post(WITHDRAW, json={"user_id": "user123", "amount": amount, "upi_id": upi_id})
    assert answer.status_code == 201
    assert (answer.get_json()["data"]["upi_id"], answer.get_json()["data"]["amount"]) == (upi_id.strip(), 500)


@pytest.mark.parametrize(
    "user_id", ["u" * 500, "ユーザー", "a b/c?d=e&f#g%", "'; DROP TABLE wallets; --", "👩‍👩‍👧"]
)
def test_any_text_can_be_a_user_id(world: World, client: FlaskClient, user_id: str) -> None:
    credited = client.post(
        CREDIT, json={"user_id": user_id, "coins": 1000, "reference": "r", "reason": "quiz"}
    )
    assert credited.status_code == 201
    assert client.post(WITHDRAW, json={**GOOD, "user_id": user_id}).status_code == 201
    page = client.get(HISTORY, query_string={"user_id": user_id}).get_json()
    assert (page["user_id"], page["count"]) == (user_id, 1)


BODIES: list[tuple[bytes, str | None, int]] = [
    (b"", "application/json", 400),
    (b"{", "application/json", 400),
    (b"null", "application/json", 400),
    (b"[]", "application/json", 400),
    (b'"text"', "application/json", 400),
    (b"5", "application/json", 400),
    (b"\xff\xfe", "application/json", 400),
    (b"[" * 5000, "application/json", 400),
    (b'{"amount": ' + b"9" * 5000 + b"}", "application/json", 400),
    (b'{"user_id": "\\ud800", "amount": 500, "upi_id": "a@bcd"}', "application/json", 400),
    (b'{"user_id": "u", "amount": NaN, "upi_id": "user@bank"}', "application/json", 400),
    (b'{"user_id": "u", "amount": Infinity, "upi_id": "user@bank"}', "application/json", 400),
    (json.dumps(GOOD).encode(), "text/plain", 415),
    (json.dumps(GOOD).encode(), "application/x-www-form-urlencoded", 415),
    (json.dumps(GOOD).encode(), None, 415),
    (b'{"user_id": "' + b"u" * 70_000 + b'"}', "application/json", 413),
    (b'{"\\ud800": 1}', "application/json", 400),
    (b'{"\xed\xa0\x80": 1}', "application/json", 400),
]


@pytest.mark.parametrize("body", [b"", b"[]", b"{"])
def test_a_body_that_is_not_an_object_is_refused_with_what_to_send(client: FlaskClient, body: bytes) -> None:
    refusal = assert_refused(
        client.post(WITHDRAW, data=body, content_type="application/json"), 400, "Bad request"
    )
    assert (refusal["details"], refusal["code"]) == ("Send a JSON object as the body", "bad_request")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (WITHDRAW, '{"user_id": "user123", "amount": 500, "amount": 100, "upi_id": "user@okhdfcbank"}'),
        (BATCH, '{"items": [{"user_id": "a", "user_id": "user123", "amount": 500, "upi_id": "user@ybl"}]}'),
        (CREDIT, '{"user_id": "user123", "coins": 5, "reference": "r", "c\\u006fins": 500}'),
    ],
)
def test_a_duplicate_field_is_refused_and_moves_no_coins(
    world: World, client: FlaskClient, path: str, body: str
) -> None:
    world.credit(coins=2000)
    headers = {"Idempotency-Key": "twice"}
    answer = client.post(path, data=body, content_type="application/json", headers=headers)
    refusal = assert_refused(answer, 400, "Duplicate field")
    assert refusal["code"] == "duplicate_field" and "more than once. Send it once" in refusal["details"]
    assert world.balance() == 2000


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (WALLET, "user_id=user123&user_id=other"),
        (WALLET, "user_id=user123&user%5Fid="),
        (HISTORY, "user_id=user123&limit=5&limit=5"),
        (HISTORY, "user_id=user123&status=failed&status=completed"),
        (LINES, "user_id=user123&cursor=&cursor="),
        (STATUS, "withdrawal_id=a&withdrawal_id=b"),
    ],
)
def test_a_duplicate_query_parameter_is_refused(
    world: World, client: FlaskClient, path: str, query: str
) -> None:
    world.credit(coins=2000)
    refusal = assert_refused(client.get(f"{path}?{query}"), 400, "Duplicate field")
    assert refusal["code"] == "duplicate_field" and "The query has" in refusal["details"]
    # Parameters that the view does not read are ignored, also twice.
    assert client.get(f"{WALLET}?user_id=user123&_=1&_=2").status_code == 200


@pytest.mark.parametrize("path", [WITHDRAW, CANCEL, CREDIT])
@pytest.mark.parametrize(("body", "content_type", "status"), BODIES)
def test_a_malformed_body_is_refused_and_stores_nothing(
    world: World, client: FlaskClient, path: str, body: bytes, content_type: str | None, status: int
) -> None:
    assert_refused(client.post(path, data=body, content_type=content_type), status, "")
    assert world.sql("SELECT FROM wallets") == []


def test_the_history_lists_withdrawals_newest_first_and_filters_by_status(
    world: World, client: FlaskClient
) -> None:
    world.credit(coins=10_000)
    created = [client.post(WITHDRAW, json=GOOD).get_json()["data"]["withdrawal_id"] for _ in range(5)]
    client.post(CANCEL, json={"withdrawal_id": created[0]})
    page = client.get(HISTORY, query_string={"user_id": "user123"}).get_json()
    assert [item["id"] for item in page["data"]] == created[::-1]
    fields = {"id", "amount", "rupees_amount", "upi_id", "status", "created_at", "completed_at", "admin_notes",
              "failure_reason", "status_reason", "expected_by", "utr"}  # fmt: skip
    assert fields <= set(page["data"][0])
    cancelled = client.get(HISTORY, query_string={"user_id": "user123", "status": "cancelled"}).get_json()
    assert [item["id"] for item in cancelled["data"]] == created[:1]
    unknown = client.get(HISTORY, query_string={"user_id": "nobody"}).get_json()
    assert (unknown["success"], unknown["count"], unknown["data"]) == (True, 0, [])


def test_history_pages_are_complete_while_new_withdrawals_arrive(world: World, client: FlaskClient) -> None:
    world.credit(coins=10_000)
    created = [client.post(WITHDRAW, json=GOOD).get_json()["data"]["withdrawal_id"] for _ in range(7)]
    listed: list[str] = []
    query: dict[str, Any] = {"user_id": "user123", "limit": 3}
    while True:
        page = client.get(HISTORY, query_string=query).get_json()
        listed += [item["id"] for item in page["data"]]
        client.post(WITHDRAW, json={**GOOD, "amount": 100})  # a new row between two pages
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert listed == created[::-1]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({}, "user_id is required"),
        ({"user_id": ""}, "user_id is required"),
        ({"user_id": "u", "status": "paid"}, "Invalid status"),
        ({"user_id": "u", "limit": "0"}, "Invalid limit"),
        ({"user_id": "u", "limit": "-1"}, "Invalid limit"),
        ({"user_id": "u", "limit": "ten"}, "Invalid limit"),
        ({"user_id": "u", "limit": ""}, "Invalid limit"),
        ({"user_id": "u", "cursor": "!!!"}, "Invalid cursor"),
        ({"user_id": "u", "cursor": "YWJj"}, "Invalid cursor"),
        ({"user_id": "u", "cursor": "OTk5OS0xMi0zMVQyMzo1OTo1OXw="}, "Invalid cursor"),
        ({"user_id": "u\x00"}, "Invalid user_id"),
    ],
)
def test_invalid_history_parameters_are_refused(
    client: FlaskClient, query: dict[str, str], error: str
) -> None:
    assert_refused(client.get(HISTORY, query_string=query), 400, error)


def test_a_page_has_at_most_100_withdrawals(world: World, client: FlaskClient) -> None:
    world.credit(coins=100_000)
    for _ in range(101):
        world.request(coins=100)
    for limit in ("101", "5000", "9" * 60, "9" * 5000):
        page = client.get(HISTORY, query_string={"user_id": "user123", "limit": limit}).get_json()
        assert page["count"] == 100


def test_the_status_endpoint_returns_a_withdrawal_or_404(world: World, client: FlaskClient) -> None:
    withdrawal_id = world.paid()
    data = client.get(STATUS, query_string={"withdrawal_id": str(withdrawal_id)}).get_json()["data"]
    assert (data["id"], data["user_id"], data["status"]) == (str(withdrawal_id), "user123", "completed")
    assert data["utr"] and data["completed_at"].endswith("Z") and data["failure_reason"] is None
    assert_refused(client.get(STATUS), 400, "withdrawal_id is required")
    odd = (
        "x" * 300,
        "a\x00b",
        "{01a208a5-b724-779f-a85a-7688d7fa28bd}",
        "０1a208a5-b724-779f-a85a-7688d7fa28bd",
    )
    for unknown in ("01a208a5-b724-779f-a85a-7688d7fa28bd", "nonsense", "é", "0", *odd):
        assert_refused(
            client.get(STATUS, query_string={"withdrawal_id": unknown}), 404, "Withdrawal not found"
        )


@pytest.mark.failure(18)
def test_a_failed_withdrawal_has_a_reason_in_plain_words(world: World, client: FlaskClient) -> None:
    withdrawal_id = world.paid(upi_id="fail.beneficiary_vpa_invalid@sim")
    data = client.get(STATUS, query_string={"withdrawal_id": str(withdrawal_id)}).get_json()["data"]
    assert (data["status"], data["status_reason"]) == ("failed", "beneficiary_vpa_invalid")
    assert data["failure_reason"] == "This UPI id does not exist. Please check it."


def test_a_cancellation_refunds_the_coins_once(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    created = client.post(WITHDRAW, json=GOOD).get_json()["data"]["withdrawal_id"]
    body = client.post(CANCEL, json={"withdrawal_id": created}).get_json()
    assert body["message"] == "Withdrawal cancelled and coins refunded"
    assert body["data"] == {
        "withdrawal_id": created, "status": "cancelled", "refunded_coins": 500, "remaining_coins": 2000
    }  # fmt: skip
    again = assert_refused(
        client.post(CANCEL, json={"withdrawal_id": created}),
        400,
        "Cannot cancel withdrawal with status: cancelled",
    )
    assert again["current_status"] == "cancelled"
    item = client.get(STATUS, query_string={"withdrawal_id": created}).get_json()["data"]
    assert item["admin_notes"] == "Cancelled: User requested cancellation"
    assert_refused(client.post(CANCEL, json={}), 400, "withdrawal_id is required")
    assert_refused(client.post(CANCEL, json={"withdrawal_id": 5}), 400, "Invalid withdrawal_id")
    for unknown in ("01a208a5-b724-779f-a85a-7688d7fa28bd", "nonsense"):
        assert_refused(client.post(CANCEL, json={"withdrawal_id": unknown}), 404, "Withdrawal not found")


def test_the_reason_of_a_cancellation_is_in_the_admin_notes(world: World, client: FlaskClient) -> None:
    world.credit()
    created = client.post(WITHDRAW, json=GOOD).get_json()["data"]["withdrawal_id"]
    client.post(CANCEL, json={"withdrawal_id": created, "reason": "wrong UPI"})
    item = client.get(STATUS, query_string={"withdrawal_id": created}).get_json()["data"]
    assert item["admin_notes"] == "Cancelled: wrong UPI"


def test_a_reason_of_several_lines_becomes_one_line(world: World, client: FlaskClient) -> None:
    world.credit()
    created = str(world.request())
    answer = client.post(CANCEL, json={"withdrawal_id": created, "reason": "Wrong:\r\n-\tUPI id\n- day"})
    assert answer.status_code == 200
    item = client.get(STATUS, query_string={"withdrawal_id": created}).get_json()["data"]
    assert item["admin_notes"] == "Cancelled: Wrong: - UPI id - day"
    refusal = client.post(CANCEL, json={"withdrawal_id": created, "reason": "a\x00b"})
    assert assert_refused(refusal, 400, "Invalid reason")["code"] == "bad_characters"


@pytest.mark.parametrize(
    "query", ["user_id=%ff", "user_id=u&cursor=%ff", "user_id=%ed%a0%80", "user_id=u&note=%ff"]
)
def test_a_query_that_is_not_utf8_is_refused(client: FlaskClient, query: str) -> None:
    refusal = assert_refused(client.get(f"{HISTORY}?{query}"), 400, "Invalid query")
    assert refusal["code"] == "bad_characters"


@pytest.mark.parametrize("path", [WITHDRAW, CANCEL, CREDIT])
def test_a_path_without_its_trailing_slash_is_not_redirected(
    world: World, client: FlaskClient, path: str
) -> None:
    assert client.post(path.rstrip("/"), json={}).status_code == 400
