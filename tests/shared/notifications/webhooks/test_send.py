"""Deliveries: signed, retried for a day, then shown as failed; never to a private address."""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from shared.db.transactions import transaction
from shared.errors import SettingsError
from shared.models import Endpoint, ExceptionRecord
from shared.net import sockets
from shared.notifications import outbox
from shared.notifications.webhooks import deliveries, dispatcher, endpoints, fan_out, http, send
from shared.notifications.webhooks.http import SendResult
from shared.people import exception_records
from shared.settings import settings
from tests.support.certificates import https_server
from tests.support.receiver import Receiver, webhook_receiver
from tests.support.slow_peer import SlowPeer
from tests.support.webhook_steps import add_endpoint, rows, run_notifier, run_until_done
from tests.support.world import World

DAY_SECONDS = 86_400


@pytest.fixture
def app():  # type: ignore[no-untyped-def]
    with webhook_receiver() as receiver:
        yield receiver


@pytest.fixture
def own_trust() -> Iterator[None]:
    """Forget the authority that this test trusts, even if it fails."""
    yield
    sockets.tls_context.cache_clear()


def request_withdrawals(world: World, number: int = 1) -> None:
    """Request withdrawals: one change each."""
    world.credit(coins=100 * number)
    for _ in range(number):
        world.request(coins=100)


def seconds_left(world: World) -> float:
    """The seconds until the only delivery is due again."""
    [row] = world.sql("SELECT extract(epoch FROM due_at - now())::float8 AS seconds FROM deliveries")
    return float(row.seconds)


def waits_since(before: datetime, world: World) -> tuple[float, float]:
    """The longest and the shortest possible wait of the only delivery.

    It began between `before` and now, which may be far apart on a busy machine.
    """
    [row] = world.sql("SELECT due_at, clock_timestamp() AS after FROM deliveries")
    return (row.due_at - before).total_seconds(), (row.due_at - row.after).total_seconds()


def records() -> list[ExceptionRecord]:
    with transaction() as session:
        return exception_records.listing(session)


def try_once(world: World, url: str) -> Any:
    """Make one attempt to deliver to this URL; returns the only delivery."""
    add_endpoint(url)
    request_withdrawals(world)
    assert run_notifier() == 1
    return rows(world)[0]


# --- delivered


def test_each_change_arrives_and_can_be_verified(world: World, app: Receiver) -> None:
    _, secret = add_endpoint(app.url)
    world.paid()
    run_notifier()
    events = app.verified(secret)
    assert [event["type"].partition(".")[2] for event in events] == ["pending", "processing", "completed"]
    deliveries_sent = rows(world)
    assert [message.body.decode() for message in app.messages] == [row.body for row in deliveries_sent]
    assert [message.id for message in app.messages] == [str(row.id) for row in deliveries_sent]
    assert {(row.state, row.tries, row.last_http_status, row.last_error) for row in deliveries_sent} == {
        ("delivered", 1, 204, None)
    }
    headers = app.messages[0].headers
    assert headers["content-type"] == "application/json" and headers["host"] == f"127.0.0.1:{app.port}"
    assert "cookie" not in headers and "authorization" not in headers


def test_the_secret_of_another_endpoint_does_not_verify(world: World, app: Receiver) -> None:
    _, secret = add_endpoint(app.url)
    _, another = add_endpoint(app.url + "/another")
    assert secret != another
    request_withdrawals(world)
    run_notifier()
    mine = next(message for message in app.messages if message.path == "/hook")
    assert mine.verified(secret)
    with pytest.raises(WebhookVerificationError):
        mine.verified(another)


@pytest.mark.failure(28)
def test_a_failed_delivery_is_retried_with_the_same_id_and_body(world: World, app: Receiver) -> None:
    _, secret = add_endpoint(app.url)
    request_withdrawals(world)
    for app.status in (500, 404, 410, 204):
        assert run_notifier() == 1
        world.advance(DAY_SECONDS / 10)
    assert run_notifier() == 0
    assert len({(message.id, message.body) for message in app.messages}) == 1
    assert len(app.verified(secret)) == 4
    assert (rows(world)[0].state, rows(world)[0].tries) == ("delivered", 4)


