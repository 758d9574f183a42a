"""User tokens: which are accepted, which are refused, and which withdrawals they can reach."""

import base64
import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from flask.testing import FlaskClient

from api import user_tokens
from api.app import create_app
from sandbox.processes import wait_until
from shared import withdrawals
from shared.db.transactions import transaction
from shared.errors import Unavailable
from tests.support.api import CANCEL, GOOD, HISTORY, STATUS, WALLET, WITHDRAW, assert_refused
from tests.support.slow_peer import SlowPeer
from tests.support.user_tokens import AUDIENCE, ISSUER, SECRET, token, use_tokens
from tests.support.world import World

RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def read_wallet(client: FlaskClient, secret: str) -> Any:
    return client.get(WALLET, query_string={"user_id": "user123"}, headers=bearer(secret))


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    use_tokens(monkeypatch)
    world.credit()
    return create_app().test_client()


def test_users_request_read_and_cancel_only_their_own_withdrawals(world: World, client: FlaskClient) -> None:
    mine = bearer(token())
    created = client.post(WITHDRAW, json=GOOD, headers=mine).get_json()["data"]
    assert client.get(HISTORY, query_string={"user_id": "user123"}, headers=mine).get_json()["count"] == 1
    [event] = world.sql("SELECT actor FROM withdrawal_events")
    assert event.actor == "user:user123"
    body = {"withdrawal_id": created["withdrawal_id"]}
    theirs = bearer(token("ravi"))
    assert_refused(client.post(CANCEL, json=body, headers=theirs), 404, "Withdrawal not found")
    assert client.post(CANCEL, json=body, headers=mine).get_json()["data"]["status"] == "cancelled"


def test_another_users_locked_withdrawal_is_not_found(world: World, client: FlaskClient) -> None:
    """Waiting for the row lock would reveal that the withdrawal exists, and delay its owner and the workers."""
    mine = client.post(WITHDRAW, json=GOOD, headers=bearer(token())).get_json()["data"]["withdrawal_id"]
    with transaction() as session:
        withdrawals.find(session, uuid.UUID(mine), lock=True)
        # The row stays locked until the response, so a request that waits for it would fail.
        refused = client.post(CANCEL, json={"withdrawal_id": mine}, headers=bearer(token("ravi")))
    assert_refused(refused, 404, "Withdrawal not found")


def test_two_users_can_use_the_same_idempotency_key(world: World, client: FlaskClient) -> None:
    world.credit("ravi")
    answers = [
        client.post(
            WITHDRAW,
            json={**GOOD, "user_id": user_id},
            headers={**bearer(token(user_id)), "Idempotency-Key": "1"},
        )
        for user_id in ("user123", "ravi", "user123")
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert answers[0].data == answers[2].data != answers[1].data


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another-system"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": 2**40},
        {"iat": 2**40},
        {"user_id": None},
        {"user_id": ""},
        {"user_id": 5},
        {"user_id": ["user123"]},
        {"user_id": "u" * 501},
        {"user_id": "user\n123"},
        {"secret": SECRET[:-1] + "x"},
        {"alg": "HS384"},
        {"alg": "none", "secret": None},
        {"crit": True},
    ],
    ids=str,
)
def test_a_token_with_invalid_claims_or_signature_is_refused(
    client: FlaskClient, claims: dict[str, Any]
) -> None:
    if claims == {"crit": True}:
        secret = jwt.encode({"sub": "user123"}, SECRET, headers={"crit": ["x"]})
    else:
        secret = token(**claims)
    refusal = assert_refused(read_wallet(client, secret), 401, "Authentication required")
    assert refusal["code"] == "unauthorized"


@pytest.mark.parametrize(
    "secret",
    [
        "..",
        "a.b.c",
        "é.é.é",
        "eyJhbGciOiJIUzI1NiJ9.e30.",
        "W10.e30.AA",
        "eyJraWQiOjUsImFsZyI6IlJTMjU2In0.e30.AA",
    ],
)
def test_text_that_is_not_a_token_is_refused(client: FlaskClient, secret: str) -> None:
    assert_refused(read_wallet(client, secret), 401, "Authentication required")


