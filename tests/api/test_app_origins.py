"""Web pages: which origins may call, and which response headers they may read."""

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from tests.support.api import GOOD, WALLET, WITHDRAW, assert_refused
from tests.support.user_tokens import token, use_tokens
from tests.support.world import World, forget_settings

ORIGIN = "https://app.example"
PREFLIGHT_HEADERS = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
}


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setenv("CORS_ORIGINS", f"{ORIGIN},http://localhost:5173")
    use_tokens(monkeypatch)
    forget_settings()
    world.credit()
    return create_app().test_client()


@pytest.mark.parametrize("slash", ["/", ""])
def test_a_page_of_an_allowed_origin_can_call_the_api(client: FlaskClient, slash: str) -> None:
    path = WITHDRAW.rstrip("/") + slash
    preflight = client.options(path, headers=PREFLIGHT_HEADERS)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    allowed = {name.strip().lower() for name in preflight.headers["Access-Control-Allow-Headers"].split(",")}
    assert allowed >= {"authorization", "content-type", "idempotency-key"}
    headers = {"Origin": ORIGIN, "Authorization": f"Bearer {token()}"}
    created = client.post(path, json=GOOD, headers=headers)
    assert created.status_code == 201 and created.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Idempotency-Replayed" in created.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in created.headers
    assert "Origin" in created.headers["Vary"]


@pytest.mark.parametrize("slash", ["/", ""])
def test_a_page_of_an_allowed_origin_can_read_error_responses(client: FlaskClient, slash: str) -> None:
    answer = client.get(WALLET.rstrip("/") + slash, headers={"Origin": ORIGIN})
    assert_refused(answer, 401, "Authentication required")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.evil.example", "null"])
def test_other_origins_get_no_cors_headers(client: FlaskClient, origin: str) -> None:
    preflight = client.options(WITHDRAW, headers={**PREFLIGHT_HEADERS, "Origin": origin})
    response = client.get(WALLET, headers={"Origin": origin})
    for answer in (preflight, response):
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_webhook_endpoint_of_the_provider_allows_no_origin(client: FlaskClient) -> None:
    preflight = client.options("/api/razorpay/webhook/", headers=PREFLIGHT_HEADERS)
    assert "Access-Control-Allow-Origin" not in preflight.headers


def test_an_options_request_that_is_not_a_preflight_gets_405(client: FlaskClient) -> None:
    assert_refused(client.options(WITHDRAW), 405, "Method not allowed")


def test_without_configured_origins_a_preflight_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    preflight = create_app().test_client().options(WITHDRAW, headers=PREFLIGHT_HEADERS)
    assert preflight.status_code == 405 and "Access-Control-Allow-Origin" not in preflight.headers
