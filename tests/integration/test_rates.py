"""Limits: who is told to wait, who is not, and what happens while Redis is away."""

import os
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from shared import queues
from tests.integration.app import BATCH, CREDIT, GOOD, HISTORY, WALLET, WITHDRAW, assert_refused
from tests.integration.test_keys import key_for
from tests.integration.tokens import token, use_tokens
from tests.liar import liar
from tests.world import KEY, World, forget_settings, sign

WEBHOOK = "/api/razorpay/webhook/"
Limited = Callable[..., FlaskClient]
MINE = {"query_string": {"user_id": "user123"}}


@pytest.fixture
def limited(world: World, monkeypatch: pytest.MonkeyPatch) -> Limited:
    """The API with these limits, and nothing counted yet."""
    broker = queues.broker()
    for key in broker.scan_iter("*rates*"):
        broker.delete(key)
    use_tokens(monkeypatch)

    def made(**limits: str) -> FlaskClient:
        for name, rate in limits.items():
            monkeypatch.setenv(name.upper(), rate)
        forget_settings()
        world.credit(reference="for limits")
        return create_app().test_client()

    return made


def bearer(given: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {given}"}


def statuses(client: FlaskClient, given: str, times: int, **about: Any) -> list[int]:
    about = {"headers": bearer(given), **MINE, **about}
    return [client.get(WALLET, **about).status_code for _ in range(times)]


def test_a_key_has_its_limit_and_another_key_its_own(limited: Limited) -> None:
    client = limited(rate_limit_per_key="3/minute")
    assert statuses(client, KEY, 3) == [200] * 3
    answer = client.get(WALLET, headers=bearer(KEY), **MINE)
    assert assert_refused(answer, 429, "Too many requests")["code"] == "rate_limited"
    assert 1 <= int(answer.headers["Retry-After"]) <= 61
    assert answer.headers["X-RateLimit-Limit"] == "3" and answer.headers["X-RateLimit-Remaining"] == "0"
    assert statuses(client, key_for("read"), 3) == [200] * 3


def test_what_is_left_is_told(limited: Limited) -> None:
    client = limited(rate_limit_per_key="5/minute")
    left = [client.get(WALLET, headers=bearer(KEY), **MINE).headers for _ in range(3)]
    assert [headers["X-RateLimit-Remaining"] for headers in left] == ["4", "3", "2"]
    assert all("Retry-After" not in headers for headers in left)


def test_two_processes_count_together(limited: Limited) -> None:
    first, second = limited(rate_limit_per_key="4/minute"), create_app().test_client()
    assert statuses(first, KEY, 2) + statuses(second, KEY, 3) == [200] * 4 + [429]


def test_a_users_wishes_are_counted_whoever_sends_them(world: World, limited: Limited) -> None:
    client = limited(rate_limit_per_user="3/minute")
    assert statuses(client, token(), 1) == [200]
    told = [client.post(WITHDRAW, json=GOOD, headers=bearer(KEY)).status_code for _ in range(3)]
    assert told == [201, 201, 429]
    assert statuses(client, token(), 1) == [429]
    assert len(world.sql("SELECT FROM withdrawals")) == 2
    # Others have their own, and an app may read and pay as it likes.
    assert statuses(client, token("ravi"), 1) == [403]
    assert statuses(client, KEY, 5) == [200] * 5
    items = {"items": [GOOD] * 3}
    answer = client.post(BATCH, json=items, headers={**bearer(KEY), "Idempotency-Key": "b"})
    assert answer.get_json()["accepted"] == 2, answer.get_json()


def test_an_address_has_its_limit_but_apps_have_their_own(limited: Limited) -> None:
    client = limited(rate_limit_per_address="4/minute")
    assert statuses(client, KEY, 1) == [200]  # now the key is known
    told = [*statuses(client, token(), 2), *statuses(client, token("ravi"), 3)]
    assert told == [200, 200, 403, 403, 429]
    assert statuses(client, KEY, 5) == [200] * 5
    elsewhere = {"environ_base": {"REMOTE_ADDR": "198.51.100.7"}}
    assert statuses(client, token(), 1, **elsewhere) == [200]


def test_strangers_do_not_use_up_what_users_at_their_address_may_ask(limited: Limited) -> None:
    client = limited(rate_limit_per_address="3/minute")
    assert [client.get("/docs/openapi.json").status_code for _ in range(4)] == [200] * 3 + [429]
    assert statuses(client, token(), 4) == [200] * 3 + [429]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),  # a subscriber has all of a /64
        ("2001:db8:1:2::1", "2001:0DB8:1:2:0:0:0:1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("198.51.100.1:5000", "198.51.100.1:5001"),  # some proxies write the port
        ("[2001:db8:1:2::1]:5000", "2001:db8:1:2::1"),
        ("fe80::1%eth0", "fe80::2"),
    ],
)
def test_whoever_changes_within_their_address_is_counted_as_one(
    limited: Limited, first: str, second: str
) -> None:
    client = limited(rate_limit_failed_auth="1/minute", trusted_proxies="1")

    def asks(address: str) -> int:
        headers = {**bearer("wrong"), "X-Forwarded-For": address}
        return int(client.get(WALLET, headers=headers, **MINE).status_code)  # type: ignore[arg-type]

    assert [asks(first), asks(second)] == [401, 429]
    assert [asks("2001:db8:1:3::1"), asks("198.51.100.2"), asks("unknown")] == [401] * 3


