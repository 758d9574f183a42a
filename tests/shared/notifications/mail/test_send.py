"""Sending mail: encrypted, bounded in time, retried for a day, and shown when it fails."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import main
from sandbox.services import free_port
from shared.db.transactions import transaction
from shared.models import ExceptionRecord
from shared.net import sockets
from shared.notifications.mail import dispatcher, fan_out, mails, send, texts
from shared.notifications.mail.smtp import Fault, SendResult
from shared.people import exception_records
from tests.support.mail_steps import (
    add_user,
    cancel_withdrawal,
    open_exception,
    rows,
    run_mailer,
    run_until_done,
    turn_on,
)
from tests.support.mailbox import MailServer, mail_server
from tests.support.slow_peer import SlowPeer
from tests.support.world import World

ASHA = "asha@example.com"
RAVI = "ravi@example.com"
DAY_SECONDS = 86_400


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port)
        add_user(world)
        yield server


def records() -> list[ExceptionRecord]:
    with transaction() as session:
        return exception_records.listing(session)


def errors(world: World) -> set[str]:
    return {row.last_error for row in rows(world)}


# --- the connection


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A directory for the server's certificate, whose authority is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    sockets.tls_context.cache_clear()
    yield tmp_path
    sockets.tls_context.cache_clear()


TLS = [("starttls", {"starttls": True}), ("implicit", {"implicit": True})]


@pytest.mark.parametrize(("mode", "options"), TLS)
def test_mail_is_sent_encrypted_and_authenticated(
    world: World, monkeypatch: pytest.MonkeyPatch, trusted: Path, mode: str, options: dict[str, bool]
) -> None:
    with mail_server(directory=trusted, user="payouts", **options) as server:
        settings = {"SMTP_HOST": "localhost", "SMTP_USER": "payouts", "SMTP_PASSWORD": server.password}
        turn_on(world, monkeypatch, server.port, SMTP_TLS=mode, **settings)
        add_user(world)
        cancel_withdrawal(world)
        assert run_mailer() == 1
        assert errors(world) == {None}
        assert [letter.was_encrypted for letter in server.letters] == [True]


@pytest.mark.parametrize(("mode", "options"), TLS)
def test_an_untrusted_certificate_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, options: dict[str, bool]
) -> None:
    with mail_server(directory=tmp_path, **options) as server:
        turn_on(world, monkeypatch, server.port, SMTP_HOST="localhost", SMTP_TLS=mode)
        add_user(world)
        cancel_withdrawal(world)
        run_mailer()
        [row] = rows(world)
        assert row.state == "waiting" and row.last_error.startswith("its certificate is not trusted")
        assert server.letters == []


def test_a_certificate_for_another_host_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, trusted: Path
) -> None:
    with mail_server(directory=trusted, implicit=True) as server:
        turn_on(world, monkeypatch, server.port, SMTP_HOST="127.0.0.1", SMTP_TLS="implicit")
        add_user(world)
        cancel_withdrawal(world)
        run_mailer()
        assert "127.0.0.1" in str(errors(world)) and server.letters == []


def test_a_server_that_cannot_encrypt_gets_no_mail_and_no_password(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mail_server(user="payouts") as server:
        settings = {"SMTP_USER": "payouts", "SMTP_PASSWORD": "sesam", "SMTP_TLS": "starttls"}
        turn_on(world, monkeypatch, server.port, **settings)
        add_user(world)
        cancel_withdrawal(world)
        run_mailer()
        assert "STARTTLS" in str(errors(world)) and server.letters == []
        assert server.signed_in == 0, "no password in clear text"


def test_a_wrong_password_counts_as_a_server_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server(user="payouts") as server:
        turn_on(world, monkeypatch, server.port, SMTP_USER="payouts", SMTP_PASSWORD="wrong")
        add_user(world)
        cancel_withdrawal(world)
        assert run_mailer() == 1
        [row] = rows(world)
        assert row.last_error.startswith("535") and row.server_failed_at is not None
        assert run_mailer() == 0, "one guess a second would lock the account"


@pytest.mark.parametrize("start", [b"", b"220-", b"220 hello\r\n250-"])
def test_a_mail_server_that_sends_one_byte_at_a_time_times_out(
    world: World, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    with SlowPeer(start) as slow:
        turn_on(world, monkeypatch, int(slow.url.rpartition(":")[2]))
        world.shorten_timeouts(monkeypatch)
        add_user(world)
        cancel_withdrawal(world)
        started = time.monotonic()
        run_mailer()
        assert time.monotonic() - started < 15  # it would send forever
        assert errors(world) == {"no answer within 1 s"}


def test_a_mail_server_that_takes_too_long_times_out(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.shorten_timeouts(monkeypatch)
    cancel_withdrawal(world)
    server.hold.clear()
    run_mailer()  # without a limit it would wait until the test ends
    [row] = rows(world)
    assert (row.state, row.last_error) == ("waiting", "no answer within 1 s")


# --- the server's reply


@pytest.mark.parametrize(
    ("command", "answer", "fault"),
    [
        ("rcpt", "550 5.1.1 no such user", Fault.PERMANENT),
        ("rcpt", "553 what is this", Fault.PERMANENT),
        ("rcpt", "550 5.7.1 relaying denied", Fault.TEMPORARY),
        ("rcpt", "552 5.2.2 mailbox full", Fault.TEMPORARY),
        ("rcpt", "450 4.2.1 greylisted", Fault.TEMPORARY),
        ("rcpt", "421 4.3.2 going down", Fault.SERVER),
        ("data", "554 5.6.0 we do not like it", Fault.PERMANENT),
        ("data", "554 5.7.1 it looks like spam", Fault.TEMPORARY),
        ("data", "451 4.3.0 disk full", Fault.TEMPORARY),
        ("mail", "550 5.1.8 who are you", Fault.SERVER),
        ("mail", "451 later", Fault.SERVER),
        ("ehlo", "554 no", Fault.SERVER),
    ],
)
def test_the_servers_reply_decides_whether_a_mail_is_retried(
    world: World, server: MailServer, command: str, answer: str, fault: Fault
) -> None:
    cancel_withdrawal(world)
    server.answers[command] = answer
    assert run_mailer() == 1
    [row] = rows(world)
    expected = {"never": ("failed", False), "later": ("waiting", False), "server": ("waiting", True)}
    assert (row.state, row.server_failed_at is not None) == expected[fault]
    assert row.last_error.startswith(answer[:3]) and server.letters == []
    server.answers.clear()
    world.advance(3600)
    run_mailer()
    assert len(server.letters) == (0 if fault is Fault.PERMANENT else 1)


def test_an_address_that_the_server_repeats_is_stored_and_logged_masked(
    world: World, server: MailServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cancel_withdrawal(world)
    server.answers["rcpt"] = f"550 5.1.1 <{ASHA}>: no such user"
    run_mailer()
    assert errors(world) == {"550 5.1.1 <as…@example.com>: no such user"}
    assert "not sent" in (logged := capsys.readouterr().out) and ASHA not in logged


def test_a_refused_recipient_does_not_delay_others(world: World, server: MailServer) -> None:
    add_user(world, RAVI, user_id="ravi")
    server.answers["rcpt"] = "550 5.1.1 no such user"
    server.refused = {ASHA}
    for user_id in ("user123", "ravi", "user123", "ravi"):
        cancel_withdrawal(world, user_id=user_id)
    assert run_mailer() == 4
    assert len(server.to(RAVI)) == 2 and server.connections == 1
    assert records() == [], "a user's wrong address is not an operator's problem"


def test_an_address_that_the_server_does_not_support_fails_for_good(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mail_server(unicode=False) as server:
        turn_on(world, monkeypatch, server.port)
        add_user(world, "आशा@example.com")
        cancel_withdrawal(world)
        run_mailer()
        [row] = rows(world)
        assert row.state == "failed" and "does not support the characters" in row.last_error


# --- the server is down


def test_a_server_that_was_down_gets_all_mail_when_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    turn_on(world, monkeypatch, port)
    add_user(world)
    for _ in range(5):
        cancel_withdrawal(world)
    attempts = [run_mailer() for _ in range(3)]
    world.advance(31)
    attempts += [run_mailer() for _ in range(3)]
    assert attempts == [1, 0, 0, 1, 0, 0], "one attempt for all mail"
    with mail_server(port) as server:
        world.advance(31)
        assert run_mailer() >= 5
        run_mailer()
        assert len(server.letters) == 5 == len({letter.id for letter in server.letters})


def test_a_failing_server_gets_one_mail_at_a_time_and_a_working_one_two(
    world: World, server: MailServer
) -> None:
    for _ in range(4):
        cancel_withdrawal(world)
    fan_out.create_mails()
    assert [send.claim() is not None for _ in range(3)] == [True, True, False]
    world.advance(DAY_SECONDS / 2)
    first = send.claim()
    assert first is not None
    send.record(first, SendResult("no connection", Fault.SERVER))
    world.advance(31)
    assert [send.claim() is not None for _ in range(2)] == [True, False]


def test_a_lost_confirmation_sends_the_mail_twice_under_one_id(world: World, server: MailServer) -> None:
    cancel_withdrawal(world)
    server.answers["after"] = "gone"
    run_mailer()
    assert [row.state for row in rows(world)] == ["waiting"] and len(server.letters) == 1
    server.answers.clear()
    world.advance(10)
    run_mailer()
    first, second = server.letters
    assert first.id == second.id and first.message.as_bytes() == second.message.as_bytes()
    assert [row.state for row in rows(world)] == ["sent"]


def test_a_server_that_never_confirms_gets_a_mail_twice_at_most(world: World, server: MailServer) -> None:
    cancel_withdrawal(world)
    server.answers["after"] = "gone"
    for _ in range(5):
        run_mailer()
        world.advance(7200)
    assert len(server.letters) == 2
    [row] = rows(world)
    assert (row.state, row.tries, row.unsure) == ("failed", 2, 1) and "Connection" in row.last_error


def test_a_late_result_of_an_expired_lease_changes_nothing(world: World, server: MailServer) -> None:
    cancel_withdrawal(world)
    fan_out.create_mails()
    slow = send.claim()
    world.advance(DAY_SECONDS / 2)
    quick = send.claim()
    assert slow and quick and slow.id == quick.id
    send.record(quick, SendResult(None))
    for result in (
        SendResult("x", Fault.TEMPORARY),
        SendResult("x", Fault.PERMANENT),
        SendResult("x", Fault.SERVER),
        SendResult(None),
    ):
        send.record(slow, result)
    assert [row.state for row in rows(world)] == ["sent"]


def test_mail_is_given_up_after_a_day_and_shown_without_another_mail(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_EMAILS", RAVI)
    world.forget_settings()
    run_mailer()
    cancel_withdrawal(world)
    server.answers["rcpt"] = "450 4.2.1 greylisted"
    attempts = run_mailer()
    while rows(world)[0].state == "waiting":
        attempts += run_mailer()
        world.advance(3600)
        mails.give_up_expired()
    # Six attempts in the first hours, then one about every two hours: run hourly, with the jitter, 2 or 3 hours apart.
    assert rows(world)[0].last_error == "450 4.2.1 greylisted" and 12 <= attempts <= 16
    [record] = records()
    assert (record.kind, record.subject, record.ours["given_up"]) == ("mail", "smtp", 1)
    server.answers.clear()
    world.advance(3600)
    run_until_done(world)
    assert server.letters == [], "given up, and records about mail are not mailed"
    cancel_withdrawal(world)
    run_mailer()
    assert records() == [], "mail works again"


def test_mail_without_an_attempt_is_given_up_too(world: World, server: MailServer) -> None:
    cancel_withdrawal(world)
    fan_out.create_mails()
    send.claim()  # the worker dies
    assert mails.give_up_expired() == 0
    world.advance(DAY_SECONDS + 1)
    assert mails.give_up_expired() == 1
    assert [(row.state, row.last_error) for row in rows(world)] == [
        ("failed", "no attempt could be made in time")
    ]


def test_a_refused_operator_address_opens_a_record(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_EMAILS", f"{ASHA},{RAVI}")
    world.forget_settings()
    run_mailer()
    server.answers["rcpt"] = "550 5.1.1 no such user"
    server.refused = {RAVI}
    open_exception()
    run_until_done(world)
    kinds = {(record.kind, record.subject) for record in records()}
    assert kinds == {("amount_differs", "one"), ("mail", RAVI)}
    assert len(server.letters) == 1, "and no mail about it"


def test_mail_that_cannot_be_composed_is_retried(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel_withdrawal(world)
    with monkeypatch.context() as broken:
        broken.setattr(texts, "_render", lambda *_: 1 / 0)
        run_mailer()
    assert errors(world) == {"could not be composed: ZeroDivisionError"}
    world.advance(10)
    run_mailer()
    assert len(server.letters) == 1


def test_no_transaction_is_open_while_the_server_is_contacted(world: World, server: MailServer) -> None:
    cancel_withdrawal(world)
    server.hold.clear()
    open_transactions = "SELECT FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
    with ThreadPoolExecutor(1) as thread:
        attempt = thread.submit(run_mailer)
        while not server.under_way:
            time.sleep(0.01)
        assert world.sql(open_transactions) == []
        server.hold.set()
        assert attempt.result() == 1


def test_mail_is_sent_without_a_broker(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel_withdrawal(world)
    fan_out.create_mails()
    world.point_broker_at_nothing(monkeypatch)
    assert dispatcher.nudge_due() == 0
    assert dispatcher.take_turn("mail#0") == 1


def test_a_test_mail_shows_the_reply_of_the_server(world: World, server: MailServer) -> None:
    done = CliRunner().invoke(main, ["mail", "test", RAVI])
    assert done.exit_code == 0 and "accepted the mail" in done.output, done.output
    server.answers["rcpt"] = "550 5.1.1 no such user"
    done = CliRunner().invoke(main, ["mail", "test", RAVI])
    assert done.exit_code == 1 and "550 5.1.1 no such user" in done.output
    done = CliRunner().invoke(main, ["mail", "test", "nobody"])
    assert done.exit_code == 1 and "not an email address" in done.output
