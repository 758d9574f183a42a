"""CONTRACT.md, row by row, as an app sees it."""

import io
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from api.app import create_app
from shared import db
from tests.world import KEY, World

WITHDRAW, HISTORY = "/api/razorpay/withdraw/", "/api/razorpay/withdraw/history/"
STATUS, CANCEL = "/api/razorpay/withdraw/status/", "/api/razorpay/withdraw/cancel/"
CREDIT, WALLET = "/api/razorpay/wallet/credit/", "/api/razorpay/wallet/"
LINES = "/api/razorpay/wallet/transactions/"
GOOD = {"user_id": "user123", "amount": 500, "upi_id": "user@okhdfcbank"}


@pytest.fixture
def client(world: World) -> FlaskClient:
    client = create_app().test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEY}"
    return client


def refused(answer: TestResponse, status: int, error: str) -> dict[str, Any]:
    """The error answer, after a look at its shape."""
    body = answer.get_json()
    assert answer.status_code == status, body
    assert body["success"] is False
    assert error in body["error"], body
    assert body["details"] and body["code"] and body["request_id"] == answer.headers["X-Request-Id"]
    return body


def test_a_withdrawal_as_the_contract_shows_it(world: World, client: FlaskClient) -> None:
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


# The contract's table in its order: (what to change in the body, status, error, extra fields)
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
def test_the_first_fault_in_the_contracts_order(
    world: World, client: FlaskClient, change: dict[str, Any], status: int, error: str, extra: dict[str, Any]
) -> None:
    world.credit(coins=2000)
    world.credit("rich", coins=10**6)
    body = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    told = refused(client.post(WITHDRAW, json=body), status, error)
    assert {**told, **extra} == told
    assert world.balance() == 2000
    assert world.sql("SELECT FROM withdrawals") == []


def test_words_that_must_appear(world: World, client: FlaskClient) -> None:
    world.credit("rich", coins=10**6)
    low = refused(client.post(WITHDRAW, json={**GOOD, "amount": 50}), 400, "")
    assert "Minimum withdrawal is 100 coins" in low["details"]
    high = refused(client.post(WITHDRAW, json={**GOOD, "user_id": "rich", "amount": 100_001}), 400, "")
    assert "100000" in high["details"]


@pytest.mark.parametrize(
    "upi_id",
    ["user@okhdfcbank", "john@ybl", "mobile@airtel", "name_123@ibl", "contact@upi", "  user@okhdfcbank "],
)
@pytest.mark.parametrize("amount", [500, "500"])
def test_what_is_taken(world: World, client: FlaskClient, upi_id: str, amount: Any) -> None:
    world.credit()
    answer = client.post(WITHDRAW, json={"user_id": "user123", "amount": amount, "upi_id": upi_id})
    assert answer.status_code == 201
    assert (answer.get_json()["data"]["upi_id"], answer.get_json()["data"]["amount"]) == (upi_id.strip(), 500)


@pytest.mark.parametrize(
    "user_id", ["u" * 500, "ユーザー", "a b/c?d=e&f#g%", "'; DROP TABLE wallets; --", "👩‍👩‍👧"]
)
def test_any_text_may_be_a_user(world: World, client: FlaskClient, user_id: str) -> None:
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


@pytest.mark.parametrize("path", [WITHDRAW, CANCEL, CREDIT])
@pytest.mark.parametrize(("body", "content_type", "status"), BODIES)
def test_a_malformed_body_is_told_and_loses_nothing(
    world: World, client: FlaskClient, path: str, body: bytes, content_type: str | None, status: int
) -> None:
    refused(client.post(path, data=body, content_type=content_type), status, "")
    assert world.sql("SELECT FROM wallets") == []


def test_history(world: World, client: FlaskClient) -> None:
    world.credit(coins=10_000)
    made = [client.post(WITHDRAW, json=GOOD).get_json()["data"]["withdrawal_id"] for _ in range(5)]
    client.post(CANCEL, json={"withdrawal_id": made[0]})
    page = client.get(HISTORY, query_string={"user_id": "user123"}).get_json()
    assert [item["id"] for item in page["data"]] == made[::-1]
    fields = {"id", "amount", "rupees_amount", "upi_id", "status", "created_at", "completed_at", "admin_notes",
              "failure_reason", "status_reason", "expected_by", "utr"}  # fmt: skip
    assert fields <= set(page["data"][0])
    cancelled = client.get(HISTORY, query_string={"user_id": "user123", "status": "cancelled"}).get_json()
    assert [item["id"] for item in cancelled["data"]] == made[:1]
    nobody = client.get(HISTORY, query_string={"user_id": "nobody"}).get_json()
    assert (nobody["success"], nobody["count"], nobody["data"]) == (True, 0, [])


