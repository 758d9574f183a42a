"""Wallets, keys, malformed bodies, and errors while a service is down."""

import io
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from api.app import create_app
from shared.db.engines import engine
from tests.support.api import (
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
from tests.support.world import KEY, World


def test_a_reference_credits_coins_once(world: World, client: FlaskClient) -> None:
    body = {
        "user_id": "u",
        "coins": 700,
        "reference": "quiz-1",
        "reason": "Won a quiz",
        "email": "u@example.com",
    }
    first, second = client.post(CREDIT, json=body), client.post(CREDIT, json=body)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.get_json()["data"] == second.get_json()["data"]
    assert_refused(client.post(CREDIT, json={**body, "coins": 701}), 409, "Reference already used")
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
        assert_refused(client.post(CREDIT, json={**body, **wrong}), 400, "")
    assert_refused(client.get(WALLET, query_string={"user_id": "nobody"}), 404, "User account not found")


def test_transactions_are_paged_newest_first(world: World, client: FlaskClient) -> None:
    for number in range(5):
        world.credit(reference=f"r{number}", coins=100)
    balances: list[int] = []
    query: dict[str, Any] = {"user_id": "user123", "limit": 2}
    while True:
        page = client.get(LINES, query_string=query).get_json()
        balances += [line["balance_after"] for line in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert balances == [500, 400, 300, 200, 100]
    assert_refused(
        client.get(LINES, query_string={"user_id": "user123", "cursor": "YWJj"}), 400, "Invalid cursor"
    )


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong-key-0123456789", f"Basic {KEY}", KEY, "Bearer", "Bearer é"]
)
@pytest.mark.parametrize("path", [WITHDRAW, HISTORY, STATUS, CANCEL, CREDIT, WALLET, LINES])
def test_requests_without_a_valid_key_are_refused(world: World, path: str, header: str | None) -> None:
    client = create_app().test_client()
    headers = {"Authorization": header} if header else {}
    method = client.post if path in (WITHDRAW, CANCEL, CREDIT) else client.get
    assert_refused(method(path, headers=headers), 401, "Authentication required")


@pytest.mark.parametrize("path", [WITHDRAW, CANCEL, CREDIT])
def test_a_truncated_or_chunked_body_is_refused(world: World, client: FlaskClient, path: str) -> None:
    """A broken connection may leave a truncated body that still parses."""
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
    assert_refused(answer, 411, "Length required")
    assert world.balance() == 2000


@pytest.mark.failure(24)
def test_a_read_only_database_counts_as_unavailable(world: World, client: FlaskClient) -> None:
    """Like an old primary after a failover. The response is 503, and no UPI id is logged."""
    world.credit()
    world.sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$"
    )
    engine().dispose()
    assert_refused(client.post(WITHDRAW, json=GOOD), 503, "Service unavailable")
    assert client.get("/readyz").status_code == 503
    world.broken_on_purpose = True


def test_a_locked_wallet_is_reported_as_database_busy(world: World, client: FlaskClient) -> None:
    world.credit()
    with engine().connect() as holder:
        holder.execute(text("SELECT FROM wallets FOR UPDATE"))
        refusal = assert_refused(client.post(WITHDRAW, json=GOOD), 503, "Service unavailable")
    assert refusal["code"] == "database_busy"
    assert world.balance() == 2000


def test_unknown_paths_and_methods_are_refused(client: FlaskClient) -> None:
    assert_refused(client.get("/nothing"), 404, "Not found")
    answer = client.delete(WITHDRAW)
    assert_refused(answer, 405, "Method not allowed")
    assert "POST" in answer.headers["Allow"]


def test_valid_request_ids_are_returned_and_others_replaced(client: FlaskClient) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "mine-7"}).headers["X-Request-Id"] == "mine-7"
    for odd in ("", "x" * 101, "é"):
        request_id = client.get("/healthz", headers={"X-Request-Id": odd}).headers["X-Request-Id"]
        assert len(request_id) == 36


def test_without_the_database_every_request_gets_503(
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
        assert_refused(answer, 503, "Service unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    ready = client.get("/readyz")
    assert (ready.status_code, ready.get_json()["database"]) == (503, "unavailable")
    assert client.get("/healthz").status_code == 200
    world.point_database_back(monkeypatch)
    assert world.balance() == 2000


@pytest.mark.failure(5)
def test_without_the_broker_withdrawals_are_accepted(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    world.point_broker_at_nothing(monkeypatch)
    assert client.post(WITHDRAW, json=GOOD).status_code == 201
    ready = client.get("/readyz").get_json()
    assert (ready["status"], ready["broker"]) == ("degraded", "unavailable")