def test_the_log_says_where_a_bad_token_came_from(
    client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    read_wallet(client, bad := token(secret=SECRET[:-1] + "x"))
    logged = capsys.readouterr().out
    [line] = [line for line in map(json.loads, logged.splitlines()) if line["event"] == "[API] bad token"]
    assert (line["path"], line["address"], line["why"]) == (WALLET, "127.0.0.1", "InvalidSignatureError")
    assert bad not in logged


def test_expiry_allows_for_clocks_that_differ_by_half_a_minute(client: FlaskClient) -> None:
    assert read_wallet(client, token(exp=time.time() - 25)).status_code == 200
    refusal = assert_refused(read_wallet(client, token(exp=time.time() - 35)), 401, "Authentication required")
    assert refusal["code"] == "token_expired"


def test_current_and_previous_token_secrets_are_accepted_during_a_rotation(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = "the-next-secret-of-32-characters-and-more"
    use_tokens(monkeypatch, USER_TOKEN_SECRET=new, USER_TOKEN_SECRET_PREVIOUS=SECRET)
    client = create_app().test_client()
    assert [read_wallet(client, token(secret=secret)).status_code for secret in (new, SECRET, "x" * 32)] == [
        200,
        200,
        401,
    ]


def test_without_token_settings_every_token_is_refused(world: World) -> None:
    world.credit()
    assert_refused(read_wallet(create_app().test_client(), token()), 401, "Authentication required")


# --- keys that an app publishes


def published(key: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.ECAlgorithm if key is EC else jwt.algorithms.RSAAlgorithm
    jwk = json.loads(algorithm.to_jwk(key.public_key()))
    return {**jwk, "kid": kid, "use": "sig", **more}


class KeyServer(ThreadingHTTPServer):
    """A server that publishes an app's keys."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), KeyHandler)
        self.keys: list[dict[str, Any]] = []
        self.requests = 0
        self.is_down = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/keys"


class KeyHandler(BaseHTTPRequestHandler):
    server: KeyServer

    def do_GET(self) -> None:
        self.server.requests += 1
        body = b"" if self.server.is_down else json.dumps({"keys": self.server.keys}).encode()
        self.send_response(500 if self.server.is_down else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    with KeyServer() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def keys_client(world: World, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    use_tokens(monkeypatch, USER_TOKEN_JWKS_URL=key_server.url)
    world.credit()
    return create_app().test_client()


def advance_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.monotonic() + seconds
    monkeypatch.setattr(user_tokens.time, "monotonic", lambda: now)


def test_a_token_signed_by_a_published_key_is_accepted(
    keys_client: FlaskClient, key_server: KeyServer
) -> None:
    key_server.keys = [published(RSA, "one"), published(EC, "two")]
    good = [token(secret=RSA, alg="RS256", kid="one"), token(secret=EC, alg="ES256", kid="two")]
    bad = [
        token(secret=OTHER_RSA, alg="RS256", kid="one"),
        token(secret=RSA, alg="RS256", kid="three"),
        token(secret=RSA, alg="RS256", kid="two"),
        token(secret=RSA, alg="RS512", kid="one"),
        token(secret=RSA, alg="RS256"),
        token(),  # signed with a secret, but none is set
    ]
    assert [read_wallet(keys_client, secret).status_code for secret in good + bad] == [200] * 2 + [401] * 6
    assert key_server.requests == 1


def test_a_published_key_cannot_be_used_as_an_hmac_secret(
    keys_client: FlaskClient, key_server: KeyServer
) -> None:
    """An HS256 token signed with the public key as the secret, and a symmetric key among the published keys."""
    k = base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("=")
    key_server.keys = [published(RSA, "one"), {"kty": "oct", "kid": "secret", "alg": "HS256", "k": k}]
    pem = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claims = {"sub": "user123", "aud": AUDIENCE, "iss": ISSUER, "exp": time.time() + 300}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "kid": "one"}, claims)
    ]
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signed = b".".join(parts)
    forged = b".".join([signed, base64.urlsafe_b64encode(signature.sign(signed, pem)).rstrip(b"=")]).decode()
    for secret in (forged, token(kid="secret")):
        assert_refused(read_wallet(keys_client, secret), 401, "Authentication required")


def test_new_published_keys_are_found_and_unknown_key_ids_cause_few_fetches(
    keys_client: FlaskClient, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_server.keys = [published(RSA, "one")]
    assert read_wallet(keys_client, token(secret=RSA, alg="RS256", kid="one")).status_code == 200
    key_server.keys.append(published(EC, "two"))
    for _ in range(20):
        assert (
            read_wallet(keys_client, token(secret=EC, alg="ES256", kid=str(uuid.uuid4()))).status_code == 401
        )
    assert key_server.requests == 1
    advance_clock(monkeypatch, user_tokens.MIN_FETCH_INTERVAL_SECONDS + 1)
    assert read_wallet(keys_client, token(secret=EC, alg="ES256", kid="two")).status_code == 200
    assert key_server.requests == 2


def test_known_keys_stay_valid_while_the_key_server_is_down(
    keys_client: FlaskClient, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = token(secret=RSA, alg="RS256", kid="one", exp=time.time() + 3600)
    key_server.is_down = True
    assert_refused(read_wallet(keys_client, mine), 503, "Service unavailable")
    key_server.is_down = False
    key_server.keys = [published(RSA, "one")]
    advance_clock(monkeypatch, user_tokens.MIN_FETCH_INTERVAL_SECONDS + 1)
    assert read_wallet(keys_client, mine).status_code == 200
    key_server.is_down = True
    advance_clock(monkeypatch, user_tokens.KEYS_MAX_AGE_SECONDS * 2)
    assert read_wallet(keys_client, mine).status_code == 200


def test_a_key_server_that_sends_one_byte_at_a_time_blocks_no_later_fetch(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anyone can send a token that makes us fetch keys: a thread waits for at most one fetch, and fetches end."""
    with SlowPeer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n") as server:
        use_tokens(monkeypatch, USER_TOKEN_JWKS_URL=server.url)
        monkeypatch.setattr(user_tokens, "FETCH_TIMEOUT_SECONDS", 0.5)
        client = create_app().test_client()
        forged = token(secret=RSA, alg="RS256", kid="one")
        assert_refused(read_wallet(client, forged), 503, "Service unavailable")
        wait_until(lambda: server.connections == 1, 10)
        advance_clock(monkeypatch, user_tokens.MIN_FETCH_INTERVAL_SECONDS + 60)
        # The first fetch would last a day; the next one starts anyway.
        wait_until(lambda: read_wallet(client, forged).status_code == 503 and server.connections == 2, 20)


def test_an_endless_key_response_is_not_read_to_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * (user_tokens.MAX_KEYS_BYTES + 1)
    monkeypatch.setattr(user_tokens, "FETCH_TIMEOUT_SECONDS", 60.0)
    with SlowPeer(start) as server:
        keys = user_tokens.PublishedKeys(server.url, threads=8)
        started_at = time.perf_counter()
        with pytest.raises(Unavailable):
            keys.key("one")
        assert time.perf_counter() - started_at < 30


def _request_key(keys: user_tokens.PublishedKeys) -> None:
    with contextlib.suppress(Unavailable):
        keys.key("one")


def test_waiting_for_keys_does_not_occupy_every_thread(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_tokens, "FETCH_TIMEOUT_SECONDS", 60.0)
    with SlowPeer(b"HTTP/1.1 200 OK\r\n") as server:
        keys = user_tokens.PublishedKeys(server.url, threads=2)
        waiter = Thread(target=lambda: _request_key(keys), daemon=True)
        waiter.start()
        wait_until(lambda: server.connections == 1, 10)
        with pytest.raises(Unavailable):
            keys.key("one")
        assert waiter.is_alive(), "the first request still waits"


def test_a_token_valid_for_more_than_a_day_is_refused(client: FlaskClient) -> None:
    assert read_wallet(client, token(exp=time.time() + 86_400)).status_code == 200
    for expiry in (time.time() + 86_400 + 60, 1e300):
        assert_refused(read_wallet(client, token(exp=expiry)), 401, "Authentication required")


def test_another_users_withdrawal_is_not_found(world: World, client: FlaskClient) -> None:
    theirs = world.request()
    answer = client.get(
        STATUS, query_string={"withdrawal_id": str(theirs)}, headers=bearer(token("somebody"))
    )
    assert_refused(answer, 404, "Withdrawal not found")