def test_wrong_keys_are_counted_and_then_nobody_new_comes_in_from_there(limited: Limited) -> None:
    client = limited(rate_limit_failed_auth="3/minute")
    known = key_for("read")
    assert statuses(client, known, 1) == [200]
    assert [*statuses(client, "wrong", 2), *statuses(client, token(secret="x" * 64), 2)] == [401] * 3 + [429]
    # Even the right key, if it was not known before: it may just have been guessed.
    assert statuses(client, KEY, 1) == [429]
    # Whoever came in lately goes on, and so do users, and everybody elsewhere.
    assert statuses(client, known, 3) == [200] * 3 and statuses(client, token(), 1) == [200]
    elsewhere = {"environ_base": {"REMOTE_ADDR": "198.51.100.7"}}
    assert statuses(client, KEY, 1, **elsewhere) == [200]


def test_a_browsers_question_is_answered_whatever_strangers_at_its_address_did(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://app.example")
    client = limited(rate_limit_failed_auth="2/minute", rate_limit_per_address="4/minute")
    assert statuses(client, "wrong", 3) == [401, 401, 429]
    question = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    told = [client.options(WALLET, headers=question) for _ in range(5)]
    assert [answer.status_code for answer in told] == [204] * 5
    assert {answer.headers["Access-Control-Allow-Origin"] for answer in told} == {"https://app.example"}
    assert statuses(client, token(), 1) == [200]


def test_an_expired_token_is_no_attempt_to_break_in(limited: Limited) -> None:
    client = limited(rate_limit_failed_auth="2/minute")
    assert statuses(client, token(exp=1), 5) == [401] * 5


def test_the_provider_and_who_watches_over_us_are_never_told_to_wait(limited: Limited) -> None:
    client = limited(rate_limit_per_address="1/minute", rate_limit_failed_auth="1/minute")
    assert [client.get("/healthz").status_code for _ in range(3)] == [200] * 3
    told = [client.post("/api/razorpay/webhook/", data=b"{}").status_code for _ in range(3)]
    assert told == [400] * 3


def test_without_redis_each_process_counts_for_itself(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Such counts begin anew with each minute of the clock: none ends in the middle of this.
    middle = time.time() // 60 * 60 + 30
    monkeypatch.setattr("limits.storage.memory.time", SimpleNamespace(time=lambda: middle))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{nobody.getsockname()[1]}/0")
        first = limited(rate_limit_per_key="3/minute")
        assert statuses(first, KEY, 4) == [200] * 3 + [429]
        assert statuses(create_app().test_client(), KEY, 2) == [200] * 2
        assert first.post(CREDIT, json={}, headers=bearer(key_for("credit"))).status_code == 400


def test_redis_that_goes_away_and_comes_back(limited: Limited, monkeypatch: pytest.MonkeyPatch) -> None:
    client = limited(rate_limit_per_key="100/minute", rate_limit_failed_auth="50/minute")
    storage = client.application.extensions["rates"].storage.storage  # type: ignore[union-attr]
    pool = storage.connection_pool
    assert statuses(client, KEY, 1) == [200]
    port = pool.connection_kwargs["port"]
    pool.disconnect()
    pool.connection_kwargs["port"] = 1
    assert [*statuses(client, KEY, 2), *statuses(client, "wrong", 2)] == [200, 200, 401, 401]
    pool.connection_kwargs["port"] = port
    assert statuses(client, KEY, 1) == [200]


def test_behind_proxies_the_address_is_the_callers(limited: Limited) -> None:
    client = limited(rate_limit_per_address="1/minute", trusted_proxies="1")

    def asks(forwarded: str) -> int:
        headers = {**bearer(token()), "X-Forwarded-For": forwarded}
        return int(client.get(HISTORY, headers=headers, **MINE).status_code)  # type: ignore[arg-type]

    assert [asks("198.51.100.1"), asks("198.51.100.2"), asks("198.51.100.1")] == [200, 200, 429]
    # What stands before our own proxy's entry, anybody can write.
    assert asks("203.0.113.9, 198.51.100.1") == 429


def test_without_proxies_nobody_chooses_their_address(limited: Limited) -> None:
    client = limited(rate_limit_per_address="1/minute")
    told = [
        client.get(HISTORY, headers={**bearer(token()), "X-Forwarded-For": f"198.51.100.{n}"}, **MINE)
        for n in range(2)
    ]
    assert [answer.status_code for answer in told] == [200, 429]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_has_a_limit_that_needs_no_redis(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("RATE_LIMIT_HEALTH", "3/minute")
    forget_settings()
    client = create_app().test_client()
    assert [client.get(path).status_code for _ in range(3)] == [200] * 3
    answer = client.get(path)
    assert_refused(answer, 429, "Too many requests")
    assert 1 <= int(answer.headers["Retry-After"]) <= 61
    elsewhere = {"REMOTE_ADDR": "203.0.113.9"}
    assert client.get(path, environ_base=elsewhere).status_code == 200


def test_webhooks_that_nobody_signed_have_a_limit_and_signed_ones_none(limited: Limited) -> None:
    client = limited(rate_limit_bad_webhooks="3/minute")
    told = [
        client.post(WEBHOOK, data=b"{}", headers={"X-Razorpay-Signature": "0" * 64}).status_code
        for _ in range(5)
    ]
    assert told == [400] * 3 + [429] * 2
    for number in range(5):
        headers = {"X-Razorpay-Signature": sign(b"{}"), "X-Razorpay-Event-Id": f"event-{number}"}
        assert client.post(WEBHOOK, data=b"{}", headers=headers).status_code == 200


def test_a_count_that_is_no_count_refuses_nobody(limited: Limited) -> None:
    """Somebody wrote something else under its name: it is counted without Redis, or not at all."""
    client = limited(rate_limit_per_key="50/minute", rate_limit_per_user="50/minute")
    wish = {"json": GOOD | {"amount": 100}, "headers": bearer(KEY)}
    assert client.post(WITHDRAW, **wish).status_code == 201
    broker = queues.broker()
    counts = list(broker.scan_iter("*rates*"))
    assert len(counts) >= 2
    for name in counts:
        broker.delete(name)
        broker.lpush(name, "no count")
    assert [client.post(WITHDRAW, **wish).status_code for _ in range(3)] == [201] * 3
    broker.delete(*counts)


@pytest.mark.parametrize("lie", [b"$abc\r\n", b"*-5\r\n", b"garbage\r\n"])
def test_a_redis_that_says_anything_refuses_nobody(
    limited: Limited, monkeypatch: pytest.MonkeyPatch, lie: bytes
) -> None:
    with liar(os.environ["REDIS_URL"]) as wire:
        monkeypatch.setenv("REDIS_URL", wire.url)
        client = limited(rate_limit_per_key="50/minute", rate_limit_per_user="50/minute")
        wire.lie = lie
        wish = {"json": GOOD | {"amount": 100}, "headers": bearer(KEY)}
        assert [client.post(WITHDRAW, **wish).status_code for _ in range(2)] == [201] * 2
        ready = client.get("/readyz").get_json()
        assert (ready["broker"], ready["workers"]) == ("unavailable", "unknown")
