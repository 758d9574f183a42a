"""Deliveries: signed, tried again for a day, then shown; never to where they must not go."""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from shared import db, exception_records
from shared.errors import SettingsError
from shared.models import Endpoint, ExceptionRecord
from shared.notifications import delivering, endpoints, following, keeping, lines, turns, wire
from shared.notifications.wire import Told
from shared.settings import settings
from tests.certificates import tls
from tests.drip import Dripping
from tests.integration.telling import listen, rows, tell, tell_all
from tests.receiver import Receiver, receiving
from tests.world import World

DAY = 86_400


@pytest.fixture
def app():  # type: ignore[no-untyped-def]
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def own_trust() -> Iterator[None]:
    """Whom the test trusts, no other does, also where it fails."""
    yield
    lines.trust.cache_clear()


def asked(world: World, number: int = 1) -> None:
    """So many withdrawals are asked for, which is one change each."""
    world.credit(coins=100 * number)
    for _ in range(number):
        world.request(coins=100)


def seconds_left(world: World) -> float:
    """Until the one delivery is due again."""
    [row] = world.sql("SELECT extract(epoch FROM due_at - now())::float8 AS seconds FROM deliveries")
    return float(row.seconds)


def waits_since(before: datetime, world: World) -> tuple[float, float]:
    """The longest and the shortest that the one delivery's wait can be, if it began after `before`.

    It began somewhere between that and now, and they may be far apart on a busy machine.
    """
    [row] = world.sql("SELECT due_at, clock_timestamp() AS after FROM deliveries")
    return (row.due_at - before).total_seconds(), (row.due_at - row.after).total_seconds()


def records() -> list[ExceptionRecord]:
    with db.transaction() as session:
        return exception_records.listing(session)


def try_once(world: World, url: str) -> Any:
    """The one delivery after one try to this URL."""
    listen(url)
    asked(world)
    assert tell() == 1
    return rows(world)[0]


# --- delivered


def test_each_change_arrives_and_can_be_verified(world: World, app: Receiver) -> None:
    _, secret = listen(app.url)
    world.paid()
    tell()
    told = app.told(secret)
    assert [body["type"].partition(".")[2] for body in told] == ["pending", "processing", "completed"]
    made = rows(world)
    assert [message.body.decode() for message in app.messages] == [row.body for row in made]
    assert [message.id for message in app.messages] == [str(row.id) for row in made]
    assert {(row.state, row.tries, row.last_http_status, row.last_error) for row in made} == {
        ("delivered", 1, 204, None)
    }
    headers = app.messages[0].headers
    assert headers["content-type"] == "application/json" and headers["host"] == f"127.0.0.1:{app.port}"
    assert "cookie" not in headers and "authorization" not in headers


def test_another_secret_or_another_body_does_not_verify(world: World, app: Receiver) -> None:
    _, secret = listen(app.url)
    _, another = listen(app.url + "/another")
    assert secret != another
    asked(world)
    tell()
    mine = next(message for message in app.messages if message.path == "/hook")
    assert mine.verified(secret)
    with pytest.raises(WebhookVerificationError):
        mine.verified(another)


@pytest.mark.failure(28)
def test_what_failed_comes_again_with_the_same_id_and_body(world: World, app: Receiver) -> None:
    _, secret = listen(app.url)
    asked(world)
    for app.status in (500, 404, 410, 204):
        assert tell() == 1
        world.advance(DAY / 10)
    assert tell() == 0
    assert len({(message.id, message.body) for message in app.messages}) == 1
    assert len(app.told(secret)) == 4
    assert (rows(world)[0].state, rows(world)[0].tries) == ("delivered", 4)


@pytest.mark.failure(28)
def test_the_waits_grow_and_the_last_try_is_after_a_day(world: World, app: Receiver) -> None:
    listen(app.url)
    asked(world)
    app.status = 503
    waits, waited = [], 0.0
    while True:
        before = world.clock()
        if not tell() or rows(world)[0].state == "failed":
            break
        waits.append(waits_since(before, world))
        left = seconds_left(world)
        waited += left
        world.advance(left)
    expected = [5, 30, 120, 600, 1800, 3600, 7200, 7200]
    for (longest, shortest), usual in zip(waits, expected, strict=False):
        assert longest >= 0.8 * usual and shortest <= 1.2 * usual
    assert 0.99 * DAY < waited < 1.01 * DAY
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
def test_patience_that_is_asked_for_is_had_within_reason(
    world: World, app: Receiver, retry_after: str, at_least: float, at_most: float
) -> None:
    if retry_after == "a date in 20 minutes":
        retry_after = format_datetime(datetime.now(UTC) + timedelta(minutes=20), usegmt=True)
    app.status, app.headers = 429, {"Retry-After": retry_after}
    before = world.clock()
    try_once(world, app.url)
    longest, shortest = waits_since(before, world)
    assert longest >= at_least and shortest <= at_most