def test_history_by_cursor(world: World, client: FlaskClient) -> None:
    world.credit(coins=10_000)
    made = [client.post(WITHDRAW, json=GOOD).get_json()["data"]["withdrawal_id"] for _ in range(7)]
    seen: list[str] = []
    query: dict[str, Any] = {"user_id": "user123", "limit": 3}
    while True:
        page = client.get(HISTORY, query_string=query).get_json()
        seen += [item["id"] for item in page["data"]]
        client.post(WITHDRAW, json={**GOOD, "amount": 100})  # a newcomer between two pages disturbs nobody
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


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
def test_history_asked_wrongly(client: FlaskClient, query: dict[str, str], error: str) -> None:
    refused(client.get(HISTORY, query_string=query), 400, error)


def test_a_large_limit_is_a_hundred(world: World, client: FlaskClient) -> None:
    world.credit(coins=100_000)
    for _ in range(101):
        world.request(coins=100)
    for limit in ("101", "5000", "9" * 60, "9" * 5000):
        page = client.get(HISTORY, query_string={"user_id": "user123", "limit": limit}).get_json()
        assert page["count"] == 100


def test_status(world: World, client: FlaskClient) -> None:
    withdrawal_id = world.paid()
    data = client.get(STATUS, query_string={"withdrawal_id": str(withdrawal_id)}).get_json()["data"]
    assert (data["id"], data["user_id"], data["status"]) == (str(withdrawal_id), "user123", "completed")
    assert data["utr"] and data["completed_at"].endswith("Z") and data["failure_reason"] is None
    refused(client.get(STATUS), 400, "withdrawal_id is required")
    odd = (
        "x" * 300,
        "a\x00b",
        "{01a208a5-b724-779f-a85a-7688d7fa28bd}",
        "０1a208a5-b724-779f-a85a-7688d7fa28bd",
    )
    for unknown in ("01a208a5-b724-779f-a85a-7688d7fa28bd", "nonsense", "é", "0", *odd):
        refused(client.get(STATUS, query_string={"withdrawal_id": unknown}), 404, "Withdrawal not found")


def test_why_it_failed_is_told_in_plain_words(world: World, client: FlaskClient) -> None:
    withdrawal_id = world.paid(upi_id="fail.beneficiary_vpa_invalid@sim")
    data = client.get(STATUS, query_string={"withdrawal_id": str(withdrawal_id)}).get_json()["data"]
    assert (data["status"], data["status_reason"]) == ("failed", "beneficiary_vpa_invalid")
    assert data["failure_reason"] == "This UPI id does not exist. Please check it."


