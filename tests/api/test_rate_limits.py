"""Rate limits: which requests get a 429, and how the API counts without Redis."""

import io
import os
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from shared.queues import redis_broker
from tests.api.test_auth import key_for
from tests.support.api import BATCH, CREDIT, GOOD, HISTORY, WALLET, WITHDRAW, assert_refused
from tests.support.corrupting_proxy import corrupting_proxy
from tests.support.user_tokens import token, use_tokens
from tests.support.world import KEY, World, forget_settings, sign

WEBHOOK = "/api/razorpay/webhook/"
Limited = Callable[..., FlaskClient]
WALLET_QUERY = {"query_string": {"user_id": "user123"}}


@pytest.fixture
def limited(world: World, monkeypatch: pytest.MonkeyPatch) -> Limited:
    """Return a function that creates an API with these limits and empty counters."""
    broker = redis_broker.client()
    for key in broker.scan_iter("*rates*"):
        broker.delete(key)
    use_tokens(monkeypatch)

    def create(**limits: str) -> FlaskClient:
        for name, rate in limits.items():
            monkeypatch.setenv(name.upper(), rate)
        forget_settings()
        world.credit(reference="for limits")
        return create_app().test_client()

    return create


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def statuses(client: FlaskClient, secret: str, times: int, **options: Any) -> list[int]:
    options = {"headers": bearer(secret), **WALLET_QUERY, **options}
    return [client.get(WALLET, **options).status_code for _ in range(times)]


def test_each_api_key_has_its_own_rate_limit(limited: Limited) -> None:
    client = limited(rate_limit_per_key="3/minute")
    assert statuses(client, KEY, 3) == [200] * 3
    answer = client.get(WALLET, headers=bearer(KEY), **WALLET_QUERY)
    assert assert_refused(answer, 429, "Too many requests")["code"] == "rate_limited"
    assert 1 <= int(answer.headers["Retry-After"]) <= 61
    assert answer.headers["X-RateLimit-Limit"] == "3" and answer.headers["X-RateLimit-Remaining"] == "0"
    assert statuses(client, key_for("read"), 3) == [200] * 3


def test_response_headers_show_the_remaining_requests(limited: Limited) -> None:
    client = limited(rate_limit_per_key="5/minute")
    left = [client.get(WALLET, headers=bearer(KEY), **WALLET_QUERY).headers for _ in range(3)]
    assert [headers["X-RateLimit-Remaining"] for headers in left] == ["4", "3", "2"]
    assert all("Retry-After" not in headers for headers in left)


def test_two_processes_share_one_count(limited: Limited) -> None:
    first = limited(rate_limit_per_key="4/minute")
    second = create_app().test_client()
    assert statuses(first, KEY, 2) + statuses(second, KEY, 3) == [200] * 4 + [429]


def test_a_users_requests_are_counted_across_tokens_and_apps(world: World, limited: Limited) -> None:
    client = limited(rate_limit_per_user="3/minute")
    assert statuses(client, token(), 1) == [200]
    answers = [client.post(WITHDRAW, json=GOOD, headers=bearer(KEY)).status_code for _ in range(3)]
    assert answers == [201, 201, 429]
    assert statuses(client, token(), 1) == [429]
    assert len(world.sql("SELECT FROM withdrawals")) == 2
    # Other users have their own limit, and reads of an app do not count.
    assert statuses(client, token("ravi"), 1) == [403]
    assert statuses(client, KEY, 5) == [200] * 5
    items = {"items": [GOOD] * 3}
    answer = client.post(BATCH, json=items, headers={**bearer(KEY), "Idempotency-Key": "b"})
    assert answer.get_json()["accepted"] == 2, answer.get_json()


def test_an_address_has_a_limit_that_does_not_apply_to_known_api_keys(limited: Limited) -> None:
    client = limited(rate_limit_per_address="4/minute")
    assert statuses(client, KEY, 1) == [200]  # now the key is known
    answers = [*statuses(client, token(), 2), *statuses(client, token("ravi"), 3)]
    assert answers == [200, 200, 403, 403, 429]
    assert statuses(client, KEY, 5) == [200] * 5
    elsewhere = {"environ_base": {"REMOTE_ADDR": "198.51.100.7"}}
    assert statuses(client, token(), 1, **elsewhere) == [200]


