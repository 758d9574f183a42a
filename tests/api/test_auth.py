"""API keys: which requests each key and token allows."""

import json
import time
import uuid
from typing import Any

import pytest
from click.testing import Result
from flask.testing import FlaskClient

from api import auth
from api.app import create_app
from cli.actor import actor_of
from shared.access import app_keys
from shared.db.transactions import transaction
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
from tests.support.shell import invoke
from tests.support.user_tokens import token, use_tokens
from tests.support.world import KEY, World

# What user tokens allow; everything else requires an API key.
USER_ROUTES = {
    ("POST", WITHDRAW),
    ("POST", CANCEL),
    *(("GET", path) for path in (HISTORY, STATUS, WALLET, LINES)),
}
# A valid request to each route. A route without a line here fails a test.
ROUTES: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("POST", WITHDRAW): ("withdraw", {"json": GOOD}),
    ("POST", BATCH): ("withdraw", {"json": {"items": [GOOD]}}),
    ("POST", CANCEL): ("withdraw", {"json": {"withdrawal_id": "{withdrawal_id}"}}),
    ("POST", CREDIT): ("credit", {"json": {"user_id": "user123", "coins": 5, "reference": "a"}}),
    ("GET", HISTORY): ("read", {"query_string": {"user_id": "user123"}}),
    ("GET", STATUS): ("read", {"query_string": {"withdrawal_id": "{withdrawal_id}"}}),
    ("GET", WALLET): ("read", {"query_string": {"user_id": "user123"}}),
    ("GET", LINES): ("read", {"query_string": {"user_id": "user123"}}),
}
# Public routes: RazorpayX signs its webhooks, and health and the document are not secret.
DOCUMENT_ROUTES = {"/docs/", "/docs/<path:path>", "/docs/openapi.json"}
PUBLIC_ROUTES = {"/api/razorpay/webhook/", "/healthz", "/readyz", "/metrics"} | DOCUMENT_ROUTES


def payouts(*arguments: str) -> Result:
    return invoke(*arguments, catch_exceptions=False)


def key_for(*scopes: str, app: str = "quiz") -> str:
    with transaction() as session:
        return app_keys.create(session, app=app, scopes=scopes, actor="operator:test")[1]


def call(client: FlaskClient, method: str, path: str, key: str | None, withdrawal_id: Any = None) -> Any:
    request = json.loads(json.dumps(ROUTES[method, path][1]).replace("{withdrawal_id}", str(withdrawal_id)))
    client.environ_base.pop("HTTP_AUTHORIZATION", None)
    headers = {"Idempotency-Key": str(uuid.uuid4())} | (
        {"Authorization": f"Bearer {key}"} if key is not None else {}
    )
    return client.open(path, method=method, headers=headers, **request)


def read_status(client: FlaskClient, key: str) -> int:
    return int(call(client, "GET", WALLET, key).status_code)