def test_cancel(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    made = client.post(WITHDRAW, json=GOOD).get_json()["data"]["withdrawal_id"]
    body = client.post(CANCEL, json={"withdrawal_id": made}).get_json()
    assert body["message"] == "Withdrawal cancelled and coins refunded"
    assert body["data"] == {
        "withdrawal_id": made, "status": "cancelled", "refunded_coins": 500, "remaining_coins": 2000
    }  # fmt: skip
    again = refused(
        client.post(CANCEL, json={"withdrawal_id": made}),
        400,
        "Cannot cancel withdrawal with status: cancelled",
    )
    assert again["current_status"] == "cancelled"
    item = client.get(STATUS, query_string={"withdrawal_id": made}).get_json()["data"]
    assert item["admin_notes"] == "Cancelled: User requested cancellation"
    refused(client.post(CANCEL, json={}), 400, "withdrawal_id is required")
    refused(client.post(CANCEL, json={"withdrawal_id": 5}), 400, "Invalid withdrawal_id")
    for unknown in ("01a208a5-b724-779f-a85a-7688d7fa28bd", "nonsense"):
        refused(client.post(CANCEL, json={"withdrawal_id": unknown}), 404, "Withdrawal not found")


def test_cancel_with_a_reason(world: World, client: FlaskClient) -> None:
    world.credit()
    made = client.post(WITHDRAW, json=GOOD).get_json()["data"]["withdrawal_id"]
    client.post(CANCEL, json={"withdrawal_id": made, "reason": "wrong UPI"})
    item = client.get(STATUS, query_string={"withdrawal_id": made}).get_json()["data"]
    assert item["admin_notes"] == "Cancelled: wrong UPI"


@pytest.mark.parametrize("path", [WITHDRAW, CANCEL, CREDIT])
def test_without_the_slash_it_works_and_is_no_redirect(world: World, client: FlaskClient, path: str) -> None:
    assert client.post(path.rstrip("/"), json={}).status_code == 400


def test_credit_once_per_reference(world: World, client: FlaskClient) -> None:
    given = {
        "user_id": "u",
        "coins": 700,
        "reference": "quiz-1",
        "reason": "Won a quiz",
        "email": "u@example.com",
    }
    first, second = client.post(CREDIT, json=given), client.post(CREDIT, json=given)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.get_json()["data"] == second.get_json()["data"]
    refused(client.post(CREDIT, json={**given, "coins": 701}), 409, "Reference already used")
    data = client.get(WALLET, query_string={"user_id": "u"}).get_json()["data"]
    assert (data["available_coins"], data["lifetime_coins"], data["email"]) == (700, 700, "u@example.com")
    for wrong in (
        {"coins": 0},
        {"coins": 10**13},
        {"coins": "x"},
        {"coins": True},
        {"reference": ""},
        {"email": 5},
    ):
        refused(client.post(CREDIT, json={**given, **wrong}), 400, "")
    refused(client.get(WALLET, query_string={"user_id": "nobody"}), 404, "User account not found")


def test_the_journal_pages(world: World, client: FlaskClient) -> None:
    for number in range(5):
        world.credit(reference=f"r{number}", coins=100)
    seen: list[int] = []
    query: dict[str, Any] = {"user_id": "user123", "limit": 2}
    while True:
        page = client.get(LINES, query_string=query).get_json()
        seen += [line["balance_after"] for line in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == [500, 400, 300, 200, 100]
    refused(client.get(LINES, query_string={"user_id": "user123", "cursor": "YWJj"}), 400, "Invalid cursor")


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong-key-0123456789", f"Basic {KEY}", KEY, "Bearer", "Bearer é"]
)
@pytest.mark.parametrize("path", [WITHDRAW, HISTORY, STATUS, CANCEL, CREDIT, WALLET, LINES])
def test_without_the_key_nothing_is_told(world: World, path: str, header: str | None) -> None:
    client = create_app().test_client()
    headers = {"Authorization": header} if header else {}
    method = client.post if path in (WITHDRAW, CANCEL, CREDIT) else client.get
    refused(method(path, headers=headers), 401, "Authentication required")


@pytest.mark.parametrize("path", [WITHDRAW, CANCEL, CREDIT])
def test_a_body_that_did_not_arrive_whole_is_no_order(world: World, client: FlaskClient, path: str) -> None:
    """A connection that breaks may leave a body that reads well."""
    world.credit()
    body = json.dumps({**GOOD, "coins": 5, "reference": "r"}).encode()
    cut = client.post(
        path, data=body, content_type="application/json", headers={"Content-Length": str(len(body) + 9)}
    )
    assert cut.status_code == 400
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = client.post(
        path, input_stream=io.BytesIO(body), content_type="application/json", environ_overrides=chunked
    )
    refused(answer, 411, "Length required")
    assert world.balance() == 2000


def test_a_read_only_database_is_away(world: World, client: FlaskClient) -> None:
    """As an old primary is after a failover. The answer is 503, and no UPI id reaches the log."""
    world.credit()
    world.sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$"
    )
    db.engine().dispose()
    refused(client.post(WITHDRAW, json=GOOD), 503, "Service unavailable")
    assert client.get("/readyz").status_code == 503
    world.broken_on_purpose = True


def test_a_wallet_that_somebody_holds_is_busy_not_away(world: World, client: FlaskClient) -> None:
    world.credit()
    with db.engine().connect() as holder:
        holder.execute(text("SELECT FROM wallets FOR UPDATE"))
        told = refused(client.post(WITHDRAW, json=GOOD), 503, "Service unavailable")
    assert told["code"] == "database_busy"
    assert world.balance() == 2000


def test_unknown_addresses_and_methods(client: FlaskClient) -> None:
    refused(client.get("/nothing"), 404, "Not found")
    answer = client.delete(WITHDRAW)
    refused(answer, 405, "Method not allowed")
    assert "POST" in answer.headers["Allow"]


def test_request_ids(client: FlaskClient) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "mine-7"}).headers["X-Request-Id"] == "mine-7"
    for odd in ("", "x" * 101, "é"):
        given = client.get("/healthz", headers={"X-Request-Id": odd}).headers["X-Request-Id"]
        assert len(given) == 36


def test_with_the_database_away_the_answer_is_503(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    world.point_database_at_nothing(monkeypatch)
    for answer in (
        client.post(WITHDRAW, json=GOOD),
        client.get(HISTORY, query_string={"user_id": "u"}),
        client.post(CREDIT, json={"user_id": "u", "coins": 5, "reference": "r", "reason": "x"}),
        client.post(CANCEL, json={"withdrawal_id": "01a208a5-b724-779f-a85a-7688d7fa28bd"}),
    ):
        refused(answer, 503, "Service unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    ready = client.get("/readyz")
    assert (ready.status_code, ready.get_json()["database"]) == (503, "unavailable")
    assert client.get("/healthz").status_code == 200
    world.point_database_back(monkeypatch)
    assert world.balance() == 2000


def test_with_the_broker_away_withdrawals_are_taken(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    world.point_broker_at_nothing(monkeypatch)
    assert client.post(WITHDRAW, json=GOOD).status_code == 201
    ready = client.get("/readyz").get_json()
    assert (ready["status"], ready["broker"]) == ("degraded", "unavailable")