def test_unauthenticated_requests_do_not_use_up_the_limit_of_users_at_their_address(limited: Limited) -> None:
    client = limited(rate_limit_per_address="3/minute")
    assert [client.get("/docs/openapi.json").status_code for _ in range(4)] == [200] * 3 + [429]
    assert statuses(client, token(), 4) == [200] * 3 + [429]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),  # one subscriber can use a whole /64
        ("2001:db8:1:2::1", "2001:0DB8:1:2:0:0:0:1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("198.51.100.1:5000", "198.51.100.1:5001"),  # some proxies add the port
        ("[2001:db8:1:2::1]:5000", "2001:db8:1:2::1"),
        ("fe80::1%eth0", "fe80::2"),
    ],
)
def test_variants_of_one_address_share_a_limit(limited: Limited, first: str, second: str) -> None:
    client = limited(rate_limit_failed_auth="1/minute", trusted_proxies="1")

    def status_for(address: str) -> int:
        headers = {**bearer("wrong"), "X-Forwarded-For": address}
        return int(client.get(WALLET, headers=headers, **WALLET_QUERY).status_code)  # type: ignore[arg-type]

    assert [status_for(first), status_for(second)] == [401, 429]
    assert [status_for("2001:db8:1:3::1"), status_for("198.51.100.2"), status_for("unknown")] == [401] * 3


def test_after_too_many_wrong_keys_an_address_cannot_use_a_new_key(limited: Limited) -> None:
    client = limited(rate_limit_failed_auth="3/minute")
    known = key_for("read")
    assert statuses(client, known, 1) == [200]
    assert [*statuses(client, "wrong", 2), *statuses(client, token(secret="x" * 64), 2)] == [401] * 3 + [429]
    # The right key too, unless it was used before: it may just have been guessed.
    assert statuses(client, KEY, 1) == [429]
    # Recently valid keys continue, and so do users and other addresses.
    assert statuses(client, known, 3) == [200] * 3 and statuses(client, token(), 1) == [200]
    elsewhere = {"environ_base": {"REMOTE_ADDR": "198.51.100.7"}}
    assert statuses(client, KEY, 1, **elsewhere) == [200]


