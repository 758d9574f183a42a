"""RazorpayX's webhooks to the API: signed or not, once or repeated."""

import json

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from tests.support.simulator import OLD_SECRET, WEBHOOK_SECRET
from tests.support.world import World, sign

HOOK = "/api/razorpay/webhook/"
BODY = json.dumps({"event": "payout.updated", "payload": {}}).encode()


@pytest.fixture
def client(world: World) -> FlaskClient:
    return create_app().test_client()


def events(world: World) -> list[str]:
    return [row.event_id for row in world.sql("SELECT event_id FROM webhook_events ORDER BY received_at")]


@pytest.mark.failure(13)
@pytest.mark.parametrize("secret", [WEBHOOK_SECRET, OLD_SECRET])
def test_a_webhook_signed_with_the_current_or_previous_secret_is_stored_once(
    world: World, client: FlaskClient, secret: str
) -> None:
    headers = {"X-Razorpay-Signature": sign(BODY, secret), "x-razorpay-event-id": "ev_1"}
    for _ in range(3):
        assert client.post(HOOK, data=BODY, headers=headers).status_code == 200
    assert events(world) == ["ev_1"]


@pytest.mark.failure(13)
@pytest.mark.parametrize(
    "signature", [None, "", "nonsense", "é", sign(BODY, "another secret"), sign(BODY + b" ")]
)
def test_a_bad_signature_changes_nothing(world: World, client: FlaskClient, signature: str | None) -> None:
    headers = {"X-Razorpay-Signature": signature} if signature is not None else {}
    answer = client.post(HOOK, data=BODY, headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_signature")
    assert events(world) == []


@pytest.mark.parametrize("event_id", [None, "", "x" * 500, "é"])
def test_without_a_usable_event_id_the_body_identifies_the_webhook(
    world: World, client: FlaskClient, event_id: str | None
) -> None:
    headers = {"X-Razorpay-Signature": sign(BODY)}
    if event_id is not None:
        headers["x-razorpay-event-id"] = event_id
    for _ in range(2):
        assert client.post(HOOK, data=BODY, headers=headers).status_code == 200
    assert len(events(world)) == 1


@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"[" * 50_000, '{"event": "ユ"}'.encode()])
def test_any_signed_body_is_stored(world: World, client: FlaskClient, body: bytes) -> None:
    headers = {"X-Razorpay-Signature": sign(body), "x-razorpay-event-id": "ev_odd"}
    assert client.post(HOOK, data=body, headers=headers).status_code == 200
    assert bytes(world.sql("SELECT body FROM webhook_events")[0].body) == body


def test_a_huge_body_is_refused(world: World, client: FlaskClient) -> None:
    body = b"x" * (600 * 1024)
    answer = client.post(HOOK, data=body, headers={"X-Razorpay-Signature": sign(body)})
    assert answer.status_code == 413


def test_without_the_database_the_provider_gets_503_and_retry_after(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.point_database_at_nothing(monkeypatch)
    answer = client.post(HOOK, data=BODY, headers={"X-Razorpay-Signature": sign(BODY)})
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    world.point_database_back(monkeypatch)
