"""Pages in browsers: which origins may call, and what they may read of the answer."""

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from tests.integration.app import GOOD, WALLET, WITHDRAW, assert_refused
from tests.integration.tokens import token, use_tokens
from tests.world import World, forget_settings

ORIGIN = "https://app.example"
QUESTION = {
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
def test_a_page_of_an_allowed_origin_asks_and_reads(client: FlaskClient, slash: str) -> None:
    address = WITHDRAW.rstrip("/") + slash
    asked = client.options(address, headers=QUESTION)
    assert asked.status_code == 204
    assert asked.headers["Access-Control-Allow-Origin"] == ORIGIN
    allowed = {name.strip().lower() for name in asked.headers["Access-Control-Allow-Headers"].split(",")}
    assert allowed >= {"authorization", "content-type", "idempotency-key"}
    headers = {"Origin": ORIGIN, "Authorization": f"Bearer {token()}"}
    made = client.post(address, json=GOOD, headers=headers)
    assert made.status_code == 201 and made.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Idempotency-Replayed" in made.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in made.headers
    assert "Origin" in made.headers["Vary"]


@pytest.mark.parametrize("slash", ["/", ""])
def test_a_page_can_read_why_it_was_refused(client: FlaskClient, slash: str) -> None:
    answer = client.get(WALLET.rstrip("/") + slash, headers={"Origin": ORIGIN})
    assert_refused(answer, 401, "Authentication required")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.evil.example", "null"])
def test_other_origins_are_told_nothing(client: FlaskClient, origin: str) -> None:
    asked = client.options(WITHDRAW, headers={**QUESTION, "Origin": origin})
    read = client.get(WALLET, headers={"Origin": origin})
    for answer in (asked, read):
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_providers_address_is_for_no_page(client: FlaskClient) -> None:
    asked = client.options("/api/razorpay/webhook/", headers=QUESTION)
    assert "Access-Control-Allow-Origin" not in asked.headers


def test_options_that_ask_nothing_are_no_method_of_ours(client: FlaskClient) -> None:
    assert_refused(client.options(WITHDRAW), 405, "Method not allowed")


def test_without_origins_no_page_may_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = create_app().test_client().options(WITHDRAW, headers=QUESTION)
    assert asked.status_code == 405 and "Access-Control-Allow-Origin" not in asked.headers