# --- what a server may do to us


@pytest.mark.failure(28)
def test_a_redirect_is_not_followed(world: World, app: Receiver) -> None:
    with receiving() as elsewhere:
        app.status, app.headers = 307, {"Location": elsewhere.url}
        row = try_once(world, app.url)
        assert row.last_error == "HTTP 307: redirects are not followed" and row.state == "waiting"
        assert elsewhere.messages == []


@pytest.mark.failure(28)
@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-Drip: "])
def test_a_server_that_drips_is_hung_up_on(
    world: World, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.impatient(monkeypatch)
    with Dripping(start) as server:
        begun = time.monotonic()
        row = try_once(world, server.url)
        assert time.monotonic() - begun < 15  # it would drip for ever
        assert (row.last_error, row.last_http_status) == ("no answer within 1 s", None)


def test_only_the_status_counts_and_no_body_is_waited_for(world: World) -> None:
    with Dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n") as server:
        # The body would drip for ever: whoever waited for it would have had no answer in time.
        assert try_once(world, server.url).state == "delivered"


@pytest.mark.parametrize("answer", [b"SSH-2.0-server\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 100_000])
def test_what_is_no_http_is_a_failure(world: World, answer: bytes) -> None:
    with Dripping(answer) as server:
        row = try_once(world, server.url)
        assert row.state == "waiting" and row.last_error and row.last_http_status is None


@pytest.mark.parametrize(
    "answer", [b"a\x00b\r\n", b"\x1b]0;pwned\x07\x9b2J\r\n", b"HTTP/7\x00\x1b[2J 200 OK\r\n\r\n"]
)
def test_what_a_server_says_instead_of_http_is_shown_harmlessly(world: World, answer: bytes) -> None:
    """No text of a database has NUL in it, and no operator's terminal obeys a stranger."""
    with Dripping(answer) as server:
        row = try_once(world, server.url)
        assert row.tries == 1 and row.leased_until is None
        assert row.last_error.isascii() and row.last_error.isprintable()


def test_nobody_listens(world: World) -> None:
    with socket.socket() as nobody:  # bound, so that nobody else can listen there either
        nobody.bind(("127.0.0.1", 0))
        row = try_once(world, f"http://127.0.0.1:{nobody.getsockname()[1]}/")
    assert row.state == "waiting" and "refused" in row.last_error


def test_no_proxy_is_asked(world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, monkeypatch.context() as patch:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            patch.setenv(name, proxy.url)
        assert try_once(world, app.url).state == "delivered"
        assert proxy.messages == [] and len(app.messages) == 1


# --- where it must not go


class Names:
    """A name server of our own: says what it is told to say, and keeps count."""

    def __init__(self, patch: pytest.MonkeyPatch, **names: list[str]) -> None:
        self.names, self.asked = names, list[str]()
        self._real = socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, port: int, *rest: Any, **named: Any) -> Any:
        name = host.partition(".")[0]
        if name not in self.names:
            return self._real(host, port, *rest, **named)
        self.asked.append(name)
        address = self.names[name].pop(0) if len(self.names[name]) > 1 else self.names[name][0]
        return self._real(address, port, *rest, **named)


def test_a_name_that_leads_inside_at_the_second_look_gets_nothing(
    world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is public when it is added, and ours when it is sent to (DNS rebinding)."""
    names = Names(monkeypatch, rebinds=["93.184.216.34", "127.0.0.1"])
    listen(f"https://rebinds.example:{app.port}/", allow_private=False)
    asked(world)
    assert tell() == 1
    assert (
        rows(world)[0].last_error
        == "refused: rebinds.example leads to 127.0.0.1, which is not a public address"
    )
    assert app.messages == [] and names.asked == ["rebinds", "rebinds"]


def test_the_connection_goes_to_the_address_that_was_looked_at(
    world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look-up for the connection would lead elsewhere."""
    names = Names(monkeypatch, app=["127.0.0.1", "127.0.0.1", "127.0.0.99"])
    assert try_once(world, f"http://app.example:{app.port}/hook").state == "delivered"
    assert names.asked == ["app", "app"], "once when it was added, once for the send"
    assert app.messages[0].headers["host"] == f"app.example:{app.port}"


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://169.254.169.254/"]
)
def test_a_private_address_is_refused_at_once(world: World, url: str) -> None:
    with pytest.raises(endpoints.BadRequest) as error:
        listen(url, allow_private=False)
    assert error.value.code == "private_address"
    assert listen(url, allow_private=True)


def test_tls_goes_to_the_address_under_the_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_trust: None
) -> None:
    Names(monkeypatch, app=["127.0.0.1"], other=["127.0.0.1"])
    with tls(tmp_path, "app.example") as (port, served):
        listen(f"https://app.example:{port}/hook")
        asked(world)
        tell()
        assert "certificate does not count" in rows(world)[0].last_error, "nobody vouches for it"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        lines.trust.cache_clear()
        world.advance(60)
        tell()
        assert rows(world)[0].state == "delivered" and served == ["/hook"]
        told = wire.post(f"https://other.example:{port}/", b"{}", {}, allow_private=True)
        assert told.error and "certificate does not count" in told.error, "it is another's"


# --- given up, and told again


@pytest.mark.failure(28)
def test_after_a_day_it_is_given_up_shown_and_can_be_told_again(world: World, app: Receiver) -> None:
    endpoint, secret = listen(app.url)
    asked(world, 3)
    app.status = 500
    tell_all(world)
    assert {(row.state, row.last_error) for row in rows(world)} == {("failed", "HTTP 500")}
    [record] = records()
    assert (record.kind, record.subject) == ("webhooks_out", str(endpoint.id))
    assert record.ours["url"] == app.url and record.theirs == {"error": "HTTP 500", "http_status": 500}
    with db.transaction() as session:
        assert keeping.replay_failed(session, endpoint) == 3
        assert keeping.replay_failed(session, endpoint) == 0
    app.status, before = 204, {message.id for message in app.messages}
    app.messages.clear()
    tell_all(world)
    assert {message.id for message in app.messages} == before, "under their old ids"
    assert len(app.told(secret)) == 3
    assert records() == [], "closed by itself"


def test_one_that_arrived_can_be_told_again(world: World, app: Receiver) -> None:
    listen(app.url)
    asked(world)
    tell()
    delivery_id = rows(world)[0].id
    with db.transaction() as session:
        keeping.replay(session, [delivery_id])
    tell()
    assert [message.id for message in app.messages] == [str(delivery_id)] * 2


def test_old_ones_are_forgotten_and_never_told_anew(world: World, app: Receiver) -> None:
    listen(app.url)
    asked(world, 2)
    tell()
    app.status = 500
    asked_again = world.request(coins=100) if world.balance() >= 100 else None
    assert asked_again is None
    world.sql(
        "UPDATE deliveries SET created_at = created_at - interval '8 days', delivered_at = now() - interval '8 days'"
    )
    assert keeping.forget_old() == 0, "the follower may still look for them"
    following.follow()
    assert keeping.forget_old() == 2
    assert following.follow() == 0 and rows(world) == []


def test_failed_ones_are_kept_for_three_months(world: World, app: Receiver) -> None:
    listen(app.url)
    asked(world)
    app.status = 500
    tell_all(world)
    following.follow()
    for days, gone in ((30, 0), (61, 1)):
        world.sql(
            "UPDATE deliveries SET created_at = created_at - make_interval(days => :d), began_at = began_at - make_interval(days => :d)",
            d=days,
        )
        assert keeping.forget_old() == gone


# --- secrets


def test_for_a_day_both_secrets_sign_and_then_the_new_one_alone(world: World, app: Receiver) -> None:
    endpoint, old = listen(app.url)
    with db.transaction() as session:
        _, new = endpoints.rotate(session, str(endpoint.id), actor="operator:asha", grace_hours=24)
    asked(world)
    tell()
    assert app.told(old) == app.told(new) and old != new
    assert len(app.messages[0].headers["webhook-signature"].split(" ")) == 2
    world.sql("UPDATE endpoints SET previous_until = now()")
    world.credit(reference="more")
    world.request(coins=100)
    tell()
    last = app.messages[-1]
    assert last.verified(new)
    with pytest.raises(WebhookVerificationError):
        last.verified(old)


def test_without_the_key_nothing_is_sent_and_no_try_is_lost(
    world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, _ = listen(app.url)
    asked(world)
    following.follow()
    monkeypatch.delenv("WEBHOOK_SIGNING_KEY")
    world.forget_settings()
    with pytest.raises(SettingsError):
        turns.take_turn(f"{endpoint.id}#0")
    assert (rows(world)[0].tries, rows(world)[0].state) == (0, "waiting") and app.messages == []


# --- whoever dies, sleeps or comes second


def claimed(endpoint: Endpoint) -> delivering.Try:
    now = delivering.claim(endpoint.id)
    assert now is not None
    return now


def lease_ends(world: World) -> None:
    world.advance(settings().notify_answer_seconds + delivering.LEASE_SPARE_SECONDS + 1)


def test_what_a_dead_worker_held_is_sent_after_its_lease(world: World, app: Receiver) -> None:
    endpoint, _ = listen(app.url)
    asked(world)
    following.follow()
    first = claimed(endpoint)
    assert delivering.claim(endpoint.id) is None
    lease_ends(world)
    assert claimed(endpoint).id == first.id


def test_who_slept_over_the_lease_cannot_undo_what_another_did(world: World, app: Receiver) -> None:
    endpoint, _ = listen(app.url)
    asked(world)
    following.follow()
    sleeper = claimed(endpoint)
    lease_ends(world)
    second = claimed(endpoint)
    delivering.record(sleeper, Told("HTTP 500", 500))
    assert rows(world)[0].leased_until is not None, "the second has it still"
    delivering.record(second, Told(None, 200))
    delivering.record(sleeper, Told("HTTP 500", 500))
    assert rows(world)[0].state == "delivered"


def test_what_a_sleeper_delivered_is_delivered(world: World, app: Receiver) -> None:
    endpoint, _ = listen(app.url)
    asked(world)
    following.follow()
    sleeper = claimed(endpoint)
    lease_ends(world)
    second = claimed(endpoint)
    delivering.record(sleeper, Told(None, 200))
    delivering.record(second, Told("HTTP 500", 500))
    assert rows(world)[0].state == "delivered"


def test_an_endpoint_has_so_many_places_and_one_that_fails_has_one(world: World, app: Receiver) -> None:
    endpoint, _ = listen(app.url)
    asked(world, 8)
    following.follow()
    assert turns.due() == {endpoint.id: 4}
    taken = [claimed(endpoint) for _ in range(4)]
    assert delivering.claim(endpoint.id) is None
    for now in taken:
        delivering.record(now, Told("HTTP 500", 500))
    probe = claimed(endpoint)
    assert delivering.claim(endpoint.id) is None, "one finds out whether it works again"
    delivering.record(probe, Told(None, 200))
    assert claimed(endpoint) and claimed(endpoint), "and then the others go"


def test_a_server_that_was_away_is_told_at_once_what_waits(world: World, app: Receiver) -> None:
    listen(app.url)
    asked(world, 3)
    app.status = 500
    for _ in range(12):
        tell()
        world.advance(600)
    app.status = 204
    app.messages.clear()
    world.sql("UPDATE endpoints SET failing_since = now() - interval '2 hours'")
    world.sql("UPDATE deliveries SET due_at = now() + interval '2 hours'")
    world.sql("UPDATE deliveries SET due_at = now() WHERE event_id = 1")
    assert tell() == 3 and len(app.messages) == 3


def test_one_message_that_is_refused_does_not_come_whenever_another_is_taken(
    world: World, app: Receiver
) -> None:
    endpoint, _ = listen(app.url)
    asked(world, 3)
    following.follow()
    delivering.record(claimed(endpoint), Told("HTTP 422", 422))
    tell()
    assert [row.state for row in rows(world)] == ["waiting", "delivered", "delivered"]
    assert tell() == 0, "it has its own wait"


def test_removed_while_one_is_under_way(world: World, app: Receiver) -> None:
    endpoint, _ = listen(app.url)
    asked(world, 2)
    following.follow()
    now = claimed(endpoint)
    with db.transaction() as session:
        endpoints.remove(session, app.url, actor="operator:asha")
    delivering.record(now, Told("HTTP 500", 500))
    assert delivering.claim(endpoint.id) is None and turns.due() == {}
    assert {(row.state, row.last_error) for row in rows(world)} == {("failed", "the endpoint was removed")}
    assert records() == []


def test_the_broker_is_away_and_nothing_breaks(
    world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen(app.url)
    asked(world)
    following.follow()
    world.point_broker_at_nothing(monkeypatch)
    assert turns.nudge_due() == 0