@pytest.mark.failure(28)
def test_the_backoff_grows_and_the_last_attempt_is_after_a_day(world: World, app: Receiver) -> None:
    add_endpoint(app.url)
    request_withdrawals(world)
    app.status = 503
    waits = []
    waited = 0.0
    while True:
        before = world.clock()
        if not run_notifier() or rows(world)[0].state == "failed":
            break
        waits.append(waits_since(before, world))
        left = seconds_left(world)
        waited += left
        world.advance(left)
    expected = [5, 30, 120, 600, 1800, 3600, 7200, 7200]
    for (longest, shortest), usual in zip(waits, expected, strict=False):
        assert longest >= 0.8 * usual and shortest <= 1.2 * usual
    assert 0.99 * DAY_SECONDS < waited < 1.01 * DAY_SECONDS
    assert len(waits) > 12


@pytest.mark.parametrize(
    ("retry_after", "at_least", "at_most"),
    [
        ("600", 600, 600),
        ("1", 4, 6),
        ("999999999999999", 3600, 3600),
        ("-5", 4, 6),
        ("soon", 4, 6),
        ("", 4, 6),
        ("a date in 20 minutes", 1100, 1200),
        ("Tue, 01 Jan 1980 00:00:00 GMT", 4, 6),
        ("Tue, 99 Jan 2080", 4, 6),
        ("Tue, 01 Jan 99999999999999999999 00:00:00 GMT", 4, 6),
        ("Tue, 01 Jan 2080 00:00:00 +99999999999999999999", 4, 6),
    ],
)
def test_retry_after_is_honoured_within_bounds(
    world: World, app: Receiver, retry_after: str, at_least: float, at_most: float
) -> None:
    if retry_after == "a date in 20 minutes":
        retry_after = format_datetime(datetime.now(UTC) + timedelta(minutes=20), usegmt=True)
    app.status = 429
    app.headers = {"Retry-After": retry_after}
    before = world.clock()
    try_once(world, app.url)
    longest, shortest = waits_since(before, world)
    assert longest >= at_least and shortest <= at_most


# --- a hostile server


@pytest.mark.failure(28)
def test_a_redirect_is_not_followed(world: World, app: Receiver) -> None:
    with webhook_receiver() as other_server:
        app.status = 307
        app.headers = {"Location": other_server.url}
        row = try_once(world, app.url)
        assert row.last_error == "HTTP 307: redirects are not followed" and row.state == "waiting"
        assert other_server.messages == []


