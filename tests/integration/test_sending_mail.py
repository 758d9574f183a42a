"""One mail's way to the server: encrypted, in time, tried for a day, and told when it does not go."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from sandbox.services import free_port
from shared import db, exception_records
from shared.cli import main
from shared.models import ExceptionRecord
from shared.notifications import lines
from shared.notifications.mail import following, keeping, letters, sending, turns
from shared.notifications.mail.smtp import Fault, Told
from tests.drip import Dripping
from tests.integration.mailing import cancelled, find_exception, known, rows, tell, tell_all, turn_on
from tests.mailbox import MailServer, serving
from tests.world import World

ASHA, RAVI = "asha@example.com", "ravi@example.com"
DAY = 86_400


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with serving() as server:
        turn_on(world, monkeypatch, server.port)
        known(world)
        yield server


def records() -> list[ExceptionRecord]:
    with db.transaction() as session:
        return exception_records.listing(session)


def errors(world: World) -> set[str]:
    return {row.last_error for row in rows(world)}


# --- the line


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where the server's certificate will be; whoever signed it is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    lines.trust.cache_clear()
    yield tmp_path
    lines.trust.cache_clear()


TLS = [("starttls", {"starttls": True}), ("implicit", {"implicit": True})]


@pytest.mark.parametrize(("mode", "about"), TLS)
def test_mail_goes_over_an_encrypted_line_and_signs_in(
    world: World, monkeypatch: pytest.MonkeyPatch, trusted: Path, mode: str, about: dict[str, bool]
) -> None:
    with serving(directory=trusted, user="payouts", **about) as server:
        more = {"SMTP_HOST": "localhost", "SMTP_USER": "payouts", "SMTP_PASSWORD": server.password}
        turn_on(world, monkeypatch, server.port, SMTP_TLS=mode, **more)
        known(world)
        cancelled(world)
        assert tell() == 1
        assert errors(world) == {None}
        assert [letter.was_encrypted for letter in server.letters] == [True]


@pytest.mark.parametrize(("mode", "about"), TLS)
def test_a_certificate_that_nobody_vouches_for_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, about: dict[str, bool]
) -> None:
    with serving(directory=tmp_path, **about) as server:
        turn_on(world, monkeypatch, server.port, SMTP_HOST="localhost", SMTP_TLS=mode)
        known(world)
        cancelled(world)
        tell()
        [row] = rows(world)
        assert row.state == "waiting" and row.last_error.startswith("its certificate does not count")
        assert server.letters == []


def test_a_certificate_of_another_name_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, trusted: Path
) -> None:
    with serving(directory=trusted, implicit=True) as server:
        turn_on(world, monkeypatch, server.port, SMTP_HOST="127.0.0.1", SMTP_TLS="implicit")
        known(world)
        cancelled(world)
        tell()
        assert "127.0.0.1" in str(errors(world)) and server.letters == []


def test_a_server_that_cannot_encrypt_is_told_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(user="payouts") as server:
        more = {"SMTP_USER": "payouts", "SMTP_PASSWORD": "sesam", "SMTP_TLS": "starttls"}
        turn_on(world, monkeypatch, server.port, **more)
        known(world)
        cancelled(world)
        tell()
        assert "STARTTLS" in str(errors(world)) and server.letters == []
        assert server.signed_in == 0, "no password in the clear"


def test_a_wrong_password_is_the_servers_word_and_rests(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(user="payouts") as server:
        turn_on(world, monkeypatch, server.port, SMTP_USER="payouts", SMTP_PASSWORD="wrong")
        known(world)
        cancelled(world)
        assert tell() == 1
        [row] = rows(world)
        assert row.last_error.startswith("535") and row.server_failed_at is not None
        assert tell() == 0, "no account is locked by a guess a second"


@pytest.mark.parametrize("start", [b"", b"220-", b"220 hello\r\n250-"])
def test_a_server_that_drips_is_hung_up_on(
    world: World, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    with Dripping(start) as slow:
        turn_on(world, monkeypatch, int(slow.url.rpartition(":")[2]))
        world.impatient(monkeypatch)
        known(world)
        cancelled(world)
        begun = time.monotonic()
        tell()
        assert time.monotonic() - begun < 15  # it would drip for ever
        assert errors(world) == {"no answer within 1 s"}


def test_a_server_that_takes_too_long_over_a_mail_is_hung_up_on(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.impatient(monkeypatch)
    cancelled(world)
    server.hold.clear()
    tell()  # which would not end: the server holds it until the test is over
    [row] = rows(world)
    assert (row.state, row.last_error) == ("waiting", "no answer within 1 s")


# --- what the server says


@pytest.mark.parametrize(
    ("command", "answer", "fault"),
    [
        ("rcpt", "550 5.1.1 no such user", Fault.NEVER),
        ("rcpt", "553 what is this", Fault.NEVER),
        ("rcpt", "550 5.7.1 relaying denied", Fault.LATER),
        ("rcpt", "552 5.2.2 mailbox full", Fault.LATER),
        ("rcpt", "450 4.2.1 greylisted", Fault.LATER),
        ("rcpt", "421 4.3.2 going down", Fault.SERVER),
        ("data", "554 5.6.0 we do not like it", Fault.NEVER),
        ("data", "554 5.7.1 it looks like spam", Fault.LATER),
        ("data", "451 4.3.0 disk full", Fault.LATER),
        ("mail", "550 5.1.8 who are you", Fault.SERVER),
        ("mail", "451 later", Fault.SERVER),
        ("ehlo", "554 no", Fault.SERVER),
    ],
)
def test_what_it_says_decides(
    world: World, server: MailServer, command: str, answer: str, fault: Fault
) -> None:
    cancelled(world)
    server.answers[command] = answer
    assert tell() == 1
    [row] = rows(world)
    expected = {"never": ("failed", False), "later": ("waiting", False), "server": ("waiting", True)}
    assert (row.state, row.server_failed_at is not None) == expected[fault]
    assert row.last_error.startswith(answer[:3]) and server.letters == []
    server.answers.clear()
    world.advance(3600)
    tell()
    assert len(server.letters) == (0 if fault is Fault.NEVER else 1)


def test_an_address_that_the_server_repeats_is_kept_and_logged_without_its_name(
    world: World, server: MailServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cancelled(world)
    server.answers["rcpt"] = f"550 5.1.1 <{ASHA}>: no such user"
    tell()
    assert errors(world) == {"550 5.1.1 <as…@example.com>: no such user"}
    assert "not sent" in (logged := capsys.readouterr().out) and ASHA not in logged


def test_a_refused_recipient_keeps_nobody_waiting(world: World, server: MailServer) -> None:
    known(world, RAVI, user_id="ravi")
    server.answers["rcpt"], server.refused = "550 5.1.1 no such user", {ASHA}
    for user_id in ("user123", "ravi", "user123", "ravi"):
        cancelled(world, user_id=user_id)
    assert tell() == 4
    assert len(server.to(RAVI)) == 2 and server.connections == 1
    assert records() == [], "a user's wrong address is no operator's affair"


def test_an_address_that_the_server_cannot_take_is_refused_for_good(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(unicode=False) as server:
        turn_on(world, monkeypatch, server.port)
        known(world, "आशा@example.com")
        cancelled(world)
        tell()
        [row] = rows(world)
        assert row.state == "failed" and "letters like these" in row.last_error


# --- the server is away


def test_a_server_that_is_down_rests_and_gets_all_when_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    turn_on(world, monkeypatch, port)
    known(world)
    for _ in range(5):
        cancelled(world)
    tries = [tell() for _ in range(3)]
    world.advance(31)
    tries += [tell() for _ in range(3)]
    assert tries == [1, 0, 0, 1, 0, 0], "one tries for all"
    with serving(port) as server:
        world.advance(31)
        assert tell() >= 5
        tell()
        assert len(server.letters) == 5 == len({letter.id for letter in server.letters})


def test_while_it_fails_one_is_under_way_and_else_two(world: World, server: MailServer) -> None:
    for _ in range(4):
        cancelled(world)
    following.follow()
    assert [sending.claim() is not None for _ in range(3)] == [True, True, False]
    world.advance(DAY / 2)
    first = sending.claim()
    assert first is not None
    sending.record(first, Told("no connection", Fault.SERVER))
    world.advance(31)
    assert [sending.claim() is not None for _ in range(2)] == [True, False]


def test_a_yes_that_is_lost_is_the_one_way_to_come_twice_under_one_id(
    world: World, server: MailServer
) -> None:
    cancelled(world)
    server.answers["after"] = "gone"
    tell()
    assert [row.state for row in rows(world)] == ["waiting"] and len(server.letters) == 1
    server.answers.clear()
    world.advance(10)
    tell()
    first, second = server.letters
    assert first.id == second.id and first.message.as_bytes() == second.message.as_bytes()
    assert [row.state for row in rows(world)] == ["sent"]


def test_a_server_that_never_says_yes_gets_it_twice_and_not_all_day(world: World, server: MailServer) -> None:
    cancelled(world)
    server.answers["after"] = "gone"
    for _ in range(5):
        tell()
        world.advance(7200)
    assert len(server.letters) == 2
    [row] = rows(world)
    assert (row.state, row.tries, row.unsure) == ("failed", 2, 1) and "Connection" in row.last_error


def test_one_who_comes_back_late_changes_nothing(world: World, server: MailServer) -> None:
    cancelled(world)
    following.follow()
    slow = sending.claim()
    world.advance(DAY / 2)
    quick = sending.claim()
    assert slow and quick and slow.id == quick.id
    sending.record(quick, Told(None))
    for told in (Told("x", Fault.LATER), Told("x", Fault.NEVER), Told("x", Fault.SERVER), Told(None)):
        sending.record(slow, told)
    assert [row.state for row in rows(world)] == ["sent"]


def test_it_is_tried_for_a_day_then_given_up_and_shown_and_no_mail_is_made_of_that(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_EMAILS", RAVI)
    world.forget_settings()
    tell()
    cancelled(world)
    server.answers["rcpt"] = "450 4.2.1 greylisted"
    tries = tell()
    while rows(world)[0].state == "waiting":
        tries += tell()
        world.advance(3600)
        keeping.give_up()
    # Six tries in the first hours, then one about every two hours; looked at hourly, with the spread: 2 or 3 apart.
    assert rows(world)[0].last_error == "450 4.2.1 greylisted" and 12 <= tries <= 16
    [record] = records()
    assert (record.kind, record.subject, record.ours["given_up"]) == ("mail", "smtp", 1)
    server.answers.clear()
    world.advance(3600)
    tell_all(world)
    assert server.letters == [], "it is over, and about mail no mail is made"
    cancelled(world)
    tell()
    assert records() == [], "mail goes out again"


def test_what_was_never_its_turn_is_given_up_too(world: World, server: MailServer) -> None:
    cancelled(world)
    following.follow()
    sending.claim()  # and dies
    assert keeping.give_up() == 0
    world.advance(DAY + 1)
    assert keeping.give_up() == 1
    assert [(row.state, row.last_error) for row in rows(world)] == [("failed", "it was never its turn")]


def test_an_operator_whose_address_is_refused_is_shown(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_EMAILS", f"{ASHA},{RAVI}")
    world.forget_settings()
    tell()
    server.answers["rcpt"], server.refused = "550 5.1.1 no such user", {RAVI}
    find_exception()
    tell_all(world)
    kinds = {(record.kind, record.subject) for record in records()}
    assert kinds == {("amount_differs", "one"), ("mail", RAVI)}
    assert len(server.letters) == 1, "and no mail about it"


def test_words_that_cannot_be_made_wait_until_they_are_mended(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled(world)
    with monkeypatch.context() as broken:
        broken.setattr(letters, "_rendered", lambda *_: 1 / 0)
        tell()
    assert errors(world) == {"could not be written: ZeroDivisionError"}
    world.advance(10)
    tell()
    assert len(server.letters) == 1


def test_no_transaction_is_open_while_the_server_thinks(world: World, server: MailServer) -> None:
    cancelled(world)
    server.hold.clear()
    open_ones = "SELECT FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
    with ThreadPoolExecutor(1) as thread:
        trying = thread.submit(tell)
        while not server.under_way:
            time.sleep(0.01)
        assert world.sql(open_ones) == []
        server.hold.set()
        assert trying.result() == 1


def test_a_broker_that_is_away_breaks_nothing(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled(world)
    following.follow()
    world.point_broker_at_nothing(monkeypatch)
    assert turns.nudge_due() == 0
    assert turns.take_turn("mail#0") == 1


def test_a_test_mail_says_what_the_server_says(world: World, server: MailServer) -> None:
    done = CliRunner().invoke(main, ["mail", "test", RAVI])
    assert done.exit_code == 0 and "took it" in done.output, done.output
    server.answers["rcpt"] = "550 5.1.1 no such user"
    done = CliRunner().invoke(main, ["mail", "test", RAVI])
    assert done.exit_code == 1 and "550 5.1.1 no such user" in done.output
    done = CliRunner().invoke(main, ["mail", "test", "nobody"])
    assert done.exit_code == 1 and "no address" in done.output