def test_preflight_requests_are_never_rate_limited(limited: Limited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://app.example")
    client = limited(rate_limit_failed_auth="2/minute", rate_limit_per_address="4/minute")
    assert statuses(client, "wrong", 3) == [401, 401, 429]
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    answers = [client.options(WALLET, headers=preflight) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [204] * 5
    assert {answer.headers["Access-Control-Allow-Origin"] for answer in answers} == {"https://app.example"}
    assert statuses(client, token(), 1) == [200]


def test_an_expired_token_does_not_count_as_a_failed_authentication(limited: Limited) -> None:
    client = limited(rate_limit_failed_auth="2/minute")
    assert statuses(client, token(exp=1), 5) == [401] * 5


def test_address_limits_do_not_apply_to_webhooks_and_health_checks(limited: Limited) -> None:
    client = limited(rate_limit_per_address="1/minute", rate_limit_failed_auth="1/minute")
    assert [client.get("/healthz").status_code for _ in range(3)] == [200] * 3
    answers = [client.post("/api/razorpay/webhook/", data=b"{}").status_code for _ in range(3)]
    assert answers == [400] * 3


def test_without_redis_each_process_counts_for_itself(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Counts in memory restart each minute, so no minute may end during this test.
    mid_minute = time.time() // 60 * 60 + 30
    monkeypatch.setattr("limits.storage.memory.time", SimpleNamespace(time=lambda: mid_minute))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{unused.getsockname()[1]}/0")
        first = limited(rate_limit_per_key="3/minute")
        assert statuses(first, KEY, 4) == [200] * 3 + [429]
        assert statuses(create_app().test_client(), KEY, 2) == [200] * 2
        assert first.post(CREDIT, json={}, headers=bearer(key_for("credit"))).status_code == 400


def test_requests_succeed_while_redis_goes_away_and_returns(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = limited(rate_limit_per_key="100/minute", rate_limit_failed_auth="50/minute")
    pool = client.application.extensions["rates"].client.connection_pool
    assert statuses(client, KEY, 1) == [200]
    port = pool.connection_kwargs["port"]
    pool.disconnect()
    pool.connection_kwargs["port"] = 1
    assert [*statuses(client, KEY, 2), *statuses(client, "wrong", 2)] == [200, 200, 401, 401]
    pool.connection_kwargs["port"] = port
    assert statuses(client, KEY, 1) == [200]


def test_behind_a_trusted_proxy_the_forwarded_address_counts(limited: Limited) -> None:
    client = limited(rate_limit_per_address="1/minute", trusted_proxies="1")

    def status_for(forwarded: str) -> int:
        headers = {**bearer(token()), "X-Forwarded-For": forwarded}
        return int(client.get(HISTORY, headers=headers, **WALLET_QUERY).status_code)  # type: ignore[arg-type]

    assert [status_for("198.51.100.1"), status_for("198.51.100.2"), status_for("198.51.100.1")] == [
        200,
        200,
        429,
    ]
    # Anyone can forge the entries before our own proxy's.
    assert status_for("203.0.113.9, 198.51.100.1") == 429


def test_without_trusted_proxies_forwarded_addresses_are_ignored(limited: Limited) -> None:
    client = limited(rate_limit_per_address="1/minute")
    answers = [
        client.get(HISTORY, headers={**bearer(token()), "X-Forwarded-For": f"198.51.100.{n}"}, **WALLET_QUERY)
        for n in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 429]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_checks_have_a_limit_that_needs_no_redis(
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


def test_webhooks_with_bad_signatures_are_rate_limited_and_signed_ones_are_not(limited: Limited) -> None:
    client = limited(rate_limit_bad_webhooks="3/minute")
    answers = [
        client.post(WEBHOOK, data=b"{}", headers={"X-Razorpay-Signature": "0" * 64}).status_code
        for _ in range(5)
    ]
    assert answers == [400] * 3 + [429] * 2
    for number in range(5):
        headers = {"X-Razorpay-Signature": sign(b"{}"), "X-Razorpay-Event-Id": f"event-{number}"}
        assert client.post(WEBHOOK, data=b"{}", headers=headers).status_code == 200


def test_a_corrupt_counter_in_redis_refuses_no_request(limited: Limited) -> None:
    """A limiter key in Redis has another type: requests are counted without Redis, or not at all."""
    client = limited(rate_limit_per_key="50/minute", rate_limit_per_user="50/minute")
    request = {"json": GOOD | {"amount": 100}, "headers": bearer(KEY)}
    assert client.post(WITHDRAW, **request).status_code == 201
    broker = redis_broker.client()
    counts = list(broker.scan_iter("*rates*"))
    assert len(counts) >= 2
    for name in counts:
        broker.delete(name)
        broker.lpush(name, "no count")
    assert [client.post(WITHDRAW, **request).status_code for _ in range(3)] == [201] * 3
    broker.delete(*counts)


@pytest.mark.parametrize("garbage_bytes", [b"$abc\r\n", b"*-5\r\n", b"garbage\r\n"])
def test_malformed_redis_replies_refuse_no_request(
    limited: Limited, monkeypatch: pytest.MonkeyPatch, garbage_bytes: bytes
) -> None:
    with corrupting_proxy(os.environ["REDIS_URL"]) as wire:
        monkeypatch.setenv("REDIS_URL", wire.url)
        client = limited(rate_limit_per_key="50/minute", rate_limit_per_user="50/minute")
        wire.garbage = garbage_bytes
        request = {"json": GOOD | {"amount": 100}, "headers": bearer(KEY)}
        assert [client.post(WITHDRAW, **request).status_code for _ in range(2)] == [201] * 2
        ready = client.get("/readyz").get_json()
        assert (ready["broker"], ready["workers"]) == ("unavailable", "unknown")


def test_a_known_apps_request_counts_once_for_its_key_however_it_ends(world: World, limited: Limited) -> None:
    """Its key and its user are counted together after the body is read; what is refused before counts as well."""
    client = limited(rate_limit_per_key="50/minute", rate_limit_per_user="50/minute", max_body_bytes="2000")
    reader = key_for("read")
    assert statuses(client, KEY, 1) == statuses(client, reader, 1) == [200]  # now the keys are known

    def after(expected: int, secret: str = KEY, **request: Any) -> tuple[str, str]:
        answer = client.post(WITHDRAW, **{"headers": bearer(secret), **request})
        assert answer.status_code == expected, answer.get_json()
        return answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"]

    assert after(400, json={}) == ("50", "48")
    assert after(415, data="text") == ("50", "47")
    assert after(413, json={"user_id": "x" * 3000}) == ("50", "46")
    assert after(400, data="[", content_type="application/json") == ("50", "45")
    assert after(201, json=GOOD) == ("50", "49")  # the user's first
    assert after(400, json=GOOD | {"amount": 10**6}) == ("50", "48")  # counted, then refused
    assert after(403, reader, json=GOOD) == ("50", "48")  # the reader's second
    assert client.get(WALLET, headers=bearer(KEY), **WALLET_QUERY).headers["X-RateLimit-Remaining"] == "42"


def test_above_its_keys_limit_an_app_gets_429_whatever_it_sends(world: World, limited: Limited) -> None:
    client = limited(rate_limit_per_key="2/minute", rate_limit_per_user="50/minute")
    assert statuses(client, KEY, 2) == [200] * 2
    for request in ({"json": {}}, {"data": "text"}, {"json": GOOD}, {"json": GOOD | {"amount": 1}}):
        answer = client.post(WITHDRAW, headers=bearer(KEY), **request)
        assert_refused(answer, 429, "Too many requests")
        assert answer.headers["X-RateLimit-Limit"] == "2" and int(answer.headers["Retry-After"]) >= 1
    assert world.sql("SELECT FROM withdrawals") == []
    # What the key's limit refuses does not use up the user's.
    answer = client.get(HISTORY, headers=bearer(token()), **WALLET_QUERY)
    assert answer.headers["X-RateLimit-Remaining"] == "49"


def test_what_the_users_limit_refuses_counts_for_the_key(limited: Limited) -> None:
    client = limited(rate_limit_per_key="50/minute", rate_limit_per_user="1/minute")
    assert statuses(client, KEY, 1) == [200]
    answers = [client.post(WITHDRAW, json=GOOD, headers=bearer(KEY)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 429, 429]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"1"}
    assert client.get(WALLET, headers=bearer(KEY), **WALLET_QUERY).headers["X-RateLimit-Remaining"] == "45"


def test_of_several_limits_the_headers_show_the_one_that_refuses_or_that_of_the_shortest_window(
    limited: Limited,
) -> None:
    client = limited(rate_limit_per_key="2/hour;50/second", rate_limit_per_user="off")
    answers = [client.get(WALLET, headers=bearer(KEY), **WALLET_QUERY) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["X-RateLimit-Limit"] for answer in answers] == ["50", "50", "2"]
    assert int(answers[2].headers["Retry-After"]) > 60


def test_a_key_that_was_not_valid_recently_is_counted_before_its_body_is_read(limited: Limited) -> None:
    """Strangers over their limit do not get that far."""
    client = limited(
        rate_limit_per_key="50/minute", rate_limit_per_user="50/minute", rate_limit_per_address="1/minute"
    )
    assert client.post(WITHDRAW, json=GOOD, headers=bearer("wrong")).status_code == 401
    unread = {"input_stream": Unread(b"{}"), "content_type": "application/json"}
    assert client.post(WITHDRAW, headers=bearer("wrong"), **unread).status_code == 429  # type: ignore[arg-type]


class Unread(io.BytesIO):
    """A body that must not be read."""

    def read(self, *_: object) -> bytes:
        raise AssertionError("the body was read")