def test_every_route_of_apps_is_in_the_table(world: World) -> None:
    served = {
        (method, rule.rule)
        for rule in create_app().url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in PUBLIC_ROUTES and rule.endpoint != "static"
    }
    assert served == set(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
@pytest.mark.parametrize(
    "caller",
    [
        "nobody",
        "wrong",
        "unknown",
        "half",
        "other scopes",
        "revoked",
        "expired",
        "right",
        "settings",
        "user",
        "another user",
        "expired token",
        "forged token",
    ],
)
def test_each_caller_is_accepted_or_refused_on_each_route(
    world: World, caller: str, route: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tokens(monkeypatch)
    client = create_app().test_client()
    world.credit()
    withdrawal_id = world.request()
    scope = ROUTES[route][0]
    right = key_for(scope)
    keys = {
        "nobody": None,
        "wrong": "not-a-key-of-anybody",
        "unknown": f"{right[:-4]}aaaa",
        "half": right[:15],
        "other scopes": key_for(*(set(app_keys.SCOPES) - {scope})),
        "settings": KEY,
        "user": token("user123"),
        "another user": token("somebody"),
        "expired token": token("user123", exp=time.time() - 31),
        "forged token": token("user123", secret="x" * 32),
    }
    if caller == "revoked":
        with transaction() as session:
            app_keys.revoke(session, right, actor="operator:test")
    if caller == "expired":
        world.sql("UPDATE app_keys SET expires_at = now()")
    answer = call(client, *route, keys.get(caller, right), withdrawal_id)
    if caller in ("user", "another user") and route not in USER_ROUTES:
        assert (
            assert_refused(answer, 403, "Not allowed")["details"]
            == "User tokens are not accepted here. Use an API key"
        )
    elif caller == "another user" and route[1] in (STATUS, CANCEL):
        refusal = answer.get_json()
        unknown = call(client, *route, keys["another user"], uuid.uuid4()).get_json()
        assert_refused(answer, 404, "Withdrawal not found")
        assert refusal | {"request_id": ""} == unknown | {"request_id": ""}
    elif caller == "another user":
        refusal = assert_refused(answer, 403, "Not allowed")
        assert refusal["details"] == "This token is for another user"
    elif caller in ("right", "settings", "user"):
        assert answer.status_code in (200, 201), answer.get_json()
    elif caller == "other scopes":
        refusal = assert_refused(answer, 403, "Not allowed")
        assert refusal["details"] == f"This key does not have the scope {scope}"
    else:
        refusal = assert_refused(answer, 401, "Authentication required")
        assert refusal["code"] == ("token_expired" if caller == "expired token" else "unauthorized")
    if caller not in ("right", "settings", "user"):
        assert len(world.sql("SELECT FROM coin_transactions")) == 2


def test_a_key_is_shown_once_and_stored_as_a_hash(world: World, client: FlaskClient) -> None:
    created = payouts("keys", "create", "quiz", "--scope", "read", "--as", "asha")
    secret = created.stdout.strip()
    assert created.exit_code == 0 and "quiz may read. This key is not shown again:" in created.stderr
    world.credit()
    assert read_status(client, secret) == 200
    listed = payouts("keys", "list").stdout
    assert secret[:14] in listed and secret not in listed and "last used never" not in listed
    [row] = world.sql("SELECT * FROM app_keys")
    assert row.created_by == actor_of("asha") and secret not in str(tuple(row))


def test_a_revoked_key_is_refused_and_stays_listed(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    secret = key_for("read")
    assert read_status(client, secret) == 200
    assert payouts("keys", "revoke", secret[:14], "--as", "asha").exit_code == 0
    assert read_status(create_app().test_client(), secret) == 401
    clock = auth.time.monotonic() + auth.KEY_CACHE_SECONDS + 0.1
    monkeypatch.setattr(auth.time, "monotonic", lambda: clock)
    assert read_status(client, secret) == 401
    assert "by operator:asha" in payouts("keys", "list", "--app", "quiz").stdout
    again = payouts("keys", "revoke", secret[:14])
    assert again.exit_code == 1 and "Already revoked" in again.output


def test_rotation_keeps_the_old_key_valid_for_the_grace_period(world: World) -> None:
    world.credit()
    with transaction() as session:
        old, first = app_keys.create(session, app="quiz", scopes=("read",), actor="operator:test", days=30)
    rotated = payouts("keys", "rotate", old.prefix, "--grace-hours", "2")
    second = rotated.stdout.strip()
    assert rotated.exit_code == 0 and "another 2 h" in rotated.stderr
    for secret in (first, second):
        assert read_status(create_app().test_client(), secret) == 200
    ends = world.sql(
        "SELECT round(extract(epoch FROM expires_at - now()) / 3600) AS hours, scopes FROM app_keys"
        " ORDER BY expires_at"
    )
    assert [(row.hours, row.scopes) for row in ends] == [(2, ["read"]), (720, ["read"])]


def test_rotation_does_not_extend_a_key_that_expires_soon(world: World) -> None:
    with transaction() as session:
        key, _ = app_keys.create(session, app="quiz", scopes=("read",), actor="operator:test", days=0.01)
    payouts("keys", "rotate", key.prefix)
    [first, *_] = world.sql(
        "SELECT expires_at < now() + interval '1 hour' AS soon FROM app_keys ORDER BY 1 DESC"
    )
    assert first.soon


def test_an_event_names_the_app_whose_key_was_used(world: World, client: FlaskClient) -> None:
    world.credit()
    created = call(client, "POST", WITHDRAW, key_for("withdraw", app="quiz-app")).get_json()
    [event] = world.sql(
        "SELECT actor FROM withdrawal_events WHERE withdrawal_id = :id",
        id=uuid.UUID(created["data"]["withdrawal_id"]),
    )
    assert event.actor == "app:quiz-app"


def test_the_last_use_is_written_once_a_minute(world: World) -> None:
    world.credit()
    secret = key_for("read")
    last_uses = set()
    for _ in range(3):
        assert read_status(create_app().test_client(), secret) == 200
        last_uses.add(world.sql("SELECT last_used_at FROM app_keys")[0].last_used_at)
    assert len(last_uses) == 1
    world.sql("UPDATE app_keys SET last_used_at = last_used_at - interval '61 seconds'")
    assert read_status(create_app().test_client(), secret) == 200
    assert world.sql("SELECT last_used_at > now() - interval '30 seconds' AS now FROM app_keys")[0].now


def test_without_the_database_a_key_gets_503_and_not_401(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = key_for("read")
    world.point_database_at_nothing(monkeypatch)
    answer = call(client, "GET", WALLET, secret)
    assert_refused(answer, 503, "Service unavailable")
    world.point_database_back(monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "two words"), "Invalid name"),
        (("create", ""), "Invalid name"),
        (("create", "é"), "Invalid name"),
        (("create", "a" * 51), "Invalid name"),
        (("create", "quiz", "--scope", "everything"), "Invalid scope"),
        (("revoke", "cpk_0000000000"), "No such key"),
        (("rotate", "nonsense"), "No such key"),
    ],
)
def test_an_invalid_keys_command_prints_the_reason(
    world: World, arguments: tuple[str, ...], message: str
) -> None:
    result = payouts("keys", *arguments)
    assert result.exit_code == 1 and message in result.output
    assert world.sql("SELECT FROM app_keys") == []


def test_no_key_is_ever_deleted(world: World) -> None:
    key_for("read")
    with pytest.raises(Exception, match="app_keys"):
        world.sql("DELETE FROM app_keys")