@pytest.mark.failure(28)
@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-Drip: "])
def test_an_app_server_that_sends_one_byte_at_a_time_times_out(
    world: World, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.shorten_timeouts(monkeypatch)
    with SlowPeer(start) as server:
        started = time.monotonic()
        row = try_once(world, server.url)
        assert time.monotonic() - started < 15  # it would send forever
        assert (row.last_error, row.last_http_status) == ("no answer within 1 s", None)


def test_only_the_status_counts_and_the_body_is_not_awaited(world: World) -> None:
    with SlowPeer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n") as server:
        # The body never ends: reading it would time out.
        assert try_once(world, server.url).state == "delivered"


@pytest.mark.parametrize("answer", [b"SSH-2.0-server\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 100_000])
def test_a_response_that_is_not_http_is_a_failure(world: World, answer: bytes) -> None:
    with SlowPeer(answer) as server:
        row = try_once(world, server.url)
        assert row.state == "waiting" and row.last_error and row.last_http_status is None


@pytest.mark.parametrize(
    "answer", [b"a\x00b\r\n", b"\x1b]0;pwned\x07\x9b2J\r\n", b"HTTP/7\x00\x1b[2J 200 OK\r\n\r\n"]
)
def test_an_invalid_response_is_stored_without_control_characters(world: World, answer: bytes) -> None:
    """PostgreSQL refuses NUL, and an operator's terminal would obey escape sequences."""
    with SlowPeer(answer) as server:
        row = try_once(world, server.url)
        assert row.tries == 1 and row.leased_until is None
        assert row.last_error.isascii() and row.last_error.isprintable()


def test_a_refused_connection_is_a_failure(world: World) -> None:
    with socket.socket() as unused:  # bound but not listening, so no other process can listen there
        unused.bind(("127.0.0.1", 0))
        row = try_once(world, f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert row.state == "waiting" and "refused" in row.last_error


def test_no_proxy_is_used(world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook_receiver() as proxy, monkeypatch.context() as patch:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            patch.setenv(name, proxy.url)
        assert try_once(world, app.url).state == "delivered"
        assert proxy.messages == [] and len(app.messages) == 1


# --- private addresses


class Names:
    """A fake name server: returns the given addresses in turn and records each look-up."""

    def __init__(self, patch: pytest.MonkeyPatch, **names: list[str]) -> None:
        self.names = names
        self.looked_up = list[str]()
        self._real = socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, port: int, *rest: Any, **named: Any) -> Any:
        name = host.partition(".")[0]
        if name not in self.names:
            return self._real(host, port, *rest, **named)
        self.looked_up.append(name)
        address = self.names[name].pop(0) if len(self.names[name]) > 1 else self.names[name][0]
        return self._real(address, port, *rest, **named)


def test_a_host_that_resolves_to_a_private_address_later_gets_nothing(
    world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Public when it is added, private when a delivery is sent (DNS rebinding)."""
    names = Names(monkeypatch, rebinds=["93.184.216.34", "127.0.0.1"])
    add_endpoint(f"https://rebinds.example:{app.port}/", allow_private=False)
    request_withdrawals(world)
    assert run_notifier() == 1
    assert (
        rows(world)[0].last_error
        == "refused: rebinds.example resolves to 127.0.0.1, which is not a public address"
    )
    assert app.messages == [] and names.looked_up == ["rebinds", "rebinds"]


def test_the_connection_goes_to_the_address_that_was_checked(
    world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look-up for the connection would return another address."""
    names = Names(monkeypatch, app=["127.0.0.1", "127.0.0.1", "127.0.0.99"])
    assert try_once(world, f"http://app.example:{app.port}/hook").state == "delivered"
    assert names.looked_up == ["app", "app"], "once when it was added, once for the send"
    assert app.messages[0].headers["host"] == f"app.example:{app.port}"


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://169.254.169.254/"]
)
def test_a_private_address_is_refused_at_once(world: World, url: str) -> None:
    with pytest.raises(endpoints.BadRequest) as error:
        add_endpoint(url, allow_private=False)
    assert error.value.code == "private_address"
    assert add_endpoint(url, allow_private=True)


def test_tls_checks_the_certificate_for_the_host_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_trust: None
) -> None:
    Names(monkeypatch, app=["127.0.0.1"], other=["127.0.0.1"])
    with https_server(tmp_path, "app.example") as (port, served):
        add_endpoint(f"https://app.example:{port}/hook")
        request_withdrawals(world)
        run_notifier()
        assert "certificate is not trusted" in rows(world)[0].last_error, "its authority is unknown"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        sockets.tls_context.cache_clear()
        world.advance(60)
        run_notifier()
        assert rows(world)[0].state == "delivered" and served == ["/hook"]
        result = http.post(f"https://other.example:{port}/", b"{}", {}, allow_private=True)
        assert result.error and "certificate is not trusted" in result.error, "it names another host"


# --- failed, and replayed


@pytest.mark.failure(28)
def test_after_a_day_a_delivery_fails_is_shown_and_can_be_replayed(world: World, app: Receiver) -> None:
    endpoint, secret = add_endpoint(app.url)
    request_withdrawals(world, 3)
    app.status = 500
    run_until_done(world)
    assert {(row.state, row.last_error) for row in rows(world)} == {("failed", "HTTP 500")}
    [record] = records()
    assert (record.kind, record.subject) == ("webhooks_out", str(endpoint.id))
    assert record.ours["url"] == app.url and record.theirs == {"error": "HTTP 500", "http_status": 500}
    with transaction() as session:
        assert deliveries.replay_failed(session, endpoint) == 3
        assert deliveries.replay_failed(session, endpoint) == 0
    app.status = 204
    before = {message.id for message in app.messages}
    app.messages.clear()
    run_until_done(world)
    assert {message.id for message in app.messages} == before, "with the same ids"
    assert len(app.verified(secret)) == 3
    assert records() == [], "closed automatically"


def test_a_delivered_webhook_can_be_replayed(world: World, app: Receiver) -> None:
    add_endpoint(app.url)
    request_withdrawals(world)
    run_notifier()
    delivery_id = rows(world)[0].id
    with transaction() as session:
        deliveries.replay(session, [delivery_id])
    run_notifier()
    assert [message.id for message in app.messages] == [str(delivery_id)] * 2


def test_old_deliveries_are_deleted_and_never_created_again(world: World, app: Receiver) -> None:
    add_endpoint(app.url)
    request_withdrawals(world, 2)
    run_notifier()
    world.sql(
        "UPDATE deliveries SET created_at = created_at - interval '8 days', delivered_at = now() - interval '8 days'"
    )
    assert deliveries.delete_old() == 0, "the cursor has not passed them"
    fan_out.create_deliveries()
    assert deliveries.delete_old() == 2
    assert fan_out.create_deliveries() == 0 and rows(world) == []


def test_failed_deliveries_are_kept_for_three_months(world: World, app: Receiver) -> None:
    add_endpoint(app.url)
    request_withdrawals(world)
    app.status = 500
    run_until_done(world)
    fan_out.create_deliveries()
    for days, deleted in ((30, 0), (61, 1)):
        world.sql(
            "UPDATE deliveries SET created_at = created_at - make_interval(days => :d), began_at = began_at - make_interval(days => :d)",
            d=days,
        )
        assert deliveries.delete_old() == deleted


# --- secrets


def test_after_a_rotation_both_secrets_sign_for_a_day_and_then_only_the_new_one(
    world: World, app: Receiver
) -> None:
    endpoint, old = add_endpoint(app.url)
    with transaction() as session:
        _, new = endpoints.rotate(session, str(endpoint.id), actor="operator:asha", grace_hours=24)
    request_withdrawals(world)
    run_notifier()
    assert app.verified(old) == app.verified(new) and old != new
    assert len(app.messages[0].headers["webhook-signature"].split(" ")) == 2
    world.sql("UPDATE endpoints SET previous_until = now()")
    world.credit(reference="more")
    world.request(coins=100)
    run_notifier()
    last = app.messages[-1]
    assert last.verified(new)
    with pytest.raises(WebhookVerificationError):
        last.verified(old)


def test_without_the_signing_key_nothing_is_sent_and_no_attempt_is_counted(
    world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, _ = add_endpoint(app.url)
    request_withdrawals(world)
    fan_out.create_deliveries()
    monkeypatch.delenv("WEBHOOK_SIGNING_KEY")
    world.forget_settings()
    with pytest.raises(SettingsError):
        dispatcher.take_turn(f"{endpoint.id}#0")
    assert (rows(world)[0].tries, rows(world)[0].state) == (0, "waiting") and app.messages == []


# --- dead workers and expired leases


def claim_one(endpoint: Endpoint) -> send.LeasedDelivery:
    leased = send.claim(endpoint.id)
    assert leased is not None
    return leased


def end_lease(world: World) -> None:
    world.advance(settings().notify_answer_seconds + outbox.LEASE_SPARE_SECONDS + 1)


def test_a_delivery_of_a_dead_worker_is_sent_after_its_lease(world: World, app: Receiver) -> None:
    endpoint, _ = add_endpoint(app.url)
    request_withdrawals(world)
    fan_out.create_deliveries()
    first = claim_one(endpoint)
    assert send.claim(endpoint.id) is None
    end_lease(world)
    assert claim_one(endpoint).id == first.id


def test_a_failure_after_the_lease_does_not_count(world: World, app: Receiver) -> None:
    endpoint, _ = add_endpoint(app.url)
    request_withdrawals(world)
    fan_out.create_deliveries()
    expired = claim_one(endpoint)
    end_lease(world)
    second = claim_one(endpoint)
    send.record(expired, SendResult("HTTP 500", 500))
    assert rows(world)[0].leased_until is not None, "the second lease still holds"
    send.record(second, SendResult(None, 200))
    send.record(expired, SendResult("HTTP 500", 500))
    assert rows(world)[0].state == "delivered"


def test_a_success_after_the_lease_still_counts(world: World, app: Receiver) -> None:
    endpoint, _ = add_endpoint(app.url)
    request_withdrawals(world)
    fan_out.create_deliveries()
    expired = claim_one(endpoint)
    end_lease(world)
    second = claim_one(endpoint)
    send.record(expired, SendResult(None, 200))
    send.record(second, SendResult("HTTP 500", 500))
    assert rows(world)[0].state == "delivered"


def test_an_endpoint_has_four_slots_and_a_failing_one_has_one(world: World, app: Receiver) -> None:
    endpoint, _ = add_endpoint(app.url)
    request_withdrawals(world, 8)
    fan_out.create_deliveries()
    assert dispatcher.count_due() == {endpoint.id: 4}
    leases = [claim_one(endpoint) for _ in range(4)]
    assert send.claim(endpoint.id) is None
    for leased in leases:
        send.record(leased, SendResult("HTTP 500", 500))
    probe = claim_one(endpoint)
    assert send.claim(endpoint.id) is None, "one probes whether it works again"
    send.record(probe, SendResult(None, 200))
    assert claim_one(endpoint) and claim_one(endpoint), "then the others follow"


def test_after_an_outage_all_waiting_deliveries_are_due_at_once(world: World, app: Receiver) -> None:
    add_endpoint(app.url)
    request_withdrawals(world, 3)
    app.status = 500
    for _ in range(12):
        run_notifier()
        world.advance(600)
    app.status = 204
    app.messages.clear()
    world.sql("UPDATE endpoints SET failing_since = now() - interval '2 hours'")
    world.sql("UPDATE deliveries SET due_at = now() + interval '2 hours'")
    world.sql("UPDATE deliveries SET due_at = now() WHERE event_id = 1")
    assert run_notifier() == 3 and len(app.messages) == 3


def test_a_refused_delivery_keeps_its_backoff_when_others_succeed(world: World, app: Receiver) -> None:
    endpoint, _ = add_endpoint(app.url)
    request_withdrawals(world, 3)
    fan_out.create_deliveries()
    send.record(claim_one(endpoint), SendResult("HTTP 422", 422))
    run_notifier()
    assert [row.state for row in rows(world)] == ["waiting", "delivered", "delivered"]
    assert run_notifier() == 0, "it keeps its own backoff"


def test_an_endpoint_removed_during_a_delivery_gets_no_more(world: World, app: Receiver) -> None:
    endpoint, _ = add_endpoint(app.url)
    request_withdrawals(world, 2)
    fan_out.create_deliveries()
    leased = claim_one(endpoint)
    with transaction() as session:
        endpoints.remove(session, app.url, actor="operator:asha")
    send.record(leased, SendResult("HTTP 500", 500))
    assert send.claim(endpoint.id) is None and dispatcher.count_due() == {}
    assert {(row.state, row.last_error) for row in rows(world)} == {("failed", "the endpoint was removed")}
    assert records() == []


def test_without_a_broker_notifying_workers_does_no_harm(
    world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_endpoint(app.url)
    request_withdrawals(world)
    fan_out.create_deliveries()
    world.point_broker_at_nothing(monkeypatch)
    assert dispatcher.nudge_due() == 0
