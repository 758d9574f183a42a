"""Tokens of end users: which come in, which do not, and whose withdrawals they reach."""

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
from shared import db, withdrawals
from shared.errors import Unavailable
from tests.drip import Dripping
from tests.integration.app import CANCEL, GOOD, HISTORY, STATUS, WALLET, WITHDRAW, assert_refused
from tests.integration.tokens import AUDIENCE, ISSUER, SECRET, token, use_tokens
from tests.world import World

RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())


def bearer(given: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {given}"}


def reads(client: FlaskClient, given: str) -> Any:
    return client.get(WALLET, query_string={"user_id": "user123"}, headers=bearer(given))


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    use_tokens(monkeypatch)
    world.credit()
    return create_app().test_client()


def test_a_user_asks_reads_and_cancels_for_themselves(world: World, client: FlaskClient) -> None:
    mine = bearer(token())
    made = client.post(WITHDRAW, json=GOOD, headers=mine).get_json()["data"]
    assert client.get(HISTORY, query_string={"user_id": "user123"}, headers=mine).get_json()["count"] == 1
    [event] = world.sql("SELECT actor FROM withdrawal_events")
    assert event.actor == "user:user123"
    given = {"withdrawal_id": made["withdrawal_id"]}
    theirs = bearer(token("ravi"))
    assert_refused(client.post(CANCEL, json=given, headers=theirs), 404, "Withdrawal not found")
    assert client.post(CANCEL, json=given, headers=mine).get_json()["data"]["status"] == "cancelled"


def test_anothers_withdrawal_that_is_at_work_is_not_there_either(world: World, client: FlaskClient) -> None:
    """Who waited for its row would learn that it exists, and make its owner and the workers wait."""
    mine = client.post(WITHDRAW, json=GOOD, headers=bearer(token())).get_json()["data"]["withdrawal_id"]
    with db.transaction() as session:
        withdrawals.find(session, uuid.UUID(mine), lock=True)
        # Whoever waited for the row would never have it: it is ours until the answer is there.
        told = client.post(CANCEL, json={"withdrawal_id": mine}, headers=bearer(token("ravi")))
    assert_refused(told, 404, "Withdrawal not found")


def test_the_same_key_of_two_users_is_two_keys(world: World, client: FlaskClient) -> None:
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
def test_what_is_wrong_with_a_token(client: FlaskClient, claims: dict[str, Any]) -> None:
    if claims == {"crit": True}:
        given = jwt.encode({"sub": "user123"}, SECRET, headers={"crit": ["x"]})
    else:
        given = token(**claims)
    told = assert_refused(reads(client, given), 401, "Authentication required")
    assert told["code"] == "unauthorized"


@pytest.mark.parametrize(
    "given",
    [
        "..",
        "a.b.c",
        "é.é.é",
        "eyJhbGciOiJIUzI1NiJ9.e30.",
        "W10.e30.AA",
        "eyJraWQiOjUsImFsZyI6IlJTMjU2In0.e30.AA",
    ],
)
def test_what_is_no_token_at_all(client: FlaskClient, given: str) -> None:
    assert_refused(reads(client, given), 401, "Authentication required")


def test_the_log_says_where_a_bad_token_came_from(
    client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    reads(client, bad := token(secret=SECRET[:-1] + "x"))
    logged = capsys.readouterr().out
    [line] = [line for line in map(json.loads, logged.splitlines()) if line["event"] == "[API] bad token"]
    assert (line["path"], line["address"], line["why"]) == (WALLET, "127.0.0.1", "InvalidSignatureError")
    assert bad not in logged


def test_clocks_may_differ_a_little(client: FlaskClient) -> None:
    assert reads(client, token(exp=time.time() - 25)).status_code == 200
    told = assert_refused(reads(client, token(exp=time.time() - 35)), 401, "Authentication required")
    assert told["code"] == "token_expired"


def test_while_the_secret_changes_both_count(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = "the-next-secret-of-32-characters-and-more"
    use_tokens(monkeypatch, USER_TOKEN_SECRET=new, USER_TOKEN_SECRET_PREVIOUS=SECRET)
    client = create_app().test_client()
    assert [reads(client, token(secret=secret)).status_code for secret in (new, SECRET, "x" * 32)] == [
        200,
        200,
        401,
    ]


def test_without_settings_no_token_comes_in(world: World) -> None:
    world.credit()
    assert_refused(reads(create_app().test_client(), token()), 401, "Authentication required")


# --- keys that the app publishes


def published(key: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.ECAlgorithm if key is EC else jwt.algorithms.RSAAlgorithm
    told = json.loads(algorithm.to_jwk(key.public_key()))
    return {**told, "kid": kid, "use": "sig", **more}


class KeyServer(ThreadingHTTPServer):
    """Where an app publishes its keys."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.keys: list[dict[str, Any]] = []
        self.asked, self.is_away = 0, False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/keys"


class Answers(BaseHTTPRequestHandler):
    server: KeyServer

    def do_GET(self) -> None:
        self.server.asked += 1
        body = b"" if self.server.is_away else json.dumps({"keys": self.server.keys}).encode()
        self.send_response(500 if self.server.is_away else 200)
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
def of_keys(world: World, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    use_tokens(monkeypatch, USER_TOKEN_JWKS_URL=key_server.url)
    world.credit()
    return create_app().test_client()


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    moment = time.monotonic() + seconds
    monkeypatch.setattr(user_tokens.time, "monotonic", lambda: moment)


def test_signed_by_a_published_key(of_keys: FlaskClient, key_server: KeyServer) -> None:
    key_server.keys = [published(RSA, "one"), published(EC, "two")]
    good = [token(secret=RSA, alg="RS256", kid="one"), token(secret=EC, alg="ES256", kid="two")]
    bad = [
        token(secret=OTHER_RSA, alg="RS256", kid="one"),
        token(secret=RSA, alg="RS256", kid="three"),
        token(secret=RSA, alg="RS256", kid="two"),
        token(secret=RSA, alg="RS512", kid="one"),
        token(secret=RSA, alg="RS256"),
        token(),  # by a secret, where none is set
    ]
    assert [reads(of_keys, one).status_code for one in good + bad] == [200] * 2 + [401] * 6
    assert key_server.asked == 1


def test_a_public_key_is_no_secret(of_keys: FlaskClient, key_server: KeyServer) -> None:
    """The oldest trick: HS256, with the published key as the secret. And a secret among the published keys."""
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
    for given in (forged, token(kid="secret")):
        assert_refused(reads(of_keys, given), 401, "Authentication required")


def test_a_new_key_is_found_and_asking_for_unknown_ones_is_bounded(
    of_keys: FlaskClient, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_server.keys = [published(RSA, "one")]
    assert reads(of_keys, token(secret=RSA, alg="RS256", kid="one")).status_code == 200
    key_server.keys.append(published(EC, "two"))
    for _ in range(20):
        assert reads(of_keys, token(secret=EC, alg="ES256", kid=str(uuid.uuid4()))).status_code == 401
    assert key_server.asked == 1
    later(monkeypatch, user_tokens.ASK_AGAIN_SECONDS + 1)
    assert reads(of_keys, token(secret=EC, alg="ES256", kid="two")).status_code == 200
    assert key_server.asked == 2


def test_while_the_keys_cannot_be_read_those_that_are_known_serve(
    of_keys: FlaskClient, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = token(secret=RSA, alg="RS256", kid="one", exp=time.time() + 3600)
    key_server.is_away = True
    assert_refused(reads(of_keys, mine), 503, "Service unavailable")
    key_server.is_away, key_server.keys = False, [published(RSA, "one")]
    later(monkeypatch, user_tokens.ASK_AGAIN_SECONDS + 1)
    assert reads(of_keys, mine).status_code == 200
    key_server.is_away = True
    later(monkeypatch, user_tokens.KEYS_SECONDS * 2)
    assert reads(of_keys, mine).status_code == 200


def test_a_server_of_keys_that_drips_holds_nobody_and_is_hung_up_on(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can send a token that makes us ask: no thread waits for longer than one look, and each look ends."""
    with Dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n") as server:
        use_tokens(monkeypatch, USER_TOKEN_JWKS_URL=server.url)
        monkeypatch.setattr(user_tokens, "FETCH_SECONDS", 0.5)
        client = create_app().test_client()
        forged = token(secret=RSA, alg="RS256", kid="one")
        assert_refused(reads(client, forged), 503, "Service unavailable")
        wait_until(lambda: server.connections == 1, 10)
        later(monkeypatch, user_tokens.ASK_AGAIN_SECONDS + 60)
        # The first look would drip for a day; the next one begins all the same.
        wait_until(lambda: reads(client, forged).status_code == 503 and server.connections == 2, 20)


def test_an_endless_answer_is_not_read_to_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    start = b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * (user_tokens.MAX_KEYS_BYTES + 1)
    monkeypatch.setattr(user_tokens, "FETCH_SECONDS", 60.0)
    with Dripping(start) as server:
        keys = user_tokens.PublishedKeys(server.url, threads=8)
        begun = time.perf_counter()
        with pytest.raises(Unavailable):
            keys.key("one")
        assert time.perf_counter() - begun < 30


def _asked(keys: user_tokens.PublishedKeys) -> None:
    with contextlib.suppress(Unavailable):
        keys.key("one")


def test_who_waits_for_keys_leaves_threads_for_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_tokens, "FETCH_SECONDS", 60.0)
    with Dripping(b"HTTP/1.1 200 OK\r\n") as server:
        keys = user_tokens.PublishedKeys(server.url, threads=2)
        one = Thread(target=lambda: _asked(keys), daemon=True)
        one.start()
        wait_until(lambda: server.connections == 1, 10)
        with pytest.raises(Unavailable):
            keys.key("one")
        assert one.is_alive(), "the first of them still waits"


def test_a_token_that_lives_too_long_lets_nobody_in(client: FlaskClient) -> None:
    assert reads(client, token(exp=time.time() + 86_400)).status_code == 200
    for far in (time.time() + 86_400 + 60, 1e300):
        assert_refused(reads(client, token(exp=far)), 401, "Authentication required")


def test_another_users_status_is_not_told(world: World, client: FlaskClient) -> None:
    theirs = world.request()
    answer = client.get(
        STATUS, query_string={"withdrawal_id": str(theirs)}, headers=bearer(token("somebody"))
    )
    assert_refused(answer, 404, "Withdrawal not found")
