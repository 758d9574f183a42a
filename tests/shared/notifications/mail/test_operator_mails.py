"""Mail to operators about new exception records: the first at once, then one mail a minute."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from shared import withdrawals
from shared.db.transactions import transaction
from shared.monitoring import watchdog
from shared.notifications.mail import fan_out, mails, operator_mails
from shared.people import exception_records
from shared.settings import settings
from tests.support.mail_steps import open_exception, rows, run_mailer, run_until_done, turn_on
from tests.support.mailbox import MailServer, mail_server
from tests.support.world import World

ASHA = "asha@example.com"
RAVI = "ravi@example.com"

ABOUT = {"kind": "amount_differs", "source": "watch", "ours": {}, "theirs": {}}


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port, OPERATOR_EMAILS=f"{ASHA},{RAVI}")
        yield server


def subjects(server: MailServer, recipient: str = ASHA) -> list[str]:
    return [str(letter.message["Subject"]) for letter in server.to(recipient)]


def test_each_operator_gets_one_mail_about_a_new_record(world: World, server: MailServer) -> None:
    number = open_exception("asha@okaxis", expected=500, note="of user@okhdfcbank\nnow")
    for _ in range(3):
        run_mailer()
        world.advance(60)
    assert subjects(server, ASHA) == subjects(server, RAVI) == ["[Quiz] CRITICAL: amount differs"]
    text = server.to(ASHA)[0].part("plain")
    assert f"#{number} critical, amount differs: as…@okaxis" in text and "Our side: expected: 500" in text
    assert "Our side: note: of us…@okhdfcbank now" in text, "one line, with the UPI id masked"
    assert "user@okhdfcbank" not in server.to(ASHA)[0].message.as_string()
    assert len({letter.id for letter in server.letters}) == 2


def test_a_mail_links_to_all_records(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_exception()
    run_mailer()
    monkeypatch.setenv("ADMIN_URL", "https://payouts.example/admin/")
    world.forget_settings()
    world.advance(60)
    open_exception("two")
    run_mailer()
    first, second = server.to(ASHA)
    assert "View all of them: payouts status, payouts exceptions list\n" in first.part("plain")
    page = "https://payouts.example/admin/exceptions/"
    assert f"View all of them: {page}, payouts status, payouts exceptions list\n" in second.part("plain")
    assert page in second.part("html") and "exceptions list" in first.part("html")


def test_a_repeated_finding_is_not_mailed_again(world: World, server: MailServer) -> None:
    for _ in range(3):
        open_exception()
        run_mailer()
        world.advance(60)
    assert len(subjects(server)) == 1


def test_many_records_make_one_mail_a_minute(world: World, server: MailServer) -> None:
    open_exception("first")
    run_mailer()
    for number in range(700):
        open_exception(f"later-{number}")
    for _ in range(5):
        run_mailer()
    assert len(subjects(server)) == 1, "the minute is not over yet"
    for _ in range(4):
        world.advance(60)
        run_mailer()
    assert subjects(server) == [
        "[Quiz] CRITICAL: amount differs",
        "[Quiz] CRITICAL: 500 × amount differs",
        "[Quiz] CRITICAL: 200 × amount differs",
    ]
    text = server.to(ASHA)[1].part("plain")
    assert "500 new exception records" in text and "… and 475 more." in text
    assert len(server.letters) == 6, "and the same for the other operator"
    mails.delete_old()
    assert world.sql("SELECT FROM told_records") == [], "settled rows are not kept"
    world.advance(60)
    run_mailer()
    assert len(server.letters) == 6, "and not mailed again"


def test_concurrent_fan_outs_mail_each_record_once(world: World, server: MailServer) -> None:
    for number in range(20):
        open_exception(f"number-{number}")
    with ThreadPoolExecutor(8) as threads:
        results = [threads.submit(fan_out.create_mails) for _ in range(16)]
    assert sum(result.result() for result in results) == 20
    assert len(rows(world)) == 2


def test_an_automatic_pause_is_mailed(world: World, server: MailServer) -> None:
    world.credit()
    world.simulator.post("balance", {"paise": 0})
    world.step(world.request())
    run_mailer()
    assert subjects(server) == ["[Quiz] payouts paused"]


def test_a_low_balance_is_mailed(world: World, server: MailServer) -> None:
    world.credit()
    world.request()
    watchdog.record_balance(100)
    run_mailer()
    assert subjects(server) == ["[Quiz] low balance at RazorpayX"]
    assert "Our side: needed_paise: 5000" in server.to(ASHA)[0].part("plain")


def test_an_overdue_withdrawal_is_mailed_with_its_explain_command(world: World, server: MailServer) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.sql("UPDATE withdrawals SET expected_by = now() - interval '1 minute'")
    watchdog.warn_of_overdue()
    run_mailer()
    assert subjects(server) == ["[Quiz] withdrawal overdue"]
    assert f"payouts explain {withdrawal_id}" in server.to(ASHA)[0].part("html")


def test_a_record_resolved_before_the_mail_says_so(world: World, server: MailServer) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.sql("UPDATE withdrawals SET expected_by = now() - interval '1 minute'")
    watchdog.warn_of_overdue()
    withdrawals.cancel(withdrawal_id, reason="waited", actor="user")
    watchdog.warn_of_overdue()
    run_mailer()
    assert "(already resolved)" in server.to(ASHA)[0].part("plain")


def test_a_record_that_is_rolled_back_is_never_mailed(world: World, server: MailServer) -> None:
    with pytest.raises(RuntimeError), transaction() as session:
        exception_records.open_record(session, subject="s", **ABOUT)  # type: ignore[arg-type]
        run_mailer()
        raise RuntimeError
    run_until_done(world)
    assert server.letters == []


def test_records_about_mail_are_not_mailed(world: World, server: MailServer) -> None:
    open_exception(kind=operator_mails.MAIL_FAILING)
    open_exception()
    run_mailer()
    assert subjects(server) == ["[Quiz] CRITICAL: amount differs"]
    assert "mail" not in server.to(ASHA)[0].part("plain").split("View all")[0].lower()


def test_operator_addresses_added_later_get_mail_from_then_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port)
        open_exception("before")
        run_mailer()
        monkeypatch.setenv("OPERATOR_EMAILS", RAVI)
        world.forget_settings()
        run_mailer()
        open_exception("after")
        run_mailer()
        assert "after" in server.letters[0].part("plain") and len(server.letters) == 1


def test_a_record_that_commits_late_is_mailed(world: World, server: MailServer) -> None:
    """Its id is below one that was mailed already, and its transaction lasts several beats."""
    with transaction() as slow:
        late = exception_records.open_record(slow, subject="late", **ABOUT)  # type: ignore[arg-type]
        early = open_exception("early")
        for _ in range(3):
            run_mailer()
            world.advance(60)
    for _ in range(3):
        run_mailer()
        world.advance(60)
    assert late < early and len(subjects(server)) == 2
    assert "early" in server.to(ASHA)[0].part("plain") and "late" in server.to(ASHA)[1].part("plain")


def test_an_insert_that_waits_for_a_lock_already_has_a_transaction_id(world: World) -> None:
    """The event cursor relies on this."""
    insert = (
        "INSERT INTO exception_records (kind, subject, source, ours, theirs)"
        " VALUES ('k', 's', 'watch', '{}', '{}')"
        " ON CONFLICT (kind, subject) WHERE resolved_at IS NULL DO UPDATE SET seen_at = now()"
    )
    url = settings().database_url.get_secret_value().replace("+psycopg", "")
    waiting_query = "SELECT backend_xid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(url) as first, psycopg.connect(url) as second, ThreadPoolExecutor(1) as thread:
        first.execute(insert)
        waiting = thread.submit(second.execute, insert)
        ids: list[object] = []
        while not ids:
            ids = [row.backend_xid for row in world.sql(waiting_query)]
        first.rollback()
        waiting.result()
        second.rollback()
    assert ids[0] is not None
